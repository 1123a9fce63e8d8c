# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host, what the modules need there, and a way to run one module on it."""

from __future__ import annotations

import io
import os
import tarfile
import typing as t

import pytest

from lab import up
from lab.deployment import REPOSITORY
from lab.hosts import Host
from lab.modules import Module
from lab.postgresql import Server
from lab.s3 import ObjectStore

# A host for each worker of pytest-xdist; another one for whoever works on the tests while they run.
NAME = os.environ.get("BULLETPROOF_HOST", f"integration-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}")
RELEASE = os.environ.get("BULLETPROOF_RELEASE", "bookworm")


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
def code(host: Host) -> None:
    """The modules' own code on the host, for what a test does there beside running a module."""
    archive = io.BytesIO()
    source = REPOSITORY / "plugins" / "module_utils"
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(source.rglob("*.py")):
            tar.add(path, f"ansible_collections/bulletproof/deploy/plugins/module_utils/{path.relative_to(source)}")
    host.run(["sh", "-c", "rm -rf /opt/code && mkdir -p /opt/code && tar -x -C /opt/code"], stdin=archive.getvalue())


@pytest.fixture(scope="session")
def server(host: Host, tools: None) -> t.Iterator[Server]:
    """The host's PostgreSQL server, running, with the tools environment that its modules need."""
    server = Server(host)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def store(host: Host) -> t.Iterator[ObjectStore]:
    """An S3 server with nothing in it."""
    store = ObjectStore(host)
    store.start()
    yield store
    store.stop()
