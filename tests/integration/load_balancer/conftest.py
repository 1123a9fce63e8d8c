# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with both kinds of load balancer, each with a pool of its own, before the same two small servers on another host."""

from __future__ import annotations

import json
import os
import subprocess
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import haproxy, up
from lab.deployment import BIN
from lab.hosts import Host
from lab.inventory import COMMON, connection
from lab.modules import Module

WORKER = os.environ.get("BULLETPROOF_HOST", os.environ.get("PYTEST_XDIST_WORKER", "one"))
# The servers, by the names that the inventory has for them.
PORTS = {"web1": 8101, "web2": 8102}
DOORS = {"nginx": 8001, "haproxy": 8002}

SERVER = """
import http.server, sys, time, urllib.parse


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("X-App-Version", sys.argv[1])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        time.sleep(float(asked.get("seconds", ["0"])[0]))
        self.answer(b"ok")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("", int(sys.argv[2])), Handler).serve_forever()
"""


@dataclass
class Site:
    """What is behind one kind of load balancer."""

    kind: str
    balancer: Host
    apps: Host
    directory: Path
    module: Module

    @property
    def app(self) -> str:
        return f"shop-{self.kind}"

    @property
    def url(self) -> str:
        return f"http://{self.balancer.address}:{DOORS[self.kind]}/"

    def server(self, name: str, running: bool) -> None:
        """Start or stop one of the servers."""
        unit = f"server-{name}"
        if not running:
            self.apps.run(["systemctl", "stop", unit])
        elif self.apps.run(["systemctl", "is-active", unit], check=False).returncode:
            run = ["systemd-run", "--quiet", "--collect", "--unit", unit, "python3", "/opt/server.py", name, str(PORTS[name])]
            self.apps.run(run)
            self.until(lambda: self.apps.run(["curl", "-sf", f"http://127.0.0.1:{PORTS[name]}/"], check=False).returncode == 0)

    def inventory(self, members: t.Iterable[str] = tuple(PORTS), balancers: t.Iterable[str] = (), **variables: object) -> None:
        declared = {
            **COMMON,
            "app_name": self.app,
            "app_source": "/nowhere",
            "app_entrypoint": "shop:app",
            "load_balancer_kind": self.kind,
            "load_balancer_listen": [str(DOORS[self.kind])],
            "load_balancer_drain_timeout": 20,
            **variables,
        }
        hosts = {name: {**connection(self.apps), "load_balancer_member_port": PORTS.get(name, 8199)} for name in members}
        # An address that nobody has, and no connection from before that still leads somewhere.
        nowhere = {"ansible_host": "192.0.2.1", "ansible_ssh_timeout": 3, "ansible_control_path": str(self.directory / "none")}
        gone = {name: {**connection(self.balancer), **nowhere} for name in balancers}
        groups = {"app": {"hosts": hosts}, "load_balancer": {"hosts": {self.balancer.name: connection(self.balancer), **gone}}}
        (self.directory / "hosts.json").write_text(json.dumps({"all": {"vars": declared, "children": groups}}))

    def play(self, playbook: str | list[dict[str, t.Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
        """A playbook of the collection, or these plays."""
        if not isinstance(playbook, str):
            (self.directory / "plays.json").write_text(json.dumps(playbook))
            playbook = "plays.json"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return subprocess.run(
            [str(BIN / "ansible-playbook"), "-i", "hosts.json", playbook, *arguments],
            cwd=self.directory,
            env={**inherited, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def provision(self, *arguments: str) -> str:
        done = self.play("bulletproof.deploy.load_balancer", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def member(self, name: str, state: str, **options: object) -> dict[str, t.Any]:
        return self.module.must("load_balancer_member", app=self.app, member=name, state=state, **options)

    def out(self) -> dict[str, t.Any]:
        path = f"/var/lib/bulletproof-balancer/{self.app}/out.json"
        return t.cast(dict[str, t.Any], json.loads(self.balancer.read(path))) if self.balancer.exists(path) else {}

    def status(self, name: str) -> str:
        """What HAProxy says of a member."""
        rows = haproxy.statistics(self.balancer)
        return next(row["status"] for row in rows if row["pxname"] == f"balancer_{self.app}" and row["svname"] == name)

    def answering(self, requests: int = 8) -> set[str]:
        """Who answers when the balancer is asked so often."""
        said = self.balancer.run(["sh", "-c", f"for n in $(seq {requests}); do curl -s -D - -o /dev/null $0; done", self.url]).stdout
        return {line.partition(":")[2].strip() for line in said.splitlines() if line.lower().startswith("x-app-version")}

    def until(self, true: t.Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "It did not come to be."
            time.sleep(0.1)


@pytest.fixture(scope="session")
def hosts() -> list[Host]:
    return up([f"lb-balancer-{WORKER}", f"lb-apps-{WORKER}"])


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def site(request: pytest.FixtureRequest, hosts: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A pool with both members in it."""
    balancer, apps = hosts
    directory = tmp_path_factory.mktemp(request.param)
    made = Site(request.param, balancer, apps, directory, Module(balancer, directory))
    apps.write("/opt/server.py", SERVER)
    for name in PORTS:
        made.server(name, running=True)
    made.inventory()
    made.provision()
    for name in PORTS:
        made.member(name, "ready")
    return made
