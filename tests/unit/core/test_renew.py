# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""release_renew: a host that waits is told that the run lives, or tells the run that it is too late."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import renew


def options(layout, **more):
    every = {"app": layout.app, "root": layout.root, "run": "run1", "who": "ann", "reason": "deploy", "lease": 60, "lock_wait": 0}
    return {**every, "begin": False, **more}


def test_the_lease_begins_anew(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 10)
    assert renew.renew(options(layout)) == {"lease": 60}
    held = _lock.load(layout)
    assert held.deadline - held.acquired > 50


@pytest.mark.parametrize("run,lease", [("run1", -1), ("run2", 60)])
def test_what_is_over_or_another_s_is_a_failure(layout, run, lease):
    _lock.hold(layout, run, "ann", "deploy", lease)
    before = _lock.load(layout)
    with pytest.raises(Failure, match="The lease of run run1 has ended on this host, or its lock was taken away"):
        renew.renew(options(layout))
    assert _lock.load(layout) == before


def test_a_run_that_has_done_nothing_yet_takes_the_lock(layout):
    assert renew.renew(options(layout, begin=True)) == {"lease": 60}
    assert _lock.load(layout).run == "run1"


def test_it_does_not_take_another_s_lock(layout):
    _lock.hold(layout, "run2", "ben", "deploy", 60)
    with pytest.raises(Failure, match="is being deployed by ben"):
        renew.renew(options(layout, begin=True))
    assert _lock.load(layout).run == "run2"
