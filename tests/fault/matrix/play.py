# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix is played: on several fleets side by side, each of which takes the next cell until none is left."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import re
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from fault.matrix import cells, judge
from fault.matrix.points import Point
from fault.matrix.world import FleetShop

from lab.shell import LabError, say


def undisturbed(shops: Sequence[FleetShop]) -> list[Point]:
    """The points of a deploy, as long as they take when all fleets are at work."""
    with ThreadPoolExecutor(len(shops)) as pool:
        points, *_as_on_the_first = pool.map(cells.undisturbed, shops)
    return points


def side_by_side(shops: Sequence[FleetShop], left: Sequence[cells.Cell], setting: str, output: Path) -> None:
    """Play the cells, each on the fleet that is free next; all of them, or what can still be played when a fleet cannot be made well.

    :raises SystemExit: Not all of them were played.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    # Processes: one that is ended in the midst of a cell mends what it has broken. Forked, because that comes from the handler of signals that they inherit.
    context = multiprocessing.get_context("fork")
    turn = context.Value("i", 0)
    players = [context.Process(target=_play, args=(shop, left, setting, output, turn)) for shop in shops]
    try:
        for player in players:
            player.start()
        for player in players:
            player.join()
    finally:
        for player in players:
            if player.is_alive():
                player.terminate()
                player.join()
    if any(player.exitcode for player in players):
        sys.exit("A fleet could not go on. What is left is played with --resume.")


def _play(shop: FleetShop, left: Sequence[cells.Cell], setting: str, output: Path, turn: Synchronized[int]) -> None:
    """Play cells, each from a fleet that is well, and write down each as it ends."""
    while True:
        with turn:
            number, turn.value = turn.value, turn.value + 1
        if number >= len(left):
            return
        cell = left[number]
        result = cells.run(shop, cell, setting)
        with output.open("a") as stream:
            stream.write(result.line() + "\n")
        print(f"{number + 1}/{len(left)} {result.told()}", flush=True)
        if not result.held:
            keep_evidence(shop, cell, output.parent / "evidence")
        make_well(shop)


def keep_evidence(shop: FleetShop, cell: cells.Cell, directory: Path) -> None:
    """What the runs said, and what each host has written down."""
    place = directory / re.sub(r"[^A-Za-z0-9.]+", "-", f"{time.strftime('%H%M%S')} {cell.name}")
    place.mkdir(parents=True)
    for name in ("faulted.log", "next.log", "points.jsonl"):
        if (shop.directory / name).exists():
            shutil.copy(shop.directory / name, place / name)
    for host in shop.apps:
        with contextlib.suppress(LabError):
            (place / f"{host.name}.audit").write_text(shop.audit(host))
    with contextlib.suppress(LabError):
        (place / "fleet.json").write_text(json.dumps([one.found for one in shop.look()], indent=1))
    say(f"evidence: {place}")


def make_well(shop: FleetShop) -> None:
    """The next cell begins with a fleet that is well; what the cell before has left must not be taken for its doing."""
    for log in shop.directory.glob("deploy-*.log"):
        log.unlink()
    seen = shop.look()
    if judge.breaches(seen, {one.release: one.answer.version for one in seen}):
        shop.settle()
        shop.deploy(cells.other(shop.look()), str(time.time_ns()))
