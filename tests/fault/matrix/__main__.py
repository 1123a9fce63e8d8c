# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The matrix on the command line: ``PYTHONPATH=tests python3 -m fault.matrix --help``."""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fault.matrix import cells, play, table
from fault.matrix.faults import FAULTS
from fault.matrix.points import Point
from fault.matrix.world import FleetShop

from lab.deployment import REPOSITORY
from lab.fleet import down_fleet, up_fleet
from lab.shell import say

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
        "--fleets",
        type=int,
        choices=range(1, 9),
        default=1,
        metavar="N",
        help="that many fleets side by side, each of which takes the next cell (default: %(default)s)",
    )
    top.add_argument("--resume", action="store_true", help="go on: take the fleet as it is, and leave out what the output has")
    top.add_argument("--list", action="store_true", help="only say which cells there are")
    top.add_argument("--table", action="store_true", help="only print the table of what the output has")
    top.add_argument("--keep", action="store_true", help="leave the fleet up")
    return top


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
    prefixes = ["fleet", *(f"fleet{number}" for number in range(2, options.fleets + 1))]
    try:
        shops = []
        for prefix in prefixes:
            fleet = up_fleet(options.hosts, balancer=balanced, prefix=prefix, fresh=not options.resume)
            shops.append(FleetShop(CACHE / prefix, fleet, options.strategy, options.start_timeout))
        points = play.undisturbed(shops)
        for point in points:
            say(f"{'point' if point.goes_out else '     '} {point.seconds:6.2f} s  {point.name}")
        chosen = choose(points, faults, options, seed)
        done = {one["key"] for one in table.read(options.output)} if options.resume else set()
        left = [cell for cell in chosen if cells.key(cell, setting) not in done]
        say(f"{len(chosen)} cells, {len(left)} to do")
        if options.list:
            print("\n".join(cell.name for cell in left))
            return 0
        play.side_by_side(shops, left, setting, options.output)
    finally:
        if not options.keep:
            for prefix in prefixes:
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
    return found


if __name__ == "__main__":
    sys.exit(main())
