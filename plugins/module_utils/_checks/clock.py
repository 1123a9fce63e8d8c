# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``time``: how far the host's clock is from somebody else's, an SNTP server (RFC 4330) or whoever answers HTTP with a Date."""

from __future__ import annotations

import socket
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    NUMBER,
    PASS,
    TEXT,
    UNKNOWN,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import (
    OWN_HEADERS,
    NoAnswer,
    Request,
    ask,
    public_url,
    url_mistakes,
)

# Seconds from 1900, where NTP begins to count, to 1970.
NTP_EPOCH = 2_208_988_800
# A client's request: version 4, mode 3.
REQUEST = b"\x23" + 47 * b"\0"


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    if ("url" in given) == ("server" in given):
        yield f"url, server: found {'both' if 'url' in given else 'none'}, allowed: one of them"
    if options["url"] is not None:
        yield from url_mistakes(options["url"])
    if "port" in given and "server" not in given:
        yield "port: it goes with server"


def _where(options: Options) -> str:
    return str(options["server"] or public_url(options["url"] or ""))


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    low, high = by_sntp(options["server"], options["port"] or 123, timeout) if options["server"] else by_http(options["url"], timeout)
    limit = options["max_skew"]
    skew = low if low > 0 else high if high < 0 else 0.0
    found, expected = {"skew": round(skew, 3), "exact_to": round(high - low, 3)}, {"max_skew": limit}
    direction = "ahead of" if low + high > 0 else "behind"
    about = f"{abs(low + high) / 2:.3f} s {direction} {_where(options)}, exact to {(high - low) / 2:.3f} s"
    if abs(skew) > limit:
        return Answer(FAIL, f"The clock is {about}; expected at most {limit:g} s. Look at timedatectl.", found, expected)
    if max(abs(low), abs(high)) > limit and limit < (high - low) / 2:
        # The answer was too slow, or its clock has too few digits, to see a skew of this size.
        return Answer(UNKNOWN, f"The clock is {about}, which is not exact enough for a limit of {limit:g} s.", found, expected)
    return Answer(PASS, f"The clock is {about}.", found, expected)


def by_http(url: str, timeout: float) -> t.Tuple[float, float]:
    """Between what and what the skew must be, in seconds; positive when this clock is ahead. A Date is cut to whole seconds."""
    import email.utils

    began = time.time()
    try:
        reply = ask(Request("HEAD", url, None, OWN_HEADERS, None, verify_tls=False, ca_file=None), timeout, follow_redirects=False)
    except NoAnswer as problem:
        raise CannotTell(f"{public_url(url)} was not to be asked for the time: {problem}.") from None
    ended = time.time()
    try:
        said = email.utils.parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, IndexError):
        raise CannotTell(f"{public_url(url)} answered without a usable Date.") from None
    # The server looked at its clock at a moment between the two, when it showed at least `said` and less than a second more.
    return began - said - 1, ended - said


def by_sntp(server: str, port: int, timeout: float) -> t.Tuple[float, float]:
    """The same, from an SNTP server."""
    import os
    import struct

    cookie = os.urandom(8)
    try:
        addresses = socket.getaddrinfo(server, port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotTell(f"The name {server} could not be resolved: {getattr(error, 'strerror', None) or error}.") from None
    family, kind, protocol, _name, address = addresses[0]
    end = time.monotonic() + timeout
    try:
        with socket.socket(family, kind, protocol) as sock:
            # Connected, so that only this server's answers come in, and its refusal as well.
            sock.connect(address)
            began = time.time()
            # What is sent as our time comes back unchanged; nobody needs to know it, and nobody else can guess it.
            sock.send(REQUEST[:40] + cookie)
            while True:
                sock.settimeout(max(0.001, end - time.monotonic()))
                answer = sock.recv(512)
                ended = time.time()
                if len(answer) >= 48 and answer[24:32] == cookie:
                    break
    except (socket.timeout, TimeoutError):
        raise CannotTell(f"{server}, port {port}, did not tell the time within {timeout:g} s.") from None
    except OSError as error:
        raise CannotTell(f"{server}, port {port}, could not be asked for the time: {error.strerror}.") from None
    stratum = answer[1]
    if answer[0] & 7 != 4 or answer[0] >> 6 == 3 or not 1 <= stratum <= 15:
        raise CannotTell(f"{server}, port {port}, does not know the time itself (stratum {stratum}).")
    received, sent = (whole + part / 2**32 - NTP_EPOCH for whole, part in (struct.unpack("!II", answer[at : at + 8]) for at in (32, 40)))
    # It received after we began and sent before we ended, by any clock.
    return began - received, ended - sent


CHECK = CheckType(
    name="time",
    options={
        "url": Option(TEXT),
        "server": Option(TEXT),
        "port": Option(WHOLE, minimum=1, maximum=65535),
        "max_skew": Option(NUMBER, default=5, minimum=0.001),
    },
    subject=_where,
    attempt=_attempt,
    mistakes=_mistakes,
)
