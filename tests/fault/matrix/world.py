# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shop on a fleet: deployed from a repository of its own, looked at on every host."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fault.leases import AT_WORK, end_lease, wait_for_modules
from fault.matrix import points

from lab import Host, haproxy
from lab.deployment import REPOSITORY, SHOP, Played, Project, Running, family
from lab.fleet import Fleet

HERE = Path(__file__).resolve().parent
NAME = "shop"
ROOT = f"/opt/{NAME}"
VERSIONS = ("3.0.0", "3.1.0")
WATCH = 2
# A timer looks every 5 s, and a busy machine starts a process late.
SLACK = 30.0


@dataclass(frozen=True)
class Answer:
    """What a user of one host is told: no status when nothing was."""

    status: int = 0
    version: str = ""


@dataclass(frozen=True)
class Seen:
    """One host, looked at: see ``look.py``."""

    host: str
    found: t.Mapping[str, t.Any]
    answer: Answer

    @property
    def release(self) -> str:
        state = self.found["state"] or {}
        return str((state.get("live") or {}).get("release", ""))

    @property
    def armed(self) -> bool:
        return bool((self.found["state"] or {}).get("way_back"))


def make_repository(path: Path) -> None:
    """The example shop, with two good versions more, in which a file on a host can make trouble for one release."""
    sys.path.insert(0, str(REPOSITORY / "examples"))
    import versions

    versions.make_tree(path, "flask", "2.0.0")
    shutil.copyfile(HERE / "trouble.py", path / "shop" / "behaviour.py")
    identity = {**os.environ}
    for who in ("AUTHOR", "COMMITTER"):
        identity.update({f"GIT_{who}_{name}": value for name, value in versions.AUTHOR.items()})

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=path, env=identity, check=True)

    git("init", "--quiet", "--initial-branch=main")
    for version in VERSIONS:
        (path / "VERSION").write_text(version + "\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", f"Version {version}")
        git("tag", version)


class FleetProject(Project):
    """The project of somebody with a fleet: app hosts in one group, the balancer in another; and a run that tells where it is."""

    def __init__(self, directory: Path, fleet: Fleet, declaration: t.Mapping[str, object]) -> None:
        self.points = directory / "points.jsonl"
        super().__init__(directory, fleet.apps, declaration, [fleet.balancer] if fleet.balancer else [])

    def environment(self) -> t.Dict[str, str]:
        return {**super().environment(), **points.environment(self.points)}


class FleetShop:
    """The shop on all hosts of a fleet."""

    def __init__(self, directory: Path, fleet: Fleet, strategy: str = "blue_green", start_timeout: int = 20) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.fleet, self.directory = fleet, directory
        repository = directory / "repository"
        if not repository.exists():
            make_repository(repository)
        note = directory / "database"
        self.declaration: t.Dict[str, t.Any] = {
            **SHOP,
            "app_source": str(repository),
            "app_strategy": strategy,
            "app_start_timeout": start_timeout,
            "app_stop_timeout": 5,
            # What a cell costs is, for a third, workers that start.
            "app_workers": 2,
            "app_watch": WATCH,
            "app_lease": start_timeout + WATCH + 30,
            "app_environment": {"DATABASE_URL": note.read_text() if note.exists() else ""},
            "app_database": "postgresql",
            "app_migrations": "alembic",
            "app_extra_requirements": ["psycopg2-binary==2.9.10"],
        }
        if strategy == "rolling":
            self.declaration.update(app_batches=[1, "100%"], app_batch_watch=WATCH)
        if fleet.balancer:
            self.declaration["load_balancer_kind"] = "haproxy"
        self.project = FleetProject(directory, fleet, self.declaration)

    @property
    def apps(self) -> t.List[Host]:
        return self.fleet.apps

    @property
    def lease(self) -> int:
        return int(self.declaration["app_lease"])

    @property
    def fronts(self) -> t.List[Host]:
        """Where users come in: the balancer, or each host itself."""
        return [self.fleet.balancer] if self.fleet.balancer else self.apps

    def set_up(self) -> bool:
        """The first deploy, on an empty database, and the balancer in front of it. A fleet on which that was done stays as it is.

        :returns: Whether there was something to do.
        """
        if self.fleet.balancer:
            self.project.must("load_balancer")
        if self.well():
            return False
        url = self.fleet.new_database(NAME).replace("postgresql://", "postgresql+psycopg2://")
        (self.directory / "database").write_text(url)
        self.declaration["app_environment"] = {"DATABASE_URL": url}
        self.project.declare(self.declaration)
        self.deploy(VERSIONS[0], f"{time.time_ns()}")
        return True

    def well(self) -> bool:
        """Whether every host serves the same, and one that is in this matrix."""
        seen = self.look()
        return len({one.release for one in seen}) == 1 and all(one.answer.status == 200 and one.answer.version in VERSIONS for one in seen)

    def start(self, version: str, nonce: str) -> Running:
        """Begin to deploy. The nonce makes another release of the same version: one that has to be staged, and whose trouble is its own."""
        self.project.points.unlink(missing_ok=True)
        return self.project.start("deploy", app_version=version, app_environment=self.environment(nonce))

    def deploy(self, version: str, nonce: str) -> Played:
        return self.finish(self.start(version, nonce))

    def finish(self, running: Running, timeout: float = 300) -> Played:
        played = running.wait(timeout)
        assert played.ok, f"The deploy ended with {played.rc}:\n{played.output}"
        return played

    def environment(self, nonce: str) -> t.Dict[str, str]:
        return {**self.declaration["app_environment"], "NONCE": nonce, "TROUBLE": self.trouble(nonce)}

    def trouble(self, nonce: str) -> str:
        """The file on a host that makes the release with this nonce bad there."""
        return f"{ROOT}/shared/trouble-{nonce}"

    def points(self) -> t.List[points.Point]:
        return points.read(self.project.points)

    def on_all(self, what: t.Callable[[Host], t.Any]) -> t.List[t.Any]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(what, self.apps))

    def look(self) -> t.List[Seen]:
        script = (HERE / "look.py").read_text()

        def one(host: Host) -> Seen:
            told = host.run(["python3", "-", NAME, ROOT], stdin=script).stdout
            return Seen(host.name, json.loads(told), answer(host))

        return self.on_all(one)

    def settle(self) -> None:
        """Nobody works for the run any more, the rest of its lease passes, and every host that has a way back has walked it."""
        # What a controller has sent before it died may not have begun.
        time.sleep(1)
        self.on_all(wait_for_modules)
        self.pass_lease()
        self.wait_until(lambda: not any(self.on_all(self.armed)), SLACK, "every host has gone back")

    def pass_lease(self) -> None:
        self.on_all(lambda host: end_lease(host, ROOT))

    def armed(self, host: Host) -> bool:
        return bool(self._way_back(host))

    def goes_back_alone(self, host: Host) -> bool:
        """Armed, and not in doubt: one that has called the release good asks the others first, and has to reach them."""
        way_back = self._way_back(host)
        return bool(way_back) and not way_back["good"]

    def _way_back(self, host: Host) -> t.Dict[str, t.Any]:
        if host.state != "running":
            return {}
        state = json.loads(host.run(["cat", f"{ROOT}/.deploy/state.json"]).stdout)
        return state.get("way_back") or {}

    def wait_until_quiet(self, running: Running, seconds: float = 4, timeout: float = 120) -> None:
        """Until the run has ended, or waits for a host that says nothing: no new task, and nothing at work on the hosts that can be seen."""
        deadline = time.monotonic() + timeout
        since, last = time.monotonic(), -1
        while running.process.poll() is None and time.monotonic() < deadline and time.monotonic() < since + seconds:
            now = len(self.points())
            if now != last or any(self.on_all(seen_at_work)):
                since, last = time.monotonic(), now
            time.sleep(0.5)

    def wait_until_answers(self, host: Host, timeout: float = 60) -> None:
        self.wait_until(lambda: answer(host).status == 200, timeout, f"{host.name} answers its users again")

    def wait_until_one_slot_runs(self, timeout: float = 30) -> None:
        def one(host: Host) -> bool:
            listed = host.run(["systemctl", "list-units", "--plain", "--no-legend", "--state=active,deactivating", f"{NAME}@*.service"])
            return len(listed.stdout.splitlines()) <= 1

        deadline = time.monotonic() + timeout
        # What is wrong after that is told by whoever judges.
        while time.monotonic() < deadline and not all(self.on_all(one)):
            time.sleep(0.2)

    def wait_until(self, what: t.Callable[[], bool], timeout: float, said: str) -> None:
        deadline = time.monotonic() + timeout
        while not what():
            assert time.monotonic() < deadline, f"Not within {timeout:g} s: {said}."
            time.sleep(0.2)

    def out_of_balancer(self) -> t.List[str]:
        """What the balancer does not send requests to, in its own words; of no balancer, nothing."""
        if self.fleet.balancer is None:
            return []
        rows = haproxy.statistics(self.fleet.balancer)
        listed = {row["svname"]: row["status"] for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}
        out = [f"{name} is {status}" for name, status in listed.items() if not status.startswith("UP")]
        return out + [f"{host.name} is not listed" for host in self.apps if host.name not in listed]

    def audit(self, host: Host) -> str:
        return host.run(["tail", "-n", "40", f"/var/log/{NAME}/deployment.log"], check=False).stdout


def answer(host: Host, timeout: float = 5) -> Answer:
    """Ask for the app's health as a user does, past the balancer."""
    connection = http.client.HTTPConnection(host.address, 80, timeout=timeout)
    try:
        connection.request("GET", "/health", headers={"Host": "shop.example.com"})
        response = connection.getresponse()
        body = response.read()
        told = json.loads(body) if "json" in response.headers.get("Content-Type", "") else {}
        return Answer(response.status, str(told.get("version", "")))
    except (OSError, http.client.HTTPException, ValueError):
        return Answer()
    finally:
        connection.close()


def seen_at_work(host: Host) -> bool:
    """Whether a module works on a host that can be seen: it runs, and the lab has put no rule into its way. Asked with one command."""
    return host.run(["sh", "-c", f"iptables -S INPUT | grep -q DROP && exit 1; {AT_WORK}"], check=False).returncode == 0


def signal_all(running: Running, number: signal.Signals) -> None:
    """All of a controller. One that is to be killed is stopped first, so that nothing of it is born or says goodbye meanwhile."""
    for one in (signal.SIGSTOP, number) if number == signal.SIGKILL else (number,):
        # The number of a process that has ended may be somebody else's by now.
        if running.process.poll() is not None:
            return
        for pid in family(running.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, one)
