# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three hosts, moved one after the other: all end with the new version, or all with the old one, or a minority is left behind and said to be."""

from __future__ import annotations

import json
import signal
import time
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.apps import App, forget
from e2e.conftest import WORKER, NewApp
from e2e.traffic import under_load
from fault.leases import end_lease, wait_for_modules

from lab import haproxy
from lab import hosts as lab_hosts
from lab.hosts import Host
from lab.modules import Module

# A new release writes its log into another directory, which somebody has to make on every host first: gunicorn ends at once where it is missing.
ELSEWHERE = {
    "DATABASE_URL": "sqlite:////opt/fleet/shared/shop.db",
    "GUNICORN_CMD_ARGS": "--error-logfile /opt/fleet/shared/elsewhere/error.log",
}


@pytest.fixture(scope="module")
def three_hosts(two_hosts: list[Host]) -> list[Host]:
    (third,) = lab_hosts.up([f"e2e-{WORKER}-three"])
    forget(third)
    return [*two_hosts, third]


@pytest.fixture(scope="module")
def balancer(collection: Path) -> Host:
    (balancer,) = lab_hosts.up([f"e2e-{WORKER}-lb"])
    return balancer


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, three_hosts: list[Host], balancer: Host) -> App:
    app = new_shop(
        "fleet",
        three_hosts,
        [balancer],
        load_balancer_kind="haproxy",
        app_strategy="rolling",
        app_batches=[1, "100%"],
        app_watch=0,
        app_start_timeout=60,
        app_stop_timeout=5,
        app_lease=120,
    )
    app.project.must("load_balancer")
    app.deploy("1.0.0")
    return app


def in_the_pool(shop: App, balancer: Host) -> dict[str, str]:
    """What HAProxy makes of each host: UP, DOWN or, held out, DRAIN."""
    rows = haproxy.statistics(balancer)
    names = {host.name for host in shop.hosts}
    return {row["svname"]: row["status"].split()[0] for row in rows if row["svname"] in names}


def audit(shop: App, host: Host) -> list[dict[str, t.Any]]:
    """What the newest run has done on a host, phase by phase."""
    lines = [json.loads(line) for line in host.read(f"/var/log/{shop.name}/deployment.log").splitlines()]
    return [line for line in lines if line["run"] == lines[-1]["run"]]


def moment(shop: App, host: Host, phase: str) -> str:
    """When a phase of the newest run ended on a host; times of one format sort as text."""
    return str([line["time"] for line in audit(shop, host) if line["phase"] == phase][-1])


def make_elsewhere(host: Host) -> None:
    host.run(["install", "-d", "-o", "www-data", "-g", "www-data", "-m", "0770", "/opt/fleet/shared/elsewhere"])


def only_elsewhere(shop: App, hosts: list[Host]) -> None:
    """The directory is there on these hosts, and missing on the others."""
    for host in shop.hosts:
        if host in hosts:
            make_elsewhere(host)
        else:
            host.run(["rm", "-rf", "/opt/fleet/shared/elsewhere"])


def all_serve(shop: App, served: str) -> None:
    """The promise: one release everywhere, committed, with nothing left of any run."""
    for host in shop.hosts:
        assert shop.live(host) == served, host
        assert shop.version(host) == served.rpartition("-")[0], host
        assert shop.state(host)["way_back"] is None, host
        assert not host.exists("/opt/fleet/.deploy/lock.json"), host
        assert shop.only_unit(host)


def test_the_canary_moves_first_and_all_commit_together(shop: App, balancer: Host) -> None:
    one, two, _three = shop.hosts
    with under_load(shop, "rolling, through the load balancer", host=balancer) as traffic:
        shop.deploy("1.1.0", app_batch_watch=2, app_watch=2)
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert set(in_the_pool(shop, balancer).values()) == {"UP"}
    all_serve(shop, shop.live(one))
    assert shop.version(one) == "1.1.0"
    assert moment(shop, one, "switch") < moment(shop, two, "switch")
    # Nobody gives up the way back before all have been watched.
    last_watch = max(moment(shop, host, "watch") for host in shop.hosts)
    assert last_watch < min(moment(shop, host, "commit") for host in shop.hosts)
    assert len([line for line in audit(shop, one) if line["phase"] == "watch"]) == 2, "the canary goes on being watched"
    assert shop.deploy("1.1.0").recap(one.name)["changed"] == 0


def test_a_failure_in_the_last_batch_takes_all_back_newest_first(shop: App) -> None:
    """Fails without the judge, and without the way back of those that were well."""
    served = shop.live()
    one, two, three = shop.hosts
    only_elsewhere(shop, [one, two])
    played = shop.broken_deploy("1.0.0", app_environment=ELSEWHERE)
    all_serve(shop, served)
    ended = played.ended()
    assert {host: row[:2] for host, row in ended.items()} == {host.name: [served, served] for host in shop.hosts}
    assert '"Switch to the release"' in ended[three.name][2]
    # The second was only started beside what serves, together with the third; the canary had users on it.
    assert moment(shop, two, "revert") < moment(shop, one, "revert")
    assert [line["release"] for line in audit(shop, one) if line["phase"] == "revert"] == [served]


def test_a_minority_is_left_behind_and_the_next_deploy_takes_it_along(shop: App, balancer: Host) -> None:
    served = shop.live()
    one, two, three = shop.hosts
    only_elsewhere(shop, [one, two])
    played = shop.broken_deploy("1.0.0", app_environment=ELSEWHERE, app_max_failures=1)
    ended = played.ended()
    assert [ended[host.name][0] for host in shop.hosts] == [served] * 3
    assert ended[one.name][1] == ended[two.name][1] != served
    assert ended[three.name][1] == served
    assert '"Switch to the release"' in ended[three.name][2]
    assert "but not to all hosts" in played.output
    assert [shop.live(host) == served for host in shop.hosts] == [False, False, True]
    assert in_the_pool(shop, balancer) == {one.name: "UP", two.name: "UP", three.name: "DRAIN"}
    status = shop.project.play("status")
    assert not status.ok, "hosts that disagree are no success"
    assert status.ended()[three.name][0] == served
    assert "The hosts do not agree" in status.output
    make_elsewhere(three)
    shop.deploy("1.0.0", app_environment=ELSEWHERE)
    all_serve(shop, shop.live(one))
    assert shop.project.must("status").ended()[three.name][0] == shop.live(one)
    assert in_the_pool(shop, balancer)[three.name] == "UP"


STATE = "/opt/fleet/.deploy/state.json"


@pytest.fixture
def nothing_to_write_with(shop: App) -> Iterator[t.Callable[[Host], None]]:
    """A host that cannot write down any more what it serves, and can do everything else: nothing is renamed over a mount."""
    broken: list[Host] = []

    def break_it(host: Host) -> None:
        broken.append(host)
        host.run(["mount", "--bind", STATE, STATE])

    yield break_it
    for host in broken:
        host.run(["umount", "--lazy", STATE], check=False)


def test_a_host_that_cannot_commit_takes_the_commit_of_the_others_back(shop: App, nothing_to_write_with: t.Callable[[Host], None]) -> None:
    """Fails without the first step of the commit."""
    only_elsewhere(shop, shop.hosts)
    shop.deploy("1.0.0", app_environment=ELSEWHERE)
    served = shop.live()
    three = shop.hosts[2]
    deploy = shop.project.start("deploy", app_version="1.1.0", app_watch=5, app_batch_watch=0)
    # The last batch has moved by then, and all are watched before they are asked to commit.
    deploy.wait_for("Watch it]")
    nothing_to_write_with(three)
    played = deploy.wait()
    assert not played.ok, played.output
    assert "Call it good" in played.output
    for host in shop.hosts[:2]:
        assert shop.live(host) == served, played.output
        assert shop.state(host)["way_back"] is None
    three.run(["umount", "--lazy", STATE])
    end_lease(three, shop.root)
    shop.wait_until_disarmed(three)
    three.run(["rm", "-f", "/opt/fleet/.deploy/lock.json"])
    all_serve(shop, served)


def test_a_run_that_died_between_batches_is_taken_up(shop: App) -> None:
    """SIGKILL. The next run waits for the lease, ends what was begun, and stages nothing again."""
    one = shop.host
    version = "1.1.0" if shop.version() == "1.0.0" else "1.0.0"
    only_elsewhere(shop, shop.hosts)
    deploy = shop.project.start("deploy", app_version=version, app_batch_watch=20, app_environment=ELSEWHERE)
    deploy.wait_for("Watch it]")
    lock = json.loads(shop.hosts[2].read(f"{shop.root}/.deploy/lock.json"))
    assert lock["deadline"] - lock["acquired"] > lock["lease"], "a host that waits was not told that the run lives"
    deploy.send(signal.SIGKILL)
    deploy.wait()
    assert [shop.version(host) == version for host in shop.hosts] == [True, False, False], "it was killed too early"
    refused = shop.broken_deploy(version, app_environment=ELSEWHERE)
    assert "is being deployed by" in refused.output or "held by" in refused.output
    resumed = shop.project.start("deploy", app_version=version, app_environment=ELSEWHERE, app_resume=True)
    resumed.wait_for("Look before anything is touched")
    for host in shop.hosts:
        wait_for_modules(host)
        end_lease(host, shop.root)
    played = resumed.wait()
    assert played.ok, played.output
    all_serve(shop, shop.live(one))
    assert shop.version(one) == version


@pytest.mark.parametrize(
    "extra,said",
    [
        ({"app_batches": [0]}, "app_batches: found [0]; allowed: a list of numbers of hosts (1 or more)"),
        ({"app_batches": [4]}, "app_batches: found 4, and there are 3 hosts; allowed: at most 3"),
        ({"app_batches": ["150%"]}, 'app_batches: found ["150%"]; allowed'),
        ({"app_max_failures": 2}, "app_max_failures: found 2 of 3; allowed: fewer than half of the hosts, 1 here."),
    ],
)
def test_senseless_batches_touch_no_host(shop: App, extra: dict[str, object], said: str) -> None:
    assert said in " ".join(shop.broken_deploy("1.1.0", **extra).output.split())


def test_between_the_two_steps_of_a_commit_only_its_run_goes_back(shop: App, tmp_path: Path) -> None:
    """A run that falls silent there leaves its hosts with the new release, all of them; one that lives takes it back."""
    host = shop.host
    module = Module(host, tmp_path)
    first = shop.live(host)
    if all(one["state"] != "good" for release, one in shop.manifests(host).items() if release != first):
        shop.deploy("1.1.0")
        first = shop.live(host)
    second = next(release for release, one in shop.manifests(host).items() if one["state"] == "good" and release != first)

    def called_good(run: str, release: str, lease: int) -> dict[str, object]:
        phase = {"app": shop.name, "root": shop.root, "run": run, "lease": lease}
        module.must("release_switch", release=release, **phase)
        module.must("release_commit", release=release, revocable=True, **phase)
        assert shop.state(host)["way_back"]["good"]
        return phase

    phase = called_good("lives", second, 60)
    assert module.must("release_revert", **phase)["serves"] == first
    assert (shop.live(host), shop.state(host)["way_back"]) == (first, None)
    called_good("silent", second, 10)
    shop.wait_until_disarmed(host)
    assert shop.live(host) == second
    assert shop.only_unit(host)
    assert shop.manifests(host)[second]["previous"] == first
    assert audit(shop, host)[-1]["phase"] == "commit"
    assert audit(shop, host)[-1]["who"] == "the safety net"


def in_the_midst_of_the_commit(shop: App, tmp_path: Path, heard: t.Collection[Host], lease: int) -> tuple[str, str]:
    """All serve another release, and its run falls silent when only some have heard that it is good. What they served, and what they serve."""
    # Hosts that were left behind before have served other releases.
    shop.deploy("1.0.0")
    first = shop.live()
    shop.deploy("1.1.0")
    second = shop.live()
    shop.roll_back()
    all_serve(shop, first)
    health = shop.manifests(shop.host)[second]["health"]["url"]
    urls = {host.name: health.replace("127.0.0.1", host.address) for host in shop.hosts}
    for host in shop.hosts:
        (tmp_path / host.name).mkdir()
        module = Module(host, tmp_path / host.name)
        phase = {"app": shop.name, "root": shop.root, "run": "silent", "lease": lease}
        module.must("release_switch", release=second, **phase)
        if host in heard:
            peers = {name: url for name, url in urls.items() if name != host.name}
            module.must("release_commit", release=second, revocable=True, peers=peers, **phase)
    assert {shop.live(host) for host in shop.hosts} == {second}
    return first, second


def come_to_an_end(shop: App) -> None:
    shop.wait_until_disarmed(*shop.hosts)
    for host in shop.hosts:
        # What a dead run leaves of its lock is over, and in nobody's way.
        host.run(["rm", "-f", f"{shop.root}/.deploy/lock.json"])


@pytest.mark.parametrize("heard", [1, 2, 3])
def test_a_run_that_dies_in_the_midst_of_the_commit_leaves_hosts_that_agree(shop: App, tmp_path: Path, heard: int) -> None:
    """Fails when a host that has called the release good does not ask the others."""
    first, second = in_the_midst_of_the_commit(shop, tmp_path, shop.hosts[:heard], 10)
    come_to_an_end(shop)
    all_serve(shop, second if heard == len(shop.hosts) else first)
    for host in shop.hosts:
        assert shop.only_unit(host)
        assert audit(shop, host)[-1]["who"] == "the safety net"
    if heard < len(shop.hosts):
        assert "serves version 1.0.0" in audit(shop, shop.host)[-1]["why"]


def test_a_host_that_cannot_ask_the_others_waits_until_it_can(shop: App, tmp_path: Path) -> None:
    """Fails when no answer is taken for a yes."""
    one, *others = shop.hosts
    first, second = in_the_midst_of_the_commit(shop, tmp_path, [one], 10)
    port = shop.state(one)["way_back"]["peers"][others[0].name].rpartition(":")[2].partition("/")[0]
    with one.without("OUTPUT", "-p", "tcp", "--dport", port):
        shop.wait_until_disarmed(*others)
        time.sleep(15)
        assert shop.state(one)["way_back"]["good"]
        assert shop.live(one) == second
    come_to_an_end(shop)
    all_serve(shop, first)


def test_they_roll_back_in_batches(shop: App, balancer: Host) -> None:
    """Fails when a rollback does not take the locks of the hosts that wait: it has not been there before."""
    # Hosts that were left behind before have served other releases, and would go back to others.
    shop.deploy("1.0.0")
    shop.deploy("1.1.0")
    with under_load(shop, "rolling back, through the load balancer", host=balancer) as traffic:
        shop.roll_back()
    assert traffic.versions() == ["1.1.0", "1.0.0"]
    assert set(in_the_pool(shop, balancer).values()) == {"UP"}
    all_serve(shop, shop.live())
    assert shop.version() == "1.0.0"
