# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The benchmark's report: what was measured, as tables, and whether each target held."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import typing as t
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

OURS, SHELL, PYINFRA, CAPISTRANO = "bulletproof.deploy", "shell script", "pyinfra", "Capistrano"
NAMES = (OURS, SHELL, PYINFRA, CAPISTRANO)

COMMANDS: Mapping[str, t.Tuple[str, str]] = {
    OURS: ("ansible-playbook bulletproof.deploy.deploy -e app_version=VERSION", "ansible-playbook bulletproof.deploy.rollback"),
    SHELL: ("sh peers/deploy.sh … VERSION HOST…", "sh peers/deploy.sh … back HOST…"),
    PYINFRA: (
        "pyinfra -y HOST,… peers/pyinfra_deploy.py --data version=VERSION …",
        "pyinfra -y HOST,… peers/pyinfra_deploy.py --data version=back …",
    ),
    CAPISTRANO: ("VERSION=VERSION cap production deploy", "cap production deploy:rollback"),
}

SCENARIOS: Mapping[str, str] = {
    "A": "first deploy",
    "B": "code change",
    "C": "what is live already",
    "D": "rollback",
    "A4": "first deploy, {hosts} hosts",
    "B4": "code change, {hosts} hosts",
}

# Scenario, yardstick, and how much of its time may be taken. For the rollback the limit was set as 2.5 s where the script takes 2.1.
RATIOS: Sequence[t.Tuple[str, str, float]] = (
    ("A", SHELL, 0.5),
    ("B", CAPISTRANO, 1.0),
    ("C", SHELL, 1.0),
    ("D", SHELL, 2.5 / 2.1),
    ("B4", CAPISTRANO, 1.0),
)

INTRODUCTION = """\
# Benchmark

Written by `make bench`. The same Flask application (examples/flask_app: gunicorn with three workers of four threads behind nginx, SQLite) on the same hosts:
containers that boot systemd, reached over SSH. Rounds: {rounds}; in each, every contender takes its turn at each task. Seconds of the whole process,
which opens its own connections: median [fastest-slowest]. Ratios are taken within a round. {machine}, {when}.

- The peers are set up as their recipes have it: one shared virtual environment, pip with its default cache, a restart of their unit, `/health` until it
  answers. They fetch from a Git repository on the host itself. They check nothing else.
- bulletproof.deploy does all it always does, blue-green, with `app_watch=0`: the watch window is a choice, not a cost. Its cache for uv is kept.
- No contender migrates the database. What migrations and backups cost is measured by itself, below.
- The script's rollback installs the older release's requirements, because the environment is shared; those of pyinfra and Capistrano only
  point back and restart, as they do by default.
"""


@dataclass
class Measured:
    """All figures, one a round, by scenario and contender."""

    seconds: dict[t.Tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: dict[t.Tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    gaps: dict[t.Tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    answering: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    flips: list[float] = field(default_factory=list)
    modules: list[int] = field(default_factory=list)
    profiles: dict[str, list[Mapping[str, t.Any]]] = field(default_factory=dict)
    permissions: list[list[float]] = field(default_factory=list)
    permissions_said: str = ""
    databases: list[t.Tuple[float, float]] = field(default_factory=list)
    databases_said: str = ""

    def ratios(self, scenario: str, peer: str) -> list[float]:
        return [mine / theirs for mine, theirs in zip(self.seconds[scenario, OURS], self.seconds[scenario, peer])]


class Report:
    """Measured figures as a page of Markdown."""

    def __init__(self, measured: Measured, rounds: int, hosts: int, load: float, problems: Sequence[str]) -> None:
        self.measured = measured
        self.rounds = rounds
        self.hosts = hosts
        self.load = load
        self.problems = problems

    def text(self) -> str:
        machine = f"{len(os.sched_getaffinity(0))} cores for everything, the hosts included; load average when it began: {self.load:.1f}"
        when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        parts = [
            INTRODUCTION.format(rounds=self.rounds, machine=machine, when=when),
            "## Targets\n\n" + table(("", "measured", "at most", "holds"), self._targets()),
            "## Seconds\n\n" + table(("", *NAMES), self._seconds()) + "\n" + table(("", "deploy", "rollback"), self._commands()),
            "## Ratios of bulletproof.deploy to the others\n\n" + table(("", *NAMES[1:]), self._ratios()),
            "## What users notice, at 100 requests per second (keep-alive, new connection, slow, POST)\n\n"
            + table(("", "lost", "longest gap between good answers, s"), self._noticed()),
            *(
                f"## Where the time of {a} goes, one host\n\n" + table(("", "s", "its own account"), self._profile(a))
                for a in self.measured.profiles
            ),
            f"## Permissions\n\n`benchmarks/permissions.py` (Python {platform.python_version()}):\n\n```\n{self.measured.permissions_said}```\n",
        ]
        if self.measured.databases_said:
            parts.append(f"## Databases\n\n`benchmarks/database.py`, on a host:\n\n```\n{self.measured.databases_said}```\n")
        if self.problems:
            parts.insert(1, "## Not measured\n\n" + "".join(f"- {problem.splitlines()[0]}\n" for problem in self.problems))
        return "\n".join(parts)

    def _targets(self) -> Iterator[Sequence[str]]:
        measured = self.measured
        for scenario, peer, limit in RATIOS:
            if self.hosts == 1 and scenario.endswith("4"):
                continue
            yield verdict(f"{self._name(scenario)}, of {peer}'s time", measured.ratios(scenario, peer), limit, "{:.2f}")
        yield verdict("module executions on the host for a code change", measured.modules, 12, "{:.0f}")
        for what in ("rollback", "revert"):
            yield verdict(f"{what}: decision to old version answering, s", measured.answering[what], 1.0, "{:.2f}")
        yield verdict("the flip itself, s", measured.flips, 0.05, "{:.4f}")
        for what in ("deploy", "rollback", "revert"):
            yield verdict(f"longest gap between good answers, {what}, s", measured.gaps[what, OURS], 0.1, "{:.3f}")
        for what in ("deploy", "rollback", "revert"):
            yield verdict(f"requests lost, {what}", measured.lost[what, OURS], 0, "{:.0f}")
        for what, ratio, limit in zip(
            ("wrong, of chown -R + find -exec chmod", "right, of find"), measured.permissions or ((), ()), (1.0, 1.5)
        ):
            yield verdict(f"permissions, 100,000 files all {what}", ratio, limit, "{:.2f}")
        whats = ("SQLite backup under load, of .backup + integrity_check", "alembic_migrate with nothing to do, of alembic current",
                 "PostgreSQL backup, of pg_dump + pg_restore --list")  # fmt: skip
        for what, (limit, ratio) in zip(whats, measured.databases):
            yield verdict(what, [ratio], limit, "{:.2f}")

    def _seconds(self) -> Iterator[Sequence[str]]:
        for scenario in self._scenarios():
            yield (self._name(scenario), *(spread(self.measured.seconds[scenario, name], "{:.1f}") for name in NAMES))

    def _ratios(self) -> Iterator[Sequence[str]]:
        for scenario in self._scenarios():
            yield (self._name(scenario), *(spread(self.measured.ratios(scenario, peer), "{:.2f}") for peer in NAMES[1:]))

    def _commands(self) -> Iterator[Sequence[str]]:
        for name, commands in COMMANDS.items():
            yield (name, *(f"`{command}`" for command in commands))

    def _noticed(self) -> Iterator[Sequence[str]]:
        for what, name in self.measured.gaps:
            yield (f"{what}, {name}", spread(self.measured.lost[what, name], "{:.0f}"), spread(self.measured.gaps[what, name], "{:.3f}"))

    def _profile(self, what: str) -> Iterator[Sequence[str]]:
        for task in self.measured.profiles[what]:
            own = task["own"]
            account = ", ".join(f"{part} {seconds:.3f}" for part, seconds in own.items()) if isinstance(own, dict) else str(own or "")
            yield (task["task"], f"{task['seconds']:.2f}", account)

    def _scenarios(self) -> list[str]:
        return [scenario for scenario in SCENARIOS if any(self.measured.seconds[scenario, name] for name in NAMES)]

    def _name(self, scenario: str) -> str:
        return SCENARIOS[scenario].format(hosts=self.hosts)


def verdict(what: str, measured: Sequence[float], limit: float, form: str) -> Sequence[str]:
    if not measured:
        return (what, "not measured", form.format(limit), "**unknown**")
    holds = statistics.median(measured) <= limit
    return (what, spread(measured, form), form.format(limit), "yes" if holds else "**no**")


def spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "not measured"
    middle = form.format(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{form.format(min(values))}-{form.format(max(values))}]"


def table(head: Sequence[str], rows: t.Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
