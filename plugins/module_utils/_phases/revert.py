# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo a run on a host: go back, free its lock."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _audit, _lock, _phase, _runner, _state, _transition
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    "why": {"type": "str", "default": "the run failed"},
    "blame": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class Observed:
    state: _state.State
    lock: t.Optional[_lock.Lock]


class Revert:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.problem = ""

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        return Observed(_state.load(layout), _lock.load(layout))

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        layout = _phase.layout_of(options)
        changes = []
        if observed.state.armed_by(options["run"]) and observed.state.live is not None:
            to = observed.state.committed
            changes.append(Change("serves", observed.state.live.release, to.release if to else "nothing", partial(self._go_back, options)))
        if observed.lock is not None and observed.lock.run == options["run"]:
            changes.append(Change("lock", options["run"], None, partial(_lock.free, layout, options["run"])))
        return changes

    def _go_back(self, options: Options) -> None:
        layout = _phase.layout_of(options)
        began = time.monotonic()
        back = _transition.go_back(layout, options["why"], options["run"], options["blame"])
        self.seconds = round(time.monotonic() - began, 3)
        release = back.release if back else None
        self.problem = _transition.problem_of(layout, back)
        _audit.append(layout, options["run"], options["who"], "revert", "ok", self.seconds, why=options["why"], release=release)

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        serves = observed.state.committed if observed.state.armed_by(options["run"]) else observed.state.live
        return {"serves": serves.release if serves else "", "problem": self.problem, "seconds": self.seconds}


def run(module: AnsibleModule) -> None:
    revert = Revert()
    layout = _phase.layout_of(module.params)
    # Not the run's lock, as the other phases: a revert must not take a lock that the run has lost.
    guard = exclusive(layout.private, "host", _phase.PATIENCE)
    _runner.run(module, revert.read, revert.plan, revert.report, guard=guard)
