# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written for the programs, and what is read of them."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import contract, haproxy, nginx

# The columns that are read, and two between them; `show stat` of HAProxy 2.6 has 96.
STAT = """# pxname,svname,qcur,scur,smax,status,check_status,last_chk,
balancer_shop,FRONTEND,,3,9,OPEN,,,
balancer_shop,web1,0,2,5,UP,L7OK,HTTP status check returned code <200>,
balancer_shop,web2,1,0,5,DOWN,L4CON,Connection refused,
balancer_shop,BACKEND,0,2,9,UP,,,
other,web1,0,7,7,MAINT,,,

"""
# 192.0.2.11:80 and [2001:db8::1]:80, from this host's port 8001; a listening socket on 8001.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F41 0B0200C0:0050 01 00000000:00000000 00:00000000 00000000    33        0 4711 1 0000000000000000 20 4 30 10 -1
   1: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 20 4 30 10 -1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F41 B80D0120000000000000000001000000:0050 06 00000000:00000000 00:00000000 00000000    33        0 4713
   1: 0000000000000000FFFF00000100007F:1F41 0000000000000000FFFF00000B0200C0:0050 01 00000000:00000000 00:00000000 00000000    33        0 4714
"""


def test_show_stat():
    rows = haproxy.parse_stat(STAT, "balancer_shop")
    assert rows == {
        "web1": haproxy.Row("UP", 2, 0, "L7OK HTTP status check returned code <200>"),
        "web2": haproxy.Row("DOWN", 0, 1, "L4CON Connection refused"),
    }


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", (2, 6)),
        ("HA-Proxy version 2.2.9-2+deb11u6 2023/10/10", (2, 2)),
        ("?", (0, 0)),
    ],
)
def test_version(said, version):
    assert haproxy.parse_version(said) == version


def test_connections():
    assert nginx.parse_connections(TCP, socket.AF_INET) == [
        nginx.Connection("4711", "33", "01", 8001, "192.0.2.11", 80),
        nginx.Connection("4712", "0", "0A", 8001, "0.0.0.0", 0),
    ]
    assert nginx.parse_connections(TCP6, socket.AF_INET6) == [
        nginx.Connection("4713", "33", "06", 8001, "2001:db8::1", 80),
        nginx.Connection("4714", "33", "01", 8001, "192.0.2.11", 80),
    ]


@pytest.mark.parametrize(
    ("listen", "door"),
    [
        ("80", ("127.0.0.1", 80, False)),
        ("443 ssl", ("127.0.0.1", 443, True)),
        ("*:8080", ("127.0.0.1", 8080, False)),
        ("[::]:80", ("::1", 80, False)),
        ("192.0.2.1:8080 default_server", ("192.0.2.1", 8080, False)),
        ("shop.internal", ("shop.internal", 80, False)),
    ],
)
def test_where_a_pool_is_asked(listen, door):
    assert nginx.door(listen) == door


def test_haproxy_lists_what_was_written(shop):
    text = haproxy.HAProxy().text(shop, {"web2"}, (2, 6))
    listed = haproxy.HAProxy().listed(text)
    assert listed.members == shop.members
    assert "    server web1 192.0.2.11:80 check\n    server web2 192.0.2.12:80 check disabled\n" in text
    assert "http-check expect rstatus ^(200)$" in listed.health
    assert any("uri /health" in line and "Host shop.example.com" in line for line in listed.health)


def test_haproxy_is_told_only_what_its_version_knows(shop):
    assert "idle-close-on-response" in haproxy.HAProxy().text(shop, (), (2, 6))
    assert "idle-close-on-response" not in haproxy.HAProxy().text(shop, (), (2, 2))


def test_nginx_lists_what_was_written(shop):
    six = replace(shop, members=(*shop.members, contract.Member("web3", "2001:db8::1", 8080)), listen=("80", "127.0.0.1:81"))
    text = nginx.Nginx().render(six, {"web2"})
    listed = nginx.Nginx().listed(text)
    assert listed.members == six.members
    assert "server 192.0.2.12:80 max_fails=1 fail_timeout=10s down;" in text and text.count(" down;") == 1
    assert listed.health == ("max_fails=1 fail_timeout=10s", "proxy_next_upstream error timeout;")
    assert [line.strip() for line in text.splitlines() if "listen " in line] == ["listen 80;", "listen [::]:80;", "listen 127.0.0.1:81;"]


def test_what_somebody_else_wrote_is_read():
    text = "upstream x {\n  server web9 weight=2; # by hand\n  server [2001:db8::1]:81;\n}\nserver { listen 80; server_name a; }\n"
    listed = nginx.Nginx().listed(text)
    assert [(one.address, one.port) for one in listed.members] == [("web9", 80), ("2001:db8::1", 81)]
    listed = haproxy.HAProxy().listed("backend x\n server web9 web9:8080 weight 2\n option httpchk GET /\n")
    assert listed.members == (contract.Member("web9", "web9", 8080),) and listed.health == ("option httpchk GET /",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"members": (contract.Member("a", "192.0.2.1", 80), contract.Member("b", "192.0.2.1", 80))},
            "a, b have the same address and port",
        ),
        ({"members": (contract.Member("a", "192.0.2.1", 80), contract.Member("a", "192.0.2.2", 80))}, "a, a have the same name"),
        ({"members": ()}, "There is no member"),
        ({"members": (contract.Member("a", "x; evil", 80),)}, "found the address 'x; evil'"),
        ({"members": (contract.Member("a", "192.0.2.1", 0),)}, "found the port 0"),
        ({"listen": ()}, "listen: found an empty list"),
        ({"health": contract.Health("/", (200,), 0, 5)}, "interval and timeout: found 0 and 5"),
    ],
)
def test_what_cannot_be_right_is_said(shop, change, said):
    assert contract.mistakes(shop) == []
    assert any(said in line for line in contract.mistakes(replace(shop, **change)))


def test_a_pool_is_read_as_it_was_written(shop):
    assert contract.pool_of(shop.data()) == shop
