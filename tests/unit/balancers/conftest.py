# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A balancer's memory in a directory, and a program that only remembers what it was told."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract, haproxy, pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import write_json


class Program(haproxy.HAProxy):
    """HAProxy, as far as its file goes."""

    def __init__(self, directory):
        self.directory = directory
        self.told = []
        self.dies = False

    def path(self, app):
        return str(self.directory / f"{app}.cfg")

    def version(self):
        return (2, 6)

    def shift(self, pool, member, out):
        if self.dies:
            raise OSError("the connection is gone")
        self.told.append((member.name, "out" if out else "in"))


@pytest.fixture
def shop():
    return contract.Pool(
        app="shop",
        kind="haproxy",
        listen=("80",),
        server_names=("shop.example.com",),
        members=(contract.Member("web1", "192.0.2.11", 80), contract.Member("web2", "192.0.2.12", 80)),
        health=contract.Health("/health", (200,), 2, 5),
        request_timeout=60,
    )


@pytest.fixture
def started(monkeypatch):
    """The timers that were started and stopped."""
    found = []
    monkeypatch.setattr(_systemd, "start", lambda units, timeout: found.append(("start", *units)))
    monkeypatch.setattr(_systemd, "stop", lambda units: found.append(("stop", *units)))
    return found


@pytest.fixture
def ill(monkeypatch):
    """The addresses that do not answer."""
    found = set()
    monkeypatch.setattr(contract, "ask", lambda address, port, pool, secure=False: "no answer" if address in found else "")
    return found


@pytest.fixture
def program(monkeypatch, tmp_path, shop, started, ill):
    """A balancer that has the pool."""
    program = Program(tmp_path)
    monkeypatch.setattr(absent, "PLACE", str(tmp_path))
    monkeypatch.setattr(pool, "BALANCERS", {"haproxy": program})
    (tmp_path / "shop").mkdir()
    write_json(pool.pool_file("shop"), shop.data())
    pool.write_file(shop, ())
    return program
