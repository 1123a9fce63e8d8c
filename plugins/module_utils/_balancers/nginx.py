# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx as a load balancer: an upstream and a site for each app.

nginx learns only by a reload who gets requests, and a reload closes the idle connections of its clients: what is sent on one of them at that moment
is lost. So clients are asked to close theirs first: while a certain file is there, each answer is the last one on its connection. The reload waits
until those that were open then are gone.

nginx has no health checks of its own: it notices a member that is ill by the requests that fail there, and tries them elsewhere if nothing was sent yet.
"""

from __future__ import annotations

import os
import re
import socket
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _nginx
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import contract
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.contract import Balancer, Listed, Member, Pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

DIRECTORY = "/etc/nginx"
EXECUTABLE = "/usr/sbin/nginx"
# In memory, where nginx's workers can look: a host that restarts has forgotten it. One for all pools, which a reload concerns all.
CLOSING = "/run/bulletproof-balancer/closing"
PATIENCE = 10.0
FAIL = "max_fails=1 fail_timeout=10s"
NEXT = "proxy_next_upstream error timeout;"

# Connections that carry a request as far as a member can tell: being made, or made (include/net/tcp_states.h of Linux).
ESTABLISHED, LISTENS = "01", "0A"
UNDER_WAY = frozenset({ESTABLISHED, "02"})


class Connection(t.NamedTuple):
    """A line of /proc/net/tcp: whose it is, the ports of both ends, and the other end's address."""

    inode: str
    uid: str
    state: str
    local_port: int
    address: str
    port: int


def parse_connections(text: str, family: int) -> t.List[Connection]:
    """The lines of ``/proc/net/tcp`` or ``tcp6`` (proc(5)): addresses are hexadecimal, in words of the machine's byte order (here: little)."""
    found = []
    for line in text.splitlines()[1:]:
        part = line.split()
        raw, port = part[2].split(":")
        words = b"".join(bytes.fromhex(raw[start : start + 8])[::-1] for start in range(0, len(raw), 8))
        address = socket.inet_ntop(family, words).replace("::ffff:", "")
        found.append(Connection(part[9], part[7], part[3], int(part[1].split(":")[1], 16), address, int(port, 16)))
    return found


def connections() -> t.List[Connection]:
    """Those of the host. Whose they are is told by the user: which process has one is not everywhere for root to see (CAP_SYS_PTRACE)."""
    found = []
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        if os.path.exists(path):
            with open(path, encoding="ascii") as stream:
                found += parse_connections(stream.read(), family)
    return found


def users(pids: t.Iterable[str]) -> t.Set[str]:
    """The users that these processes run as."""
    found: t.Set[str] = set()
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
                found.update(line.split()[2] for line in stream if line.startswith("Uid:"))
        except OSError:
            # It ended while this looked.
            continue
    return found


def addresses(member: Member) -> t.Set[str]:
    try:
        return {str(one[4][0]) for one in socket.getaddrinfo(member.address, member.port, type=socket.SOCK_STREAM)}
    except OSError:
        return {member.address}


def door(listen: str) -> t.Tuple[str, int, bool]:
    """Where a ``listen`` of nginx can be asked from the host itself: address, port, and whether with TLS."""
    place, *words = listen.split()
    address, _colon, port = place.rpartition(":") if not place.isdigit() else ("", "", place)
    if not port.isdigit():
        address, port = place, "80"
    address = address.strip("[]")
    return {"": "127.0.0.1", "*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), int(port), "ssl" in words


def places(listen: str) -> t.List[str]:
    """A bare port listens everywhere, by IPv4 and IPv6."""
    port, *words = listen.split()
    return [" ".join([one, *words]) for one in ([port, f"[::]:{port}"] if port.isdigit() else [port])]


class Nginx(Balancer):
    """See the module's own story."""

    kind = "nginx"
    unit = "nginx.service"

    def path(self, app: str) -> str:
        return f"{DIRECTORY}/conf.d/{contract.PREFIX}{app}.conf"

    def render(self, pool: Pool, out: t.Container[str]) -> str:
        upstream = contract.PREFIX + pool.app
        default = " default_server" if pool.server_names == ("_",) else ""
        servers = "".join(f"    server {one.place} {FAIL}{' down' if one.name in out else ''};  # {one.name}\n" for one in pool.members)
        listen = "".join(f"    listen {place}{default};\n" for one in pool.listen for place in places(one))
        extra = "".join(f"    {line}\n" for line in pool.extra)
        passing = "".join(
            f"        {line}\n"
            for line in (
                f"proxy_pass http://{upstream};",
                "proxy_http_version 1.1;",
                "proxy_set_header Host $http_host;",
                "proxy_set_header X-Real-IP $remote_addr;",
                "proxy_set_header X-Forwarded-For $remote_addr;",
                "proxy_set_header X-Forwarded-Proto $scheme;",
                "proxy_set_header X-Forwarded-Host $http_host;",
                "proxy_set_header Upgrade $http_upgrade;",
                # One request a connection: so none is sent on a connection that the member is just closing.
                f"proxy_set_header Connection ${upstream.replace('-', '_')}_connection;",
                f"proxy_connect_timeout {contract.CONNECT}s;",
                f"proxy_read_timeout {pool.request_timeout}s;",
                NEXT,
            )
        )
        return f"""{contract.HEADER}map $http_upgrade ${upstream.replace("-", "_")}_connection {{
    default upgrade;
    '' close;
}}

upstream {upstream} {{
{servers}}}

server {{
{listen}    server_name {" ".join(pool.server_names)};
    client_max_body_size 0;
    keepalive_timeout {contract.KEEP_ALIVE}s;
    open_file_cache off;
{extra}
    location / {{
        # Before a reload: each answer is the last one on its connection, so that none is waiting on one that the reload closes.
        error_page 418 = @closing;
        if (-e {CLOSING}) {{
            return 418;
        }}
{passing}    }}

    location @closing {{
        keepalive_timeout 0;
{passing}    }}
}}
"""

    def listed(self, text: str) -> Listed:
        members, health = [], []
        for match in re.finditer(r"^[ \t]*server[ \t]+([^\s{]+?)((?:[ \t]+[\w.=]+)*)[ \t]*;(?:[ \t]*#[ \t]*(\S+))?", text, re.MULTILINE):
            address, _colon, port = match[1].rpartition(":") if re.search(r":\d+$", match[1]) else (match[1], "", "80")
            address = address.strip("[]")
            members.append(Member(match[3] or match[1], address, int(port)))
            health.append(" ".join(word for word in match[2].split() if word != "down"))
        health += [match[0].strip() for match in re.finditer(r"^\s*proxy_next_upstream\s[^;]*;", text, re.MULTILINE)]
        return Listed(tuple(members), tuple(sorted(set(health))))

    def judge(self, app: str, text: t.Optional[str]) -> None:
        then = _nginx.judge(EXECUTABLE, DIRECTORY, {self.path(app): text})
        if then.accepted and not then.shadowed:
            return
        now = _nginx.judge(EXECUTABLE, DIRECTORY, {})
        if not then.accepted:
            raise contract.refused("nginx", "" if now.accepted else now.words, then.words)
        if len(then.shadowed) > len(now.shadowed):
            raise Failure(
                "Another site has the name of this pool, so nginx would never ask it. nginx says:\n" + "\n".join(then.shadowed),
                fix="Give the app names of its own (app_server_names), or another port to listen on (load_balancer_listen). Nothing was changed.",
            )

    def running(self) -> bool:
        return _nginx.main_process(self.unit) != 0

    def workers(self) -> t.Tuple[t.Set[str], t.Set[str]]:
        """The processes that take requests, and those that only finish what they have."""
        active: t.Set[str] = set()
        ending: t.Set[str] = set()
        for pid in _nginx.children(_nginx.main_process(self.unit)):
            title = self.title(pid)
            if "worker process" in title:
                (ending if "shutting down" in title else active).add(pid)
        return active, ending

    def title(self, pid: str) -> str:
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

    def clients(self, owners: t.Container[str]) -> t.Set[str]:
        """The connections that clients have."""
        found = connections()
        ports = {one.local_port for one in found if one.state == LISTENS}
        return {one.inode for one in found if one.state == ESTABLISHED and one.local_port in ports and one.uid in owners}

    def take_over(self) -> None:
        """Ask the clients to close their connections, then reload."""
        before, _ending = self.workers()
        owners = users(before)
        os.makedirs(os.path.dirname(CLOSING), mode=0o755, exist_ok=True)
        try:
            with open(CLOSING, "w", encoding="ascii"):
                pass
            open_now = self.clients(owners)
            # One that has said nothing for this long is being closed anyway; one with a long request is no idle one.
            contract.until(lambda: "open" if open_now & self.clients(owners) else "", contract.KEEP_ALIVE + 1)
            self.reload(before)
        finally:
            os.unlink(CLOSING)

    def reload(self, before: t.Set[str]) -> None:
        if not _nginx.reload(self.unit, PATIENCE):
            raise Failure(
                "nginx did not take the new configuration over and works with the old one.",
                fix="Read /var/log/nginx/error.log, remove the cause, for instance another program on the same port, and run this again.",
            )
        # The new workers are there before the old ones have been told to finish.
        deadline = time.monotonic() + PATIENCE
        while before & self.workers()[0] and time.monotonic() < deadline:
            time.sleep(0.02)

    def shift(self, pool: Pool, member: Member, out: bool) -> None:
        self.take_over()

    def unfinished(self, pool: Pool, member: Member) -> t.Tuple[int, bool]:
        """An old process may be reading a request that it will send to the member: as long as there is one, there may be more to come."""
        active, ending = self.workers()
        there, owners = addresses(member), users(active | ending)
        requests = sum(
            one.state in UNDER_WAY and one.uid in owners and one.port == member.port and one.address in there for one in connections()
        )
        return requests, bool(ending)

    def doubt(self, pool: Pool, member: Member) -> str:
        """nginx believes in a member until it fails. So the member is asked directly, and then the pool."""
        address, port, secure = door(pool.listen[0])
        return contract.ask(member.address, member.port, pool) or contract.ask(address, port, pool, secure)
