# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the collection's playbooks against lab hosts, as a user does: an inventory, a declaration, ansible-playbook."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.hosts import Host
from lab.inventory import inventory

REPOSITORY = Path(__file__).resolve().parents[2]
COLLECTIONS = Path(os.environ.get("BULLETPROOF_COLLECTIONS", REPOSITORY / ".cache" / "installed"))
BIN = Path(sys.executable).parent

# What a first app looks like: the declaration of the README, for the example app.
SHOP: Mapping[str, object] = {
    "app_name": "shop",
    "app_entrypoint": "shop.wsgi:app",
    "app_server_names": ["shop.example.com"],
    "app_health_version": {"json": "version"},
    "app_environment": {"DATABASE_URL": "sqlite:////opt/shop/shared/shop.db"},
}


@dataclass(frozen=True)
class Played:
    """How a playbook ended."""

    playbook: str
    rc: int
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.rc == 0

    def recap(self, host: str) -> dict[str, int]:
        """The numbers of the play recap for a host: ok, changed, unreachable, failed, …"""
        line = next(line for line in reversed(self.output.splitlines()) if line.startswith(host) and "ok=" in line)
        return {part.split("=")[0]: int(part.split("=")[1]) for part in line.split() if "=" in part}

    def ended(self) -> dict[str, list[str]]:
        """The last table of the run, by host: before, now, why; or, of status: live release, since, state, drift."""
        lines = [line.strip() for line in self.output.splitlines()]
        head = max(number for number, line in enumerate(lines) if re.match(r"host  ", line))
        rows = itertools.takewhile(bool, lines[head + 1 :])
        return {row[0]: row[1:] for row in (re.split(r"\s{2,}", line) for line in rows)}


class Project:
    """A user's project directory: ansible.cfg, inventory, declaration; and the playbooks of the installed collection."""

    def __init__(self, directory: Path, hosts: Sequence[Host], declaration: Mapping[str, object], balancers: Sequence[Host] = ()) -> None:
        self.directory = directory
        self.hosts = list(hosts)
        self.balancers = list(balancers)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ansible.cfg").write_text(
            f"[defaults]\ncollections_path = {COLLECTIONS}\ncallback_result_format = yaml\nforks = 20\n[ssh_connection]\npipelining = true\n"
        )
        inventory([*hosts, *balancers], directory / "hosts.yml")
        self.declare(declaration)

    def declare(self, declaration: Mapping[str, object]) -> None:
        """Write the declaration (JSON is YAML)."""
        groups = {"app": self.hosts, "load_balancer": self.balancers}
        tree = {name: {"hosts": {host.name: {} for host in hosts}, "vars": dict(declaration)} for name, hosts in groups.items()}
        (self.directory / "app.yml").write_text(json.dumps(tree, indent=2))

    def command(self, playbook: str, *arguments: str, **extra: object) -> list[str]:
        """:param playbook: ``deploy``, ``rollback``, … of the collection, or a path.
        :param extra: Variables for the command line (``-e``), in their types.
        """
        name = playbook if "/" in playbook else f"bulletproof.deploy.{playbook}"
        given = ["-e", json.dumps(extra)] if extra else []
        return [str(BIN / "ansible-playbook"), "-i", "hosts.yml", "-i", "app.yml", name, *given, *arguments]

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {**inherited, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"}

    def start(self, playbook: str, *arguments: str, **extra: object) -> Running:
        return Running(self, playbook, arguments, extra)

    def play(self, playbook: str, *arguments: str, **extra: object) -> Played:
        return self.start(playbook, *arguments, **extra).wait()

    def must(self, playbook: str, *arguments: str, **extra: object) -> Played:
        """Play, and fail with the whole output unless it ends well."""
        played = self.play(playbook, *arguments, **extra)
        assert played.ok, f"{playbook} {extra} ended with {played.rc}:\n{played.output}"
        return played


def family(pid: int) -> list[int]:
    """A process and all that come from it. Ansible's workers have sessions, and so process groups, of their own."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


class Running:
    """A playbook under way, in a process group of its own, so that a test can kill the whole controller."""

    def __init__(self, project: Project, playbook: str, arguments: Sequence[str], extra: Mapping[str, object]) -> None:
        self.playbook = playbook
        self.began = time.monotonic()
        self.log = project.directory / f"{playbook.replace('/', '_')}-{time.time_ns()}.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                project.command(playbook, *arguments, **extra),
                cwd=project.directory,
                env=project.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, timeout: float = 120) -> None:
        """Wait until the output has a text, such as the name of a task."""
        deadline = time.monotonic() + timeout
        while text not in self.output():
            assert self.process.poll() is None, f"{self.playbook} ended before it said {text!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"{self.playbook} did not say {text!r} within {timeout} s:\n{self.output()}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the controller, as a terminal does. SIGKILL is that of a machine that is gone: it gets all of its processes."""
        if number != signal.SIGKILL:
            os.killpg(self.process.pid, number)
            return
        # Stopped first, so that nothing is born or says goodbye meanwhile.
        for one in (signal.SIGSTOP, signal.SIGKILL):
            for pid in family(self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, one)

    def wait(self, timeout: float = 600) -> Played:
        try:
            rc = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            raise
        return Played(self.playbook, rc, self.output(), time.monotonic() - self.began)
