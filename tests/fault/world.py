# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An app on a lab host, and what the promises say about it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from fault import leases

from lab import Host
from lab.deployment import SHOP, Played, Project, Running

# A phase on the host, as its command line shows it.
PHASE = "^/usr/bin/python3 -I /run/bulletproof-deploy/code/"
# The longest watch of any test. The lease is the shortest that goes with it.
LONGEST_WATCH = 10
# The timer looks every 5 s, and a busy machine starts a process late.
SLACK = 15.0


@dataclass(frozen=True)
class Serving:
    """What a user gets, and from where."""

    version: str
    slot: str
    main_pid: int


class Shop:
    """The shop, deployed to one host from a Git repository that has every version, good and bad."""

    def __init__(self, directory: Path, host: Host, repository: Path, start_timeout: int, name: str = "shop", port: int = 80) -> None:
        self.host, self.name, self.port = host, name, port
        self.root = f"/opt/{name}"
        self.declaration: t.Dict[str, t.Any] = {
            **SHOP,
            "app_start_timeout": start_timeout,
            "app_stop_timeout": 5,
            "app_watch": 2,
            "app_lease": start_timeout + LONGEST_WATCH + 30,
            "app_name": name,
            "app_listen": port,
            "app_source": str(repository),
            "app_environment": {"DATABASE_URL": f"sqlite:///{self.root}/shared/shop.db"},
        }
        self.project = Project(directory, [host], self.declaration)

    def play(self, playbook: str, *arguments: str, **extra: object) -> Played:
        return self.project.play(playbook, *arguments, **extra)

    def must(self, playbook: str, *arguments: str, **extra: object) -> Played:
        return self.project.must(playbook, *arguments, **extra)

    def deploy(self, version: str, **extra: object) -> Played:
        """Deploy a version that is good, without any help."""
        played = self.must("deploy", app_version=version, **extra)
        self.expect(version)
        return played

    def start(self, playbook: str, **extra: object) -> Running:
        return self.project.start(playbook, **extra)

    def refused(self, *said: str, playbook: str = "deploy", **extra: object) -> Played:
        """Play what has to fail, say certain things, and leave what serves alone: the same process goes on."""
        before = self.serving()
        played = self.play(playbook, **extra)
        assert not played.ok, f"It did not fail:\n{played.output}"
        missing = [text for text in said if text not in played.output]
        assert not missing, f"It did not say {missing}:\n{played.output}"
        assert self.serving() == before, played.output
        return played

    def fresh(self, **more: str) -> t.Dict[str, t.Any]:
        """An environment that nobody had before, and so another release of the same version: it has to be staged."""
        return {**self.declaration["app_environment"], "NONCE": str(time.time_ns()), **more}

    @property
    def other(self) -> str:
        """A good version that is not the live one."""
        return "1.1.0" if self.serving().version == "1.0.0" else "1.0.0"

    def get(self, path: str = "/health", timeout: float = 5) -> t.Tuple[int, t.Dict[str, t.Any]]:
        """Ask as a user does, through the proxy."""
        connection = http.client.HTTPConnection(self.host.address, self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": "shop.example.com"})
            answer = connection.getresponse()
            body = answer.read()
        return answer.status, json.loads(body) if "json" in answer.headers.get("Content-Type", "") else {}

    def serving(self) -> Serving:
        status, told = self.get()
        assert status == 200, f"{status}: {told}"
        slot = self.slot()
        return Serving(told["version"], slot, self.main_pid(slot))

    def slot(self) -> str:
        return self.host.run(["readlink", f"/run/{self.name}/live.sock"]).stdout.strip().removesuffix(".sock")

    def main_pid(self, slot: str) -> int:
        return int(self.systemctl("show", "--property=MainPID", "--value", f"{self.name}@{slot}.service"))

    def systemctl(self, *arguments: str) -> str:
        return self.host.run(["systemctl", *arguments], check=False).stdout.strip()

    def json(self, name: str) -> t.Dict[str, t.Any]:
        """One of the host's own notes: state, lock."""
        path = f"{self.root}/.deploy/{name}.json"
        return t.cast("dict[str, t.Any]", json.loads(self.host.read(path))) if self.host.exists(path) else {}

    @property
    def armed(self) -> bool:
        return self.json("state").get("way_back") is not None

    def releases(self) -> t.Dict[str, t.Dict[str, t.Any]]:
        """The manifests, by release."""
        found = self.host.run(["sh", "-c", f"cat {self.root}/releases/*/.release/manifest.json"], check=False).stdout
        decoder, at, manifests = json.JSONDecoder(), 0, {}
        while at < len(found.rstrip()):
            manifest, at = decoder.raw_decode(found, at)
            manifests[manifest["release"]] = manifest
            while at < len(found) and found[at].isspace():
                at += 1
        return manifests

    def audit(self) -> t.List[t.Dict[str, t.Any]]:
        return [json.loads(line) for line in self.host.read(f"/var/log/{self.name}/deployment.log").splitlines()]

    def expect(self, version: str) -> None:
        """The promise: this version serves, all that tells of it agrees, and nothing is left of any run."""
        serving = self.serving()
        assert serving.version == version
        state = self.json("state")
        assert state["way_back"] is None, state
        live = state["live"]
        assert live["slot"] == serving.slot
        assert live["release"].startswith(f"{version}-"), state
        assert self.host.run(["readlink", f"{self.root}/current"]).stdout.strip() == f"releases/{live['release']}"
        assert not self.leftovers()

    def leftovers(self) -> t.List[str]:
        """What is half built or half removed."""
        listing = self.host.run(["sh", "-c", f"ls -A {self.root}/releases {self.root}/venvs"]).stdout.split()
        return [name for name in listing if name.startswith((".building-", ".removing-"))]

    def end_lease(self) -> None:
        """Let the time that is left of the lease pass at once."""
        leases.end_lease(self.host, self.root)

    def wait_until_at_work(self) -> None:
        """Let the phase that the controller has begun run its checks, each in a thread: cut off before, it waits for its options for ever."""
        threads = ["sh", "-c", f'ls -d /proc/$(pgrep --full "{PHASE}")/task/*/']
        self.wait_until(lambda: len(self.host.run(threads, check=False).stdout.split()) > 1, 60, "the phase is at work on the host")

    def settle_modules(self) -> None:
        """Let what still runs of a dead run on the host come to its end."""
        leases.wait_for_modules(self.host)

    def settle(self) -> None:
        """The same, and let the rest of the dead run's lease pass at once."""
        self.settle_modules()
        self.end_lease()
        self.wait_until_disarmed()

    def wait_until(self, what: t.Callable[[], bool], timeout: float, said: str) -> float:
        """Returns how long it took."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() < began + timeout, (
                f"Not within {timeout:g} s: {said}; state {self.json('state')}, lock {self.json('lock')}"
            )
            time.sleep(0.1)
        return time.monotonic() - began

    def wait_until_disarmed(self, timeout: float = SLACK) -> float:
        return self.wait_until(lambda: not self.armed, timeout, "the safety net went back")
