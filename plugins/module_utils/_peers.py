# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the other hosts of a fleet serve, asked by one whose run fell silent in the midst of the commit.

By then each host has called the release good or has not, and none knows of the others. One that has not goes back when its lease is over, and
the leases end at about the same time. So who has called it good asks the others as any user would: where one has gone back, the run was not
committed; where all serve the release, they have all called it good.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _manifest, _state, _verify
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import PASS
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import run_checks
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

# Who goes back looks at its lease every few seconds, and serves the release until then: that all serve it is believed when it is still so after this time.
CONFIRMED = 10.0


class Silent(Exception):
    """Some of them do not tell what they serve. The text says which."""


def gone_back(layout: Layout, state: _state.State) -> str:
    """Who serves something else than the release that this host has called good, in words; empty when none does, or when they cannot be asked.

    :raises Silent: one gave no answer, and none has gone back.
    """
    checks = _checks(layout, state)
    if not checks:
        return ""
    found = _ask(checks)
    if not found:
        time.sleep(CONFIRMED)
        found = _ask(checks)
    return found


def _checks(layout: Layout, state: _state.State) -> t.List[_verify.Check]:
    if state.way_back is None or state.live is None:
        return []
    before = state.way_back.position
    new, old = (_manifest.load(layout, one.release) if one else None for one in (state.live, before))
    # Two releases of one version are told apart by their processes, which only their own host can see.
    if new is None or (old is not None and old.version == new.version):
        return []
    return _verify.peer_checks(new, state.way_back.peers)


def _ask(checks: t.Sequence[_verify.Check]) -> str:
    try:
        verdicts = run_checks(list(checks))
    except Failure as failure:
        raise Silent(failure.what) from failure
    others = [f"{one.name} serves version {one.found}" for one in verdicts if one.verdict != PASS and one.found is not None]
    silent = [f"{one.name}: {one.evidence}" for one in verdicts if one.verdict != PASS and one.found is None]
    if silent and not others:
        raise Silent("; ".join(silent))
    return ", ".join(others)
