# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host goes down and comes up again, quiet or in the middle of a deploy."""

from __future__ import annotations

import signal


def killed_in_the_watch(shop):
    running = shop.start("deploy", app_version=shop.other)
    running.wait_for("Watch it")
    running.send(signal.SIGKILL)
    running.wait()
    assert shop.armed


def same(shop, before):
    """The same version in the same slot; the process is another one."""
    after = shop.serving()
    assert (after.version, after.slot) == (before.version, before.slot)
    shop.expect(before.version)


def test_a_quiet_host(shop):
    """Fails without the unit that serves after a boot: /run is empty then."""
    before = shop.serving()
    shop.host.run(["mkdir", f"{shop.root}/releases/.building-cut-short"])
    shop.host.reboot()
    same(shop, before)
    assert not shop.leftovers()
    assert not shop.host.failed_units()
    shop.deploy(shop.other)


def test_between_switch_and_commit(shop):
    """In order, with the controller still there: it fails and says so. Fails without the revert at boot."""
    before = shop.serving()
    running = shop.start("deploy", app_version=shop.other, app_watch=10)
    running.wait_for("Watch it")
    shop.host.reboot()
    same(shop, before)
    assert not running.wait().ok
    same(shop, before)
    shop.end_lease()
    shop.deploy(shop.other)


def test_power_cut_while_armed_and_back_after_the_lease(shop):
    """With the unit that serves after a boot masked, so that only the safety net can do it. Fails without WantedBy=timers.target."""
    before = shop.serving()
    killed_in_the_watch(shop)
    # What goes on of the dead run on the host would renew the lease once more.
    shop.settle_modules()
    shop.host.run(["systemctl", "disable", f"{shop.name}-live.service"])
    shop.systemctl("stop", f"{shop.name}-safety-net.timer")
    shop.end_lease()
    assert shop.armed
    shop.host.kill()
    shop.host.start()
    shop.wait_until_disarmed()
    same(shop, before)
    shop.host.run(["systemctl", "enable", f"{shop.name}-live.service"])
    shop.deploy(shop.other)
