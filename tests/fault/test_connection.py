# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Between controller and host: the connection is cut, or the module is killed on the host."""

from __future__ import annotations

import contextlib

from fault.world import LONGEST_WATCH, PHASE

CUT = ["INPUT", "-p", "tcp", "--dport", "22", "-j", "DROP"]


def test_the_connection_is_cut_until_the_lease_has_ended(shop):
    """The host goes back; the controller, connected again, finds that out and fails. Fails without the commit's look at whose trial it is."""
    before = shop.serving()
    running = shop.start("deploy", app_version=shop.other, app_watch=LONGEST_WATCH)
    running.wait_for("Watch it")
    shop.wait_until_at_work()
    shop.host.run(["iptables", "-I", *CUT])
    try:
        shop.settle_modules()
        shop.end_lease()
        shop.wait_until_disarmed()
        assert shop.serving() == before
    finally:
        shop.host.run(["iptables", "-D", *CUT])
    played = running.wait()
    assert not played.ok, played.output
    assert "gone back" in played.output or "UNREACHABLE" in played.output, played.output
    assert shop.serving() == before
    shop.expect(before.version)
    shop.end_lease()
    shop.deploy(shop.other)


def test_a_connection_that_openssh_kept_and_that_leads_nowhere(shop):
    """The network was cut and is well again, but what an earlier run has left of its connections does not know yet. Fails when the next run relies on it."""
    shop.deploy(shop.other)
    kept = shop.host.run(["ss", "--no-header", "--tcp", "--numeric", "state", "established", "sport = :22"]).stdout
    ports = {line.split()[-1].rpartition(":")[2] for line in kept.splitlines()}
    assert ports, "OpenSSH keeps no connection: this proves nothing"
    with contextlib.ExitStack() as dead:
        for port in ports:
            dead.enter_context(shop.host.without("INPUT", "-p", "tcp", "--sport", port))
        shop.deploy(shop.other)


def test_the_module_is_killed_on_the_host(shop):
    """SIGKILL to the module in the middle of the switch. Fails without the rescue's revert."""
    before = shop.serving()
    running = shop.start("deploy", app_version="1.2.0-slow-start", app_environment=shop.fresh())
    running.wait_for("Switch to the release")
    shop.wait_until(lambda: shop.armed, 20, "the switch began")
    shop.host.run(["pkill", "-KILL", "--full", PHASE])
    played = running.wait()
    assert not played.ok, played.output
    assert played.ended()[shop.host.name][1].startswith(f"{before.version}-")
    assert shop.serving() == before
    shop.expect(before.version)
    with contextlib.suppress(AssertionError):
        shop.wait_until_disarmed(1)
    shop.deploy(shop.other)
