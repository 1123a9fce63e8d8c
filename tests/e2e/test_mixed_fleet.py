# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One fleet of Debian 11, 12 and 13, each with its own Python and systemd, and a clock that ticks on one of them only."""

from __future__ import annotations

import time

import pytest
from e2e.apps import App, forget
from e2e.conftest import WORKER, NewApp
from e2e.traffic import under_load

from lab import hosts as lab_hosts
from lab.hosts import Host

RELEASES = {"bullseye": "3.9", "bookworm": "3.11", "trixie": "3.13"}
CLOCK = {"clock": {"command": "python -m shop.clock", "singleton": True}}


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, collection: object, new_shop: NewApp) -> App:
    if not request.config.option.matrix:
        pytest.skip("Images of all Debian releases take minutes to make: --matrix.")
    hosts = [lab_hosts.up([f"e2e-{WORKER}-{release}"], release)[0] for release in RELEASES]
    for host in hosts:
        forget(host)
    shop = new_shop(
        "mixed", hosts, app_processes=CLOCK, app_strategy="rolling", app_batches=[1, "100%"], app_batch_watch=1, app_start_timeout=20
    )
    shop.deploy("1.0.0")
    return shop


def ticking(shop: App) -> list[str]:
    """The hosts on which the clock runs."""

    def runs(host: Host) -> bool:
        return host.run(["systemctl", "is-active", "--quiet", shop.process_unit("clock-1")], check=False).returncode == 0

    return [host.name for host in shop.hosts if runs(host)]


def serve(shop: App, version: str) -> None:
    assert [shop.version(host) for host in shop.hosts] == [version] * len(shop.hosts)
    assert len({shop.live(host) for host in shop.hosts}) == 1, "not one release"


def test_each_host_has_an_environment_of_its_own_python(shop: App) -> None:
    serve(shop, "1.0.0")
    for host, python in zip(shop.hosts, RELEASES.values()):
        pid = host.run(["systemctl", "show", "--value", "--property=MainPID", shop.only_unit(host)]).stdout.strip()
        command = host.run(["cat", f"/proc/{pid}/cmdline"]).stdout.split("\0")
        told = host.run([command[0], "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
        assert told == python, host


def test_they_move_and_go_back_together(shop: App) -> None:
    shop.deploy("1.0.0")
    first, since = shop.live(), time.time() - 1
    with under_load(shop, "an update of the newest Debian of a mixed fleet", host=shop.hosts[-1]):
        shop.deploy("1.1.0")
    serve(shop, "1.1.0")
    assert ticking(shop) == [shop.hosts[0].name], "the clock ticks on one host, the first"
    assert shop.told_by_processes(since, "clock-1") == ["clock-1 1.0.0 has ended", "clock-1 1.1.0 begins"]
    assert shop.status()

    shop.roll_back()
    serve(shop, "1.0.0")
    assert shop.live() == first and ticking(shop) == [shop.hosts[0].name]


def test_what_only_one_of_them_cannot_start_is_served_by_none(shop: App) -> None:
    """The last host has no place for its database, so the batch with two of the three goes back, and the first one too."""
    shop.deploy("1.0.0")
    elsewhere = {"DATABASE_URL": "sqlite:////opt/mixed/shared/elsewhere/shop.db"}
    for host in shop.hosts[:2]:
        host.run(["install", "-d", "-o", "www-data", "-g", "www-data", "-m", "0770", "/opt/mixed/shared/elsewhere"])
    told = shop.broken_deploy("1.1.0", app_environment=elsewhere).ended()
    serve(shop, "1.0.0")
    assert ticking(shop) == [shop.hosts[0].name]
    assert {row[1] for row in told.values()} == {shop.live()}, told
