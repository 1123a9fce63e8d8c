# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is broken. Each fault happens from its beginning to its end; afterwards the run has ended, or nobody waits for it any more."""

from __future__ import annotations

import contextlib
import signal
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field

from fault.leases import wait_for_modules
from fault.matrix.traffic import Window
from fault.matrix.world import SLACK, FleetShop, signal_all

from lab import Host
from lab.deployment import Running

SSH = ("INPUT", "-p", "tcp", "--dport", "22")
# A run that has not ended this long after its fault is over waits for something that will not come.
PATIENCE = 150.0
# From here on, a host that falls silent does what the others do when its lease is over, and whoever waits for it has until then to take them back: that time
# has to be real.
DECISION = "Call it good"
DATABASE_GONE = 20.0


@dataclass
class Scene:
    """A run under way, and what to break of it.

    :param waits: Let the lease pass by itself, in its own time.
    :param switched: The release had users, or may have had, when it became bad.
    """

    shop: FleetShop
    running: Running
    host: Host
    nonce: str
    waits: bool = False
    switched: bool = False
    windows: t.List[Window] = field(default_factory=list)
    notes: t.List[str] = field(default_factory=list)

    @contextlib.contextmanager
    def cuts_users_off(self, everywhere: bool = False) -> Iterator[None]:
        """Users lose requests while the block runs, and nobody is to blame; behind a balancer nobody knows which ones."""
        began = time.time()
        try:
            yield
        finally:
            self.excuse(began, everywhere)

    def excuse(self, began: float, everywhere: bool = False) -> None:
        self.windows.append(Window(began, time.time() + 1, "" if everywhere or self.shop.fleet.balancer else self.host.name))

    def wait_for_run(self, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while self.running.process.poll() is None:
            if time.monotonic() > deadline:
                self.notes.append(f"the controller had not ended {timeout:g} s after the fault, and was killed")
                signal_all(self.running, signal.SIGKILL)
                self.running.process.wait()
            time.sleep(0.05)

    def let_lease_pass(self) -> None:
        """The run waits for a host that is silent, for longer than its lease: what else there is goes back."""
        shop = self.shop
        shop.wait_until_quiet(self.running)
        if self.host.state == "running":
            # A phase that was cut off before it had its options waits for them for ever, and holds nothing.
            with contextlib.suppress(AssertionError):
                wait_for_modules(self.host, 15)
        if self.waits or DECISION in [point.name for point in shop.points()]:
            time.sleep(shop.lease)
        else:
            shop.pass_lease()
        shop.wait_until(lambda: not any(shop.on_all(shop.goes_back_alone)), SLACK, "the hosts that can be seen have gone back")


def _signal(number: signal.Signals) -> t.Callable[[Scene], None]:
    def happen(scene: Scene) -> None:
        signal_all(scene.running, number)
        scene.wait_for_run(60)

    return happen


def ssh(scene: Scene) -> None:
    """The connection from the controller is cut, and nothing else."""
    with scene.host.without(*SSH):
        scene.let_lease_pass()


def cut(scene: Scene) -> None:
    """The host is cut off from everybody: controller, users, database."""
    with scene.cuts_users_off():
        with scene.host.isolated():
            scene.let_lease_pass()
        scene.shop.wait_until_answers(scene.host)


def pause(scene: Scene) -> None:
    """Frozen for longer than the lease."""
    with scene.cuts_users_off():
        with scene.host.paused():
            scene.let_lease_pass()
        scene.shop.wait_until_answers(scene.host)


def reboot(scene: Scene) -> None:
    with scene.cuts_users_off():
        scene.host.reboot()
        scene.shop.wait_until_answers(scene.host)


def power(scene: Scene) -> None:
    """The power is cut, and comes back."""
    with scene.cuts_users_off():
        scene.host.kill()
        scene.host.start()
        scene.shop.wait_until_answers(scene.host)


def disk(scene: Scene) -> None:
    with scene.host.full_disk("/opt"):
        scene.wait_for_run()


def _trouble(kind: str) -> t.Callable[[Scene], None]:
    def happen(scene: Scene) -> None:
        path = scene.shop.trouble(scene.nonce)
        began = time.time()
        scene.host.write(path, kind)
        scene.switched = scene.shop.armed(scene.host)
        try:
            scene.wait_for_run()
        finally:
            scene.host.run(["rm", "-f", path])
        scene.shop.wait_until_answers(scene.host)
        # Before it has users, a bad release harms nobody.
        if scene.switched:
            scene.excuse(began)

    return happen


def balancer(scene: Scene) -> None:
    """The load balancer loses its power, until the run has ended or waits."""
    gone = scene.shop.fleet.balancer
    assert gone is not None
    with scene.cuts_users_off(everywhere=True):
        gone.kill()
        try:
            scene.shop.wait_until_quiet(scene.running)
        finally:
            gone.start()


def database(scene: Scene) -> None:
    """The database server is stopped, and started again 20 s later. Behind a balancer, which asks for the app's health, that takes every host out."""
    with scene.cuts_users_off(everywhere=True) if scene.shop.fleet.balancer else contextlib.nullcontext():
        scene.shop.fleet.server.stop()
        try:
            time.sleep(DATABASE_GONE)
        finally:
            scene.shop.fleet.server.start()


@dataclass(frozen=True)
class Fault:
    """:param on: The ``controller``, one ``host``, the new ``release`` on one host, or the ``fleet``."""

    on: str
    happen: t.Callable[[Scene], None]


FAULTS: t.Mapping[str, Fault] = {
    "SIGINT": Fault("controller", _signal(signal.SIGINT)),
    "SIGTERM": Fault("controller", _signal(signal.SIGTERM)),
    "SIGKILL": Fault("controller", _signal(signal.SIGKILL)),
    "ssh": Fault("host", ssh),
    "cut": Fault("host", cut),
    "pause": Fault("host", pause),
    "reboot": Fault("host", reboot),
    "power": Fault("host", power),
    "disk": Fault("host", disk),
    "crash-loop": Fault("release", _trouble("crash-loop")),
    "old-version": Fault("release", _trouble("old-version")),
    "third-500": Fault("release", _trouble("third-500")),
    "balancer": Fault("fleet", balancer),
    "database": Fault("fleet", database),
}
