# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host can do for itself, without a controller: go back when a run has fallen silent, and serve again after a boot.

Installed as one file, ``<root>/.deploy/agent.pyz``, and called by the app's own units: every few seconds while the net is armed, and nearly always only
to see that the run is well. So what it takes to see that is loaded at once, and all else when there is something to do.
"""

from __future__ import annotations

import os
import sys
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive

# A switch holds the mutex for as long as it works. The timer looks again a few seconds later, so it need not wait long.
PATIENCE = 3.0


def lease_ended(layout: Layout, state: _state.State, now: float) -> t.Optional[str]:
    """Why the armed run is to be taken for dead, or None while it is to be believed."""
    if state.way_back is None:
        return None
    lock = _lock.load(layout)
    if lock is None or lock.run != state.way_back.run:
        return f"run {state.way_back.run} no longer holds the lock"
    if not lock.alive(now):
        return f"the lease of run {lock.run} ({lock.lease:.0f} s) ended without a commit"
    return None


def expire(layout: Layout) -> None:
    """Called by the timer: end what a run has left open when its lease has ended; stop the timer when nothing is armed."""
    state = _state.load(layout)
    if state.way_back is not None and lease_ended(layout, state, time.time()) is None:
        # A run that is well may be at work for longer than anybody waits for the mutex, and this is no failure.
        return
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _systemd, _unfinished

    with exclusive(layout.private, "host", PATIENCE):
        state = _state.load(layout)
        if state.way_back is None:
            _systemd.stop([layout.safety_net_timer])
            return
        why = lease_ended(layout, state, time.time())
        if why is not None:
            _unfinished.settle(layout, why)


def boot(layout: Layout) -> None:
    """Called once after a boot."""
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _unfinished

    with exclusive(layout.private, "host", PATIENCE):
        _unfinished.boot(layout)


def main(argv: t.Sequence[str]) -> int:
    """``agent.pyz APP ROOT expire|boot``"""
    actions = {"expire": expire, "boot": boot}
    if len(argv) != 3 or argv[2] not in actions:
        sys.stderr.write("usage: agent.pyz APP ROOT expire|boot\n")
        return 2
    os.umask(0o022)
    try:
        actions[argv[2]](Layout(argv[0], argv[1]))
    except Failure as failure:
        sys.stderr.write(failure.message() + "\n")
        return 1
    return 0
