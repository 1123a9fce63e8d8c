# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An app on lab hosts, as its user sees it: deployed by playbooks, asked over HTTP, looked at on the host."""

from __future__ import annotations

import http.client
import json
import re
import time
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.deployment import Played, Project
from lab.hosts import Host

# Stops an app, or every app, and removes what the collection made; what hosts share (packages, tools, caches) stays.
FORGET = r"""
for deploy in /opt/$1/.deploy; do
    [ -d "$deploy" ] || continue
    app=$(basename "$(dirname "$deploy")")
    systemctl disable --quiet --now "$app-safety-net.timer" "$app-live.service"
    systemctl stop "$app-process@*.service" "$app@*.service" "$app@*.socket"
    rm -rf "/opt/$app" "/run/$app" "/var/log/$app" /etc/systemd/system/"$app"[@-]*
    rm -f "/etc/nginx/conf.d/$app.conf" "/etc/nginx/snippets/$app.conf" "/etc/logrotate.d/$app" "/etc/tmpfiles.d/$app.conf"
done
systemctl daemon-reload
systemctl reset-failed
systemctl is-active --quiet nginx && systemctl reload nginx
true
"""
STOP = 'systemctl stop "$1-safety-net.timer" "$1-process@*.service" "$1@*.service" "$1@*.socket"'


def forget(host: Host, app: str = "*") -> None:
    host.run(["sh", "-c", FORGET, "sh", app])


@dataclass(frozen=True)
class Answer:
    status: int
    body: str

    @property
    def json(self) -> t.Any:
        return json.loads(self.body)


class App:
    """One app, declared, on one host or several."""

    def __init__(self, directory: Path, hosts: Sequence[Host], declaration: Mapping[str, object], balancers: Sequence[Host] = ()) -> None:
        self.name = str(declaration["app_name"])
        self.port = int(str(declaration["app_listen"]))
        self.root = f"/opt/{self.name}"
        self.hosts = list(hosts)
        self.declaration = dict(declaration)
        self.project = Project(directory, hosts, declaration, balancers)

    @property
    def host(self) -> Host:
        return self.hosts[0]

    def declare(self, **changes: object) -> None:
        """Change the declaration, as a person edits the inventory."""
        self.declaration.update(changes)
        self.project.declare(self.declaration)

    def deploy(self, version: str, *arguments: str, **extra: object) -> Played:
        """Deploy, and fail the test unless that ends well."""
        return self.project.must("deploy", *arguments, app_version=version, **extra)

    def broken_deploy(self, version: str, *arguments: str, **extra: object) -> Played:
        """Deploy what must not succeed."""
        played = self.project.play("deploy", *arguments, app_version=version, **extra)
        assert not played.ok, f"{self.name} {version} was deployed, and should not have been:\n{played.output}"
        return played

    def roll_back(self, **extra: object) -> Played:
        return self.project.must("rollback", **extra)

    def status(self, *, well: bool = True) -> str:
        """What status tells. It ends with an error when something needs a look, and only then."""
        played = self.project.play("status")
        assert played.ok is well, played.output
        return played.output

    def url(self, host: Host | None = None) -> str:
        return f"http://{(host or self.host).address}:{self.port}/"

    def ask(self, path: str, host: Host | None = None, *, method: str = "GET", body: object = None) -> Answer:
        """One request through the proxy."""
        connection = http.client.HTTPConnection((host or self.host).address, self.port, timeout=30)
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, body=content, headers={"Content-Type": "application/json"} if content else {})
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        finally:
            connection.close()

    def version(self, host: Host | None = None) -> str:
        """The version that answers through the proxy."""
        answer = self.ask("/health", host)
        assert answer.status == 200, answer
        return str(answer.json["version"])

    def state(self, host: Host | None = None) -> t.Any:
        """What the host has written down of itself."""
        return json.loads((host or self.host).read(f"{self.root}/.deploy/state.json"))

    def wait_for_state(self, what: t.Callable[[t.Any], bool], *hosts: Host, timeout: float = 45) -> None:
        """Wait until something is true of the state of each of these hosts, or of the only one."""
        deadline = time.monotonic() + timeout
        for host in hosts or (self.host,):
            while not what(state := self.state(host)):
                assert time.monotonic() < deadline, f"{host.name} after {timeout:g} s: {state}"
                time.sleep(0.2)

    def wait_until_disarmed(self, *hosts: Host) -> None:
        """Until the host is no longer on trial, whatever it serves then."""
        self.wait_for_state(lambda state: state["way_back"] is None, *hosts)

    def live(self, host: Host | None = None) -> str:
        """The id of the release that the host serves."""
        return str(self.state(host)["live"]["release"])

    def manifests(self, host: Host | None = None) -> dict[str, dict[str, t.Any]]:
        """The manifests on the host, by release."""
        script = f'for one in {self.root}/releases/*/.release/manifest.json; do [ -e "$one" ] || continue; cat "$one"; printf "\\0"; done'
        text = (host or self.host).run(["sh", "-c", script]).stdout
        found = [json.loads(one) for one in text.split("\0") if one.strip()]
        return {one["release"]: one for one in found}

    def state_of(self, version: str, host: Host | None = None) -> str:
        """good, bad, … ; empty when the host has no release of this version."""
        return next((str(one["state"]) for one in self.manifests(host).values() if one["version"] == version), "")

    def processes(self, host: Host | None = None) -> dict[str, int]:
        """Unit to main process, for the slots that run."""
        units = [f"{self.name}@{slot}.service" for slot in ("blue", "green", "main", *"12345")]
        shown = (host or self.host).run(["systemctl", "show", "--property=Id,MainPID", *units]).stdout
        pairs = re.findall(r"^MainPID=(\d+)\nId=(\S+)$", shown, re.MULTILINE)
        assert len(pairs) == len(units), shown
        return {unit: int(pid) for pid, unit in pairs if pid != "0"}

    def process_unit(self, instance: str) -> str:
        """The unit of an instance of what is declared under app_processes."""
        return f"{self.name}-process@{instance}.service"

    def told_by_processes(self, since: float, *instances: str, host: Host | None = None) -> list[str]:
        """What processes said of their beginning and their end since a moment, in the order of the journal (which outlives the app on its host)."""
        on = host or self.host
        on.run(["journalctl", "--sync"], check=False)
        units = [f"--unit={self.process_unit(instance)}" for instance in instances]
        lines = on.run(["journalctl", "--output=cat", "--quiet", f"--since=@{since:.0f}", *units]).stdout.splitlines()
        return [line for line in lines if re.fullmatch(r"\S+ \S+ (begins|has ended)", line)]

    def only_unit(self, host: Host | None = None, timeout: float = 45) -> str:
        """The unit that runs, once the one before has finished its requests."""
        return self.units(1, host, timeout)[0]

    def units(self, count: int, host: Host | None = None, timeout: float = 45) -> list[str]:
        """As many units as run, once those before have finished their requests."""
        deadline = time.monotonic() + timeout
        while len(units := list(self.processes(host))) != count:
            assert time.monotonic() < deadline, f"{units} run on {host or self.host}; expected {count}."
            time.sleep(0.2)
        return units

    def stop(self) -> None:
        """Take no more of the machine; what is on the host stays, to be looked at."""
        for host in self.hosts:
            host.run(["sh", "-c", STOP, "sh", self.name], check=False)
