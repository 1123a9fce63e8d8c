# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every kind of load balancer can do, and what is known of a pool.

The standard library alone, because the agent on the balancer uses it without Ansible.
"""

from __future__ import annotations

import http.client
import ssl
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

HEADER = "# Written by bulletproof.deploy. Changes made here are lost.\n"
# A name of its own beside what else is on the host, the app itself for instance.
PREFIX = "balancer_"
# Seconds for which a client's idle connection is kept. Nothing that a client sends on one must be lost by a reload, so reloads wait for it.
KEEP_ALIVE = 5
CONNECT = 5
POLL = 0.1


@dataclass(frozen=True)
class Member:
    """One host of the app."""

    name: str
    address: str
    port: int

    @property
    def place(self) -> str:
        """As it is written in a configuration: IPv6 addresses are in brackets there."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Health:
    """How a member is asked whether it is well: as the deploy asks it."""

    path: str
    statuses: t.Tuple[int, ...]
    interval: float
    timeout: float


@dataclass(frozen=True)
class Pool:
    """An app behind a balancer.

    :param listen: Addresses and ports, as the program itself writes them.
    :param extra: More lines of the program's configuration, where it takes requests.
    """

    app: str
    kind: str
    listen: t.Tuple[str, ...]
    server_names: t.Tuple[str, ...]
    members: t.Tuple[Member, ...]
    health: Health
    request_timeout: int
    extra: t.Tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The name that the app is asked for."""
        return next((name for name in self.server_names if name != "_" and not set(name) & set("*~^")), "")

    def member(self, name: str) -> t.Optional[Member]:
        return next((one for one in self.members if one.name == name), None)

    def data(self) -> t.Dict[str, t.Any]:
        return asdict(self)


def pool_of(data: t.Mapping[str, t.Any]) -> Pool:
    return Pool(
        app=data["app"],
        kind=data["kind"],
        listen=tuple(data["listen"]),
        server_names=tuple(data["server_names"]),
        members=tuple(Member(**one) for one in data["members"]),
        health=Health(**{**data["health"], "statuses": tuple(data["health"]["statuses"])}),
        request_timeout=data["request_timeout"],
        extra=tuple(data["extra"]),
    )


@dataclass(frozen=True)
class Listed:
    """What a configuration says: the members, and the lines that decide whether one is believed to be well."""

    members: t.Tuple[Member, ...]
    health: t.Tuple[str, ...]


class Balancer:
    """A program that spreads requests. Each kind is one subclass; nothing else knows the difference."""

    kind = ""
    unit = ""

    def path(self, app: str) -> str:
        """The file of a pool."""
        raise NotImplementedError

    def render(self, pool: Pool, out: t.Container[str]) -> str:
        """The text of that file.

        :param out: The members that get no requests.
        """
        raise NotImplementedError

    def listed(self, text: str) -> Listed:
        """What such a text says, also if somebody else has written it."""
        raise NotImplementedError

    def judge(self, app: str, text: t.Optional[str]) -> None:
        """Raise Failure unless the program accepts its configuration with this text as the file of a pool; None is no file."""
        raise NotImplementedError

    def running(self) -> bool:
        raise NotImplementedError

    def take_over(self) -> None:
        """Have the program work with other members than before, and lose no request."""
        raise NotImplementedError

    def shift(self, pool: Pool, member: Member, out: bool) -> None:
        """Have it send a member no more requests, or requests again. The file says so already."""
        raise NotImplementedError

    def unfinished(self, pool: Pool, member: Member) -> t.Tuple[int, bool]:
        """How many requests it has under way there, and whether there could be more to come."""
        raise NotImplementedError

    def doubt(self, pool: Pool, member: Member) -> str:
        """Why it would not send requests to a member that is in; empty when it does."""
        raise NotImplementedError


def unverified() -> ssl.SSLContext:
    """To learn whether there is an answer. Whether the certificate is right is another question, and another check's."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(address: str, port: int, pool: Pool, secure: bool = False) -> str:
    """What is wrong with the app's health as it is answered there; empty when nothing is."""
    health = pool.health
    connection: http.client.HTTPConnection
    if secure:
        connection = http.client.HTTPSConnection(address, port, timeout=health.timeout, context=unverified())
    else:
        connection = http.client.HTTPConnection(address, port, timeout=health.timeout)
    try:
        connection.request("GET", health.path, headers={"Host": pool.host or address, "Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{health.path} is not answered at {address} port {port} ({error or type(error).__name__})"
    finally:
        connection.close()
    if status in health.statuses:
        return ""
    return f"{health.path} is answered with {status} at {address} port {port}, allowed: {', '.join(str(one) for one in health.statuses)}"


def until(question: t.Callable[[], str], patience: float) -> str:
    """Ask until the answer is empty or the time is over; the last answer."""
    deadline = time.monotonic() + patience
    while True:
        answer = question()
        if not answer or time.monotonic() >= deadline:
            return answer
        time.sleep(POLL)


def mistakes(pool: Pool) -> t.List[str]:
    """What cannot be right in a pool, whatever the kind."""
    found = []
    for what, values in (("name", [one.name for one in pool.members]), ("address and port", [one.place for one in pool.members])):
        for value in sorted(set(values)):
            same = [one.name for one, own in zip(pool.members, values) if own == value]
            if len(same) > 1:
                found.append(f"{', '.join(same)} have the same {what}: {value}.")
    for one in pool.members:
        if not one.address or set(one.address + one.name) & set(" \t\n;{}\"'#\\$"):
            found.append(f"{one.name}: found the address {one.address!r}; allowed: an IP address or a host name.")
        if not 0 < one.port < 65536:
            found.append(f"{one.name}: found the port {one.port}; allowed: 1 to 65535.")
    if not pool.members:
        found.append("There is no member: found an empty list; allowed: one or more.")
    if not pool.listen:
        found.append("listen: found an empty list; allowed: one address or port, or more.")
    if pool.health.interval <= 0 or pool.health.timeout <= 0:
        found.append(
            f"The health check's interval and timeout: found {pool.health.interval:g} and {pool.health.timeout:g}; allowed: more than 0 (seconds)."
        )
    return found


def refused(program: str, now: str, then: str) -> Failure:
    """The failure of a configuration that a program does not accept.

    :param now: What it says of the configuration as it is; empty when it accepts that.
    """
    if now:
        return Failure(
            f"{program}'s configuration was broken before, without any change from here. {program} says:\n{now}",
            fix=f"Repair the file and line that {program} names, then run this again. Nothing was changed.",
        )
    return Failure(
        f"{program} does not accept its configuration with the pool in it. {program} says:\n{then}",
        fix="Correct the variable (load_balancer_*) that the named line comes from, or what collides with it. Nothing was changed.",
    )
