# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is out of a pool, and who comes back by itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent_package
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract, leases, pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.absent import Absence
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_text, write_json
from ansible_collections.bulletproof.deploy.plugins.modules import load_balancer_member

NOW = 1000.0


@pytest.mark.parametrize(
    ("held", "state", "wanted"),
    [
        (None, "drained", Absence("drained", NOW + 300)),
        (None, "held", Absence("held")),
        (Absence("drained", NOW + 299, True), "drained", None),
        (Absence("drained", NOW + 100, True), "drained", Absence("drained", NOW + 300)),
        (Absence("drained", NOW + 299, False), "drained", Absence("drained", NOW + 300)),
        (Absence("drained", NOW + 299, True), "held", Absence("held")),
        (Absence("held", None, True), "drained", None),
        (Absence("held", None, True), "held", None),
        (Absence("held", None, False), "drained", Absence("held")),
    ],
)
def test_what_an_absence_becomes(held, state, wanted):
    assert leases.renewal(held, state, 300, NOW) == wanted


def test_out_and_back(program, shop, started):
    web1 = shop.members[0]
    assert pool.take_out(shop, web1, Absence("drained", NOW), leave_last=True)
    assert absent.load("shop") == {"web1": Absence("drained", NOW, True)}
    assert "web1 192.0.2.11:80 check disabled" in read_text(program.path("shop"))
    assert started == [("start", "bulletproof-balancer@shop.timer")]
    pool.put_back(shop, web1)
    assert absent.load("shop") == {}
    assert "disabled" not in read_text(program.path("shop"))
    assert program.told == [("web1", "out"), ("web1", "in")]


def test_who_renews_tells_the_program_nothing(program, shop):
    for until in (NOW, NOW + 300):
        pool.take_out(shop, shop.members[0], Absence("drained", until), leave_last=True)
    assert program.told == [("web1", "out")]
    assert absent.load("shop")["web1"].until == NOW + 300


def test_a_death_in_between_leaves_a_lease_and_is_done_again(program, shop):
    program.dies = True
    with pytest.raises(OSError):
        pool.take_out(shop, shop.members[0], Absence("drained", NOW), leave_last=True)
    assert absent.load("shop") == {"web1": Absence("drained", NOW, False)}
    program.dies = False
    pool.take_out(shop, shop.members[0], Absence("drained", NOW + 1), leave_last=True)
    assert program.told == [("web1", "out")] and absent.load("shop")["web1"].complete


def test_a_death_on_the_way_back_leaves_the_lease(program, shop):
    pool.take_out(shop, shop.members[0], Absence("drained", NOW), leave_last=True)
    program.dies = True
    with pytest.raises(OSError):
        pool.put_back(shop, shop.members[0])
    assert "web1" in absent.load("shop")


def test_the_last_that_answers_stays(program, shop, ill):
    ill.add("192.0.2.12")
    assert not pool.take_out(shop, shop.members[0], Absence("drained", NOW), leave_last=True)
    assert program.told == [] and absent.load("shop") == {}
    assert pool.take_out(shop, shop.members[0], Absence("drained", NOW), leave_last=False)


def test_of_two_at_once_one_stays(program, shop):
    assert pool.take_out(shop, shop.members[0], Absence("drained", NOW), leave_last=True)
    assert not pool.take_out(shop, shop.members[1], Absence("drained", NOW), leave_last=True)


def test_only_what_is_over_comes_back(program, shop, started, monkeypatch):
    monkeypatch.setattr(leases.time, "time", lambda: NOW)
    three = replace(shop, members=(*shop.members, contract.Member("web3", "192.0.2.13", 80)))
    write_json(pool.pool_file("shop"), three.data())
    pool.take_out(three, three.members[0], Absence("drained", NOW - 1), leave_last=True)
    pool.take_out(three, three.members[1], Absence("drained", NOW + 1), leave_last=True)
    said = leases.expire("shop")
    assert set(absent.load("shop")) == {"web2"} and "web1" in said[0]
    assert ("stop", "bulletproof-balancer@shop.timer") not in started


def test_who_does_not_answer_stays_out_and_is_asked_again(program, shop, started, ill, monkeypatch):
    monkeypatch.setattr(leases.time, "time", lambda: NOW)
    pool.take_out(shop, shop.members[0], Absence("drained", NOW - 1), leave_last=True)
    ill.add("192.0.2.11")
    assert "stays out" in leases.expire("shop")[0]
    assert set(absent.load("shop")) == {"web1"} and ("stop", "bulletproof-balancer@shop.timer") not in started
    ill.clear()
    leases.expire("shop")
    assert absent.load("shop") == {} and started[-1] == ("stop", "bulletproof-balancer@shop.timer")


def test_who_is_held_never_comes_back_by_itself(program, shop, started, monkeypatch):
    monkeypatch.setattr(leases.time, "time", lambda: NOW + 10**9)
    pool.take_out(shop, shop.members[0], Absence("held"), leave_last=True)
    assert leases.expire("shop") == []
    assert set(absent.load("shop")) == {"web1"} and started == [("stop", "bulletproof-balancer@shop.timer")]


def test_the_plan_of_a_member(program, shop):
    def plan(state, absence=None, last=False):
        observed = load_balancer_member.Observed(shop, shop.members[0], absence, last, NOW)
        options = {"state": state, "lease": 300, "timeout": 1, "leave_last": True}
        return [(one.before, one.after) for one in load_balancer_member.Turn().plan(options, observed)]

    out = Absence("drained", NOW + 300, True)
    assert plan("drained") == [("ready", "drained until 1970-01-01T00:21:40Z")]
    assert plan("drained", out) == plan("ready") == plan("drained", last=True) == []
    assert plan("held", out) == [("drained until 1970-01-01T00:21:40Z", "held")]
    assert plan("ready", Absence("held", None, True)) == [("held", "ready")]


def test_a_balancer_without_the_pool_says_what_to_do(program, shop):
    with pytest.raises(pool.Failure, match="has no pool for other"):
        pool.must_load("other")
    with pytest.raises(pool.Failure, match=r"does not list web9\. It lists web1, web2"):
        pool.must_have(shop, "web9")


def test_the_agent_needs_nothing_but_python(tmp_path):
    """An interpreter that sees neither this environment nor the checkout, on a machine that is no load balancer."""
    agent = tmp_path / "agent.pyz"
    _agent_package.install(str(agent), _agent_package.build(leases.__name__))
    argv = [sys._base_executable, "-I", "-S", "-W", "error", str(agent), "shop"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "/var/lib/bulletproof-balancer does not exist" in done.stderr, done.stderr


def test_while_no_lease_is_over_the_agent_loads_nothing_but_who_is_out(tmp_path):
    """A timer starts it every few seconds. Fails when it imports at once what it takes to put a member back."""
    agent, out = tmp_path / "agent.pyz", {"web1": {"state": "drained", "until": 1e12, "complete": True}}
    _agent_package.install(str(agent), _agent_package.build(leases.__name__))
    (tmp_path / "shop").mkdir()
    write_json(str(tmp_path / "shop" / "out.json"), out)
    script = f"""
import sys; sys.path.insert(0, sys.argv[1])
from {_agent_package.PACKAGE}._balancers import absent, leases
absent.PLACE = sys.argv[2]
status = leases.main(["shop"])
print(status, [name for name in ("subprocess", "http.client", "tempfile", {pool.__name__!r}) if name in sys.modules])
"""
    argv = [sys._base_executable, "-I", "-S", "-c", script, str(agent), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 []\n", "")
