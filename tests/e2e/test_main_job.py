# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job: a real app on a real host; again, forth, and back, while users are on it."""

from __future__ import annotations

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import long_requests, under_load

from lab.hosts import Host

# Every name below the app's directory and systemd's, with type, mode, owner, time of change, target; and the content of every file.
EVERYTHING = r"""
find /opt/main-job /etc/systemd /run/main-job /var/log/main-job /etc/nginx -printf '%p %y %m %u %g %T@ %C@ %l\n' | grep -v -e access.log -e error.log | sort
find /opt/main-job /etc/systemd /etc/nginx -xdev -type f -print0 | sort -z | xargs -0 sha256sum
"""


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host) -> App:
    app = new_shop("main-job", [host])
    app.project.must("provision")
    app.deploy("1.0.0")
    return app


def everything(host: Host) -> list[str]:
    return host.run(["sh", "-c", EVERYTHING]).stdout.splitlines()


def test_the_first_deploy_serves(shop: App) -> None:
    assert shop.version() == "1.0.0"
    assert shop.state_of("1.0.0") == "good"
    assert shop.state()["way_back"] is None


def test_a_second_deploy_changes_nothing(shop: App) -> None:
    before, processes = everything(shop.host), shop.processes()
    played = shop.deploy("1.0.0")
    assert played.recap(shop.host.name)["changed"] == 0, played.output
    assert shop.processes() == processes
    differences = set(before) ^ set(everything(shop.host))
    assert not [line for line in differences if "deployment.log" not in line and "/.deploy" not in line], differences


def test_a_check_shows_the_plan_and_touches_nothing(shop: App) -> None:
    before, processes = everything(shop.host), shop.processes()
    played = shop.deploy("1.1.0", "--check", "--diff")
    assert everything(shop.host) == before
    assert shop.processes() == processes
    assert shop.version() == "1.0.0"
    assert played.recap(shop.host.name)["changed"] > 0, played.output
    for step in ("releases/1.1.0-", "live.sock", "safety net"):
        assert step in played.output, played.output


def test_updates_and_rollbacks_lose_no_request(shop: App) -> None:
    first = shop.live()
    with under_load(shop, "blue-green deploy") as traffic:
        shop.deploy("1.1.0")
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert not traffic.returned("1.0.0", "1.1.0")
    second = shop.live()
    assert shop.version() == "1.1.0"
    assert shop.manifests()[second]["previous"] == first

    shop.deploy("2.0.0")
    with under_load(shop, "two rollbacks") as traffic:
        shop.roll_back()
        assert shop.live() == second
        shop.roll_back()
    assert traffic.versions() == ["2.0.0", "1.1.0", "1.0.0"]
    assert not traffic.returned("2.0.0", "1.1.0") + traffic.returned("1.1.0", "1.0.0")
    assert shop.live() == first


def test_what_is_in_flight_is_finished(shop: App) -> None:
    """A rollback does not watch: the old slot is stopped a moment after the switch, in the middle of its longest requests."""
    with long_requests(shop):
        shop.roll_back(app_version="2.0.0")
        shop.roll_back(app_version="1.0.0")
    assert shop.version() == "1.0.0"


def test_a_rollback_from_the_first_release_is_refused(shop: App) -> None:
    shop.only_unit()
    processes = shop.processes()
    refused = shop.project.play("rollback")
    assert not refused.ok
    assert "What to do" in refused.output, refused.output
    assert shop.processes() == processes


def test_status_tells_what_is_served_and_what_could_be(shop: App) -> None:
    told = shop.status()
    assert f"main-job serves {shop.live()} in slot" in told
    assert "The safety net is not armed." in told
    assert "The lock is free." in told
    for release, manifest in shop.manifests().items():
        assert f"{release}: {manifest['state']}" in told


def test_drift_is_told_beforehand_and_mended_by_the_next_deploy(shop: App) -> None:
    """The database file that somebody opened as root."""
    database = f"{shop.root}/shared/shop.db"
    shop.host.run(["chown", "root:root", database])
    told = shop.project.must("preflight").output
    assert f"{database}: owner root, not www-data" in told and "1 warning" in told, told
    assert shop.host.run(["stat", "-c", "%U", database]).stdout.strip() == "root"
    shop.deploy("2.0.0")
    assert shop.host.run(["stat", "-c", "%U", database]).stdout.strip() == "www-data"
