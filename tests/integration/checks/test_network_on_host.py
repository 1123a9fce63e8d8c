# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a host's surroundings on a real one: certificates, names, the clock, ports."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from integration.certificates import NOBODY
from integration.gateway import PORTS

from lab.hosts import Host

Checks = t.Callable[..., list[dict[str, t.Any]]]

# A name server that knows one name, fails for another, and is silent about a third. The answer's question is the one that was asked.
NAME_SERVER = r"""
import socket
ADDRESSES = (b"\xc0\x00\x02\x07", b"\xc0\x00\x02\x08")
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.54", 53))
while True:
    asked, address = server.recvfrom(512)
    end = asked.index(0, 12) + 5
    name, kind = asked[13:end - 5].split(b"\x03lab")[0], asked[end - 4:end - 2]
    if name == b"silent":
        continue
    status = {b"shop": 0, b"broken": 2}.get(name, 3)
    found = ADDRESSES if status == 0 and kind == b"\0\1" else ()
    head = asked[:2] + bytes([0x81, 0x80 | status]) + b"\0\1" + bytes([0, len(found)]) + b"\0\0\0\0"
    answers = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + one for one in found)
    server.sendto(head + asked[12:end] + answers, address)
"""
RESOLVER = "nameserver 127.0.0.54\noptions attempts:1\n"
# Only what it starts sees the other name server.
PYTHON_WITH_RESOLVER = """#!/bin/sh
exec unshare --mount sh -c 'mount --bind /etc/lab-resolv.conf /etc/resolv.conf && exec /usr/bin/python3 "$@"' sh "$@"
"""
CHECK = """
import json, sys
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
print(json.dumps([one.as_dict() for one in engine.run_checks(json.load(sys.stdin))]))
"""
# A second port opens when somebody has come to the first.
LISTENS_LATE = """
import socket, time
first = socket.create_server(("127.0.0.1", 8430))
first.accept()
time.sleep(1)
second = socket.create_server(("127.0.0.1", 8431))
time.sleep(60)
"""


def told(verdict: t.Mapping[str, t.Any], expected: str, said: str) -> None:
    """The verdict is this one, and its evidence as a whole is what the pattern says."""
    assert verdict["verdict"] == expected and re.fullmatch(said, verdict["evidence"]), (expected, said, verdict)


def test_a_certificate(host: Host, run: Checks, gateway: t.Callable[[str], str]) -> None:
    """Good, too short, of another name, nobody's, over, and no certificate at all: each is told apart by what OpenSSL says on this host."""
    address = re.escape(host.address)

    def tls(endpoint: str, **options: t.Any) -> dict[str, t.Any]:
        return {"type": "tls", "host": host.address, "port": PORTS[endpoint], **options}

    def refused(endpoint: str, why: str, name: str = address, shown: str = "") -> str:
        return rf"{address}:{PORTS[endpoint]}{shown}: the certificate is not good: {why}; expected one for {name} that this host trusts\."

    good, soon, far, other, by_name, misnamed, nobodys, trusted, untrusted, over, plain, stranger, closed, nowhere = run(
        tls("tls"),
        tls("tls", min_days=31),
        tls("tls", min_days=29),
        tls("tls-other-name"),
        tls("tls-other-name", server_name="other.example"),
        tls("tls-other-name", server_name="shop.example"),
        tls("tls-nobodys"),
        tls("tls-nobodys", ca_file=NOBODY),
        tls("tls", ca_file=NOBODY),
        tls("tls-over"),
        tls("pass"),
        {"type": "tls", "host": "account.lab", "port": PORTS["stranger"]},
        {"type": "tls", "host": host.address, "port": 1},
        tls("tls", ca_file="/nonesuch.pem"),
    )
    lasts = rf"{address}:{PORTS['tls']}: the certificate for {address} lasts 30\.0 days, until \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    told(good, "pass", rf"{lasts}; TLSv1\.[23]\.")
    told(far, "pass", rf"{lasts}; TLSv1\.[23]\.")
    told(soon, "fail", rf".*: {lasts.partition(': ')[2]}, expected at least 31 days; renew it")
    assert (good["found"]["days"], good["found"]["not_after"]) == (30.0, good["evidence"].split("until ")[1].split(";")[0])
    told(other, "fail", refused("tls-other-name", f"IP address mismatch, certificate is not valid for '{address}'"))
    told(by_name, "pass", r".* \(other\.example\): the certificate for other\.example lasts 30\.0 days, .*")
    wrong = "Hostname mismatch, certificate is not valid for 'shop.example'"
    told(misnamed, "fail", refused("tls-other-name", wrong, r"shop\.example", r" \(shop\.example\)"))
    told(nobodys, "fail", refused("tls-nobodys", "unable to get local issuer certificate"))
    told(trusted, "pass", r".* lasts 30\.0 days, .*")
    told(untrusted, "fail", refused("tls", "unable to get local issuer certificate"))
    told(over, "fail", refused("tls-over", "certificate has expired"))
    told(plain, "fail", rf"{address}:{PORTS['pass']}: no TLS connection \((wrong version number|record layer failure)\)\.")
    told(stranger, "fail", r"account\.lab:8425: no TLS connection \(.*alert handshake failure\)\.")
    told(closed, "fail", rf"{address}:1: the connection was refused, nothing listens there\.")
    told(nowhere, "unknown", r"The CA file /nonesuch\.pem could not be used: .*")


@pytest.fixture(scope="module")
def resolver(host: Host) -> t.Iterator[str]:
    """A Python on the host that asks a name server of the test's own."""
    host.write("/etc/lab-resolv.conf", RESOLVER)
    host.write("/opt/lab-python-resolver", PYTHON_WITH_RESOLVER, "0755")
    host.run(["systemctl", "stop", "lab-names"], check=False)
    host.run(["systemd-run", "--quiet", "--collect", "--unit=lab-names", "python3", "-c", NAME_SERVER])
    yield "/opt/lab-python-resolver"
    host.run(["systemctl", "stop", "lab-names"], check=False)


def test_a_name(host: Host, run: Checks, resolver: str) -> None:
    """Asked of a server for names and of /etc/hosts, as every program there asks: what is known, what is not, and who does not answer."""
    both = ["192.0.2.7", "192.0.2.8"]

    def dns(name: str, **options: t.Any) -> dict[str, t.Any]:
        return {"type": "dns", "host": name, "timeout": 1, **options}

    known, wrong, left_over, no_ipv6, absent, own, broken, silent = run(
        dns("shop.lab", addresses=both, family="ipv4"),
        dns("shop.lab", addresses=["192.0.2.8", "192.0.2.9"]),
        dns("shop.lab", addresses=["192.0.2.8"]),
        dns("shop.lab", family="ipv6"),
        dns("absent.lab"),
        dns(host.name, addresses=[host.address]),
        dns("broken.lab"),
        dns("silent.lab"),
        python=resolver,
    )
    told(known, "pass", r"shop\.lab resolves to 192\.0\.2\.7, 192\.0\.2\.8\.")
    told(wrong, "fail", r"shop\.lab resolves to 192\.0\.2\.7, 192\.0\.2\.8: 192\.0\.2\.9 missing; 192\.0\.2\.7 not expected")
    told(left_over, "fail", r"shop\.lab resolves to 192\.0\.2\.7, 192\.0\.2\.8: 192\.0\.2\.7 not expected")
    told(no_ipv6, "fail", r"shop\.lab has no IPv6 address \(No address associated with hostname\)\.")
    told(absent, "fail", r"absent\.lab has no address \(Name or service not known\)\.")
    told(own, "pass", re.escape(f"{host.name} resolves to {host.address}."))
    told(
        broken,
        "unknown",
        r"The name broken\.lab could not be looked up: Temporary failure in name resolution\. Look at /etc/resolv\.conf\.",
    )
    told(silent, "unknown", r"The name silent\.lab was not resolved within 1 s\. Look at /etc/resolv\.conf\.")


def test_the_clock(host: Host, run: Checks, gateway: t.Callable[[str], str], faketime: None, code: None) -> None:
    """Of somebody who tells it over HTTP; then as seen by a host whose clock is late, and by one whose clock is early."""

    def at(offset: str, *checks: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
        """The same checks in a process whose clock alone is wrong by so much."""
        argv = ["faketime", "-f", offset, "env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "PYTHONPATH=/opt/code", "python3", "-c", CHECK]
        return t.cast("list[dict[str, t.Any]]", json.loads(host.run(argv, stdin=json.dumps(checks)).stdout))

    url = re.escape(gateway("pass"))
    clock = {"type": "time", "url": gateway("pass")}
    # A certificate that is over is no reason not to ask: it may be this clock that is wrong.
    right, over_tls, too_exact, nobody, no_clock = run(
        clock,
        {"type": "time", "url": gateway("tls-over")},
        {**clock, "max_skew": 0.1},
        {"type": "time", "url": "http://127.0.0.1:1/"},
        {"type": "time", "server": "127.0.0.1", "timeout": 2},
    )
    about = r"The clock is 0\.\d{3} s (ahead of|behind) "
    told(right, "pass", rf"{about}{url}, exact to [01]\.\d{{3}} s\.")
    told(over_tls, "pass", rf"{about}{re.escape(gateway('tls-over'))}, exact to [01]\.\d{{3}} s\.")
    told(too_exact, "unknown", rf"{about}{url}, exact to [01]\.\d{{3}} s, which is not exact enough for a limit of 0\.1 s\.")
    told(nobody, "unknown", r"http://127\.0\.0\.1:1/ was not to be asked for the time: .*")
    told(no_clock, "unknown", r"127\.0\.0\.1, port 123, could not be asked for the time: Connection refused\.")

    [late] = at("-90s", clock)
    told(late, "fail", rf"The clock is (8[89]|9[01])\.\d{{3}} s behind {url}, exact to .* s; expected at most 5 s\. Look at timedatectl\.")
    assert -91 < late["found"]["skew"] < -88, late
    early, allowed = at("+45s", clock, {**clock, "max_skew": 60})
    told(early, "fail", rf"The clock is 4[3-6]\.\d{{3}} s ahead of {url}, exact to .* s; expected at most 5 s\. Look at timedatectl\.")
    assert 43 < early["found"]["skew"] < 46, early
    told(allowed, "pass", rf"The clock is 4[3-6]\.\d{{3}} s ahead of {url}, exact to .* s\.")


def test_a_port(host: Host, run: Checks) -> None:
    """Open and closed, wanted and not; a socket that nobody listens on any more; a host that there is no way to; and one that opens in time."""
    stale = "import socket; socket.socket(socket.AF_UNIX).bind('/run/lab-stale.sock')"
    host.run(["sh", "-c", "rm -f /run/lab-stale.sock; ip route replace unreachable 198.51.100.7/32"])
    host.run(["python3", "-c", stale])
    host.run(["systemctl", "stop", "lab-late"], check=False)
    host.run(["systemd-run", "--quiet", "--collect", "--unit=lab-late", "python3", "-c", LISTENS_LATE])
    late = {"type": "port", "port": 8431}
    opened, unwanted, closed, wanted, socket, left, gone, no_way, no_verdict, first, too_late, in_time = run(
        {"type": "port", "port": 22},
        {"type": "port", "port": 22, "host": host.address, "open": False},
        {"type": "port", "port": 1},
        {"type": "port", "port": 1, "open": False},
        {"type": "port", "unix_socket": "/run/dbus/system_bus_socket"},
        {"type": "port", "unix_socket": "/run/lab-stale.sock"},
        {"type": "port", "unix_socket": "/run/lab-absent.sock", "open": False},
        {"type": "port", "host": "198.51.100.7", "port": 22},
        {"type": "port", "host": "198.51.100.7", "port": 22, "open": False},
        {"type": "port", "port": 8430, "deadline": 5},
        late,
        {**late, "deadline": 20},
    )
    host.run(["sh", "-c", "systemctl stop lab-late; ip route del unreachable 198.51.100.7/32"])
    told(opened, "pass", r"127\.0\.0\.1:22 is open\.")
    told(unwanted, "fail", re.escape(f"{host.address}:22 is open; expected closed."))
    told(closed, "fail", r"127\.0\.0\.1:1 is closed: Connection refused; expected open\.")
    told(wanted, "pass", r"127\.0\.0\.1:1 is closed: Connection refused\.")
    told(socket, "pass", r"/run/dbus/system_bus_socket is open\.")
    told(left, "fail", r"/run/lab-stale\.sock is closed: Connection refused; expected open\.")
    told(gone, "pass", r"/run/lab-absent\.sock is closed: No such file or directory\.")
    told(no_way, "fail", r"198\.51\.100\.7:22 is closed: No route to host; expected open\.")
    told(no_verdict, "unknown", r"198\.51\.100\.7:22 could not be tried: No route to host\.")
    told(first, "pass", r"127\.0\.0\.1:8430 is open\.")
    told(too_late, "fail", r"127\.0\.0\.1:8431 is closed: Connection refused; expected open\.")
    told(in_time, "pass", r"127\.0\.0\.1:8431 is open\.")
    assert in_time["attempts"] > 1, in_time
