# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest of a release: what it is made of, and what became of it.

States: ``building`` -> ``staged`` -> ``live`` (serves, on trial) -> ``good`` (committed); ``bad`` from anywhere. Nothing here looks at
modification times, which any permission fixer changes.
"""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import RESERVED, Layout, reserved

HISTORY = 50


@dataclass(frozen=True)
class Manifest:
    """:param release: The id, ``<version>-<digest>``.
    :param tree: Digest of the artefact's content.
    :param health: How to ask this release for its health (see ``_verify``); kept with it, because an older release may want to be asked differently.
    :param environment: The version of ``shared/.env`` that it was committed with.
    :param processes: What runs beside the web server, by name: command, count, singleton, stop_timeout (``_processes``).
    :param singletons: Whether this host is the one that runs those of them that must run only once.
    :param previous: The release that served when this one was committed: where a rollback goes.
    :param committed: When it last became good, in seconds since the epoch; 0 if never.
    """

    release: str
    version: str
    source: str
    tree: str
    venv: str
    health: t.Dict[str, t.Any]
    state: str = "building"
    why: str = ""
    previous: str = ""
    committed: float = 0.0
    environment: str = ""
    links: t.List[str] = field(default_factory=list)
    processes: t.Dict[str, t.Dict[str, t.Any]] = field(default_factory=dict)
    singletons: bool = True
    history: t.List[t.Dict[str, t.Any]] = field(default_factory=list)

    def become(self, state: str, run: str, why: str, **more: t.Any) -> Manifest:
        event = {"state": state, "at": time.time(), "run": run, "why": why}
        return replace(self, state=state, why=why, history=[*self.history, event][-HISTORY:], **more)


def load(layout: Layout, release: str) -> t.Optional[Manifest]:
    path = reserved(layout.release(release), "manifest.json")
    try:
        value = read_json(path)
        return Manifest(**value) if value else None
    except (ValueError, TypeError):
        return None


def need(layout: Layout, release: str) -> Manifest:
    manifest = load(layout, release)
    if manifest is None:
        raise Failure(
            f"Release {release} is not on this host, or its manifest cannot be read.",
            fix="ansible-playbook bulletproof.deploy.status shows the releases that are; deploy it again to bring it back.",
        )
    return manifest


def save(directory: str, manifest: Manifest) -> None:
    """:param directory: The release's directory (also one that is still being built under another name)."""
    write_json(reserved(directory, "manifest.json"), asdict(manifest))


def mark(layout: Layout, release: str, state: str, run: str, why: str, **more: t.Any) -> None:
    """Record what became of a release; one that is gone needs no record."""
    manifest = load(layout, release)
    if manifest is not None:
        save(layout.release(release), manifest.become(state, run, why, **more))


def every(layout: Layout) -> t.List[Manifest]:
    """All releases on this host, the oldest commit first, those never committed last in the order of their names."""
    try:
        names = sorted(os.listdir(layout.releases))
    except FileNotFoundError:
        return []
    found = [load(layout, name) for name in names if os.path.isdir(os.path.join(layout.releases, name, RESERVED))]
    return sorted((one for one in found if one), key=lambda one: (one.committed or float("inf"), one.release))


def back_from(manifests: t.Sequence[Manifest], live: str) -> t.Optional[Manifest]:
    """Where a rollback from ``live`` goes: along the chain of what served before, past what is bad or gone.

    A chain that was cut by pruning goes on with the newest good release that was committed before.
    """
    known = {one.release: one for one in manifests}
    start = known.get(live)
    seen = {live}
    at = start
    while at is not None and at.previous and at.previous not in seen:
        seen.add(at.previous)
        at = known.get(at.previous)
        if at is not None and at.state == "good":
            return at
    older = [
        one
        for one in manifests
        if one.state == "good" and one.release not in seen and (start is None or not start.committed or one.committed < start.committed)
    ]
    return older[-1] if older else None


def to_prune(manifests: t.Sequence[Manifest], keep: int, in_use: t.AbstractSet[str]) -> t.List[Manifest]:
    """What may go: everything but the releases in use, the one a rollback would go to, and the ``keep`` newest good ones.

    :param in_use: Ids that are live, in a slot, or on the way back.
    """
    good = [one.release for one in manifests if one.state == "good"]
    stays = set(in_use) | set(good[-keep:] if keep else [])
    for release in in_use:
        back = back_from(manifests, release)
        if back is not None:
            stays.add(back.release)
    return [one for one in manifests if one.release not in stays]
