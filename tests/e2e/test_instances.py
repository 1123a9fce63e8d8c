# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several instances on one host: a release moves from slot to slot, and users are never in the way."""

from __future__ import annotations

import signal
import time

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import under_load
from fault.leases import end_lease, wait_for_modules
from fault.world import PHASE

from lab.deployment import Running
from lab.hosts import Host

THREE = [f"rows@{slot}.service" for slot in "123"]


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host) -> App:
    app = new_shop(
        "rows", [host], app_strategy="rolling", app_instances=3, app_workers=2, app_batch_watch=3, app_start_timeout=20, app_lease=130
    )
    app.deploy("1.0.0", app_batch_watch=0)
    return app


def doors(shop: App) -> dict[str, str]:
    """Each live socket, and the slot's socket that it leads to."""
    lines = shop.host.run(["find", "/run/rows", "-name", "live*", "-printf", "%f %l\n"]).stdout.splitlines()
    return dict(sorted(line.split() for line in lines))


def serves(shop: App, version: str) -> None:
    """Every instance is of this version, has its users, and nothing is armed or left over."""
    assert doors(shop) == {"live-2.sock": "2.sock", "live-3.sock": "3.sock", "live.sock": "1.sock"}
    assert shop.units(3) == THREE
    told = {shop.version() for _time in range(9)}
    assert told == {version}
    state = shop.state()
    assert state["way_back"] is None and state["live"]["slot"] == "1..3"
    assert f"serves {shop.live()} in slot 1..3" in shop.status()


def test_an_update_and_a_rollback_move_from_slot_to_slot_and_lose_no_request(shop: App) -> None:
    serves(shop, "1.0.0")
    before = shop.processes()
    with under_load(shop, "three instances: update") as traffic:
        shop.deploy("1.1.0")
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    # The canary had users while the others were of the version before.
    assert traffic.returned("1.0.0", "1.1.0")
    serves(shop, "1.1.0")
    assert not set(before.values()) & set(shop.processes().values())
    with under_load(shop, "three instances: rollback") as traffic:
        shop.roll_back()
    assert traffic.versions() == ["1.1.0", "1.0.0"]
    serves(shop, "1.0.0")


def test_what_is_live_changes_nothing(shop: App) -> None:
    before = shop.processes()
    assert shop.deploy("1.0.0").recap(shop.host.name)["changed"] == 0
    assert shop.processes() == before


def test_a_canary_that_fails_goes_back_before_the_others_have_moved(shop: App) -> None:
    before = shop.processes()
    with under_load(shop, "three instances: bad canary") as traffic:
        played = shop.broken_deploy("1.2.0-fails-after-5s", app_batch_watch=20)
    assert "fails-after-5s: the price list has expired" in played.output and "not healthy in slot 1:" in played.output
    assert traffic.versions() == ["1.0.0", "1.2.0-fails-after-5s"]
    after = shop.processes()
    assert [unit for unit in THREE if before[unit] != after[unit]] == THREE[:1]
    assert shop.state_of("1.2.0-fails-after-5s") == "bad"
    serves(shop, "1.0.0")


@pytest.mark.parametrize("broken", ["1.2.0-crash-on-boot", "1.2.0-always-500"])
def test_a_version_that_does_not_answer_never_sees_a_user(shop: App, broken: str) -> None:
    with under_load(shop, f"three instances: {broken}") as traffic:
        played = shop.broken_deploy(broken, app_start_timeout=10)
    assert "in slot 1:" in played.output
    assert traffic.versions() == ["1.0.0"] and traffic.errors == 0
    serves(shop, "1.0.0")


def canary_has_moved(shop: App, version: str) -> Running:
    """A deploy whose canary has users of its own, while the other instances still run what was before."""
    running = shop.project.start("deploy", app_version=version, app_batch_watch=30)
    deadline = time.monotonic() + 90
    while len({shop.version() for _time in range(6)}) == 1:
        assert time.monotonic() < deadline and running.process.poll() is None, running.output()
    return running


def test_a_run_that_dies_between_two_is_gone_back_from(shop: App) -> None:
    """Neither controller nor phase is left: the host goes back by itself at the end of the lease."""
    before = shop.processes()
    with under_load(shop, "three instances: killed between two") as traffic:
        running = canary_has_moved(shop, "2.0.0")
        running.send(signal.SIGKILL)
        running.wait()
        shop.host.run(["pkill", "-KILL", "--full", PHASE])
        wait_for_modules(shop.host)
        end_lease(shop.host, shop.root)
        deadline = time.monotonic() + 60
        while shop.state()["way_back"]:
            assert time.monotonic() < deadline, "the safety net did not go back"
            time.sleep(0.2)
    assert traffic.versions() == ["1.0.0", "2.0.0"]
    serves(shop, "1.0.0")
    after = shop.processes()
    assert [unit for unit in THREE if before[unit] != after[unit]] == THREE[:1]


def test_a_power_cut_between_two_ends_in_what_was_before(shop: App) -> None:
    running = canary_has_moved(shop, "2.0.0")
    shop.host.kill()
    shop.host.start()
    assert not running.wait().ok
    serves(shop, "1.0.0")
    end_lease(shop.host, shop.root)


def test_their_number_changes_and_they_become_one_without_losing_a_request(shop: App) -> None:
    # Not in connections that are kept: nginx closes them as it reloads, now and then in the moment in which they are used.
    kinds = {"new": 80, "post": 15, "slow": 5}
    with under_load(shop, "three instances, two, blue-green, three", kinds=kinds) as traffic:
        shop.declare(app_instances=2)
        shop.deploy("1.1.0", app_batch_watch=0)
        assert shop.units(2) == THREE[:2] and doors(shop) == {"live-2.sock": "2.sock", "live.sock": "1.sock"}
        shop.declare(app_instances=1, app_strategy="blue_green", app_workers=4)
        shop.deploy("1.1.0")
        assert shop.only_unit() == "rows@blue.service" and doors(shop) == {"live.sock": "blue.sock"}
        shop.declare(app_instances=3, app_strategy="rolling", app_workers=2)
        shop.deploy("2.0.0", app_batch_watch=0)
    assert traffic.versions() == ["1.0.0", "1.1.0", "2.0.0"]
    serves(shop, "2.0.0")
