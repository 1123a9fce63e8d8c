# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HAProxy as a load balancer: a frontend and a backend for each app.

Who gets requests is told to the process that runs, on its socket, without a reload. The file says the same, for the next start.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import socket
import tempfile
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils import _nginx
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import contract
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.contract import Balancer, Listed, Member, Pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must, run
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

MAIN = "/etc/haproxy/haproxy.cfg"
DIRECTORY = "/etc/haproxy/conf.d"
EXECUTABLE = "/usr/sbin/haproxy"
SOCKET = "/run/haproxy/admin.sock"
PATIENCE = 10.0
HEALTH = ("option httpchk", "http-check ", "default-server ", "timeout check ")
# Since this version, a reload closes idle connections unless told to let each say "close" first (`option idle-close-on-response`).
IDLE_CLOSE = (2, 4)


@dataclass(frozen=True)
class Row:
    """A server, as ``show stat`` tells of it."""

    status: str
    requests: int
    waiting: int
    check: str


def parse_stat(text: str, backend: str) -> t.Dict[str, Row]:
    """The servers of a backend in the answer to ``show stat``: CSV, with a ``#`` before its head."""
    rows = csv.DictReader(text.lstrip("# \n").splitlines())
    return {
        row["svname"]: Row(
            row["status"],
            int(row["scur"] or 0),
            int(row["qcur"] or 0),
            " ".join(filter(None, (row.get("check_status"), row.get("last_chk")))),
        )
        for row in rows
        if row["pxname"] == backend and row["svname"] not in ("FRONTEND", "BACKEND")
    }


def parse_version(text: str) -> t.Tuple[int, ...]:
    """From what ``haproxy -v`` says."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def binds(listen: str) -> t.List[str]:
    """A bare port listens everywhere, by IPv4 and IPv6."""
    place, *words = listen.split()
    places = [f"*:{place}", f":::{place} v6only"] if place.isdigit() else [place]
    return [" ".join([one, *words]) for one in places]


class HAProxy(Balancer):
    """See the module's own story."""

    kind = "haproxy"
    unit = "haproxy.service"

    def path(self, app: str) -> str:
        return f"{DIRECTORY}/{app}.cfg"

    def version(self) -> t.Tuple[int, ...]:
        return parse_version(must([EXECUTABLE, "-v"], "HAProxy does not say its version").stdout)

    def render(self, pool: Pool, out: t.Container[str]) -> str:
        return self.text(pool, out, self.version())

    def text(self, pool: Pool, out: t.Container[str], version: t.Tuple[int, ...]) -> str:
        name = contract.PREFIX + pool.app
        health = pool.health
        statuses = "|".join(str(one) for one in health.statuses)
        front = [
            "mode http",
            *(f"bind {place}" for one in pool.listen for place in binds(one)),
            "option http-keep-alive",
            *(["option idle-close-on-response"] if version >= IDLE_CLOSE else []),
            f"timeout http-keep-alive {contract.KEEP_ALIVE}s",
            "timeout http-request 60s",
            f"timeout client {pool.request_timeout}s",
            "http-request set-header X-Real-IP %[src]",
            # Not what the client says of itself.
            "http-request set-header X-Forwarded-For %[src]",
            "http-request set-header X-Forwarded-Proto https if { ssl_fc }",
            "http-request set-header X-Forwarded-Proto http if !{ ssl_fc }",
            *pool.extra,
            f"default_backend {name}",
        ]
        back = [
            "mode http",
            "balance roundrobin",
            # One request a connection: so none is sent on a connection that the member is just closing.
            "option http-server-close",
            "option redispatch 1",
            f"timeout connect {contract.CONNECT}s",
            f"timeout queue {contract.CONNECT}s",
            f"timeout server {pool.request_timeout}s",
            f"timeout check {health.timeout:g}s",
            "option httpchk",
            f"http-check send meth GET uri {health.path} ver HTTP/1.1 hdr Host {pool.host or '127.0.0.1'}",
            f"http-check expect rstatus ^({statuses})$",
            f"default-server inter {round(health.interval * 1000)} fall 3 rise 1",
            *(f"server {one.name} {one.place} check{' disabled' if one.name in out else ''}" for one in pool.members),
        ]
        sections = ((f"frontend {name}", front), (f"backend {name}", back))
        return contract.HEADER + "\n".join(f"{title}\n" + "".join(f"    {line}\n" for line in lines) for title, lines in sections)

    def listed(self, text: str) -> Listed:
        lines = [line.strip() for line in text.splitlines()]
        members = []
        for line in lines:
            word = line.split()
            if word[:1] == ["server"] and len(word) > 2:
                address, _colon, port = word[2].rpartition(":")
                members.append(Member(word[1], address.strip("[]"), int(port) if port.isdigit() else 0))
        return Listed(tuple(members), tuple(sorted(line for line in lines if f"{line} ".startswith(HEALTH))))

    def judge(self, app: str, text: t.Optional[str]) -> None:
        then = self.said(self.path(app), text)
        if then:
            raise contract.refused("HAProxy", self.said("", None), then)

    def said(self, path: str, text: t.Optional[str]) -> str:
        """What HAProxy has against its configuration with another file in it; empty when it accepts that."""
        with tempfile.TemporaryDirectory(prefix="haproxy-") as scratch:
            for name in os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else []:
                if name.endswith(".cfg") and os.path.join(DIRECTORY, name) != path:
                    shutil.copy(os.path.join(DIRECTORY, name), scratch)
            if path and text is not None:
                with open(os.path.join(scratch, os.path.basename(path)), "w", encoding="utf-8") as stream:
                    stream.write(text)
            done = run([EXECUTABLE, "-c", "-f", MAIN, "-f", scratch])
        return "" if done.ok else done.last_words().replace(scratch, DIRECTORY) or f"exit status {done.rc}"

    def running(self) -> bool:
        return _nginx.main_process(self.unit) != 0

    def reads_directory(self) -> bool:
        """Whether the process that runs was told of the directory: only a start tells it."""
        with open(f"/proc/{_nginx.main_process(self.unit)}/cmdline", encoding="utf-8", errors="replace") as stream:
            return DIRECTORY in stream.read().split("\0")

    def take_over(self) -> None:
        if not self.reads_directory():
            must(["systemctl", "daemon-reload"], "systemd does not read its units again")
            must(["systemctl", "restart", self.unit], "HAProxy does not restart")
            if not self.reads_directory():
                raise Failure(
                    f"HAProxy does not read {DIRECTORY}.",
                    fix="Take CONFIG= out of /etc/default/haproxy, which wins over what the role load_balancer sets, and restart HAProxy.",
                )
            return
        before = _nginx.children(_nginx.main_process(self.unit))
        if not _nginx.reload(self.unit, PATIENCE):
            raise Failure(
                "HAProxy did not take the new configuration over and works with the old one.",
                fix="Read journalctl -u haproxy, remove the cause, for instance another program on the same port, and run this again.",
            )
        # An old process knows nothing of what is told on the socket from now on. Once idle clients have left, it only has requests that run.
        contract.until(lambda: "ending" if before & _nginx.children(_nginx.main_process(self.unit)) else "", contract.KEEP_ALIVE + 1)

    def tell(self, command: str) -> str:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(SOCKET)
                connection.sendall(f"{command}\n".encode())
                pieces: t.List[bytes] = []
                while True:
                    piece = connection.recv(65536)
                    if not piece:
                        return b"".join(pieces).decode("utf-8", "replace")
                    pieces.append(piece)
        except OSError as error:
            raise Failure(
                f"HAProxy does not answer on {SOCKET}: {error.strerror or error}.",
                fix=f"Start it (systemctl status haproxy), and have this in the section global of {MAIN}: stats socket {SOCKET} mode 660 level admin",
            ) from None

    def row(self, pool: Pool, member: Member) -> Row:
        rows = parse_stat(self.tell("show stat"), contract.PREFIX + pool.app)
        if member.name not in rows:
            raise Failure(
                f"The HAProxy that runs does not know the server {member.name} of the backend {contract.PREFIX}{pool.app}.",
                fix="Run the playbook load_balancer, which has it read its configuration.",
            )
        return rows[member.name]

    def shift(self, pool: Pool, member: Member, out: bool) -> None:
        said = self.tell(f"set server {contract.PREFIX}{pool.app}/{member.name} state {'drain' if out else 'ready'}").strip()
        if said:
            raise Failure(
                f"HAProxy does not {'drain' if out else 'enable'} {member.name}: {said}",
                fix=f"See the rights of {SOCKET} in {MAIN}: level admin.",
            )

    def unfinished(self, pool: Pool, member: Member) -> t.Tuple[int, bool]:
        row = self.row(pool, member)
        return row.requests + row.waiting, False

    def doubt(self, pool: Pool, member: Member) -> str:
        row = self.row(pool, member)
        return "" if row.status in ("UP", "no check") else f"HAProxy says of {member.name}: {row.status} ({row.check or 'not checked yet'})"
