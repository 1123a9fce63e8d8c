# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 7 of a deploy: declare the release good."""

from __future__ import annotations

import typing as t
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock, _phase, _prune, _state, _transition
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    "release": {"type": "str", "required": True},
    "keep": {"type": "int", "default": 5},
    "revocable": {"type": "bool", "default": False},
    "peers": {"type": "dict", "default": {}},
}


class Commit:
    def __init__(self) -> None:
        self.pruned: t.List[str] = []
        self.warnings: t.List[str] = []

    def read(self, options: Options) -> _state.State:
        layout = _phase.layout_of(options)
        state = _state.load(layout)
        committed = state.way_back is None and state.live is not None and state.live.release == options["release"]
        if not committed and not state.armed_by(options["run"]):
            serves = state.live.release if state.live else "nothing"
            raise Failure(
                f"Release {options['release']} is not on trial on this host any more: it has gone back and serves {serves}.",
                fix=f"Read {layout.audit_log}, then deploy again.",
            )
        return state

    def plan(self, options: Options, state: _state.State) -> t.List[Change]:
        layout = _phase.layout_of(options)
        if options["revocable"]:
            if state.way_back is None or state.way_back.good:
                return []
            call_good = partial(_transition.call_good, layout, options["peers"])
            return [Change("safety net", "goes back", "goes back only if the run or another host says so", call_good)]
        unlock = Change("lock", options["run"], None, partial(_lock.free, layout, options["run"]))
        if state.way_back is None or state.live is None:
            return [unlock]
        before, live = state.way_back.position, state.live
        changes = [
            Change(f"release {live.release}", "live", "good", partial(_transition.mark_good, layout, options["run"])),
            Change("safety net", "armed", "disarmed", partial(_transition.disarm, layout)),
        ]
        for place in before.without(live) if before is not None else []:
            changes.append(Change(layout.service_unit(place.slot), "active", "inactive", partial(_transition.retire, layout, place)))
        changes.append(Change("releases", None, f"at most {options['keep']} good ones", partial(self._prune, options)))
        return [*changes, unlock]

    def _prune(self, options: Options) -> None:
        pruned = _prune.prune(_phase.layout_of(options), options["keep"])
        self.pruned, self.warnings = pruned.removed, pruned.problems

    def report(self, options: Options, state: _state.State) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = {"release": state.live.release if state.live else "", "pruned": self.pruned}
        return {**result, "warnings": self.warnings} if self.warnings else result


def run(module: AnsibleModule) -> None:
    commit = Commit()
    _phase.run(module, "commit", commit.read, commit.plan, commit.report)
