# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock, on real files and between real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

RACER = """
import sys
from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

for line in sys.stdin:
    try:
        _lock.hold(Layout("shop", line.strip()), sys.argv[1], sys.argv[1], "race", 60)
        print("won", flush=True)
    except Failure:
        print("lost", flush=True)
"""
ROUNDS = 200


def test_of_two_that_race_one_wins(tmp_path):
    """Fails without the mutex around reading and writing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for run in ("run1", "run2")
    ]
    try:
        for number in range(ROUNDS):
            root = tmp_path / str(number)
            (root / ".deploy").mkdir(parents=True)
            for racer in racers:
                racer.stdin.write(f"{root}\n")
                racer.stdin.flush()
            assert sorted(racer.stdout.readline().strip() for racer in racers) == ["lost", "won"], number
    finally:
        for racer in racers:
            racer.communicate()


def test_a_lock_that_lives_is_in_the_way_and_told(layout):
    _lock.hold(layout, "run1", "ann@laptop", "deploy 2", 60)
    with pytest.raises(Failure) as failure:
        _lock.hold(layout, "run2", "bob@desk", "deploy 3", 60)
    for text in ("ann@laptop", "run1", "deploy 2", "its lease ends in"):
        assert text in failure.value.what
    assert "app_unlock_run=run1" in failure.value.fix and failure.value.facts["lock"]["run"] == "run1"
    assert _lock.load(layout).run == "run1"


def test_a_dead_one_is_taken_over(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 0)
    _lock.hold(layout, "run2", "bob", "deploy", 60)
    assert _lock.load(layout).run == "run2"


def test_renewing_keeps_since_when(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 60)
    first = _lock.load(layout)
    time.sleep(0.01)
    _lock.hold(layout, "run1", "ann", "deploy", 60)
    second = _lock.load(layout)
    assert second.acquired == first.acquired and second.deadline > first.deadline


def test_waiting_ends_when_the_lock_is_freed(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 0.6)
    began = time.monotonic()
    _lock.hold(layout, "run2", "bob", "deploy", 60, wait=10)
    assert 0.4 < time.monotonic() - began < 5


def test_waiting_ends_when_the_time_is_over(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 60)
    began = time.monotonic()
    with pytest.raises(Failure):
        _lock.hold(layout, "run2", "bob", "deploy", 60, wait=0.7)
    assert 0.6 < time.monotonic() - began < 3


def test_nobody_frees_what_is_not_theirs(layout):
    _lock.hold(layout, "run1", "ann", "deploy", 0)
    assert not _lock.free(layout, "run2") and _lock.load(layout).run == "run1", "not even a dead one"
    assert _lock.free(layout, "run1") and _lock.load(layout) is None
    assert not _lock.free(layout, "run1")


@pytest.mark.parametrize("text", ["{", '{"run": "run1"}', "7"])
def test_a_damaged_lock_is_not_taken_for_a_free_one(layout, text):
    with open(layout.lock, "w") as stream:
        stream.write(text)
    with pytest.raises(Failure) as failure:
        _lock.hold(layout, "run2", "bob", "deploy", 60)
    assert "unlock.yml" in failure.value.fix


def test_a_host_that_was_never_provisioned(tmp_path):
    from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

    with pytest.raises(Failure) as failure:
        _lock.hold(Layout("shop", str(tmp_path / "nowhere")), "run1", "ann", "deploy", 60)
    assert "provision.yml" in failure.value.fix


def test_a_lease_that_lives_is_renewed_for_its_run_alone(layout):
    _lock.hold(layout, "run1", "ann@laptop", "deploy 2", 60)
    before = _lock.load(layout)
    assert not _lock.renew(layout, "run2", 600)
    assert _lock.load(layout) == before
    assert _lock.renew(layout, "run1", 600)
    assert _lock.load(layout).deadline > before.deadline + 500 and _lock.load(layout).acquired == before.acquired


def test_a_lease_that_has_ended_stays_ended(layout):
    """The host has gone back, or is about to: a run that comes to itself again must not make it believe otherwise."""
    _lock.hold(layout, "run1", "ann@laptop", "deploy 2", -1)
    assert not _lock.renew(layout, "run1", 600)
    assert not _lock.load(layout).alive(time.time())


def test_what_is_free_is_not_taken_by_renewing(layout):
    assert not _lock.renew(layout, "run1", 600)
    assert _lock.load(layout) is None
