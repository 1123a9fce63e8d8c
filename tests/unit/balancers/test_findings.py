# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a balancer lists, held against the inventory."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import contract, pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.absent import Absence


def found(there, wanted, out=(), text=""):
    text = pool.BALANCERS["haproxy"].render(there, ()) if there and text == "" else text
    return [(one.subject, one.found, one.severity) for one in pool.compare(there, wanted, dict(out), text)]


def test_the_same_is_nothing(program, shop):
    assert found(shop, shop) == []


def test_no_pool(program, shop):
    assert found(None, shop) == [("load balancer, shop", "no pool", "error")]
    assert found(shop, shop, text=None)[0][1].startswith("no file ")


def test_listed_there_but_not_in_the_inventory_and_the_reverse(program, shop):
    wanted = replace(shop, members=(shop.members[0], contract.Member("web3", "192.0.2.13", 80)))
    assert found(shop, wanted) == [
        ("load balancer, web2", "192.0.2.12:80, which no host of the inventory has", "error"),
        ("load balancer, web3", "192.0.2.13:80 is not listed", "error"),
    ]


def test_an_address_twice(program, shop):
    twice = replace(shop, members=(*shop.members, replace(shop.members[1], name="web3")))
    assert found(shop, twice) == [("inventory, web2, web3", "192.0.2.12:80 2 times", "error")]
    assert found(twice, shop) == [("load balancer, web2, web3", "192.0.2.12:80 2 times", "error")]


def test_another_health_check(program, shop):
    other = replace(shop, health=replace(shop.health, path="/other"))
    ((subject, said, _severity),) = found(other, shop)
    assert subject == "load balancer, health check of shop" and "/other" in said


def test_an_edited_file_is_what_counts(program, shop):
    text = pool.BALANCERS["haproxy"].render(shop, ()).replace("192.0.2.12:80", "192.0.2.99:80")
    assert len(found(shop, shop, text=text)) == 2


def test_who_is_held_is_told_and_who_is_drained_is_not(program, shop):
    out = {"web1": Absence("held", None, True), "web2": Absence("drained", 1.0, True)}
    assert found(shop, shop, out) == [("load balancer, web1", "held out of the pool", "warning")]


def test_another_program(program, shop):
    assert found(shop, replace(shop, kind="nginx")) == [("load balancer, shop", "a pool of haproxy", "error")]
