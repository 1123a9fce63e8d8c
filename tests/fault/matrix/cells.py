# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cells of the matrix: which there are, and what happens in one."""

from __future__ import annotations

import json
import random
import re
import signal
import time
import typing as t
from dataclasses import asdict, dataclass, field

from fault.matrix import judge
from fault.matrix.faults import FAULTS, Scene
from fault.matrix.points import Point, wait_for
from fault.matrix.traffic import Users
from fault.matrix.world import VERSIONS, FleetShop, Seen, signal_all

from lab.deployment import Running
from lab.shell import LabError

# A task that takes longer than this is met in its midst, too.
MOMENT = 0.5
# What a release does from here on was not there when it was verified.
WATCH = re.compile(r"[Ww]atch")
# Of the cells, those that really wait for the lease.
WAITS = {("SIGKILL", "Watch it"), ("pause", "Switch to the release (2)"), ("ssh", "Call it good")}


@dataclass(frozen=True)
class Cell:
    """One fault at one point.

    :param delay: Seconds into the point; 0 is at once.
    :param host: The number of the host that it happens to, from 1; 0 for none.
    """

    point: str
    fault: str
    host: int = 0
    delay: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.fault}{f' on {self.host}' if self.host else ''}, {self.point}{f' + {self.delay:g} s' if self.delay else ''}"

    @property
    def waits(self) -> bool:
        return any(self.fault == fault and self.point.endswith(point) and not self.delay for fault, point in WAITS)


@dataclass
class Result:
    """What came of a cell.

    :param met: What the run was at when the fault came.
    """

    cell: Cell
    setting: str
    held: bool = False
    why: t.List[str] = field(default_factory=list)
    notes: t.List[str] = field(default_factory=list)
    lost: t.Dict[str, int] = field(default_factory=dict)
    excused: t.Dict[str, int] = field(default_factory=dict)
    met: str = ""
    ended: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        return json.dumps({**asdict(self), "key": key(self.cell, self.setting)})

    def told(self) -> str:
        lost = ", ".join(f"{kind} {number}" for kind, number in sorted(self.lost.items())) or "0"
        verdict = "held" if self.held else "DID NOT HOLD: " + "; ".join(self.why)
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.cell.name}: {verdict}; the run ended {self.ended}; lost {lost}; {self.seconds:.0f} s{notes}"


def key(cell: Cell, setting: str) -> str:
    """What a cell is known by when a matrix is resumed: how far into a point is chance."""
    return f"{setting}|{cell.point}|{'midst' if cell.delay else 'begin'}|{cell.fault}|{cell.host}"


def undisturbed(shop: FleetShop) -> t.List[Point]:
    """The points of a deploy in which nothing happens, and which has nothing to configure: the one before has done that."""
    for _each in range(1 if shop.set_up() else 2):
        shop.deploy(other(shop.look()), f"{time.time_ns()}")
    return shop.points()


def cells(points: t.Sequence[Point], faults: t.Sequence[str], hosts: int, seed: int) -> t.List[Cell]:
    """Every fault at every point that goes to a host, at once and, where it takes longer than a moment, in the midst; on a host by chance."""
    going_out = [point for point in points if point.goes_out]
    watched = [number for number, point in enumerate(going_out) if WATCH.search(point.name)]
    found: t.List[Cell] = []
    for number, point in enumerate(going_out):
        for fault in faults:
            on = FAULTS[fault].on
            if on == "release" and watched and number > watched[-1]:
                continue
            for midst in (False, True) if point.seconds > MOMENT and on != "release" else (False,):
                # What is by chance about a cell depends on nothing but its name: a matrix that is resumed has the same cells as the one that was ended.
                choose = random.Random(f"{seed}|{point.name}|{fault}|{midst}")
                host = choose.randint(1, hosts) if on in ("host", "release") else 0
                found.append(Cell(point.name, fault, host, round(choose.uniform(0.2, 0.8) * point.seconds, 2) if midst else 0.0))
    return found


def run(shop: FleetShop, cell: Cell, setting: str) -> Result:
    """One cell: from a fleet that is well to the deploy after it."""
    result, began = Result(cell, setting), time.monotonic()
    try:
        _run(shop, cell, result)
    except (AssertionError, LabError) as error:
        result.why.append(str(error))
    result.held = not result.why
    result.seconds = round(time.monotonic() - began, 1)
    return result


def _run(shop: FleetShop, cell: Cell, result: Result) -> None:
    before = shop.look()
    old = {one.release: one.answer.version for one in before}
    assert len(old) == 1, f"not well to begin with: {old}"
    nonce = f"{time.time_ns()}"
    version = other(before)
    host = shop.apps[max(cell.host, 1) - 1]
    with Users(shop.fronts, f"order-{nonce}") as users:
        scene = Scene(shop, shop.start(version, nonce), host, nonce, cell.waits)
        running, result.notes = scene.running, scene.notes
        try:
            _break(scene, cell, result)
        except BaseException:
            # Whoever ends the matrix, or a fault that cannot be, must not leave a controller that goes on.
            signal_all(running, signal.SIGKILL)
            raise
        finally:
            (shop.directory / "faulted.log").write_text(running.output())
        shop.settle()
        shop.wait_until_one_slot_runs()
        after = shop.look()
        known = {name for one in before for name in one.found["manifests"]}
        new = {name for one in after for name in one.found["manifests"] if name not in known and name.startswith(f"{version}-")}
        result.why += judge.breaches(after, {**old, **dict.fromkeys(new, version)})
        if FAULTS[cell.fault].on == "release" and not scene.switched and running.process.returncode == 0:
            result.why.append("P3 the release was bad on a host before it had users there, and the run said that all is well")
        if running.process.returncode == 0 and not all(one.answer.version == version for one in after):
            result.why.append("P5 the run ended well, and not every host serves what it deployed")
        result.why += _next_deploy(shop, after)
    result.lost, result.excused, samples = users.lost(scene.windows)
    if result.lost:
        result.why.append(f"P2 lost {sum(result.lost.values())} of {users.sent} requests: {' / '.join(samples)}")
    result.why += _orders(shop, users)


def _break(scene: Scene, cell: Cell, result: Result) -> None:
    """Come to the point, break what is to be broken, and wait for the run's end."""
    running = scene.running
    reached = wait_for(scene.shop.project.points, cell.point, lambda: running.process.poll() is not None, 300)
    assert reached, f"the run did not come to this point: {_failure(running.output())}"
    result.met = _wait_into(scene.shop, running, cell)
    FAULTS[cell.fault].happen(scene)
    scene.wait_for_run()
    result.ended = str(running.process.returncode)


def _wait_into(shop: FleetShop, running: Running, cell: Cell) -> str:
    """Wait for the moment, but not beyond the point: it may be quicker than in the undisturbed run."""
    deadline = time.monotonic() + cell.delay
    while time.monotonic() < deadline and running.process.poll() is None and shop.points()[-1].name == cell.point:
        time.sleep(0.005)
    return "the end" if running.process.poll() is not None else shop.points()[-1].name


def _next_deploy(shop: FleetShop, before: t.Sequence[Seen]) -> t.List[str]:
    """It succeeds without help, and then all is as if nothing had been."""
    version = other(before)
    running = shop.start(version, f"{time.time_ns()}")
    played = running.wait(300)
    (shop.directory / "next.log").write_text(played.output)
    if not played.ok:
        return [f"the next deploy ended with {played.rc}: {_failure(played.output)}"]
    shop.wait_until_one_slot_runs()
    after = shop.look()
    wrong = judge.breaches(after, {one.release: version for one in after})
    wrong += [f"P2 the balancer says that {said}" for said in shop.out_of_balancer()]
    return [f"after the next deploy: {one}" for one in wrong]


def _failure(output: str) -> str:
    """The first thing that an output says went wrong."""
    found = re.search(r"^\[ERROR\].*|^fatal: .*(?:\n .*){0,6}", output, re.MULTILINE)
    return " ".join(found[0].split())[:600] if found else output[-600:]


def _orders(shop: FleetShop, users: Users) -> t.List[str]:
    kept = set(shop.fleet.server.sql(f"SELECT item FROM orders WHERE item LIKE '{users.orders.name}-%'", "shop").split())
    missing = [item for item in users.orders.acknowledged if item not in kept]
    if not users.orders.acknowledged:
        return ["P4 no order was acknowledged, so nothing was proven"]
    return [f"P4 {len(missing)} of {len(users.orders.acknowledged)} acknowledged orders are gone: {missing[:5]}"] if missing else []


def other(seen: t.Sequence[Seen]) -> str:
    """A version that is not the one that the first host serves."""
    return VERSIONS[1] if seen[0].answer.version == VERSIONS[0] else VERSIONS[0]
