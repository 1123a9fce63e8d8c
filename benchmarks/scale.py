# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where Ansible itself becomes the limit: the real deploy.yml on hosts that answer at once and aren't there (benchmarks/stub).

``make bench-scale`` runs it. What is measured is the controller: nothing here says how long hosts or the network take. With ``--seconds`` a host
takes that long for each phase, asleep, as hosts with cores of their own do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "examples"), str(HERE)]

import versions  # noqa: E402
from report import spread, table  # noqa: E402

from lab.deployment import BIN, COLLECTIONS, SHOP  # noqa: E402

STUB = HERE / "stub"
LATE = 124


@dataclass
class Took:
    """What one deploy took."""

    hosts: int
    forks: int
    host_seconds: float
    strategy: str
    noop: bool
    batches: list[int | str]
    seconds: float
    cpu: float
    main_cpu: float
    """What of it was the main process's, which forks the others one after the other: no number of cores makes that shorter."""
    resident_mb: float
    """The most that the controller's main process had."""
    memory_mb: float
    """How much less memory the machine had at the worst moment than before: all processes together."""
    ended: bool
    tasks: list[Mapping[str, t.Any]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        change = f"code change, in batches of {json.dumps(self.batches)}" if self.batches else "code change"
        return "what is live already" if self.noop else change


class Scale:
    """A project with as many hosts as asked for, none of which exists."""

    def __init__(self, place: Path, at_most: float) -> None:
        self.place, self.at_most = place, at_most
        self.tree = place / "tree"
        versions.make_tree(self.tree, "flask", "1.0.0")

    def deploy(
        self,
        hosts: int,
        forks: int,
        host_seconds: float = 0,
        *,
        strategy: str = "linear",
        noop: bool = False,
        batches: Sequence[int | str] = (),
    ) -> Took:
        """Deploy once, in a process of its own."""
        spans = self.place / "spans.jsonl"
        spans.unlink(missing_ok=True)
        variables = {
            **SHOP,
            "app_source": {"directory": str(self.tree)},
            "app_version": "1.0.0",
            "app_watch": 1,
            **({"app_strategy": "rolling", "app_batches": list(batches)} if batches else {}),
            "ansible_connection": "stub",
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            "stub_seconds": host_seconds,
            "stub_live": noop,
        }
        names = [f"host-{number:04}" for number in range(1, hosts + 1)]
        inventory = self.place / "app.json"
        inventory.write_text(json.dumps({"app": {"hosts": {name: {} for name in names}, "vars": variables}}))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONNECTION_PLUGINS": str(STUB / "connection"),
            "ANSIBLE_CALLBACK_PLUGINS": str(STUB / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "spans",
            "ANSIBLE_FORKS": str(forks),
            "ANSIBLE_STRATEGY": strategy,
            "ANSIBLE_NOCOLOR": "1",
            "TASK_SPANS": str(spans),
        }
        log = self.place / "output.log"
        with log.open("wb") as stream:
            free, before, began = available_mb(), resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            process = subprocess.Popen(
                [str(BIN / "ansible-playbook"), "-i", "app.json", "bulletproof.deploy.deploy"],
                cwd=self.place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            resident, main_cpu, least, status = 0.0, 0.0, free, None
            while (status := process.poll()) is None:
                resident, main_cpu = max(resident, resident_mb(process.pid)), max(main_cpu, cpu_of(process.pid))
                least = min(least, available_mb())
                if time.monotonic() - began > self.at_most:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    status = LATE
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if status not in (0, LATE):
            raise SystemExit(f"A deploy on {hosts} hosts ended with status {status}:\n{log.read_text()[-4000:]}")
        tasks = [json.loads(line) for line in spans.read_text().splitlines()] if spans.exists() else []
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        took = Took(
            hosts, forks, host_seconds, strategy, noop, list(batches), seconds, cpu, main_cpu, resident, free - least, status == 0, tasks
        )
        end = "" if took.ended else "  (did not end)"
        print(
            f"  {hosts:5} hosts  {forks:4} forks  {host_seconds:4.1f} s a phase  {took.kind:22}{seconds:8.2f} s  {cpu:8.2f} s CPU  "
            f"{resident:6.0f} MB  {took.memory_mb:6.0f} MB{end}",
            file=sys.stderr,
            flush=True,
        )
        return took


def available_mb() -> float:
    """The machine's memory that is to be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))


def resident_mb(pid: int) -> float:
    """The most memory that a process has had."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process itself, without its children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def whole(all_took: Sequence[Took]) -> str:
    """Seconds of whole processes, one row for each kind of deploy."""
    kinds: dict[tuple[int, int, float, str], list[Took]] = {}
    for one in all_took:
        kinds.setdefault((one.hosts, one.forks, one.host_seconds, one.kind), []).append(one)

    def row(hosts: int, forks: int, host_seconds: float, said: str, some: Sequence[Took]) -> Sequence[str]:
        late = "" if all(one.ended for one in some) else " (did not end)"
        seconds = spread([one.seconds for one in some], "{:.1f}") + late
        cpu, resident, memory = ([getattr(one, name) for one in some] for name in ("cpu", "resident_mb", "memory_mb"))
        each = spread([one.cpu * 1000 / one.hosts for one in some], "{:.0f}")
        main = spread([one.main_cpu for one in some], "{:.1f}")
        figures = (seconds, spread(cpu, "{:.1f}"), main, each, spread(resident, "{:.0f}"), spread(memory, "{:.0f}"))
        return (said, str(hosts), str(forks), f"{host_seconds:g}", *figures)

    head = (
        "",
        "hosts",
        "forks",
        "s a phase on the host",
        "s",
        "CPU s",
        "of it the main process",
        "CPU ms a host",
        "main process, MB",
        "all processes, MB",
    )
    return table(head, (row(*key, some) for key, some in kinds.items()))


def by_task(took: Took) -> str:
    """Where the time of one deploy goes."""

    def rows() -> t.Iterator[Sequence[str]]:
        ended = ("ok", "skipped", "failed", "unreachable")
        for task in took.tasks:
            count = sum(task.get(how, 0) for how in ended)
            how = ", ".join(f"{task[how]} {how}" for how in ended if how in task)
            span = task.get("last", task["first"]) - task["first"]
            yield (task["task"], how, f"{span:.2f}", f"{span * 1000 / max(count, 1):.0f}")
        spans = sum(task.get("last", task["first"]) - task["first"] for task in took.tasks)
        yield ("before, between and after", "", f"{took.seconds - spans:.2f}", f"{(took.seconds - spans) * 1000 / took.hosts:.0f}")

    return table(("task", "hosts", "s, first start to last end", "ms a host"), rows())


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=numbers, default=[1, 10, 20, 50, 100], metavar="N,N", help="how many hosts")
    parser.add_argument("--forks", type=numbers, default=[20], metavar="N,N", help="how many forks (default: 20)")
    parser.add_argument("--seconds", type=float, default=0, help="how long each phase takes on the host (default: %(default)s)")
    parser.add_argument("--strategy", default="linear", help="Ansible's strategy (default: %(default)s, which deploy.yml needs)")
    parser.add_argument(
        "--batches", type=json.loads, default=[], metavar="JSON", help="deploy in such batches, for instance '[1, \"100%%\"]'"
    )
    parser.add_argument("--noop", action="store_true", help="deploy what is live already")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="rounds of each (default: %(default)s)")
    parser.add_argument(
        "--at-most", type=float, default=900, metavar="S", help="seconds after which a deploy is ended (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as place:
        scale = Scale(Path(place), options.at_most)
        took = [
            scale.deploy(hosts, forks, options.seconds, strategy=options.strategy, noop=options.noop, batches=options.batches)
            for _round in range(options.rounds)
            for hosts in options.hosts
            for forks in options.forks
        ]
    print(f"{len(os.sched_getaffinity(0))} cores; load average when it began: {load:.1f}\n")
    print(whole(took))
    print(f"{took[-1].hosts} hosts, {took[-1].forks} forks:\n\n{by_task(took[-1])}")
    if options.json:
        options.json.write_text(json.dumps({"load": load, "deploys": [asdict(one) for one in took]}, indent=1))
    return 0 if all(one.ended for one in took) else 1


if __name__ == "__main__":
    sys.exit(main())
