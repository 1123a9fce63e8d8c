# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A clock that is far from the controller's."""

from __future__ import annotations

import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import preflight


@pytest.mark.parametrize("off,said", [(-300, "300 s behind the controller's"), (300, "300 s ahead of the controller's")])
def test_minutes_are_a_warning(off, said):
    (finding,) = preflight.clock({"now": time.time() - off})
    assert (finding.severity, finding.found) == ("warning", said)


@pytest.mark.parametrize("now", [None, "now", "late"])
def test_what_a_slow_connection_explains_is_none(now):
    given = {"now": time.time(), "late": time.time() - 20}.get(now)
    assert not list(preflight.clock({"now": given}))


def test_a_machine_is_itself():
    assert preflight.machine() == preflight.machine() and len(preflight.machine()) == 16
