# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``time``, against servers whose clocks go as a test wants."""

from __future__ import annotations

import email.utils
import socket
import struct
import threading
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.clock import NTP_EPOCH
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@pytest.mark.parametrize(
    ("late", "options", "verdict", "said"),
    [
        (0, {}, "pass", "The clock is"),
        # The limit is above what a Date can tell, however the second is cut.
        (3, {}, "pass", "ahead of"),
        (60, {}, "fail", "ahead of"),
        (-60, {}, "fail", "behind"),
        (60, {"max_skew": 90}, "pass", "ahead of"),
        (0, {"max_skew": 0.1}, "unknown", "not exact enough"),
    ],
)
def test_over_http(serve, check, late, options, verdict, said):
    def answer(handler):
        handler.send_response_only(404)
        handler.send_header("Date", email.utils.formatdate(time.time() - late, usegmt=True))
        handler.end_headers()

    server = serve(answer)
    found = check(type="time", url=f"{server.url}/now?token=s3cr3t", **options)
    assert found.verdict == verdict and said in found.evidence, found
    assert server.requests == ["HEAD /now?token=s3cr3t"] and "s3cr3t" not in str(found)


def test_over_http_without_a_time(serve, check):
    for date in (None, "yesterday"):

        def answer(handler, date=date):
            handler.send_response_only(200)
            if date:
                handler.send_header("Date", date)
            handler.end_headers()

        unknown = check(type="time", url=serve(answer).url)
        assert unknown.verdict == "unknown" and "without a usable Date" in unknown.evidence
    assert check(type="time", url="http://127.0.0.1:1/").verdict == "unknown"


@pytest.fixture
def sntp():
    """Start an SNTP server whose clock is so many seconds late; returns its port."""
    sockets: list[socket.socket] = []

    def start(late: float, stratum: int = 2, mode: int = 4, leap: int = 0, answers: bool = True) -> int:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sockets.append(sock)

        def stamp() -> bytes:
            moment = time.time() - late + NTP_EPOCH
            return struct.pack("!II", int(moment), int(moment % 1 * 2**32))

        def serve() -> None:
            while True:
                try:
                    asked, client = sock.recvfrom(512)
                except OSError:
                    return
                head = bytes([leap << 6 | 4 << 3 | mode, stratum]) + 22 * b"\0"
                if answers:
                    # One of somebody who guesses comes first.
                    sock.sendto(head + 8 * b"\1" + struct.pack("!IIII", 1, 0, 1, 0), client)
                    sock.sendto(head + asked[40:48] + stamp() + stamp(), client)

        threading.Thread(target=serve, daemon=True).start()
        return sock.getsockname()[1]

    yield start
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize(
    ("clock", "options", "verdict", "said"),
    [
        ({"late": 0}, {"max_skew": 0.5}, "pass", "The clock is"),
        ({"late": 2}, {"max_skew": 1}, "fail", "ahead of"),
        ({"late": -2}, {"max_skew": 1}, "fail", "behind"),
        ({"late": 0, "stratum": 0}, {}, "unknown", "does not know the time"),
        ({"late": 0, "stratum": 16}, {}, "unknown", "does not know the time"),
        ({"late": 0, "leap": 3}, {}, "unknown", "does not know the time"),
        ({"late": 0, "mode": 3}, {}, "unknown", "does not know the time"),
        ({"late": 0, "answers": False}, {"timeout": 0.2}, "unknown", "did not tell the time within 0.2 s"),
    ],
)
def test_over_sntp(sntp, check, clock, options, verdict, said):
    """Fails without the cookie: the first answer says that it is the year 1900."""
    found = check(type="time", server="127.0.0.1", port=sntp(**clock), **options)
    assert found.verdict == verdict and said in found.evidence, found


def test_over_sntp_without_a_server(check):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    refused = check(type="time", server="127.0.0.1", port=port)
    assert refused.verdict == "unknown" and "refused" in refused.evidence
    assert check(type="time", server="nonesuch.invalid").verdict == "unknown"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "url, server: found none"),
        ({"url": "http://x/", "server": "x"}, "url, server: found both"),
        ({"url": "http://x/", "port": 1}, "port: it goes with server"),
        ({"url": "x"}, "http:// or https://"),
        ({"server": "x", "max_skew": 0}, "max_skew"),
    ],
)
def test_mistakes(check, options, said):
    with pytest.raises(Failure) as failure:
        check(type="time", **options)
    assert said in failure.value.message()
