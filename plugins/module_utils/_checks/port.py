# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``port``: whether something listens, on TCP or on a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import typing as t
from contextlib import closing

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    FLAG,
    PASS,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import Budget, connected_by_name, connected_to
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.http import socket_mistakes

HOST = "127.0.0.1"
# Nobody is there. A socket file without a listener refuses, too.
CLOSED = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR, errno.ENOTSOCK)
# On the way there somebody said no, or nobody said anything: nothing can be said of the port itself.
UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)


def where(options: Options) -> str:
    return str(options["unix_socket"] or f"{options['host'] or HOST}:{options['port']}")


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    if ("port" in given) == ("unix_socket" in given):
        yield f"port, unix_socket: found {'both' if 'port' in given else 'none'}, allowed: one of them"
    if "host" in given and "unix_socket" in given:
        yield "host: it goes with port"
    yield from socket_mistakes(options)


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    expected = {"open": options["open"]}
    problem = _problem(options, timeout)
    found = "open" if problem is None else f"closed: {problem}"
    good = (problem is None) == options["open"]
    evidence = f"{where(options)} is {found}" + ("." if good else f"; expected {'open' if options['open'] else 'closed'}.")
    return Answer(PASS if good else FAIL, evidence, {"open": problem is None}, expected)


def _problem(options: Options, timeout: float) -> t.Optional[str]:
    """Why nobody can connect; None when somebody can."""
    budget = Budget(timeout)
    try:
        if options["unix_socket"]:
            with closing(connected_to(socket.AF_UNIX, options["unix_socket"], budget)):
                return None
        with closing(connected_by_name(options["host"] or HOST, options["port"], budget)):
            return None
    except (socket.timeout, TimeoutError):
        if options["open"]:
            return f"no connection within {timeout:g} s"
        # A firewall that drops looks the same from here as a host that is down, and neither is a closed port.
        raise CannotTell(f"{where(options)} did not answer within {timeout:g} s, so it is not known whether it is closed.") from None
    except OSError as error:
        if error.errno in CLOSED:
            return os.strerror(error.errno)
        if error.errno in UNREACHABLE and options["open"] and error.errno not in (errno.EACCES, errno.EPERM):
            return os.strerror(error.errno)
        raise CannotTell(f"{where(options)} could not be tried: {error.strerror or error}.") from None


CHECK = CheckType(
    name="port",
    options={
        "host": Option(TEXT),
        "port": Option(WHOLE, minimum=1, maximum=65535),
        "unix_socket": Option(TEXT),
        "open": Option(FLAG, default=True),
    },
    subject=where,
    attempt=_attempt,
    mistakes=_mistakes,
)
