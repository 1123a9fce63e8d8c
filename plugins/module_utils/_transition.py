# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Forth and back: the only code that changes what a host serves.

A deploy, the revert of a failed one, the safety net's timer, a rollback and the boot all come here, so that the way back is the way that is
walked every day. The order never varies: the state file first, then the slot, then the live socket.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import (
    _doors,
    _environments,
    _evidence,
    _manifest,
    _processes,
    _state,
    _systemd,
    _verify,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import failed, run_checks, summary
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.processes import working_directory
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_link, replace_link
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position

# systemd has its own, shorter limits for starting and stopping (TimeoutStartSec, TimeoutStopSec): this one only ends a systemctl that hangs.
SYSTEMCTL = 300.0

# How long a slot may take to come to the end of its queue, before that is thrown away; and where it is not, or where the release may be one that hangs.
DRAIN = 30.0
SHORT_DRAIN = 2.0


def release_target(release: str) -> str:
    return os.path.join("..", "releases", release)


def serves_from(layout: Layout, position: Position) -> bool:
    """Whether the unit of each of its slots runs, from this very release and with this very environment."""
    return all(_runs(layout, place) for place in position.places)


def _runs(layout: Layout, place: Position) -> bool:
    unit = _systemd.show(layout.service_unit(place.slot))
    return (
        unit.running
        and unit.main_pid > 0
        and working_directory(unit.main_pid) == os.path.realpath(layout.release(place.release))
        and _environments.of_process(unit.main_pid) == place.environment
    )


def is_live(layout: Layout, position: t.Optional[Position]) -> bool:
    """Whether a position is what the host really serves, as far as can be seen without asking the app."""
    return (
        position is not None
        and _doors.lead_to(layout, position.slots)
        and read_link(layout.current) == os.path.join("releases", position.release)
        and serves_from(layout, position)
    )


def run_slot(layout: Layout, place: Position, again: bool = False) -> None:
    """Make one slot's unit run from the release; a unit that already does is left alone.

    :param again: It is not: something was wrong with it, or it has changed.
    """
    target = release_target(place.release)
    if read_link(layout.slot(place.slot)) != target:
        replace_link(layout.slot(place.slot), target)
    _environments.give(layout, place.slot, place.environment)
    service, listener = layout.service_unit(place.slot), layout.socket_unit(place.slot)
    if not again and serves_from(layout, place):
        _systemd.start([listener], timeout=SYSTEMCTL)
    elif _systemd.show(service).active in ("inactive", "failed"):
        _systemd.start([listener, service], timeout=SYSTEMCTL)
    else:
        # The socket unit goes on listening: who connects now waits until the new process accepts.
        _systemd.restart(service, timeout=SYSTEMCTL)


def step_aside(layout: Layout, place: Position, others: t.Sequence[Position]) -> None:
    """Send the users of a slot that is about to restart to the first of other places that really runs. Where none does, they wait at its socket."""
    other = next((one for one in others if serves_from(layout, one)), None)
    if other is not None:
        _doors.away(layout, place.slot, other.slot)
        empty_queue(layout, place, SHORT_DRAIN)


def flip(layout: Layout, position: Position) -> None:
    """Send all new requests to its slots: one rename for each door. Those in flight finish where they began."""
    _doors.lead(layout, position.slots)
    _doors.close(layout, keep=_doors.every(layout))
    replace_link(layout.current, os.path.join("releases", position.release))
    _environments.serve(layout, position.environment)


def serve(layout: Layout, position: Position) -> None:
    """Serve what was served before, whatever runs now: users leave what is not it as soon as there is a slot in which it runs."""
    good = {place.slot for place in position.places if serves_from(layout, place)}
    for place in position.places:
        if good:
            _doors.lead(layout, [slot for slot in position.slots if slot in good])
        run_slot(layout, place)
        good.add(place.slot)
    flip(layout, position)
    _processes.run(layout, position)


def retire(layout: Layout, place: Position, patience: float = DRAIN) -> None:
    """Let a slot that no new request is sent to finish those that it has, and end.

    With its socket unit goes the kernel's queue of connections that nobody has accepted yet. The queue is first in, first out: once a
    request of our own has been answered, it holds none from before.
    """
    empty_queue(layout, place, patience)
    _systemd.stop([layout.service_unit(place.slot), layout.socket_unit(place.slot)])


def empty_queue(layout: Layout, place: Position, patience: float) -> None:
    """Wait until a slot has accepted every connection that came before a request of our own."""
    manifest = _manifest.load(layout, place.release)
    if manifest is not None and not _systemd.show(layout.service_unit(place.slot)).crashed:
        run_checks([{"type": "http", "unix_socket": layout.socket(place.slot), "path": manifest.health["path"], "timeout": patience}])


def verify(
    layout: Layout, position: Position, checks: t.Sequence[t.Dict[str, t.Any]], to_the_end: bool = True
) -> t.List[t.Dict[str, t.Any]]:
    """Run checks against a position; Failure, with the verdicts that did not pass, unless all do."""
    crashed = _verify.crashed(layout, position)
    verdicts = run_checks(list(checks), stop=crashed, to_the_end=to_the_end)
    wrong = failed(verdicts)
    if wrong:
        several = "s" if len(position.slots) > 1 else ""
        said = f"Release {position.release} is not healthy in slot{several} {position.slot}"
        reason = crashed()
        raise Failure(
            f"{said}: {reason}." if reason else f"{said}: {summary(verdicts)}",
            fix="Mend the release and deploy it again.",
            verdicts=[verdict.as_dict() for verdict in wrong],
            crashed=reason is not None,
        )
    return [verdict.as_dict() for verdict in verdicts]


def verify_in_turn(layout: Layout, position: Position, steps: t.Sequence[t.Sequence[t.Dict[str, t.Any]]]) -> t.List[t.Dict[str, t.Any]]:
    """Several lists of checks, each begun when the one before has passed."""
    return [verdict for checks in steps if checks for verdict in verify(layout, position, checks)]


def arm(layout: Layout, run: str, target: Position, rollback: bool) -> None:
    """Write down the way back and set the timer that walks it, before anything is changed."""
    _state.save(layout, _state.load(layout).arm(run, target, time.time(), rollback))
    _systemd.start([layout.safety_net_timer], timeout=SYSTEMCTL)


def call_good(layout: Layout, peers: t.Mapping[str, str]) -> None:
    """The first step of a fleet's commit. The way back stays, for the run or for what the peers will say: another host may not be able to follow."""
    _state.save(layout, _state.load(layout).call_good(peers))


def mark_good(layout: Layout, run: str) -> None:
    """Give the release on trial its place in the history. Before the commit itself: a run that dies between the two leaves no committed release that a
    rollback would pass over."""
    state = _state.load(layout)
    if state.way_back is None or state.live is None:
        return
    before, live = state.way_back.position, state.live
    history = {} if state.way_back.rollback else {"committed": live.since, "previous": before.release if before else ""}
    _manifest.mark(layout, live.release, "good", run, "committed", environment=live.environment, **history)


def disarm(layout: Layout) -> None:
    """The commit: from here on the host believes in what it serves."""
    _state.save(layout, _state.load(layout).commit())
    _systemd.stop([layout.safety_net_timer])


def finish(layout: Layout, run: str) -> t.Optional[Position]:
    """End a commit that a run began and did not end."""
    state = _state.load(layout)
    before = state.way_back.position if state.way_back else None
    mark_good(layout, run)
    disarm(layout)
    if before is not None and state.live is not None:
        for place in before.without(state.live):
            retire(layout, place)
    return state.live


def go_back(layout: Layout, why: str, run: str, blame: bool) -> t.Optional[Position]:
    """Walk the way back that is armed, whoever asks; nothing to do when none is.

    :param blame: The release was seen to fail, and is marked bad. Otherwise the run failed for another reason (its controller died, another host
        failed), and the release is again what it was before.

    The old release is served even where its own checks do not pass any more: it is what was there before. A step that fails leaves the net armed,
    and the timer tries again.
    """
    state = _state.load(layout)
    if state.way_back is None:
        return state.live
    target, abandoned = state.way_back.position, state.live
    if target is not None:
        serve(layout, target)
    else:
        _processes.run(layout, None)
        _doors.close(layout)
        for link in (layout.current, layout.current_environment):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
    if abandoned is not None:
        for place in abandoned.without(target):
            retire(layout, place, SHORT_DRAIN)
        same = target is not None and abandoned.release == target.release
        _end_trial(layout, abandoned.release, "bad" if blame and not same else "", run, why)
    _state.save(layout, _state.State(live=target))
    _systemd.stop([layout.safety_net_timer])
    return target


def problem_of(layout: Layout, position: t.Optional[Position]) -> str:
    """What is wrong with a release that was gone back to, asked on its own socket and through the proxy; empty when nothing is."""
    manifest = _manifest.load(layout, position.release) if position else None
    if position is None or manifest is None:
        return ""
    # The answers alone: a unit that was restarted once, weeks ago, is none of the run's business.
    answers = [*(_verify.slot_checks(layout, manifest, slot)[0] for slot in position.slots), *_verify.proxy_checks(manifest)]
    wrong = failed(run_checks(answers))
    return summary(wrong) if wrong else ""


def _end_trial(layout: Layout, release: str, verdict: str, run: str, why: str) -> None:
    """Mark a release that was on trial with the verdict or, without one, as what it was before."""
    manifest = _manifest.load(layout, release)
    if manifest is not None:
        _manifest.mark(layout, release, verdict or ("good" if manifest.committed else "staged"), run, why)


def with_last_words(layout: Layout, failure: Failure, position: Position, since: float, before: _evidence.Cursor) -> Failure:
    """The same failure, with what the application itself said."""
    lines = _evidence.last_words(layout, position.slots, position.release, since, before)
    lines += _processes.last_words(layout, position.release, since)
    told = f"{failure.what}\nThe application's last log lines:\n  " + "\n  ".join(lines) if lines else failure.what
    return Failure(told, fix=failure.fix, **failure.facts)
