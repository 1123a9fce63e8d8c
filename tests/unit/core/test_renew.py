# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""release_renew: a host that waits is told that the run lives, or tells the run that it is too late."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import renew


def options(layout):
    return {"app": layout.app, "root": layout.root, "run": "run1", "who": "ann", "reason": "deploy", "lease": 60, "lock_wait": 0}


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
