# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller gets a signal, or loses the connection, in any phase: the host serves the old release, or the committed new one."""

from __future__ import annotations

import itertools
import random
import signal
import time

from fault.world import SLACK

from lab import load

# Where in a deploy: the task that has just begun, and seconds into it.
MOMENTS = {
    "before stage": ("Look before anything is touched", 0),
    "during stage": ("Stage the release", 0.5),
    "during switch": ("Switch to the release", 0.5),
    "in the watch window": ("Watch it", 0.5),
    "during commit": ("Commit]", 0.2),
}
CASES = list(itertools.product([signal.SIGINT, signal.SIGTERM, signal.SIGKILL], MOMENTS))


def sample(config):
    """Four cases that have each signal, and the three moments that matter most, in them."""
    if config.option.matrix:
        return CASES
    choose = random.Random(config.option.fault_seed)
    signals = [signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
    choose.shuffle(signals)
    moments = choose.sample(list(MOMENTS), 4)
    return list(zip(signals, moments))


def pytest_generate_tests(metafunc):
    if "number" in metafunc.fixturenames:
        cases = sample(metafunc.config)
        metafunc.parametrize("number,moment", cases, ids=[f"{number.name} {moment}" for number, moment in cases])


def test_a_signal(shop, number, moment):
    """Fails without the safety net's timer (the new release serves on, never committed), and without the lease (the next deploy is refused for ever)."""
    before, version = shop.serving(), shop.other
    with load.Running(f"http://{shop.host.address}/", rate=20, host_header="shop.example.com") as running:
        deploy = shop.start("deploy", app_version=version, app_environment=shop.fresh())
        task, seconds = MOMENTS[moment]
        deploy.wait_for(task)
        time.sleep(seconds)
        deploy.send(number)
        assert not deploy.wait().ok
        shop.settle()
        after = shop.serving()
    assert running.report["lost"] == 0, running.report
    assert after == before or (moment == "during commit" and after.version == version)
    shop.expect(after.version)
    shop.deploy(shop.other)


def test_the_lease_is_waited_for_when_nobody_helps(shop):
    """Fails without the safety net's timer."""
    before, version = shop.serving(), shop.other
    deploy = shop.start("deploy", app_version=version)
    deploy.wait_for("Watch it")
    deploy.send(signal.SIGKILL)
    deploy.wait()
    assert shop.serving().version == version, "it was killed too early"
    assert shop.wait_until_disarmed(shop.declaration["app_lease"] + SLACK) > 10
    assert shop.serving() == before
    shop.expect(before.version)
    shop.deploy(version)
