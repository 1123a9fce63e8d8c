# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run left unfinished, ended by the host itself or by the next run; and what was served, served again after a boot."""

from __future__ import annotations

import sys
import time

from ansible_collections.bulletproof.deploy.plugins.module_utils import _audit, _lock, _manifest, _peers, _prune, _state, _transition
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import as_failure

WHO = "the safety net"

# Hosts that cannot ask each other at all must not keep two releases for ever.
DOUBT = 3600.0


def revert(layout: Layout, why: str) -> None:
    state = _state.load(layout)
    run = state.way_back.run if state.way_back else ""
    began = time.monotonic()
    try:
        back = _transition.go_back(layout, why, run, blame=False)
    except Exception as error:
        failure = as_failure(error)
        _audit.append(layout, run, WHO, "revert", "failed", time.monotonic() - began, why=why, error=failure.what)
        raise failure from error
    _audit.append(layout, run, WHO, "revert", "ok", time.monotonic() - began, why=why, release=back.release if back else None)


def settle(layout: Layout, why: str, now_or_never: bool = False) -> None:
    """End what a dead run left open: go back, or, where it had begun to commit, do as the other hosts do.

    :param now_or_never: A host that cannot know what the others do stays. Otherwise nothing is done, for some time, and the timer asks again.
    """
    state = _state.load(layout)
    if state.way_back is None:
        return
    if not state.way_back.good:
        revert(layout, why)
        return
    try:
        others = _peers.gone_back(layout, state)
    except _peers.Silent as silent:
        if not now_or_never and time.time() < _since(layout, state.way_back) + DOUBT:
            sys.stderr.write(f"{why}, in the midst of the commit. What the other hosts do decides, and they are asked again: {silent}\n")
            return
        others = ""
    if others:
        revert(layout, f"{why}, and {others}")
        return
    began = time.monotonic()
    live = _transition.finish(layout, state.way_back.run)
    release = live.release if live else None
    _audit.append(layout, state.way_back.run, WHO, "commit", "ok", time.monotonic() - began, why=why, release=release)


def _since(layout: Layout, way_back: _state.WayBack) -> float:
    """When the run fell silent, in seconds since the epoch."""
    lock = _lock.load(layout)
    return lock.deadline if lock is not None and lock.run == way_back.run else way_back.armed


def boot(layout: Layout) -> None:
    """Serve what was served before the host restarted, when /run is empty. A run that was under way did not survive it."""
    state = _state.load(layout)
    if state.way_back is not None and not state.way_back.good:
        revert(layout, f"the host restarted before run {state.way_back.run} was committed")
    elif state.live is not None and _manifest.load(layout, state.live.release) is not None:
        _transition.serve(layout, state.live)
    _prune.sweep(layout)
