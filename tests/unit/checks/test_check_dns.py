# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``dns``: the host's own names for real, and a resolver's answers as data."""

from __future__ import annotations

import socket
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def test_the_hosts_own_names(check):
    local = check(type="dns", host="localhost", family="ipv4", addresses=["127.0.0.1"])
    assert local.verdict == "pass" and local.evidence == "localhost resolves to 127.0.0.1."
    address = check(type="dns", host="0:0:0:0:0:0:0:1", addresses=["::1"])
    assert address.verdict == "pass", address
    assert check(type="dns", host="nonesuch.invalid").verdict in ("fail", "unknown")
    assert check(type="dns", host="a..b").verdict == "fail"


def answers(*addresses: str):
    def ask(host, port, family=0, type=0):
        found = [(socket.AF_INET6 if ":" in one else socket.AF_INET, type, 6, "", (one, 0)) for one in addresses]
        found = [one for one in found if family in (0, one[0])]
        if not found:
            raise socket.gaierror(socket.EAI_NODATA if addresses else socket.EAI_NONAME, "No address associated with hostname")
        return found

    return ask


BOTH = ("192.0.2.1", "192.0.2.2", "2001:db8::1")


@pytest.mark.parametrize(
    ("has", "options", "verdict", "said"),
    [
        (BOTH, {}, "pass", "192.0.2.1, 192.0.2.2, 2001:db8::1"),
        (BOTH, {"family": "ipv6", "addresses": ["2001:DB8:0::1"]}, "pass", "2001:db8::1"),
        (BOTH, {"family": "ipv4", "addresses": ["192.0.2.1"]}, "fail", "192.0.2.2 not expected"),
        (BOTH, {"family": "ipv4", "addresses": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]}, "fail", "192.0.2.3 missing"),
        (("192.0.2.1",), {"family": "ipv6"}, "fail", "has no IPv6 address"),
        ((), {}, "fail", "has no address"),
    ],
)
def test_what_a_name_has_to_have(check, monkeypatch, has, options, verdict, said):
    monkeypatch.setattr(socket, "getaddrinfo", answers(*has))
    found = check(type="dns", host="shop.example", **options)
    assert found.verdict == verdict and said in found.evidence, found


def test_a_resolver_that_does_not_know_is_no_verdict(check, monkeypatch):
    def fails(*_given, **_named):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert check(type="dns", host="shop.example").verdict == "unknown"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: time.sleep(2))
    began = time.monotonic()
    slow = check(type="dns", host="shop.example", timeout=0.2)
    assert slow.verdict == "unknown" and "within 0.2 s" in slow.evidence and time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "host: it is missing"),
        ({"host": "x", "addresses": ["192.0.2"]}, "IP addresses"),
        ({"host": "x", "addresses": ["::1"], "family": "ipv4"}, "::1 is none of the family ipv4"),
    ],
)
def test_mistakes(check, options, said):
    with pytest.raises(Failure) as failure:
        check(type="dns", **options)
    assert said in failure.value.message()
