# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix of faults: that it sees what is wrong, and a sample of its cells, different each time."""

from __future__ import annotations

import copy
import json
import os
import random

import pytest
from fault.matrix import cells, judge, table
from fault.matrix.faults import FAULTS
from fault.matrix.points import Point, points
from fault.matrix.traffic import Window
from fault.matrix.world import Answer, FleetShop, Seen

from lab.fleet import down_fleet, up_fleet

OLD, NEW = "3.0.0-aaaaaaaaaaaa", "3.1.0-bbbbbbbbbbbb"
ALLOWED = {OLD: "3.0.0", NEW: "3.1.0"}
LOCK = {"run": "20000101T000000-abcdef", "deadline": 1000.0}


def seen(host="one", release=OLD):
    """A host that is well."""
    slot = "blue" if release == OLD else "green"
    running = {"active": "active", "sub": "running", "pid": 7, "cwd": f"/opt/shop/releases/{release}"}
    ended = {"active": "inactive", "sub": "dead", "pid": 0, "cwd": None}
    found = {
        "state": {"live": {"slot": slot, "release": release}, "way_back": None},
        "lock": None,
        "live_socket": f"{slot}.sock",
        "current": f"releases/{release}",
        "units": {"blue": ended, "green": ended, slot: running},
        "manifests": {OLD: "good", NEW: "good" if release == NEW else "staged"},
        "leftovers": [],
    }
    return Seen(host, found, Answer(200, ALLOWED[release]))


def test_a_fleet_that_is_well():
    assert judge.breaches([seen("one"), seen("two")], ALLOWED) == []
    assert judge.breaches([seen("one", NEW), seen("two", NEW)], ALLOWED) == []


def test_hosts_that_disagree():
    assert "the fleet disagrees" in judge.breaches([seen("one"), seen("two", NEW)], ALLOWED)[0]
    assert judge.breaches([seen("one"), seen("two", NEW)], ALLOWED, agree=False) == []


@pytest.mark.parametrize(
    "path, value, said",
    [
        (("state", "way_back"), {"run": "20000101T000000-abcdef"}, "still armed"),
        (("state", "live"), None, "knows of no release"),
        (("live_socket",), "green.sock", "the live socket leads to green.sock"),
        (("live_socket",), None, "the live socket leads to None"),
        (("current",), f"releases/{NEW}", "current leads to"),
        (("units", "blue", "cwd"), f"/opt/shop/releases/{NEW}", "slot blue runs from"),
        (("units", "green", "active"), "active", "green runs beside blue"),
        (("manifests", OLD), "live", "the manifest of"),
        (("leftovers",), [".building-x"], "half built"),
        (("lock",), {**LOCK, "deadline": 2000.0}, "P8"),
    ],
)
def test_what_is_wrong_with_a_host(path, value, said):
    one = seen()
    found = copy.deepcopy(one.found)
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    wrong = judge.breaches([Seen(one.host, found, one.answer)], ALLOWED, now=1500.0)
    assert any(said in one for one in wrong), wrong


def test_what_is_wrong_with_an_answer():
    one = seen()
    assert "answers nothing" in judge.breaches([Seen("one", one.found, Answer())], ALLOWED)[0]
    assert "answers 503" in judge.breaches([Seen("one", one.found, Answer(503))], ALLOWED)[0]
    assert "P3" in judge.breaches([Seen("one", one.found, Answer(200, "3.1.0"))], ALLOWED)[0]


def test_a_release_that_nobody_asked_for():
    assert "neither the old release nor the new one" in judge.breaches([seen()], {NEW: "3.1.0"})[0]


def test_a_lock_whose_lease_is_over_harms_nobody():
    one = seen()
    assert judge.breaches([Seen("one", {**one.found, "lock": LOCK}, one.answer)], ALLOWED, now=1500.0) == []


def test_points_are_the_tasks_that_went_to_a_host():
    begun = {"event": "begun", "play": "Deploy", "batch": 1, "path": "deploy.yml:1"}
    went = {"event": "connection", "time": 3.5}
    found = points(
        [
            {**begun, "task": "Build", "time": 1.0},
            {**begun, "task": "role : Switch", "time": 2.0},
            went,
            {**begun, "task": "role : Switch", "time": 4.0},
            {**went, "time": 4.5},
        ]
    )
    assert [(point.name, point.seconds, point.goes_out) for point in found] == [
        ("Build", 1.0, False),
        ("Switch", 2.0, True),
        ("Switch (2)", 0.5, True),
    ]


def test_cells_are_the_same_for_a_seed_and_cover_every_fault_at_every_point():
    there = [
        Point(name, 1, "", seconds, out)
        for name, seconds, out in (("Build", 1, False), ("Stage", 2, True), ("Watch it", 0.2, True), ("Commit", 0.2, True))
    ]
    found = cells.cells(there, ["SIGKILL", "power", "crash-loop"], 3, 7)
    assert found == cells.cells(there, ["SIGKILL", "power", "crash-loop"], 3, 7)
    assert {(one.point, one.fault, bool(one.delay)) for one in found} == {
        ("Stage", "SIGKILL", False),
        ("Stage", "SIGKILL", True),
        ("Stage", "power", False),
        ("Stage", "power", True),
        ("Stage", "crash-loop", False),
        ("Watch it", "SIGKILL", False),
        ("Watch it", "power", False),
        ("Watch it", "crash-loop", False),
        ("Commit", "SIGKILL", False),
        ("Commit", "power", False),
    }
    assert [one for one in found if one.point != "Stage"] == cells.cells(there[2:], ["SIGKILL", "power", "crash-loop"], 3, 7), (
        "others than without it"
    )
    assert {one.host for one in found if one.fault == "SIGKILL"} == {0}
    assert {one.host for one in found if one.fault != "SIGKILL"} <= {1, 2, 3}


def test_the_table_tells_what_did_not_hold():
    results = [
        cells.Result(cells.Cell("Commit", "SIGKILL"), "here", held=True),
        cells.Result(cells.Cell("Commit", "power", 1), "here", why=["P1 gone"]),
    ]
    told = table.markdown([json.loads(one.line()) for one in results])
    assert "| SIGKILL | 1 |" in told
    assert "| power | **0 of 1** |" in told
    assert "1 of 2 cells held" in told
    assert "here|Commit|begin|power|1: P1 gone" in told


def test_a_fault_excuses_what_it_cut_off_and_nothing_else():
    window = Window(10.0, 20.0, "one")
    assert window.excuses("one", 9.0, 11.0)
    assert not window.excuses("two", 9.0, 11.0)
    assert not window.excuses("one", 8.0, 9.0)
    assert not window.excuses("one", 21.0, 22.0)
    assert Window(10.0, 20.0).excuses("two", 15.0, 16.0)
    assert window.excuses("one", 25.0, 25.0, "connection closed after 0 bytes of an unfinished part of the answer")
    assert not window.excuses("one", 25.0, 25.0, "the proxy answered 502")
    assert not window.excuses("one", 28.0, 28.0, "connection closed after 0 bytes of an unfinished part of the answer")


@pytest.fixture(scope="module")
def shop(tmp_path_factory, request):
    """A fleet of two hosts whose users ask each host."""
    prefix = f"fault-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}-fleet"
    reuse = request.config.option.reuse_hosts
    fleet = up_fleet(2, balancer=False, prefix=prefix, fresh=not reuse)
    # Two hosts start at once, beside another test's. What breaks here has nothing to do with how long a start may take.
    yield FleetShop(tmp_path_factory.mktemp("fleet"), fleet, start_timeout=2 * request.config.option.start_timeout)
    if not reuse:
        down_fleet(prefix)


def test_a_cell(shop, request):
    """Any fault at any point, by chance; all of them are `make fault`."""
    seed = request.config.option.fault_seed
    faults = [name for name in FAULTS if name != "balancer"]
    cell = random.Random(seed).choice(cells.cells(cells.undisturbed(shop), faults, len(shop.apps), seed))
    result = cells.run(shop, cell, "blue_green, 2 hosts")
    print(result.told())
    assert result.held, result.told()
