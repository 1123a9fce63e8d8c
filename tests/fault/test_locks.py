# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that meet: one at a time, told whose it is, never freed by another."""

from __future__ import annotations

import signal


def phases(shop, runs):
    """(run, phase) in the order of the audit log."""
    return [(line["run"], line["phase"]) for line in shop.audit() if line["run"] in runs and line["result"] == "ok"]


def since(shop, count):
    """The runs that the audit log tells of after its first lines."""
    return list(dict.fromkeys(line["run"] for line in shop.audit()[count:]))


def test_a_lock_that_is_held(shop):
    """Refused, with all that a person needs; then with app_lock_wait it waits for its turn. Fails without the lock."""
    count, first, second = len(shop.audit()), shop.other, shop.serving().version
    running = shop.start("deploy", app_version=first, app_environment=shop.fresh(), app_reason="the big day")
    running.wait_for("Switch to the release")
    refused = shop.play("deploy", app_version="2.0.0")
    lock = shop.json("lock")
    assert not refused.ok
    for text in (
        lock["owner"],
        lock["run"],
        "the big day",
        "its lease ends in",
        "app_lock_wait",
        f"app_unlock_run={lock['run']}",
        "Nothing was touched",
    ):
        assert text in refused.output, refused.output
    assert running.wait().ok, running.output()
    shop.expect(first)
    assert since(shop, count) == [lock["run"]], "the one that was refused has left something behind"

    one = shop.start("deploy", app_version=second)
    one.wait_for("Stage the release")
    two = shop.start("deploy", app_version="2.0.0", app_lock_wait=60)
    assert one.wait().ok, one.output()
    assert two.wait().ok, two.output()
    shop.expect("2.0.0")
    order = phases(shop, since(shop, count))
    assert [phase for _run, phase in order] == ["stage", "switch", "watch", "commit"] * 3, order
    shop.deploy("1.0.0")


def test_two_at_once(shop):
    """One wins and the other is refused, or one comes after the other; never anything between. Fails without the lock."""
    count, versions = len(shop.audit()), {shop.other, "2.0.0"}
    runs = [shop.start("deploy", app_version=version, app_environment=shop.fresh()) for version in sorted(versions)]
    played = [running.wait() for running in runs]
    winners = [version for version, one in zip(sorted(versions), played) if one.ok]
    assert winners, [one.output for one in played]
    assert shop.serving().version in winners
    order = phases(shop, since(shop, count))
    assert [phase for _run, phase in order] == ["stage", "switch", "watch", "commit"] * len(winners), order
    for one in played:
        assert one.ok or ("eploy" in one.output and "lease ends in" in one.output), one.output
    shop.expect(shop.serving().version)


def test_a_run_that_died_is_taken_over_and_undone(shop):
    """The safety net is stopped, so that only the next run can go back. Fails without settle()."""
    before = shop.serving()
    running = shop.start("deploy", app_version=shop.other)
    running.wait_for("Watch it")
    running.send(signal.SIGKILL)
    running.wait()
    shop.systemctl("stop", f"{shop.name}-safety-net.timer", f"{shop.name}-safety-net.service")
    dead = shop.json("lock")["run"]
    shop.settle_modules()
    assert shop.armed
    shop.end_lease()
    shop.deploy("2.0.0")
    undone = next(line for line in reversed(shop.audit()) if line["phase"] == "revert")
    assert undone["run"] == dead
    assert "took over" in undone["why"]
    assert undone["release"].startswith(f"{before.version}-")


def test_a_person_frees_a_lock(shop):
    """Only with the name of the run, which is told. Fails without the comparison of the names."""
    running = shop.start("deploy", app_version=shop.other, app_environment=shop.fresh())
    running.wait_for("Stage the release")
    shop.wait_until(lambda: bool(shop.json("lock")), 20, "the run holds the lock")
    running.send(signal.SIGKILL)
    running.wait()
    shop.settle_modules()
    lock = shop.json("lock")
    shop.refused(lock["owner"], lock["run"], f"app_unlock_run={lock['run']}", playbook="unlock")
    shop.refused("The lock is not that of run", lock["run"], playbook="unlock", app_unlock_run="20000101T000000-abcdef")
    assert shop.json("lock") == lock
    shop.must("unlock", app_unlock_run=lock["run"])
    assert not shop.json("lock")
    shop.deploy(shop.other)
