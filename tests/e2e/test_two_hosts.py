# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two hosts: both move on, or both stay what they were."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import under_load
from fault.leases import end_lease

from lab import engine
from lab.hosts import Host

# A new release wants its database in another directory, which somebody has to make on every host first.
ELSEWHERE = {"DATABASE_URL": "sqlite:////opt/pair/shared/elsewhere/shop.db"}


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, two_hosts: list[Host]) -> App:
    app = new_shop("pair", two_hosts, app_start_timeout=15)
    app.deploy("1.0.0")
    return app


MUTEX = "/opt/pair/.deploy/host.mutex"

# Whoever has it, and whoever waits for it.
END_ALL_AT = """
import glob, os, signal, sys
for link in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        if os.readlink(link) == sys.argv[1]:
            os.kill(int(link.split("/")[2]), signal.SIGKILL)
    except OSError:
        pass
"""


def make_elsewhere(host: Host) -> None:
    host.run(["install", "-d", "-o", "www-data", "-g", "www-data", "-m", "0770", "/opt/pair/shared/elsewhere"])


def both_as_before(shop: App, served: str) -> None:
    for host in shop.hosts:
        assert shop.version(host) == "1.0.0", host
        assert shop.live(host) == served, host
        assert shop.state(host)["way_back"] is None, host
        assert not host.exists("/opt/pair/.deploy/lock.json"), host
        assert shop.only_unit(host)


def test_both_are_deployed(shop: App) -> None:
    one, two = shop.hosts
    assert shop.version(one) == shop.version(two) == "1.0.0"
    assert shop.live(one) == shop.live(two)


def test_a_release_that_cannot_start_on_one_host_is_served_by_none(shop: App) -> None:
    served = shop.live()
    make_elsewhere(shop.hosts[0])
    with under_load(shop, "the host that would be well", host=shop.hosts[0]) as traffic:
        played = shop.broken_deploy("1.1.0", app_environment=ELSEWHERE)
    # Ready there, and waiting for the other one.
    assert traffic.versions() == ["1.0.0"]
    both_as_before(shop, served)
    ended = played.ended()
    assert {host: row[:2] for host, row in ended.items()} == {host.name: [served, served] for host in shop.hosts}
    assert len(ended[shop.hosts[0].name]) == 2, "it was well"
    assert '"Switch to the release"' in ended[shop.hosts[1].name][2]
    # The host that was well is not to blame the release: it never saw it fail.
    assert shop.state_of("1.1.0", shop.hosts[0]) == "staged"
    assert shop.state_of("1.1.0", shop.hosts[1]) == "bad"


def test_a_release_that_fails_on_one_host_after_the_switch_goes_back_on_both(shop: App) -> None:
    served = shop.live()
    well, ill = shop.hosts
    for host in shop.hosts:
        make_elsewhere(host)
    with under_load(shop, "revert of the host that was well", host=well) as traffic:
        deploy = shop.project.start("deploy", app_version="1.1.0", app_environment=ELSEWHERE, app_watch=30)
        deploy.wait_for("Watch it")
        ill.run(["sh", "-c", "echo 'This is no database.' > /opt/pair/shared/elsewhere/shop.db"])
        played = deploy.wait()
    assert not played.ok
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert shop.version(well) == "1.0.0"
    both_as_before(shop, served)
    assert {host: row[:2] for host, row in played.ended().items()} == {host.name: [served, served] for host in shop.hosts}
    assert '"Watch it"' in played.ended()[ill.name][2]


def test_both_go_back_on_request(shop: App) -> None:
    first = shop.live()
    assert re.search(r"All hosts moved within \d+\.\d+ s of each other", shop.deploy("2.0.0").output)
    for host in shop.hosts:
        assert shop.version(host) == "2.0.0"
    shop.roll_back()
    both_as_before(shop, first)


def test_a_controller_that_dies_as_it_commits_leaves_hosts_that_agree(shop: App) -> None:
    """One has heard that the release is good, and the other has not: it cannot work on the app when it is told."""
    served = shop.live()
    one, two = shop.hosts
    deploy = shop.project.start("deploy", app_version="1.1.0", app_watch=3)
    deploy.wait_for("Watch it]")
    # In line behind the watch, which is at work there, and before what comes next.
    while two.run(["flock", "--nonblock", MUTEX, "true"], check=False).returncode == 0:
        time.sleep(0.1)
    two.run(["systemd-run", "--quiet", "--unit=in-the-way", "flock", MUTEX, "sleep", "60"])
    deploy.wait_for("Call it good]")
    shop.wait_for_state(lambda state: state["way_back"]["good"], one)
    deploy.send(signal.SIGKILL)
    deploy.wait()
    two.run(["python3", "-c", END_ALL_AT, MUTEX])
    assert not shop.state(two)["way_back"]["good"]
    for host in shop.hosts:
        end_lease(host, shop.root)
    shop.wait_until_disarmed(*shop.hosts)
    for host in shop.hosts:
        # What a dead run leaves of its lock is over, and in nobody's way.
        host.run(["rm", "-f", "/opt/pair/.deploy/lock.json"])
    both_as_before(shop, served)


@pytest.mark.parametrize("offset,said", [("+10m", "behind"), ("-10m", "ahead of")])
def test_clocks_that_disagree_by_minutes_are_told_and_harm_nobody(
    shop: App, monkeypatch: pytest.MonkeyPatch, offset: str, said: str
) -> None:
    """The controller's clock is early or late. Fails where a host measures the lease with any clock but its own."""
    served = shop.live()
    engine.install("faketime", "faketime")
    command = shop.project.command
    monkeypatch.setattr(shop.project, "command", lambda *arguments, **extra: ["faketime", "-f", offset, *command(*arguments, **extra)])
    deploy = shop.project.start("deploy", app_version="1.1.0", app_watch=5)
    deploy.wait_for("Watch it]")
    for host in shop.hosts:
        lock = json.loads(host.read(f"{shop.root}/.deploy/lock.json"))
        assert 0 < lock["deadline"] - float(host.run(["date", "+%s"]).stdout) <= lock["lease"] + 1
    played = deploy.wait()
    assert played.ok, played.output
    # In one warning, where both are off by the same number of seconds.
    told = re.findall(rf"warning on (.*): clock\n +found: +(\d+) s {said} the controller's", played.output)
    assert {name for names, _seconds in told for name in names.split(", ")} == {host.name for host in shop.hosts}, played.output
    assert all(590 < int(seconds) < 610 for _names, seconds in told)
    assert [shop.version(host) for host in shop.hosts] == ["1.1.0", "1.1.0"]
    shop.roll_back()
    both_as_before(shop, served)


def test_instances_on_both_hosts_go_back_when_one_host_fails(shop: App) -> None:
    """The first host has moved slot by slot, to two instances, when the second one fails in its first."""
    served = shop.live()
    well, ill = shop.hosts
    ill.run(["rm", "-rf", "/opt/pair/shared/elsewhere"])
    shop.declare(app_strategy="rolling", app_instances=2, app_workers=1)
    with under_load(shop, "two hosts, two instances each", host=well) as traffic:
        played = shop.broken_deploy("1.1.0", app_environment=ELSEWHERE, app_batch_watch=0)
        both_as_before(shop, served)
        shop.deploy("1.1.0", app_batch_watch=0)
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert '"Switch to the release"' in played.ended()[ill.name][2]
    for host in shop.hosts:
        assert shop.units(2, host) == ["pair@1.service", "pair@2.service"]
        assert {shop.version(host) for _time in range(4)} == {"1.1.0"}
