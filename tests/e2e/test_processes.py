# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Workers and a clock beside the web server: they change with the release, go back with it, and are never there twice."""

from __future__ import annotations

import re
import time

import pytest
from e2e.apps import App
from e2e.conftest import NewApp

from lab.hosts import Host

CLOCK = "python -m shop.clock"
ALL = ["clock-1", "worker-1", "worker-2"]
PROCESSES = {"worker": {"command": CLOCK, "count": 2}, "clock": {"command": CLOCK, "singleton": True}}
CHECKS = [
    {"type": "systemd", "unit": "{process:worker-2}", "when": "watch", "steady": True},
    {"type": "log", "unit": "{process:clock}", "must": ["clock-1 1.* ticks"], "when": "after", "deadline": 60},
]


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host) -> App:
    shop = new_shop("clockwork", [host], app_processes=PROCESSES, app_checks=CHECKS)
    shop.deploy("1.0.0")
    return shop


def newer(shop: App) -> str:
    """The second release serves, whichever tests were run before."""
    if not shop.live().startswith("1.1.0"):
        shop.deploy("1.1.0")
    return shop.live()


def processes(shop: App) -> dict[str, tuple[int, str]]:
    """Instance to main process and the directory that it runs from, for the processes that run."""
    pattern = shop.process_unit("*")
    shown = shop.host.run(["systemctl", "show", "--property=Id,ActiveState,MainPID", pattern]).stdout
    blocks = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.split("\n\n") if block]
    found = {}
    for one in blocks:
        if one["ActiveState"] == "active":
            place = shop.host.run(["readlink", f"/proc/{one['MainPID']}/cwd"], user="www-data").stdout.strip()
            found[re.sub(r".*@(.*)\.service", r"\1", one["Id"])] = (int(one["MainPID"]), place.rpartition("/")[2])
    return dict(sorted(found.items()))


def run_from(shop: App, release: str) -> bool:
    return {instance: place for instance, (_pid, place) in processes(shop).items()} == dict.fromkeys(ALL, release)


def test_they_are_the_release_s_and_none_begins_before_all_of_before_have_ended(shop: App) -> None:
    """Fails when what runs is not stopped first: a unit that runs already is not started again."""
    first, since = shop.live(), float(shop.state()["live"]["since"]) - 1
    assert run_from(shop, first)
    before = processes(shop)

    assert shop.deploy("1.0.0").recap(shop.host.name)["changed"] == 0
    shop.project.must("deploy", "--check", "--diff", app_version="1.1.0")
    assert processes(shop) == before, "a second run, or check mode, touched them"

    shop.deploy("1.1.0")
    assert run_from(shop, shop.live()) and shop.live() != first
    story = shop.told_by_processes(since, *ALL)
    old = [number for number, line in enumerate(story) if "1.0.0" in line]
    new = [number for number, line in enumerate(story) if "1.1.0" in line]
    assert sorted(story[number] for number in old) == sorted(f"{one} 1.0.0 {what}" for one in ALL for what in ("begins", "has ended"))
    assert max(old) < min(new), story


def test_one_that_crashes_takes_its_release_back(shop: App) -> None:
    """Fails when nobody looks at them after the switch, and when going back forgets them."""
    live = newer(shop)
    broken = {**PROCESSES, "worker": {"command": ["python", "-c", "raise SystemExit('there is no broker')"], "count": 2}}
    shop.declare(app_processes=broken)
    told = shop.broken_deploy("1.1.0").output
    assert "there is no broker" in told and "process worker-" in told
    assert shop.live() == live and run_from(shop, live)
    shop.declare(app_processes=PROCESSES)


def test_a_process_that_is_missing_is_told_and_brought_back(shop: App) -> None:
    live = newer(shop)
    shop.host.run(["systemctl", "stop", shop.process_unit("worker-2")])
    assert "the process worker-2 does not run" in shop.status(well=False)
    shop.deploy("1.1.0")
    assert run_from(shop, live)


def test_a_rollback_and_a_restart_of_the_host_bring_back_the_right_ones(shop: App) -> None:
    """Fails when the unit that serves after a boot forgets them: nothing else starts them."""
    newer(shop)
    shop.roll_back()
    assert shop.version() == "1.0.0" and run_from(shop, shop.live())
    shop.host.reboot()
    deadline = time.monotonic() + 60
    while not run_from(shop, shop.live()):
        assert time.monotonic() < deadline, processes(shop)
        time.sleep(0.3)
    assert not shop.host.failed_units()
