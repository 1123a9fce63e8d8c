# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host knows of itself: armed, committed, reverted, damaged."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent, _lock, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position, State

OLD, NEW, NEWER = Position("blue", "1-a"), Position("green", "2-b"), Position("blue", "3-c")


def test_a_host_without_a_file_serves_nothing(layout):
    assert _state.load(layout) == State()


@pytest.mark.parametrize("before", [None, OLD])
def test_what_is_saved_is_loaded(layout, before):
    armed = State(live=before).arm("run1", NEW, 5.0, rollback=True)
    _state.save(layout, armed)
    assert _state.load(layout) == armed
    assert armed.armed_by("run1") and not armed.armed_by("run2")
    assert armed.committed == before and armed.commit() == State(live=NEW)


@pytest.mark.parametrize("slot,slots", [("blue", ["blue"]), ("1..3", ["1", "2", "3"]), ("1..12", [str(number) for number in range(1, 13)])])
def test_a_row_of_slots_is_a_place_for_each(slot, slots):
    row = Position(slot, "1-a", 5.0, "run1", "me", "env")
    assert row.slots == slots
    assert row.places == [Position(one, "1-a", 5.0, "run1", "me", "env") for one in slots]


def test_a_row_is_named_as_it_is_read():
    assert Position(_state.row(3), "1-a").slots == ["1", "2", "3"]


def test_what_another_position_does_not_take_is_left():
    row = Position("1..3", "1-a")
    assert [place.slot for place in row.without(Position("1..2", "2-b"))] == ["3"]
    assert row.without(OLD) == row.without(None) == row.places
    assert OLD.without(Position("blue", "2-b")) == []


def test_arming_twice_keeps_the_first_way_back():
    """A host that was armed already goes back to what it was last sure of, not to what was on trial."""
    twice = State(live=OLD).arm("run1", NEW, 1.0).arm("run2", NEWER, 2.0)
    assert twice.live == NEWER and twice.committed == OLD and twice.armed_by("run2")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"x"', '{"live": {}}', '{"live": {"slot": "blue"}}', '{"live": 7}', '{"way_back": {"run": "r"}}', '{"way_back": 1}'],
)
def test_a_damaged_file_is_not_taken_for_an_empty_one(layout, tmp_path, text):
    (tmp_path / ".deploy" / "state.json").write_text(text)
    with pytest.raises(Failure) as failure:
        _state.load(layout)
    assert "no longer knows what it serves" in failure.value.what and "deploy again" in failure.value.fix


def lock(layout, run, deadline):
    _lock.hold(layout, run, "me", "deploy", deadline)


@pytest.mark.parametrize(
    "armed,held,later,why",
    [
        (None, None, 0, None),
        (None, "run1", 99, None),
        ("run1", "run1", 0, None),
        ("run1", "run1", 99, "the lease of run run1 (10 s) ended without a commit"),
        ("run1", None, 0, "run run1 no longer holds the lock"),
        ("run1", "run2", 0, "run run1 no longer holds the lock"),
    ],
)
def test_when_a_run_is_taken_for_dead(layout, armed, held, later, why):
    import time

    if held:
        lock(layout, held, 10)
    state = State(live=OLD).arm(armed, NEW, 0.0) if armed else State(live=OLD)
    assert _agent.lease_ended(layout, state, time.time() + later) == why


def test_the_timer_leaves_a_run_in_peace_that_is_well(layout, monkeypatch):
    """It works for longer than the timer waits for the mutex. Fails without the look before the mutex: the timer's unit fails every few seconds."""
    monkeypatch.setattr(_agent, "PATIENCE", 0.1)
    lock(layout, "run1", 60)
    _state.save(layout, State(live=OLD).arm("run1", NEW, 0.0))
    with exclusive(layout.private, "host", 1):
        _agent.expire(layout)
        lock(layout, "run1", 0)
        with pytest.raises(Failure):
            _agent.expire(layout)
