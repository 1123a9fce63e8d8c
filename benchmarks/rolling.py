# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploys to fleets of several sizes on lab hosts: how long, how long each batch, how far the flips are apart, and what users lose.

``make bench-rolling`` runs it. Each size is deployed to once without users, which is what is timed, and at the end once with users on every host,
200 requests per second together. The lab's hosts share the machine's cores, so the work that all hosts do at once takes longer the more there are;
the load average is told, because a machine that has other things to do measures those.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "examples"), str(HERE)]

from bench import make_versions, must_serve, told_by  # noqa: E402
from contenders import PLACE, CannotMeasure, Command, Ours  # noqa: E402
from report import spread, table  # noqa: E402

import lab  # noqa: E402
from lab import access  # noqa: E402
from lab.hosts import Host  # noqa: E402
from lab.load import Running as Load  # noqa: E402

RATE = 200.0
STRATEGIES = ("rolling", "blue_green")
BATCHES: Sequence[int | str] = (1, "100%")
# On so many hosts the settings are compared.
COMPARED = 4
REMOTE = re.compile(r"^<([^>]+)> SSH: EXEC ", re.MULTILINE)


@dataclass
class Deployed:
    """One deploy to a fleet."""

    strategy: str
    hosts: int
    settings: str
    seconds: float
    staging: float
    """From the first host's start of staging to the last one's end."""
    batches: list[float]
    """From the first start of a switch in a batch to that of the next, or to the commit."""
    flips: float
    """Between the first host's flip and the last one's."""
    load: float
    """The machine's load average when it began."""


@dataclass
class Under:
    """One deploy to a fleet with users on every host."""

    strategy: str
    hosts: int
    sent: int
    lost: int
    longest_gap: float
    remote: dict[str, int]
    """Commands over SSH, by host."""


@dataclass
class Figures:
    deployed: list[Deployed] = field(default_factory=list)
    under: list[Under] = field(default_factory=list)


class Fleet(Ours):
    """The shop on as many hosts as there are, by one strategy."""

    def __init__(self, repository: Path, strategy: str) -> None:
        super().__init__(repository)
        self.strategy = strategy
        self.declaration.update(app_strategy=strategy, app_watch=1)
        if strategy == "rolling":
            self.declaration.update(app_batches=list(BATCHES), app_batch_watch=1)

    def deploy(self, hosts: Sequence[Host], version: str, *arguments: str) -> Command:
        return self._play(hosts, "deploy", "-e", f"app_version={version}", *arguments)


class Bench:
    """The hosts, and what was measured so far."""

    def __init__(self, most: int, figures: Figures) -> None:
        PLACE.mkdir(parents=True, exist_ok=True)
        self.hosts = lab.up([f"bench-{number}" for number in range(1, most + 1)])
        self.repository = PLACE / "fleet-shop"
        shutil.rmtree(self.repository, ignore_errors=True)
        self.versions = iter(make_versions(self.repository))
        self.figures = figures
        # All of them at once, and the first release on each.
        fleet = self.fleet("blue_green")
        fleet.provision(self.hosts)
        fleet.deploy(self.hosts, next(self.versions)).run()

    def fleet(self, strategy: str) -> Fleet:
        return Fleet(self.repository, strategy)

    def time(self, strategy: str, count: int, settings: str = "", *arguments: str) -> None:
        """A code change, timed as a whole process that opens its own connections."""
        hosts, fleet, version = self.hosts[:count], self.fleet(strategy), next(self.versions)
        for host in self.hosts:
            access.forget_connection(host.name)
        load = os.getloadavg()[0]
        began = time.monotonic()
        tasks = told_by(fleet.deploy(hosts, version, *arguments))
        seconds = time.monotonic() - began
        # Nobody is quick by not having done it.
        for host in hosts:
            must_serve(fleet, host, version)
        flips = [flipped(host, fleet.app) for host in hosts]
        one = Deployed(strategy, count, settings, seconds, staging(tasks), batches(tasks, count, strategy), max(flips) - min(flips), load)
        self.figures.deployed.append(one)
        each = ", ".join(f"{batch:.1f}" for batch in one.batches)
        print(
            f"  {strategy:10} {count} hosts {settings:24}{seconds:6.2f} s, staging {one.staging:.2f} s, batches {each} s, "
            f"flips {one.flips * 1000:.0f} ms apart, load {load:.1f}",
            file=sys.stderr,
            flush=True,
        )

    def with_users(self, strategy: str, count: int) -> None:
        """A code change with users on every host; and what goes to the hosts for it."""
        hosts, fleet, version = self.hosts[:count], self.fleet(strategy), next(self.versions)
        with contextlib.ExitStack() as stack:
            users = [stack.enter_context(Load(fleet.url(host), rate=RATE / count)) for host in hosts]
            said = fleet.deploy(hosts, version, "-vvv").run()
            time.sleep(0.5)
        for host in hosts:
            must_serve(fleet, host, version)
        addresses = REMOTE.findall(said)
        remote = {host.name: addresses.count(host.address) for host in hosts}
        sent, lost = (sum(one.report[what] for one in users) for what in ("sent", "lost"))
        gap = max(one.report["longest_gap"] for one in users)
        self.figures.under.append(Under(strategy, count, sent, lost, gap, remote))
        print(
            f"  {strategy:10} {count} hosts, users: {lost} of {sent} lost, longest gap {gap:.3f} s, {remote}", file=sys.stderr, flush=True
        )


def flipped(host: Host, app: str) -> float:
    """When users of a host went to the release that it serves now: the live link is made anew by each flip. The lab's hosts share one clock."""
    return float(host.run(["stat", "--format", "%.9Y", f"/run/{app}/live.sock"]).stdout)


def of_module(tasks: Sequence[Mapping[str, t.Any]], name: str) -> list[Mapping[str, t.Any]]:
    return [task for task in tasks if str(task["action"]).endswith(f".{name}")]


def staging(tasks: Sequence[Mapping[str, t.Any]]) -> float:
    staged = of_module(tasks, "release_stage")
    return float(max(task["began"] + task["seconds"] for task in staged) - min(task["began"] for task in staged))


def batches(tasks: Sequence[Mapping[str, t.Any]], count: int, strategy: str) -> list[float]:
    """How long each batch took. Hosts are in the order of the inventory, as batches are."""
    names = [f"bench-{number}" for number in range(1, count + 1)]
    members = [names[:1], names[1:]] if strategy == "rolling" and count > 1 else [names]
    switches = of_module(tasks, "release_switch")
    begins = [min(task["began"] for task in switches if task["host"] in batch) for batch in members]
    ends = [*begins[1:], min(task["began"] for task in of_module(tasks, "release_commit"))]
    return [float(end - begin) for begin, end in zip(begins, ends, strict=True)]


def timed(figures: Figures) -> str:
    """Seconds of whole deploys, one row for each size and strategy."""
    head = ("strategy", "hosts", "whole, s", "of one host's", "staging, s", "of one host's", "batches, s", "flips apart, ms")

    def rows() -> t.Iterator[Sequence[str]]:
        plain = [one for one in figures.deployed if not one.settings]
        alone = {one.strategy: [single for single in plain if single.strategy == one.strategy and single.hosts == 1] for one in plain}
        for strategy, hosts in dict.fromkeys((one.strategy, one.hosts) for one in plain):
            some = [one for one in plain if (one.strategy, one.hosts) == (strategy, hosts)]
            whole, staged = ([getattr(one, what) for one in some] for what in ("seconds", "staging"))
            # The two of a round, which the machine was about as busy for.
            ratios = [
                spread([getattr(one, what) / getattr(single, what) for one, single in zip(some, alone[strategy], strict=False)], "{:.1f}")
                for what in ("seconds", "staging")
            ]
            each = "; ".join(spread(list(batch), "{:.1f}") for batch in zip(*(one.batches for one in some), strict=True))
            flips = spread([one.flips * 1000 for one in some], "{:.0f}") if hosts > 1 else ""
            yield (strategy, str(hosts), spread(whole, "{:.1f}"), ratios[0], spread(staged, "{:.1f}"), ratios[1], each, flips)

    return table(head, rows())


def noticed(figures: Figures) -> str:
    """What users lost, and how much goes to each host."""
    head = ("strategy", "hosts", "requests", "lost", "longest gap between good answers, s", "commands over SSH, each host")

    def rows() -> t.Iterator[Sequence[str]]:
        for one in figures.under:
            few, many = min(one.remote.values()), max(one.remote.values())
            remote = str(few) if few == many else f"{few} to {many}"
            yield (one.strategy, str(one.hosts), str(one.sent), str(one.lost), f"{one.longest_gap:.3f}", remote)

    return table(head, rows())


def settings(figures: Figures) -> str:
    """How Ansible's settings change it."""
    kinds: dict[tuple[str, str], list[Deployed]] = {}
    for one in figures.deployed:
        if one.settings:
            kinds.setdefault((one.strategy, one.settings), []).append(one)
    rows = (
        (strategy, name, spread([one.seconds for one in some], "{:.1f}"), spread([one.staging for one in some], "{:.1f}"))
        for (strategy, name), some in kinds.items()
    )
    return table(("strategy", f"{COMPARED} hosts", "whole, s", "staging, s"), rows)


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def measure(figures: Figures, options: argparse.Namespace) -> None:
    """All that was asked for, in turns, so that a busy machine is as busy for all."""
    strategies = options.strategies.split(",")
    bench = Bench(max([*options.hosts, COMPARED] if options.settings else options.hosts), figures)
    for _round in range(options.rounds):
        for strategy in strategies:
            for count in options.hosts:
                bench.time(strategy, count)
    for strategy in () if options.no_users else strategies:
        for count in options.hosts:
            bench.with_users(strategy, count)
    for _round in range(options.rounds if options.settings else 0):
        for pipelining in (True, False):
            for forks in (5, 20):
                given = ("--forks", str(forks), "-e", json.dumps({"ansible_pipelining": pipelining}))
                bench.time(strategies[0], COMPARED, f"pipelining {'on' if pipelining else 'off'}, {forks} forks", *given)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=numbers, default=[1, 2, 4, 8], metavar="N,N", help="how many hosts (default: 1,2,4,8)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: %(default)s)")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="which (default: %(default)s)")
    parser.add_argument("--settings", action="store_true", help=f"also compare pipelining and forks, on {COMPARED} hosts")
    parser.add_argument("--no-users", action="store_true", help="leave out the deploys under load")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    options = parser.parse_args()
    # Whoever bounds its time gets a report on what there is by then, as with Control-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    load, problem = os.getloadavg()[0], ""
    figures = Figures()
    try:
        measure(figures, options)
    except CannotMeasure as wrong:
        problem = str(wrong)
    except KeyboardInterrupt:
        problem = "It was stopped before its end."
    print(f"{len(os.sched_getaffinity(0))} cores for everything, the hosts included; load average when it began: {load:.1f}\n")
    print(timed(figures))
    if figures.under:
        print(noticed(figures))
    if options.settings:
        print(settings(figures))
    if options.json:
        options.json.write_text(json.dumps({"load": load, **asdict(figures)}, indent=1))
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem or any(one.lost for one in figures.under) else 0


if __name__ == "__main__":
    sys.exit(main())
