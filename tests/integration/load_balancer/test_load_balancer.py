# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real load balancers: out and in without a lost request, back without a controller, refused without a change."""

from __future__ import annotations

import http.client
import threading
import time
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager

from integration.load_balancer.conftest import DOORS, Site

from lab.load import Running

ROLE = "bulletproof.deploy.load_balancer"
# A line that changes the file and nothing else.
EXTRA = {"nginx": ["proxy_intercept_errors off;"], "haproxy": ["http-request set-var(txn.nothing) str(x)"]}


def play(site: Site, *entries: str) -> list[dict[str, t.Any]]:
    """A play for the app's hosts, as a deploy has it: what goes wrong there is rescued, and told."""
    tasks: list[dict[str, t.Any]] = [
        {"import_role": {"name": "bulletproof.deploy.app", "rolespec_validate": False}, "vars": {"__app_optional": ["app_version"]}},
        {
            "block": [{"include_role": {"name": ROLE, "tasks_from": entry}} for entry in entries],
            "rescue": [{"debug": {"msg": "RESCUED {{ inventory_hostname }}: {{ ansible_failed_result.msg }}"}}],
        },
        {"debug": {"msg": "GOES ON {{ inventory_hostname }} {{ load_balancer_findings | default([]) | map(attribute='subject') | list }}"}},
    ]
    return [{"hosts": "app", "gather_facts": False, "become": True, "tasks": tasks}]


def test_out_and_in_under_load_loses_nothing(site: Site) -> None:
    with Running(site.url, rate=60, timeout=20) as running:
        out = site.member("web1", "drained", timeout=20)
        gone = time.time()
        site.until(lambda: len([one for one in running.outcomes() if one.due > gone]) >= 100)
        again = site.member("web1", "drained", timeout=20)
        while_out = [one for one in running.outcomes() if one.due > gone]
        back = site.member("web1", "ready", timeout=20)
        site.until(lambda: "web1" in {one.version for one in running.outcomes()[-30:]})
    assert out["changed"] and not out["stayed"] and out["in_flight"] == 0
    assert not again["changed"]
    assert {one.version for one in while_out} == {"web2"}
    assert back["changed"] and site.out() == {}
    assert running.report["lost"] == 0, running.report["losses"]
    assert set(running.report["versions"]) == {"web1", "web2"}


@contextmanager
def patient_client(site: Site) -> Iterator[list[str]]:
    """Somebody with one open connection, idle most of the time, who closes it only when told to; what was lost."""
    lost: list[str] = []
    over = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(site.balancer.address, DOORS[site.kind], timeout=20)
        while not over.wait(0.2):
            try:
                # With the answer's own word, the library opens another one for the next request.
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))
                connection.close()
        connection.close()

    client = threading.Thread(target=ask)
    client.start()
    try:
        yield lost
    finally:
        over.set()
        client.join()


def test_nobody_is_cut_off_in_an_idle_connection(site: Site) -> None:
    """By a drain, on the way back, and when the pool itself changes."""
    with patient_client(site) as lost:
        site.member("web1", "drained", timeout=20)
        site.member("web1", "ready", timeout=20)
        site.inventory(app_health_status=[200, 204], load_balancer_extra=EXTRA[site.kind])
        site.provision()
        site.inventory()
        site.provision()
    assert lost == []


def test_the_requests_that_it_has_are_waited_for(site: Site) -> None:
    """Three slow requests, two of them or one at the member: it is out only when they are done."""
    # Longer than a busy machine needs to start the module.
    site.apps.run(["sh", "-c", f"for n in 1 2 3 4; do curl -s -o /dev/null '{site.url}?seconds=10' > /dev/null 2>&1 & done; sleep 1"])
    patient = site.member("web1", "drained", timeout=20)
    assert patient["in_flight"] == 0 and patient["waited"] > 0
    site.member("web1", "ready")
    hurried_requests = f"for n in 1 2 3 4; do setsid curl -s -o /dev/null '{site.url}?seconds=15' > /dev/null 2>&1 & done; sleep 1"
    site.apps.run(["sh", "-c", hurried_requests])
    hurried = site.member("web1", "drained", timeout=0.5)
    assert hurried["in_flight"] > 0
    assert "had not ended" in " ".join(hurried["said"].split())
    site.member("web1", "ready")


def test_the_lease_of_a_dead_controller_also_over_a_restart(site: Site) -> None:
    site.member("web1", "drained", lease=1, timeout=1)
    site.until(lambda: site.out() == {} and site.answering() == {"web1", "web2"})
    # The server does not answer: it is not put back, but asked until it does. The timer is what asks, also after a restart.
    site.member("web1", "drained", lease=1, timeout=1)
    site.server("web1", running=False)
    try:
        site.balancer.reboot()
        site.until(
            lambda: "it stays out" in site.balancer.run(["journalctl", "--boot", "--unit", f"bulletproof-balancer@{site.app}"]).stdout
        )
        assert set(site.out()) == {"web1"} and site.answering() == {"web2"}
    finally:
        site.server("web1", running=True)
    site.until(lambda: site.out() == {} and site.answering() == {"web1", "web2"})
    timer = ["systemctl", "is-active", f"bulletproof-balancer@{site.app}.timer"]
    site.until(lambda: site.balancer.run(timer, check=False).stdout.strip() == "inactive")


def test_who_is_held_stays_out_until_somebody_says_ready(site: Site) -> None:
    assert site.member("web2", "held")["changed"]
    drained = site.member("web2", "drained", lease=1)
    assert not drained["changed"] and site.out()["web2"]["state"] == "held"
    # Another pool is no reason to come back.
    site.inventory(load_balancer_drain_timeout=20, app_health_status=[200, 204])
    site.provision()
    assert site.answering() == {"web1"}
    last = site.member("web1", "drained", timeout=5)
    assert last["stayed"] and not last["changed"] and last["state"] == "ready"
    assert site.answering() == {"web1"}
    site.inventory()
    site.provision()
    assert site.member("web2", "ready")["changed"]
    assert site.answering() == {"web1", "web2"}


def test_who_is_not_well_is_not_put_back(site: Site) -> None:
    site.member("web1", "drained", timeout=5)
    site.server("web1", running=False)
    try:
        site.module.refused("load_balancer_member", "web1 is not well", app=site.app, member="web1", state="ready", timeout=1)
        assert site.answering() == {"web2"}
    finally:
        site.server("web1", running=True)
    site.member("web1", "ready")


def test_a_check_shows_and_changes_nothing(site: Site) -> None:
    result = site.module("load_balancer_member", "--check", "--diff", app=site.app, member="web1", state="drained")
    assert result["changed"] and "drained until" in result["said"]
    assert site.out() == {}
    assert "changed=0" in site.provision() and "changed=0" in site.provision("--check")


def test_what_the_program_does_not_accept_changes_nothing(site: Site) -> None:
    path = {"nginx": f"/etc/nginx/conf.d/balancer_{site.app}.conf", "haproxy": f"/etc/haproxy/conf.d/{site.app}.cfg"}[site.kind]
    before = site.balancer.read(path)
    site.inventory(load_balancer_extra=["nonesuch on;"])
    done = site.play("bulletproof.deploy.load_balancer")
    site.inventory()
    assert done.returncode != 0 and "nonesuch" in done.stdout and path in done.stdout and "Nothing was changed" in done.stdout
    assert site.balancer.read(path) == before
    assert site.answering() == {"web1", "web2"}


def test_what_differs_from_the_inventory_is_found(site: Site) -> None:
    site.inventory(members=["web1", "web3"], app_health_path="/other")
    done = site.play(play(site, "check"))
    site.inventory()
    assert done.returncode == 0, done.stdout
    told = next(line for line in done.stdout.splitlines() if "GOES ON web1" in line)
    name = f"load balancer {site.balancer.name}"
    assert f"{name}, web2" in told and f"{name}, web3" in told, told
    if site.kind == "haproxy":
        assert f"{name}, health check of {site.app}" in told
    assert "GOES ON web3 []" in done.stdout
    assert "GOES ON web1 []" in site.play(play(site, "check")).stdout


def test_a_load_balancer_that_is_gone_is_its_own_fault(site: Site) -> None:
    """The host's own task fails and can be rescued; the host stays in the play, and comes back when asked."""
    site.inventory(balancers=["gone"])
    done = site.play(play(site, "drain"), "--limit", "web1")
    found = site.play(play(site, "check"), "--limit", "web1")
    site.inventory()
    assert done.returncode == 0 and "RESCUED web1: web1 is not drained" in done.stdout, done.stdout
    assert "The load balancer gone does not answer" in done.stdout and "GOES ON web1" in done.stdout
    assert "'load balancer gone'" in found.stdout, found.stdout
    assert set(site.out()) == {"web1"}
    assert site.play(play(site, "undrain"), "--limit", "web1").returncode == 0
    assert site.out() == {} and site.answering() == {"web1", "web2"}
