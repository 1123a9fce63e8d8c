# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 5 of a deploy: make a host serve a staged release, or leave it as it was."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, replace
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import (
    _doors,
    _environments,
    _evidence,
    _manifest,
    _phase,
    _processes,
    _schema,
    _state,
    _transition,
    _verify,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options, as_failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position, State

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    "release": {"type": "str"},
    "back": {"type": "bool", "default": False},
    "version": {"type": "str"},
    "again": {"type": "bool", "default": False},
    "slots": {"type": "list", "elements": "str", "default": ["blue", "green"]},
    "warm_up": {"type": "bool", "default": False},
    "canary": {"type": "float", "default": 0.0},
    "schema": {"type": "str", "choices": ["refuse", "allow"], "default": "refuse"},
    "environment": {"type": "str", "choices": ["then", "now"], "default": "then"},
}


@dataclass(frozen=True)
class Observed:
    """
    :param settled: What is live is committed, and really served.
    :param processes: What runs beside the web server, of whatever release.
    :param warm: This run has started and verified a release in its slot before, and it runs there.
    """

    state: State
    settled: bool
    manifests: t.Tuple[_manifest.Manifest, ...]
    warm: bool = False
    environment: str = ""
    environments: t.Tuple[str, ...] = ()
    migrated: t.Tuple[_schema.Step, ...] = ()
    processes: t.Tuple[str, ...] = ()


class Switch:
    """One switch: it remembers what it did, for the report and for the way back."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.began = time.time()
        self.logs = _evidence.NOTHING
        self.target: t.Optional[Position] = None
        self.flipped = 0.0
        self.seconds: t.Dict[str, float] = {}
        self.verdicts: t.List[t.Dict[str, t.Any]] = []

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        state = _state.load(layout)
        self.logs = _evidence.cursor(layout)
        return Observed(
            state=state,
            settled=state.way_back is None and _transition.is_live(layout, state.live) and not _processes.problems(layout, state.live),
            warm=state.armed_by(options["run"]) and state.live is not None and _transition.serves_from(layout, state.live),
            manifests=tuple(_manifest.every(layout)),
            environment=_environments.now(layout),
            environments=tuple(_environments.kept(layout)),
            migrated=tuple(_schema.load(layout)),
            processes=tuple(sorted(_processes.alive(layout))),
        )

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        layout = _phase.layout_of(options)
        before, live = observed.state.committed, observed.state.live
        wanted = choose(options, observed, self.dry)
        if options["back"] and options["schema"] == "refuse":
            _schema.refuse(_schema.in_the_way(observed.migrated, wanted), wanted)
        environment = environment_for(options, observed, wanted)
        same = live is not None and (live.release, live.environment) == (wanted.release, environment)
        warm = same and observed.warm
        if same and observed.settled and not options["again"]:
            self.target = live
            return []
        target = (
            live
            if warm and live is not None
            else Position(
                slot=idle_slot(options["slots"], before),
                release=wanted.release,
                since=self.began,
                run=options["run"],
                who=options["who"],
                environment=environment,
            )
        )
        self.target = target
        was = f"slot {before.slot}: {before.release}" if before else "nothing"
        if options["warm_up"] and target.without(before) != target.places:
            raise Failure(
                f"Slot {target.slot} serves, so nothing can start beside it.", fix="Leave out warm_up, or name an idle slot in slots."
            )
        start = [
            Change("safety net", None, f"back to {was}", partial(self._arm, layout, options, target, wanted)),
            *self._occupy(layout, before, target, wanted, again=same, canary=options["canary"]),
        ]
        if environment and environment not in observed.environments:
            start.insert(0, Change("environment", before.environment if before else None, environment, partial(_environments.keep, layout)))
        serve = [
            Change(
                layout.live_socket,
                before.slot if before else None,
                target.slot,
                partial(self._flip, layout, target, options["run"], wanted),
            ),
            *self._move(layout, target, observed, wanted, again=same),
            Change("verify through the proxy", None, target.release, partial(self._verify, "proxy", layout, target, wanted)),
        ]
        return [*([] if warm else start), *([] if options["warm_up"] else serve)]

    def _arm(self, layout: Layout, options: Options, target: Position, manifest: _manifest.Manifest) -> None:
        write_json(layout.cursors, _verify.cursors_of(layout, manifest, target.slots[0]), 0o600)
        _transition.arm(layout, options["run"], target, options["back"])

    def _occupy(
        self, layout: Layout, before: t.Optional[Position], target: Position, manifest: _manifest.Manifest, again: bool, canary: float
    ) -> t.List[Change]:
        """The release in each of its slots, first beside what serves, then in its place, one slot after the other. The users of a slot that has to restart are
        in another one meanwhile, where there is one. The first that they come back to is the canary.

        :param canary: Seconds to watch it; 0 for not at all.
        """
        served = before.places if before else []
        changes = [change for place in target.without(before) for change in self._start(layout, place, manifest)]
        for number, old in enumerate(served, 1):
            place = replace(target, slot=old.slot)
            if place not in target.places:
                continue
            # Those after it have not moved yet, and those before it have.
            others = [one for one in [*served[number:], *target.places] if one.slot != old.slot]
            start = self._start(layout, place, manifest, again, users=not others)
            if not others:
                changes += start
                continue
            name = f"users of slot {place.slot}"
            changes += [
                Change(name, place.slot, "another slot", partial(_transition.step_aside, layout, old, others)),
                *start,
                Change(name, "another slot", place.slot, partial(_doors.lead, layout, target.slots, place.slot)),
            ]
            if canary:
                watch = partial(self._watch, layout, place, manifest, canary)
                changes.append(Change(f"watch slot {place.slot}", None, f"{canary:g} s", partial(self._timed, "canary", watch)))
                canary = 0
        return changes

    def _start(
        self, layout: Layout, place: Position, manifest: _manifest.Manifest, again: bool = False, users: bool = False
    ) -> t.List[Change]:
        return [
            Change(layout.slot(place.slot), None, place.release, partial(self._timed, "start", _transition.run_slot, layout, place, again)),
            Change("verify on its socket", None, place.release, partial(self._verify, "verify", layout, place, manifest, users)),
        ]

    def _watch(self, layout: Layout, place: Position, manifest: _manifest.Manifest, window: float) -> None:
        self.verdicts += _transition.verify(layout, place, _verify.canary_checks(layout, manifest, place.slot, window), to_the_end=False)

    def _timed(self, name: str, step: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        began = time.monotonic()
        try:
            return step(*arguments)
        finally:
            # Each slot has this step; they take as long as all of them.
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 4)

    def _flip(self, layout: Layout, target: Position, run: str, manifest: _manifest.Manifest) -> None:
        self._timed("flip", _transition.flip, layout, target)
        self.flipped = time.time()
        _manifest.mark(layout, target.release, "live", run, "serves, on trial", singletons=manifest.singletons)

    def _move(self, layout: Layout, target: Position, observed: Observed, manifest: _manifest.Manifest, again: bool) -> t.List[Change]:
        """The processes beside the web server: those of before end, then those of the release begin."""
        before, after = ", ".join(observed.processes), ", ".join(_processes.of(manifest))
        if not before and not after:
            return []
        # A release that is switched to once more is to begin anew as a whole: something was wrong with it.
        return [
            Change("processes", before or None, after or None, partial(self._timed, "processes", _processes.run, layout, target, again))
        ]

    def _verify(self, name: str, layout: Layout, target: Position, manifest: _manifest.Manifest, users: bool = False) -> None:
        ready, when = (
            (_verify.slot_checks(layout, manifest, target.slot, users), "before")
            if name == "verify"
            else ([*_verify.proxy_checks(manifest), *_processes.checks(layout, manifest)], "after")
        )
        # What the app's own people want to see is asked of a release that is up.
        steps = [ready, _verify.declared(layout, manifest, target.slots[0], when, read_json(layout.cursors))]
        try:
            self.verdicts += self._timed(name, _transition.verify_in_turn, layout, target, steps)
        except Failure as failure:
            if failure.facts.get("crashed") or not _verify.gave_no_answer(failure.facts.get("verdicts")):
                raise
            seconds = manifest.health["start_timeout"]
            fix = f"Mend the release and deploy it again. If it only needs longer to start: raise app_start_timeout, which is {seconds} s."
            raise Failure(failure.what, fix=fix, **failure.facts) from None

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        before = observed.state.committed
        return {
            "release": self.target.release if self.target else "",
            "slot": self.target.slot if self.target else "",
            "before": before.release if before else "",
            "flipped": self.flipped,
            "verdicts": self.verdicts,
            "seconds": self.seconds,
        }

    def rescue(self, options: Options, failure: Failure) -> Failure:
        """Go back at once. If even that fails, the timer goes on trying."""
        layout = _phase.layout_of(options)
        if self.target is not None:
            failure = _transition.with_last_words(layout, failure, self.target, self.began, self.logs)
        try:
            back = _transition.go_back(layout, failure.what.splitlines()[0], options["run"], blame=True)
        except Exception as error:
            return Failure(
                f"{failure.what}\nGoing back failed as well: {as_failure(error).what}",
                fix=f"The host tries again every few seconds; watch: journalctl -u {options['app']}-safety-net",
                **failure.facts,
            )
        served = f"It went back: this host serves {back.release} as before." if back else "Nothing was served before, and nothing is now."
        return Failure(
            f"{failure.what}\n{served}", fix=failure.fix or "Mend the release and deploy it again.", **{**failure.facts, "reverted": True}
        )


def idle_slot(slots: t.Sequence[str], live: t.Optional[Position]) -> str:
    """The strategy's first slot that does not serve; with a single slot, that one."""
    free = [slot for slot in slots if live is None or slot != live.slot]
    return free[0] if free else slots[0]


def choose(options: Options, observed: Observed, dry: bool) -> _manifest.Manifest:
    """The release that is wanted, by its id or by going back.

    :param dry: In check mode, the release was not staged either, and its name is enough to plan with.
    """
    known = {one.release: one for one in observed.manifests}
    if not options["back"]:
        wanted = known.get(options["release"])
        if wanted is None and dry:
            return _manifest.Manifest(options["release"], "", "", "", "", {})
        if wanted is None:
            raise Failure(f"Release {options['release']} is not staged on this host.", fix="Stage it first: deploy.yml does.")
        return wanted
    back, live = going_back(options["version"], observed.state.committed, observed.manifests), observed.state.committed
    # Which host runs what must run only once, only a deploy changes: it asks all of them.
    home = known[live.release].singletons if live and live.release in known else back.singletons
    return replace(back, singletons=home)


def environment_for(options: Options, observed: Observed, wanted: _manifest.Manifest) -> str:
    """What ``shared/.env`` is now; for a rollback, what the release ran with when it was good, as long as that is kept."""
    if options["back"] and options["environment"] == "then" and wanted.environment in ("", *observed.environments):
        return wanted.environment
    return observed.environment


def going_back(version: t.Optional[str], live: t.Optional[Position], manifests: t.Sequence[_manifest.Manifest]) -> _manifest.Manifest:
    """The release that a rollback goes to: a named one, or what served before."""
    good = [one for one in manifests if one.state == "good"]
    have = ", ".join(one.release for one in good) or "none"
    if live is None:
        raise Failure("This host serves nothing yet, so there is nothing to go back from.", fix="Deploy a release first.")
    if version:
        named = [one for one in good if version in (one.release, one.version)]
        if not named:
            bad = [one for one in manifests if version in (one.release, one.version)]
            why = f" (it is {bad[-1].state}: {bad[-1].why})" if bad else ""
            raise Failure(
                f"No good release {version} is on this host{why}; good ones: {have}.",
                fix="Choose one of them, or deploy it again.",
            )
        return named[-1]
    back = _manifest.back_from(manifests, live.release)
    if back is None:
        raise Failure(f"No good release older than {live.release} is on this host; good ones: {have}.", fix="Deploy the version you want.")
    return back


def run(module: AnsibleModule) -> None:
    switch = Switch(dry=module.check_mode)
    _phase.run(module, "switch", switch.read, switch.plan, switch.report, switch.rescue)
