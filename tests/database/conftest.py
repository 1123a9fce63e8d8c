# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host with a PostgreSQL server and the tools environment, and a way to run one module on it."""

from __future__ import annotations

import contextlib
import os
import typing as t

import pytest
from database.server import Module, Server

from lab import up
from lab.hosts import Host

# A host for each worker of pytest-xdist; another one for whoever works on the tests while they run.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "one")
NAME = os.environ.get("BULLETPROOF_DATABASE_HOST", f"database-{WORKER}")
RELEASE = os.environ.get("BULLETPROOF_DATABASE_RELEASE", "bookworm")


def pytest_addoption(parser: pytest.Parser) -> None:
    # Those who try faults have the same option; pytest takes it once.
    with contextlib.suppress(ValueError):
        parser.addoption("--matrix", action="store_true", help="try all cases, not a sample of them")


@pytest.fixture(scope="session")
def host() -> Host:
    return up([NAME], RELEASE)[0]


@pytest.fixture(scope="session")
def module(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Module:
    """Run one module of the checkout on the host, over SSH and as root, and get what it returns."""
    return Module(host, tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="session")
def tools(module: Module) -> None:
    """The tools environment that all the modules need. One for all: of two, the later one would take the other's place."""
    module.install_tools("uv>=0.8,<1", "psycopg2-binary>=2.9,<3", "boto3>=1.36,<2")


@pytest.fixture(scope="session")
def server(host: Host, tools: None) -> t.Iterator[Server]:
    """The host's PostgreSQL server, running, with the tools environment that its modules need."""
    server = Server(host)
    server.start()
    yield server
    server.stop()
