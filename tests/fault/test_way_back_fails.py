# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The revert itself fails for a while: it is tried again until it succeeds."""

from __future__ import annotations

import contextlib
import signal
import time


@contextlib.contextmanager
def read_only(shop, path):
    shop.host.run(["mount", "--bind", path, path])
    shop.host.run(["mount", "-o", "remount,bind,ro", path])
    try:
        yield
    finally:
        shop.host.run(["umount", path])


def test_the_timer_tries_again(shop):
    """Fails without Restart=on-failure and the timer's repetition, or when a failed revert disarms."""
    before = shop.serving()
    running = shop.start("deploy", app_version=shop.other)
    running.wait_for("Watch it")
    # The watch has to have begun: it renews the lease, which is ended below.
    time.sleep(1.5)
    running.send(signal.SIGKILL)
    running.wait()
    shop.settle_modules()
    with read_only(shop, f"/run/{shop.name}"):
        shop.end_lease()
        shop.wait_until(
            lambda: any(line["phase"] == "revert" and line["result"] == "failed" for line in shop.audit()), 20, "a revert failed"
        )
        assert shop.armed
    shop.wait_until_disarmed()
    assert shop.serving() == before
    shop.expect(before.version)
    shop.deploy(shop.other)


def test_the_run_cannot_go_back_and_the_timer_does(shop):
    """The switch fails, and so does its revert: told both, and what to do. Fails without as_failure around the way back."""
    before, bad = shop.serving(), "1.2.0-always-500"
    running = shop.start("deploy", app_version=bad, app_environment=shop.fresh())
    running.wait_for("Switch to the release")
    shop.wait_until(lambda: shop.armed, 20, "the switch began")
    time.sleep(2)
    # Where the release is to be marked bad. The live socket still leads to what served, so that nothing is written there.
    with read_only(shop, f"{shop.root}/releases"):
        played = running.wait()
        assert not played.ok
        for text in ("500", "Going back failed as well", "Read-only file system", "journalctl -u"):
            assert text in played.output, played.output
    shop.end_lease()
    shop.wait_until_disarmed()
    assert shop.serving() == before
    shop.expect(before.version)
    shop.deploy(shop.other)
