# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts in batches, and the plan by which they move, as tables."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.bulletproof.deploy.plugins.filter.switch_steps import FilterModule
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _batches, _declaration

EIGHT = [f"web{number}" for number in range(1, 9)]


@pytest.mark.parametrize(
    "hosts,sizes,counts",
    [
        (8, [1, "25%", "100%"], [1, 2, 5]),
        (8, [1, "100%"], [1, 7]),
        (8, [3], [3, 3, 2]),
        (8, ["50%"], [4, 4]),
        (3, ["25%"], [1, 1, 1]),
        (8, ["2"], [2, 2, 2, 2]),
        (1, [1, "100%"], [1]),
        (8, ["100%"], [8]),
        (0, [1], []),
    ],
)
def test_every_host_is_in_one_batch_in_its_order(hosts, sizes, counts):
    batches = _batches.split(EIGHT[:hosts], sizes)
    assert [len(batch) for batch in batches] == counts
    assert [host for batch in batches for host in batch] == EIGHT[:hosts]


@pytest.mark.parametrize("size", [1, 8, "1", "1%", "100%"])
def test_sizes(size):
    assert _batches.allowed([size])


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "0", "0%", "101%", "150%", "1 %", "all", "", None, [1], {}])
def test_what_is_no_size(size):
    assert not _batches.allowed([1, size])


def declared(**variables):
    return {"app_strategy": "rolling", "app_batches": [1, "100%"], "app_max_failures": 0, **variables}


@pytest.mark.parametrize(
    "variables,hosts,said",
    [
        ({"app_batches": [1, 9]}, 8, "app_batches: found 9, and there are 8 hosts; allowed: at most 8, or a percentage"),
        ({"app_batches": [2]}, 1, "app_batches: found 2, and there are 1 host"),
        ({"app_max_failures": 4}, 8, "app_max_failures: found 4 of 8; allowed: fewer than half of the hosts, 3 here."),
        ({"app_max_failures": 1}, 2, "allowed: fewer than half of the hosts, 0 here."),
    ],
)
def test_what_is_wrong_for_so_many_hosts(variables, hosts, said):
    (mistake,) = _declaration.fleet_mistakes(declared(**variables), hosts)
    assert said in mistake


@pytest.mark.parametrize(
    "variables,hosts", [({}, 1), ({"app_batches": [8]}, 8), ({"app_max_failures": 3}, 8), ({"app_max_failures": 1}, 3)]
)
def test_what_is_right_for_so_many_hosts(variables, hosts):
    assert list(_declaration.fleet_mistakes(declared(**variables), hosts)) == []


def test_batches_of_another_strategy_are_not_looked_at():
    assert list(_declaration.fleet_mistakes(declared(app_strategy="blue_green", app_batches=[9]), 2)) == []


WAY = {"watch": 5.0, "batch_watch": 2.0, "balanced": False, "beside": True, "check": False}


def plan(batches, **way):
    """Each step in a line: what is done, by whom where it is not for all."""
    steps = _batches.steps(batches, **{**WAY, **way})
    return [" ".join([one["do"], *one.get("hosts", []), *([f"{one['window']:g} s"] if "window" in one else [])]) for one in steps]


@pytest.mark.parametrize(
    "batches,way,expected",
    [
        ([["a"]], {}, ["move", "watch 5 s", "commit"]),
        ([["a"]], {"watch": 0.0}, ["move", "commit"]),
        ([["a"]], {"balanced": True, "watch": 0.0}, ["move_balanced", "commit"]),
        ([["a"]], {"check": True, "balanced": True}, ["move"]),
        (
            [["a", "b"]],
            {},
            ["warm_up a b", "judge", "move a b", "judge", "watch a b 5 s", "judge", "commit_together a b"],
        ),
        ([["a", "b"]], {"beside": False, "watch": 0.0}, ["move a b", "judge", "commit_together a b"]),
        (
            [["a"], ["b", "c"]],
            {},
            [
                *("renew b c", "judge", "move a", "judge", "watch a 2 s", "judge"),
                *("renew a", "warm_up b c", "judge", "move b c", "judge", "watch a b c 5 s", "judge"),
                "commit_together a b c",
            ],
        ),
        (
            [["a", "b"]],
            {"balanced": True, "beside": False, "watch": 0.0},
            ["move_balanced a b", "judge", "commit_together a b", "hold"],
        ),
        ([["a"], ["b"]], {"check": True, "balanced": True}, ["move a", "judge", "move b", "judge"]),
    ],
)
def test_the_plan(batches, way, expected):
    assert plan(batches, **way) == expected


@pytest.mark.parametrize("batches,way", [("web1", {}), (["web1"], {}), ([["web1"]], {"watch": "long"})])
def test_what_is_no_plan(batches, way):
    with pytest.raises(AnsibleFilterError, match="switch_steps: found"):
        FilterModule().filters()["switch_steps"](batches, **way)
