# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``dns``: what a name resolves to, in the way in which every program on this host resolves it (getaddrinfo)."""

from __future__ import annotations

import socket
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    TEXT,
    TEXT_LIST,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    one_line,
    wrong,
)

FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
RECORDS = {"ipv4": "IPv4 address", "ipv6": "IPv6 address", None: "address"}


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    import ipaddress

    for text in options["addresses"] or ():
        try:
            version = ipaddress.ip_address(text).version
        except ValueError:
            yield wrong("addresses", text, "IP addresses")
            continue
        if options["family"] and options["family"] != f"ipv{version}":
            yield f"addresses: {text} is none of the family {options['family']}"


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    host, family = options["host"], options["family"]
    expected = {name: options[name] for name in ("addresses", "family") if options[name] is not None}
    try:
        found = resolved(host, FAMILIES.get(family, 0), timeout)
    except (socket.gaierror, UnicodeError) as error:
        if getattr(error, "errno", None) in (socket.EAI_AGAIN, socket.EAI_FAIL):
            # The one who should know was not reached, or could not say.
            raise CannotTell(
                f"The name {host} could not be looked up: {getattr(error, 'strerror', None)}. Look at /etc/resolv.conf."
            ) from None
        said = one_line(str(getattr(error, "strerror", None) or error))
        return Answer(FAIL, f"{host} has no {RECORDS[family]} ({said}).", {"addresses": []}, expected)
    problems = []
    if options["addresses"] is not None:
        wanted = normal(options["addresses"])
        missing, foreign = sorted(wanted - found), sorted(found - wanted)
        problems += [f"{', '.join(missing)} missing"] if missing else []
        problems += [f"{', '.join(foreign)} not expected"] if foreign else []
    shown = ", ".join(sorted(found))
    return judged(problems, f"{host} resolves to {shown}.", f"{host} resolves to {shown}", {"addresses": sorted(found)}, expected)


def resolved(host: str, family: int, timeout: float) -> t.Set[str]:
    """The addresses of a name.

    :raises CannotTell: no answer in time; the resolver has time limits of its own, which may be longer.
    """
    import threading

    answers: t.List[t.Union[t.Set[str], BaseException]] = []

    def ask() -> None:
        try:
            answers.append(normal(str(one[4][0]) for one in socket.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)))
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    if not answers:
        raise CannotTell(f"The name {host} was not resolved within {timeout:g} s. Look at /etc/resolv.conf.")
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def normal(addresses: t.Iterable[str]) -> t.Set[str]:
    """Addresses in one way of writing, without the interface of a local one."""
    import ipaddress

    return {str(ipaddress.ip_address(text.partition("%")[0])) for text in addresses}


CHECK = CheckType(
    name="dns",
    options={
        "host": Option(TEXT, required=True),
        "addresses": Option(TEXT_LIST),
        "family": Option(TEXT, choices=tuple(FAMILIES)),
    },
    subject=lambda options: str(options["host"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
