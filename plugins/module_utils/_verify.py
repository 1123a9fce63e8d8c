# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be true of a release that serves, as lists of checks for the check engine.

The proof of the new version has two halves. Its answer carries the version, where the app tells it. And the process that
answers is the slot's own unit and runs from the release's directory: that holds also for an app that does not tell, and where two
releases have one version.
"""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _declared_checks, _logs, _processes, _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import owner_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import log
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout, reserved
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position

Check = t.Dict[str, t.Any]

# The release was healthy on its own socket a moment ago, and users are on it now: long enough for a probe that fails by chance, no longer.
PROXY_DEADLINE = 2.0

# Enough good answers in a row for each worker to have given some, so that one that fails from its third request on is found before it has users.
ANSWERS_PER_WORKER = 3
MOST_ANSWERS = 30

# A release that is restarted where its users are gives them its wrong answers, too: they are no start that is not over.
PATIENCE = 5.0


# Seconds in which another host has to say what it serves. Who asks is the safety net, which must not be ended by its own unit's time limit.
PEER_TIMEOUT = 5.0


def _ask(manifest: Manifest, **where: t.Any) -> Check:
    """The question over HTTP: is it healthy and, where the app tells, which version is it.

    ``manifest.health``: path, status (list), version (one of json, header, pattern; empty when the app does not tell), expected (versions),
    headers, timeout (s).
    """
    health = manifest.health
    common = {**where, "headers": health["headers"], "timeout": health["timeout"], "status": health["status"], "interval": 0.1}
    if not health["version"]:
        return {"type": "http", **common}
    return {"type": "version", "expected": [*health["expected"], manifest.release], **health["version"], **common}


def _process(layout: Layout, manifest: Manifest, slot: str) -> t.List[Check]:
    unit = layout.service_unit(slot)
    return [
        {"type": "systemd", "name": unit, "unit": unit, "max_restarts": 0, "runs_from": layout.release(manifest.release)},
        {"type": "process_count", "name": f"workers of {unit}", "unit": unit, "of": "children", "min": manifest.health["workers"]},
    ]


def slot_checks(layout: Layout, manifest: Manifest, slot: str, users: bool = False) -> t.List[Check]:
    """The release on its slot's own socket, before anybody is sent there; or, with a single slot, where the ``users`` are."""
    deadline = manifest.health["start_timeout"]
    answers = min(ANSWERS_PER_WORKER * manifest.health["workers"], MOST_ANSWERS)
    ask = _ask(manifest, unix_socket=layout.socket(slot), path=manifest.health["path"], successes=answers)
    ask["name"] = f"{ask['type']} on the socket of slot {slot}"
    # An answer costs next to nothing; each look at a unit is a process, on a host that is busy starting the app.
    return [
        {**ask, "deadline": deadline, "interval": 0.01, **({"patience": PATIENCE} if users else {})},
        *({**check, "deadline": deadline, "interval": 0.2} for check in _process(layout, manifest, slot)),
    ]


def proxy_checks(manifest: Manifest) -> t.List[Check]:
    """The release as a user reaches it."""
    if not manifest.health["url"]:
        return []
    ask = _ask(manifest, url=manifest.health["url"], verify_tls=False)
    return [{**ask, "deadline": PROXY_DEADLINE, "name": f"{ask['type']} through the proxy"}]


def peer_checks(manifest: Manifest, peers: t.Mapping[str, str]) -> t.List[Check]:
    """The release on other hosts, by their names; nothing where the app does not tell its version."""
    asks = ((name, _ask(manifest, url=url, verify_tls=False)) for name, url in peers.items())
    return [{**ask, "name": name, "timeout": min(ask["timeout"], PEER_TIMEOUT)} for name, ask in asks if ask["type"] == "version"]


def declared(layout: Layout, manifest: Manifest, slot: str, when: str, cursors: t.Optional[t.Mapping[str, str]] = None) -> t.List[Check]:
    """What the declaration wants looked at beside the health of the release.

    :param when: ``before`` anybody is sent there, ``after`` that, or ``watch``.
    :param cursors: Where logs ended before the switch, by the number of the check.
    """
    found = []
    for number, one in enumerate(_wanted(layout, manifest)):
        if one.get("when", "before") == when and not _processes.elsewhere(manifest, one):
            check = _completed(layout, manifest, slot, when, one)
            if _declared_checks.goes_to_the_release(one):
                check.setdefault("headers", manifest.health["headers"])
            if str(number) in (cursors or {}):
                check.update({"from": "cursor", "cursor": (cursors or {})[str(number)]})
            found.append(check)
    return found


def cursors_of(layout: Layout, manifest: Manifest, slot: str) -> t.Dict[str, str]:
    """Where the logs end that checks of the release will read, by the number of the check: what was said before is not the release's."""
    every = [(number, one) for number, one in enumerate(_wanted(layout, manifest)) if one["type"] == "log" and "from" not in one]
    return {
        str(number): _logs.end(log.sources_of({**log.NOWHERE, **_completed(layout, manifest, slot, "before", one)})).as_json()
        for number, one in every
    }


def _wanted(layout: Layout, manifest: Manifest) -> t.List[Check]:
    return t.cast("t.List[Check]", read_json(reserved(layout.release(manifest.release), "checks.json")) or [])


def _completed(layout: Layout, manifest: Manifest, slot: str, when: str, check: t.Mapping[str, t.Any]) -> Check:
    release = layout.release(manifest.release)
    files = [layout.slot_environment(slot), reserved(release, "environment")]
    words = {
        "{socket}": layout.socket(slot) if when == "before" else layout.live_socket,
        "{url}": manifest.health["url"][: -len(manifest.health["path"])] if manifest.health["url"] else "",
        "{unit}": layout.service_unit(slot),
        "{release}": release,
        "{python}": reserved(release, "venv/bin/python"),
        "{logs}": layout.logs,
        **_processes.words(layout.app, manifest.processes),
    }
    return _declared_checks.completed(
        {name: value for name, value in check.items() if name != "when"}, words, files, owner_of(layout.shared)
    )


def watch_checks(layout: Layout, manifest: Manifest, slots: t.Sequence[str], window: float) -> t.List[Check]:
    """The same, which now has to stay so, in all slots of a release and for its users. One failing probe of many is chance; two in a row are not."""
    users = proxy_checks(manifest) or _answers(layout, manifest, slots)
    return [*_hold(layout, manifest, slots, users, window), *_processes.checks(layout, manifest, window)]


def canary_checks(layout: Layout, manifest: Manifest, slot: str, window: float) -> t.List[Check]:
    """The same of one slot, while the others still run what was before."""
    return _hold(layout, manifest, [slot], _answers(layout, manifest, [slot]), window)


def _answers(layout: Layout, manifest: Manifest, slots: t.Sequence[str]) -> t.List[Check]:
    return [_ask(manifest, unix_socket=layout.socket(slot), path=manifest.health["path"]) for slot in slots]


def _hold(layout: Layout, manifest: Manifest, slots: t.Sequence[str], asks: t.Sequence[Check], window: float) -> t.List[Check]:
    hold = {"hold": window, "interval": min(1.0, window / 4), "tolerate": 1}
    # The first probe may fail by chance, too: a deadline of one interval is time for a second.
    found: t.List[Check] = [{**check, **hold, "deadline": hold["interval"]} for check in asks]
    for slot in slots:
        unit, workers = _process(layout, manifest, slot)
        found += [{**unit, **hold, "tolerate": 0, "steady": True}, {**workers, **hold, "max_replaced": manifest.health["replaced"]}]
    return found


def gave_no_answer(verdicts: t.Any) -> bool:
    """Whether, of verdicts as facts, one waited for an answer and got none at all: the app may only need longer."""
    return any(verdict["silent"] for verdict in verdicts or ())


def crashed(layout: Layout, position: Position) -> t.Callable[[], t.Optional[str]]:
    """Ends the waiting early: a unit whose process has ended by itself will not become healthy by being asked again."""

    def look() -> t.Optional[str]:
        for name in map(layout.service_unit, position.slots):
            unit = _systemd.show(name)
            if unit.crashed:
                return f"{name} crashed ({unit.active}/{unit.sub}, {unit.restarts} restarts, result {unit.result})"
        return None

    return look
