# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix on the command line: ``PYTHONPATH=tests python3 -m fault.matrix --help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fault.matrix import cells, judge, table
from fault.matrix.faults import FAULTS
from fault.matrix.points import Point
from fault.matrix.world import FleetShop

from lab.deployment import REPOSITORY
from lab.fleet import down_fleet, up_fleet
from lab.shell import LabError, say

CACHE = REPOSITORY / ".cache" / "fault-matrix"


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(
        prog="fault.matrix", description="Break one thing at one point of a deploy, and see what the promises say."
    )
    top.add_argument("--strategy", choices=("rolling", "blue_green"), default="rolling", help="default: %(default)s")
    top.add_argument("--hosts", type=int, default=3, metavar="N", help="app hosts (default: %(default)s)")
    top.add_argument("--no-balancer", action="store_true", help="users ask each host")
    top.add_argument("--points", default="", metavar="REGEX", help="only points whose name has this")
    top.add_argument("--faults", default="", metavar="LIST", help=f"of {','.join(FAULTS)}")
    top.add_argument("--seed", type=int, help="of the hosts, the moments and the order (default: by chance, and printed)")
    top.add_argument("--limit", type=int, metavar="CELLS", help="that many cells, by chance")
    top.add_argument(
        "--start-timeout", type=int, default=20, metavar="SECONDS", help="that an app may take to start (default: %(default)s)"
    )
    top.add_argument(
        "--output", type=Path, default=CACHE / "results.jsonl", metavar="FILE", help="a line for each cell (default: %(default)s)"
    )
    top.add_argument(
        "--share",
        type=share,
        default=(1, 1),
        metavar="K/N",
        help="the Kth of N shares of the cells, on a fleet of its own: N of these run side by side",
    )
    top.add_argument("--resume", action="store_true", help="go on: take the fleet as it is, and leave out what the output has")
    top.add_argument("--list", action="store_true", help="only say which cells there are")
    top.add_argument("--table", action="store_true", help="only print the table of what the output has")
    top.add_argument("--keep", action="store_true", help="leave the fleet up")
    return top


def share(text: str) -> tuple[int, int]:
    """``2/3`` as two numbers."""
    found = re.fullmatch(r"([1-9])/([1-9])", text)
    if found is None or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text} is no share: write 1/2 and 2/2, for instance.")
    return int(found[1]), int(found[2])


def main(arguments: Sequence[str] | None = None) -> int:
    """A line for each cell as it ends, then the table; exit status 1 unless all held."""
    options = parser().parse_args(arguments)
    # What is broken is mended by whoever broke it, also when the matrix is ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))
    if options.table:
        print(table.markdown(table.read(options.output)))
        return 0
    balanced = not options.no_balancer
    faults = [name for name in options.faults.split(",") if name] or [name for name in FAULTS if balanced or name != "balancer"]
    unknown = [name for name in faults if name not in FAULTS]
    if unknown:
        sys.exit(f"Unknown: {', '.join(unknown)}; there are {', '.join(FAULTS)}.")
    if not balanced and "balancer" in faults:
        sys.exit("Without a balancer, none can be gone.")
    seed = random.randrange(10000) if options.seed is None else options.seed
    setting = f"{options.strategy}, {options.hosts} hosts{', balancer' if balanced else ''}"
    say(f"{setting}; --seed {seed}")
    prefix = "fleet" if options.share == (1, 1) else f"fleet{options.share[0]}"
    fleet = up_fleet(options.hosts, balancer=balanced, prefix=prefix, fresh=not options.resume)
    try:
        shop = FleetShop(CACHE / prefix, fleet, options.strategy, options.start_timeout)
        points = cells.undisturbed(shop)
        for point in points:
            say(f"{'point' if point.goes_out else '     '} {point.seconds:6.2f} s  {point.name}")
        chosen = choose(points, faults, options, seed)
        done = {one["key"] for one in table.read(options.output)} if options.resume else set()
        left = [cell for cell in chosen if cells.key(cell, setting) not in done]
        say(f"{len(chosen)} cells, {len(left)} to do")
        if options.list:
            print("\n".join(cell.name for cell in left))
            return 0
        played(shop, left, setting, options.output)
    finally:
        if not options.keep:
            down_fleet(prefix)
    keys = {cells.key(cell, setting) for cell in chosen}
    results = [one for one in table.read(options.output) if one["key"] in keys]
    print(table.markdown(results))
    return 0 if all(one["held"] for one in results) else 1


def choose(points: Sequence[Point], faults: Sequence[str], options: argparse.Namespace, seed: int) -> list[cells.Cell]:
    """The cells that were asked for; where only some were, in an order by chance."""
    found = cells.cells(points, faults, options.hosts, seed)
    found = [cell for cell in found if re.search(options.points, cell.point)]
    if options.limit is not None:
        random.Random(seed).shuffle(found)
        found = found[: options.limit]
    number, shares = options.share
    return found[number - 1 :: shares]


def played(shop: FleetShop, left: Sequence[cells.Cell], setting: str, output: Path) -> None:
    """Play the cells, each from a fleet that is well, and write down each as it ends."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(left, 1):
        result = cells.run(shop, cell, setting)
        with output.open("a") as stream:
            stream.write(result.line() + "\n")
        print(f"{number}/{len(left)} {result.told()}", flush=True)
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


if __name__ == "__main__":
    sys.exit(main())
