# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times of whole processes, side by side with the tools that people use instead, and what their users notice.

``make bench`` runs it; ``make bench OPTIONS=--quick`` takes a few minutes. All contenders take turns in every round, so that a busy machine is
as busy for all, and ratios are taken within a round. The report goes to standard output and, unless it was quick, to ``benchmarks/results.md``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import typing as t
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "examples"), str(HERE)]

import versions  # noqa: E402
from contenders import ON_HOST, PLACE, CannotMeasure, Command, Contender, Ours, contenders, write_ssh_config  # noqa: E402
from report import CAPISTRANO, OURS, Measured, Report  # noqa: E402

import lab  # noqa: E402
from lab import access  # noqa: E402
from lab.hosts import Host  # noqa: E402
from lab.load import Running as Load  # noqa: E402

RATE = 100
STILL = 6.0
VERSIONS = 100
DATABASE_MEGABYTES = 1000
# The machine is quiet when its processors have been idle for this part of so many seconds. It is waited for so many seconds at most.
QUIET, LOOK, PATIENCE = 0.85, 0.5, 20.0
# The modules are measured by themselves, with an ansible-core of their own on the host.
DATABASE = """
systemctl start postgresql
rm -rf /opt/bench && mkdir -p /opt/bench/data
tar -x -C /opt/bench
cd /opt/bench
mkdir -p .cache/collections/ansible_collections/bulletproof
ln -sfn ../../../.. .cache/collections/ansible_collections/bulletproof/deploy
python3 -m venv venv
venv/bin/pip install --quiet ansible-core
venv/bin/python benchmarks/database.py --rounds "$1" --megabytes "$2" --directory /opt/bench/data
systemctl stop postgresql
rm -rf /opt/bench
"""
PERMISSIONS_RATIO = re.compile(r"^  module  .* ratio +([0-9.]+)", re.MULTILINE)


class Bench:
    """The hosts, the contenders, and what was measured so far."""

    def __init__(self, names: Sequence[str], megabytes: int) -> None:
        self.megabytes = megabytes
        PLACE.mkdir(parents=True, exist_ok=True)
        self.hosts = lab.up(names)
        repository = PLACE / "shop"
        shutil.rmtree(repository, ignore_errors=True)
        self.versions = iter(make_versions(repository))
        write_ssh_config(self.hosts)
        self.contenders = contenders(repository)
        self.ours = t.cast(Ours, self.contenders[0])
        self.measured = Measured()
        for host in self.hosts:
            give_repository(host, repository)
        for contender in self.contenders:
            contender.provision(self.hosts)

    def carry_out(self, rounds: int) -> list[str]:
        """Measure everything; what could not be measured, and why. Control-C ends it early, with a report on what there is."""
        one_round = [self.one_host, self.all_hosts] if len(self.hosts) > 1 else [self.one_host]
        once = [self.profile, partial(self.permissions, rounds), partial(self.databases, rounds)]
        problems = []
        for step in [one_round[0], *once, *one_round[1:], *one_round * (rounds - 1)]:
            try:
                step()
            except CannotMeasure as problem:
                problems.append(str(problem))
                print(problem, file=sys.stderr, flush=True)
            except KeyboardInterrupt:
                problems.append("It was stopped before its end.")
                break
        return problems

    def one_host(self) -> None:
        """A first deploy, an update, the way back from it, the same again; an update and the way back once more, with users there."""
        hosts = self.hosts[:1]
        first, second, third = (next(self.versions) for _times in range(3))
        for contender in self.contenders:
            contender.remove(hosts)
            self.time("A", contender, hosts, contender.deploy(hosts, first), first)
        for contender in self.contenders:
            self.time("B", contender, hosts, contender.deploy(hosts, second), second)
        for contender in self.contenders:
            self.time("D", contender, hosts, contender.roll_back(hosts), first)
        for contender in self.contenders:
            said = self.time("C", contender, hosts, contender.deploy(hosts, first), first)
            if contender is self.ours and "changed=0" not in said:
                raise CannotMeasure(f"Deploying what is live already changed something:\n{said[-2000:]}")
        self.nothing(hosts[0])
        for contender in self.contenders:
            self.load("deploy", contender, hosts[0], contender.deploy(hosts, third), third)
            self.load("rollback", contender, hosts[0], contender.roll_back(hosts), first)
        self.revert(hosts[0], first)

    def all_hosts(self) -> None:
        """A first deploy and an update."""
        first, second = next(self.versions), next(self.versions)
        for contender in self.contenders:
            contender.remove(self.hosts)
            self.time("A4", contender, self.hosts, contender.deploy(self.hosts, first), first)
        for contender in self.contenders:
            self.time("B4", contender, self.hosts, contender.deploy(self.hosts, second), second)

    def code_change(self, times: int) -> str:
        """The update of all hosts again and again, beside Capistrano alone, in turn: what is even needs more than a few rounds."""
        pair = [contender for contender in self.contenders if contender.name in (OURS, CAPISTRANO)]
        first = next(self.versions)
        for contender in pair:
            contender.remove(self.hosts)
            self.time("A4", contender, self.hosts, contender.deploy(self.hosts, first), first)
        for version in itertools.islice(self.versions, times):
            for contender in pair:
                self.time("B4", contender, self.hosts, contender.deploy(self.hosts, version), version)
        ratios = sorted(self.measured.ratios("B4", CAPISTRANO))
        seconds = (f"{one.name}: {' '.join(f'{each:.2f}' for each in self.measured.seconds['B4', one.name])} s" for one in pair)
        return "\n".join([*seconds, f"ratio {statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"])

    def time(self, what: str, contender: Contender, hosts: Sequence[Host], command: Command, version: str) -> str:
        """Time a whole process, which has to open its connections itself."""
        for host in self.hosts:
            access.forget_connection(host.name)
        settle()
        began = time.monotonic()
        said = command.run()
        took = time.monotonic() - began
        # Nobody is quick by not having done it.
        for host in hosts:
            must_serve(contender, host, version)
        self.measured.seconds[what, contender.name].append(took)
        print(f"  {what:3} {contender.name:20}{took:6.2f} s", file=sys.stderr, flush=True)
        return said

    def load(self, what: str, contender: Contender, host: Host, command: Command, version: str) -> None:
        """Run a command while users are there."""
        with Load(contender.url(host), rate=RATE) as users:
            time.sleep(0.5)
            tasks = told_by(command) if contender is self.ours else []
            if contender is not self.ours:
                command.run()
            time.sleep(0.5)
        must_serve(contender, host, version)
        self._noticed(what, contender, users)
        for task in tasks:
            if task["action"].endswith("release_switch"):
                self.measured.flips.append(task["own"]["flip"])
                if what == "rollback":
                    self.measured.answering[what].append(sum(task["own"][part] for part in ("start", "verify", "flip")))

    def nothing(self, host: Host) -> None:
        """Users alone: the gaps that no deploy makes, because slow requests hold all workers or the machine is busy."""
        with Load(self.ours.url(host), rate=RATE) as users:
            time.sleep(STILL)
        self._noticed("nothing", self.ours, users)

    def revert(self, host: Host, live: str) -> None:
        """Undo a switch that is on trial, as a failed deploy does on the hosts that did not fail: the phases by themselves."""
        release = next(one for one in releases(host, self.ours) if not one.startswith(f"{live}-"))
        with Load(self.ours.url(host), rate=RATE) as users:
            self.ours.module(host, "release_switch", run="bench-revert", release=release).run()
            must_serve(self.ours, host, release.rpartition("-")[0])
            said = self.ours.module(host, "release_revert", run="bench-revert").run()
            time.sleep(0.5)
        must_serve(self.ours, host, live)
        self._noticed("revert", self.ours, users)
        self.measured.answering["revert"].append(float(re.findall(r"seconds\"?: ([0-9.]+)", said)[-1]))

    def _noticed(self, what: str, contender: Contender, users: Load) -> None:
        self.measured.lost[what, contender.name].append(users.report["lost"])
        self.measured.gaps[what, contender.name].append(users.report["longest_gap"])
        gap = users.report["longest_gap"]
        print(f"  {what} {contender.name}: lost {users.report['lost']}, longest gap {gap:.3f} s", file=sys.stderr, flush=True)

    def profile(self) -> None:
        """Where the time of an update and of a rollback goes, and how many modules the host runs for the update."""
        host, version = self.hosts[0], next(self.versions)
        update = self.ours.deploy([host], version)
        said = Command([*update.argv, "-vvv"], update.cwd, update.variables).run()
        modules = len(re.findall(rf"^<{re.escape(host.address)}> SSH: EXEC .*python3", said, re.MULTILINE))
        if not modules:
            raise CannotMeasure("The output of ansible-playbook -vvv shows no module on the host.")
        self.measured.modules.append(modules)
        self.measured.profiles["update"] = told_by(self.ours.deploy([host], next(self.versions)))
        # The slot that it goes back to may still be ending.
        time.sleep(2)
        settle()
        self.measured.profiles["rollback"] = told_by(self.ours.roll_back([host]))

    def permissions(self, repeats: int) -> None:
        argv = [sys.executable, str(HERE / "permissions.py"), "--repeats", str(repeats)]
        said = Command(argv, REPOSITORY).run()
        ratios = [float(ratio) for ratio in PERMISSIONS_RATIO.findall(said)]
        if len(ratios) != 2:
            raise CannotMeasure(f"{' '.join(argv)} gave no ratios:\n{said}")
        self.measured.permissions, self.measured.permissions_said = [[ratio] for ratio in ratios], said

    def databases(self, rounds: int) -> None:
        """Backups and migrations on the first host, which has the tools environment and a PostgreSQL server."""
        packed = subprocess.run(
            ["git", "archive", "HEAD", "plugins", "benchmarks", "meta", "galaxy.yml"], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True
        )
        argv = ["sh", "-euc", DATABASE, "sh", str(rounds), str(self.megabytes)]
        done = self.hosts[0].run(argv, stdin=packed.stdout, check=False, timeout=1800)
        ratios = [(float(limit), float(ratio)) for limit, ratio in DATABASE_RATIO.findall(done.stdout)]
        if done.returncode or len(ratios) != 3:
            raise CannotMeasure(f"benchmarks/database.py on {self.hosts[0].name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        self.measured.databases, self.measured.databases_said = ratios, done.stdout


def settle() -> None:
    """Wait until nobody works any more for the one before: its workers that still start, its files that are still written, are not the next one's."""
    os.sync()
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        before = idle_seconds()
        time.sleep(LOOK)
        if idle_seconds() - before > QUIET * LOOK * (os.cpu_count() or 1):
            return


def idle_seconds() -> float:
    """Seconds for which processors of this machine have been idle, all together (proc_stat(5))."""
    with open("/proc/stat", encoding="ascii") as stream:
        return int(stream.readline().split()[4]) / os.sysconf("SC_CLK_TCK")


DATABASE_RATIO = re.compile(r"^  ratio \(at most ([0-9.]+)\) +([0-9.]+)", re.MULTILINE)


def make_versions(repository: Path) -> list[str]:
    """The example application in many versions that differ in nothing but what they tell."""
    versions.make_repository(repository)
    tags = [f"3.{number}.0" for number in range(VERSIONS)]
    git = ["git", "-C", str(repository), "-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    for tag in tags:
        (repository / "VERSION").write_text(f"{tag}\n")
        subprocess.run([*git, "commit", "--quiet", "--all", "--message", tag], check=True)
        subprocess.run([*git, "tag", tag], check=True)
    return tags


def give_repository(host: Host, repository: Path) -> None:
    """Put the repository on a host, where the peers fetch from."""
    packed = subprocess.run(["tar", "-C", str(repository / ".git"), "-c", "."], stdout=subprocess.PIPE, check=True).stdout
    unpack = 'rm -rf "$1"; mkdir -p "$1"; tar -x -C "$1"; chown -R deploy:deploy "$1"'
    host.run(["sh", "-c", unpack, "sh", ON_HOST], stdin=packed)


def must_serve(contender: Contender, host: Host, version: str) -> None:
    try:
        with urllib.request.urlopen(f"{contender.url(host)}health", timeout=10) as answer:
            found = json.load(answer)["version"]
    except OSError as error:
        raise CannotMeasure(f"{contender.name} was to serve {version} on {host.name}: {error}.") from None
    if found != version:
        raise CannotMeasure(f"{contender.name} was to serve {version} on {host.name}, and {found} answers.")


def releases(host: Host, ours: Ours) -> list[str]:
    """The good releases on a host, the newest first."""
    names = host.run(["ls", f"/opt/{ours.app}/releases"]).stdout.split()
    return [name for name in reversed(names) if not name.startswith(".")]


def told_by(command: Command) -> list[Mapping[str, t.Any]]:
    """Run a playbook; its tasks, with how long each took on which host and what the module itself says of its time."""
    told = PLACE / "tasks.jsonl"
    told.unlink(missing_ok=True)
    plugin = {"ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"), "ANSIBLE_CALLBACKS_ENABLED": "task_seconds"}
    began = time.time()
    command.run(TASK_SECONDS=str(told), **plugin)
    ended = time.time()
    tasks = [json.loads(line) for line in told.read_text().splitlines()]
    before = {"task": "until the first task", "action": "", "host": "", "seconds": tasks[0]["began"] - began, "own": None}
    within = sum(task["seconds"] for task in tasks) + before["seconds"]
    rest = {"task": "between and after tasks", "action": "", "host": "", "seconds": ended - began - within, "own": None}
    return [before, *tasks, rest]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each (default: %(default)s)")
    parser.add_argument(
        "--hosts", type=int, default=4, metavar="N", help="hosts of the larger deploys; 1: none of them (default: %(default)s)"
    )
    parser.add_argument(
        "--code-change", type=int, metavar="N", help="only the code change on all hosts, N times, beside Capistrano; no results.md"
    )
    parser.add_argument("--quick", action="store_true", help="one round, one host, and no results.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.hosts = 1, 1
    load = os.getloadavg()[0]
    try:
        bench = Bench([f"bench-{number}" for number in range(1, options.hosts + 1)], DATABASE_MEGABYTES // (10 if options.quick else 1))
        if options.code_change:
            print(bench.code_change(options.code_change))
            return 0
        problems = bench.carry_out(options.rounds)
    except CannotMeasure as problem:
        print(problem, file=sys.stderr)
        return 1
    text = Report(bench.measured, options.rounds, options.hosts, load, problems).text()
    print(text)
    if not options.quick:
        (HERE / "results.md").write_text(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
