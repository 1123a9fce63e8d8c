# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plans of switch and commit, as data."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import commit, switch
from ansible_collections.bulletproof.deploy.plugins.module_utils._schema import Step, back_to
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position, State

LIVE = Position("blue", "1-a", since=1.0, run="run0")
OPTIONS = {
    "app": "shop",
    "root": "/opt/shop",
    "run": "run1",
    "who": "ann",
    "slots": ["blue", "green"],
    "release": None,
    "back": False,
    "again": False,
    "warm_up": False,
    "canary": 0.0,
    "version": None,
    "schema": "refuse",
    "environment": "then",
}


def manifest(release, state="good", **more):
    return Manifest(release, release.partition("-")[0], "", "", "", {}, state=state, **more)


HAVE = (manifest("1-a", committed=1.0), manifest("2-b", committed=2.0, previous="1-a"), manifest("3-c", state="bad", why="it said 500"))


def planned(state, settled=True, have=HAVE, dry=False, environment="", environments=(), warm=False, **options):
    chosen = switch.Switch(dry=dry)
    observed = switch.Observed(state, settled, tuple(have), warm, environment, tuple(environments))
    changes = chosen.plan({**OPTIONS, **options}, observed)
    return chosen.target, [(change.target, change.before, change.after) for change in changes]


def test_a_first_deploy_arms_the_way_back_to_nothing_before_all_else():
    target, changes = planned(State(), release="2-b")
    assert target.slot == "blue"
    assert changes == [
        ("safety net", None, "back to nothing"),
        ("/opt/shop/slots/blue", None, "2-b"),
        ("verify on its socket", None, "2-b"),
        ("/run/shop/live.sock", None, "blue"),
        ("verify through the proxy", None, "2-b"),
    ]


def test_the_next_one_goes_to_the_other_slot():
    target, changes = planned(State(live=LIVE), release="2-b")
    assert (target.slot, target.run, target.who) == ("green", "run1", "ann")
    assert changes[0] == ("safety net", None, "back to slot blue: 1-a") and changes[3] == ("/run/shop/live.sock", "blue", "green")


WARM = Position("green", "2-b", 2.0, OPTIONS["run"])


def test_warming_up_sends_nobody_there():
    target, changes = planned(State(live=LIVE), release="2-b", warm_up=True)
    assert target.slot == "green" and [one[0] for one in changes] == ["safety net", "/opt/shop/slots/green", "verify on its socket"]


def test_what_is_warm_is_only_switched_to():
    armed = State(live=LIVE).arm(OPTIONS["run"], WARM, 2.0)
    target, changes = planned(armed, settled=False, warm=True, release="2-b")
    assert target == WARM
    assert changes == [("/run/shop/live.sock", "blue", "green"), ("verify through the proxy", None, "2-b")]
    assert planned(armed, settled=False, warm=True, release="2-b", warm_up=True) == (WARM, [])
    assert planned(armed, settled=False, warm=True, back=True, version="2")[1] == changes


@pytest.mark.parametrize("warm,more", [(False, {}), (True, {"environment": "another"}), (True, {"release": "1-a"})])
def test_what_is_not_warm_or_warm_with_something_else_is_started_in_the_idle_slot(warm, more):
    armed = State(live=LIVE).arm(OPTIONS["run"], WARM, 2.0)
    target, changes = planned(armed, settled=False, warm=warm, **{"release": "2-b", **more})
    assert target.slot == "green" and ("safety net", None, "back to slot blue: 1-a") in changes


def test_what_is_live_is_left_alone():
    target, changes = planned(State(live=LIVE), release="1-a")
    assert (target, changes) == (LIVE, [])


def test_what_is_live_is_deployed_again_when_asked_to():
    target, changes = planned(State(live=LIVE), release="1-a", again=True)
    assert target.slot == "green" and len(changes) == 5


@pytest.mark.parametrize("state", [State(live=LIVE), State(live=LIVE).arm("run0", LIVE, 1.0)])
def test_what_only_seems_to_be_live_is_deployed_again(state):
    target, changes = planned(state, settled=False, release="1-a")
    assert target.slot == "green" and len(changes) == 5


@pytest.mark.parametrize("slots,live", [(["main"], "main"), (["1..3"], "1..3"), (["1..2"], "1..3")])
def test_nothing_starts_beside_what_serves_in_its_own_slot(slots, live):
    with pytest.raises(Failure, match="serves, so nothing can start beside it"):
        planned(State(live=Position(live, "1-a")), release="2-b", slots=slots, warm_up=True)


def test_a_single_slot_is_restarted_with_its_users_at_its_socket():
    _target, changes = planned(State(live=Position("main", "1-a")), release="2-b", slots=["main"], canary=5)
    assert changes == [
        ("safety net", None, "back to slot main: 1-a"),
        ("/opt/shop/slots/main", None, "2-b"),
        ("verify on its socket", None, "2-b"),
        ("/run/shop/live.sock", "main", "main"),
        ("verify through the proxy", None, "2-b"),
    ]


def moved(slot):
    return [
        (f"users of slot {slot}", slot, "another slot"),
        (f"/opt/shop/slots/{slot}", None, "2-b"),
        ("verify on its socket", None, "2-b"),
        (f"users of slot {slot}", "another slot", slot),
    ]


def test_a_row_moves_slot_by_slot_the_canary_first():
    target, changes = planned(State(live=Position("1..3", "1-a")), release="2-b", slots=["1..3"], canary=5)
    assert target.slot == "1..3"
    assert changes == [
        ("safety net", None, "back to slot 1..3: 1-a"),
        *moved("1"),
        ("watch slot 1", None, "5 s"),
        *moved("2"),
        *moved("3"),
        ("/run/shop/live.sock", "1..3", "1..3"),
        ("verify through the proxy", None, "2-b"),
    ]


def beside(slot):
    return moved(slot)[1:3]


@pytest.mark.parametrize(
    "live,slots,steps",
    [
        (None, "1..2", [*beside("1"), *beside("2")]),
        ("blue", "1..2", [*beside("1"), *beside("2")]),
        ("1..2", "1..3", [*beside("3"), *moved("1"), *moved("2")]),
        ("1..3", "1..2", [*moved("1"), *moved("2")]),
    ],
)
def test_a_row_begins_beside_what_serves_where_it_can(live, slots, steps):
    _target, changes = planned(State(live=Position(live, "1-a") if live else None), release="2-b", slots=[slots])
    assert changes[1:-2] == steps


@pytest.mark.parametrize(
    "slots,live,idle",
    [
        (["blue", "green"], None, "blue"),
        (["blue", "green"], "blue", "green"),
        (["blue", "green"], "green", "blue"),
        (["main"], "main", "main"),
        (["main"], "green", "main"),
        (["blue", "green"], "main", "blue"),
        (["1..3"], "1..3", "1..3"),
        (["1..3"], "blue", "1..3"),
    ],
)
def test_idle_slot(slots, live, idle):
    assert switch.idle_slot(slots, Position(live, "1-a") if live else None) == idle


@pytest.mark.parametrize(
    "live,version,chosen",
    [("2-b", None, "1-a"), ("2-b", "1", "1-a"), ("1-a", "2", "2-b"), ("2-b", "1-a", "1-a"), ("2-b", "2", "2-b")],
)
def test_going_back_to(live, version, chosen):
    observed = switch.Observed(State(live=Position("blue", live)), True, HAVE)
    assert switch.choose({**OPTIONS, "back": True, "version": version}, observed, False).release == chosen


@pytest.mark.parametrize(
    "live,options,said",
    [
        (None, {"back": True}, "serves nothing yet"),
        ("1-a", {"back": True}, "No good release older than 1-a is on this host; good ones: 1-a, 2-b"),
        ("2-b", {"back": True, "version": "3"}, "No good release 3 is on this host (it is bad: it said 500); good ones: 1-a, 2-b"),
        ("2-b", {"back": True, "version": "9"}, "No good release 9 is on this host; good ones"),
        ("2-b", {"release": "9-z"}, "9-z is not staged"),
    ],
)
def test_what_cannot_be_chosen(live, options, said):
    observed = switch.Observed(State(live=Position("blue", live) if live else None), True, HAVE)
    with pytest.raises(Failure) as failure:
        switch.choose({**OPTIONS, **options}, observed, False)
    assert said in failure.value.what and failure.value.fix


def test_check_mode_plans_with_a_release_that_is_not_staged():
    _target, changes = planned(State(live=LIVE), release="9-z", dry=True)
    assert changes[1] == ("/opt/shop/slots/green", None, "9-z")


def committed(state, keep=5, revocable=False):
    options = {**OPTIONS, "keep": keep, "revocable": revocable, "peers": {}}
    return [(change.target, change.before, change.after) for change in commit.Commit().plan(options, state)]


def test_commit_disarms_before_anything_else_but_the_mark():
    """What cannot be taken back comes after: the old slot stops, releases go."""
    target = Position("green", "2-b", since=2.0, run="run1")
    assert committed(State(live=LIVE).arm("run1", target, 2.0)) == [
        ("release 2-b", "live", "good"),
        ("safety net", "armed", "disarmed"),
        ("shop@blue.service", "active", "inactive"),
        ("releases", None, "at most 5 good ones"),
        ("lock", "run1", None),
    ]


@pytest.mark.parametrize("before", [None, Position("main", "1-a")])
def test_commit_of_a_first_or_a_direct_deploy_stops_nothing(before):
    changes = committed(State(live=before).arm("run1", Position("main", "2-b"), 2.0))
    assert [target for target, _before, _after in changes] == ["release 2-b", "safety net", "releases", "lock"]


def test_what_can_still_be_taken_back_gives_up_nothing():
    """Fails where the first step of a fleet's commit stops the old slot, disarms, or frees the lock."""
    trial = State(live=LIVE).arm("run1", Position("green", "2-b"), 2.0)
    assert [change[0] for change in committed(trial, revocable=True)] == ["safety net"]
    good = trial.call_good({})
    assert good.armed_by("run1") and good.committed == LIVE
    assert committed(good, revocable=True) == []
    assert committed(good) == committed(trial)


def test_of_what_is_committed_already_only_the_lock_is_left():
    assert committed(State(live=LIVE)) == [("lock", "run1", None)]


def step(revision, kind, at, release="2-b"):
    return Step(revision, "before", kind, release, "run2", at)


def test_what_is_live_is_switched_again_when_its_environment_has_changed():
    """Fails when only the release is compared: the change would never arrive."""
    live = Position("blue", "1-a", environment="aa")
    assert planned(State(live=live), environment="aa", environments=["aa"], release="1-a")[1] == []
    target, changes = planned(State(live=live), environment="bb", environments=["aa"], release="1-a")
    assert (target.slot, target.environment) == ("green", "bb")
    assert changes[0] == ("environment", "aa", "bb")
    assert changes[1][0] == "safety net"


@pytest.mark.parametrize(
    ("policy", "was", "kept", "given"),
    [
        ("then", "aa", ["aa", "bb"], "aa"),
        ("now", "aa", ["aa", "bb"], "bb"),
        # Gone, so the newest is the best there is.
        ("then", "aa", ["bb"], "bb"),
        # It ran without any.
        ("then", "", ["bb"], ""),
    ],
)
def test_a_rollback_gets_the_environment_it_ran_with(policy, was, kept, given):
    have = (manifest("1-a", committed=1.0, environment=was), manifest("2-b", committed=2.0, previous="1-a", environment="bb"))
    live = Position("blue", "2-b", environment="bb")
    chosen = switch.Switch(dry=False)
    chosen.plan(
        {**OPTIONS, "back": True, "environment": policy},
        switch.Observed(State(live=live), True, have, environment="bb", environments=tuple(kept)),
    )
    target = chosen.target
    assert (target.release, target.environment) == ("1-a", given)


@pytest.mark.parametrize(
    ("steps", "schema", "refused"),
    [
        ([step("0002", "expanding", 2.5)], "refuse", False),
        ([step("0002", "contracting", 2.5)], "refuse", True),
        ([step("0002", "unknown", 2.5)], "refuse", True),
        ([step("0002", "contracting", 2.5)], "allow", False),
        # From before the older release was committed: it has run on that.
        ([step("0002", "contracting", 0.5)], "refuse", False),
        ([step("0002", "contracting", 2.5, release="1-a")], "refuse", False),
    ],
)
def test_a_rollback_looks_at_what_was_migrated_since(steps, schema, refused):
    """Fails when the ledger of migrations is not asked."""
    chosen = switch.Switch(dry=False)
    observed = switch.Observed(State(live=Position("blue", "2-b")), True, HAVE, migrated=tuple(steps))
    options = {**OPTIONS, "back": True, "schema": schema}
    if refused:
        with pytest.raises(Failure, match=r"migrated since 1-a served") as told:
            chosen.plan(options, observed)
        assert "app_rollback_schema=downgrade" in told.value.fix
    else:
        assert chosen.plan(options, observed)


def test_a_deploy_does_not_ask_it():
    chosen = switch.Switch(dry=False)
    observed = switch.Observed(State(live=Position("blue", "2-b")), True, HAVE, migrated=(step("0002", "contracting", 2.5),))
    assert chosen.plan({**OPTIONS, "release": "1-a"}, observed)


def test_back_to_the_revision_before_the_first_that_breaks():
    steps = [
        Step("2", "1", "expanding", "b", "r", 2.0),
        Step("3", "2", "contracting", "b", "r", 2.1),
        Step("4", "3", "contracting", "b", "r", 2.2),
    ]
    assert back_to(steps, HAVE[0]) == "2"
    assert back_to(steps[:1], HAVE[0]) is None
