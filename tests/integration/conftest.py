# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host, what the modules need there, and a way to run one module on it."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
import typing as t
from pathlib import Path

import pytest
from integration.certificates import NOBODY, Certificates
from integration.gateway import PORTS

from lab import up
from lab.deployment import REPOSITORY
from lab.hosts import COMPANY_CA, Host
from lab.modules import Module
from lab.postgresql import Server
from lab.s3 import ObjectStore

# A host for each worker of pytest-xdist; another one for whoever works on the tests while they run.
NAME = os.environ.get("BULLETPROOF_HOST", f"integration-{os.environ.get('PYTEST_XDIST_WORKER', 'one')}")
RELEASE = os.environ.get("BULLETPROOF_RELEASE", "bookworm")
GATEWAY = "lab-gateway"


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


@pytest.fixture(scope="session")
def faketime(host: Host) -> None:
    """A program that gives one process a clock of its own."""
    if host.run(["sh", "-c", "command -v faketime"], check=False).returncode:
        host.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "faketime"], timeout=300)


@pytest.fixture(scope="module")
def gateway(host: Host) -> t.Iterator[t.Callable[[str], str]]:
    """Proxies in front of the storage, if there is one; gives the endpoint of the one that does a certain thing wrong."""
    certificates = Certificates(host)
    modes = {str(port): {"mode": name} for name, port in PORTS.items() if not name.startswith(("tls", "stranger"))}
    for name, (issuer, names, days) in {
        "tls": ("company", [host.address], 30),
        "tls-other-name": ("company", ["other.example"], 30),
        "tls-nobodys": ("nobody", [host.address], 30),
        "tls-over": ("company", [host.address], -1),
        "stranger": ("company", [host.address], 30),
    }.items():
        mode = "stranger" if name == "stranger" else "pass"
        modes[str(PORTS[name])] = {"mode": mode, "certificate": certificates.install(name, issuer, names, days)}
    host.write("/opt/gateway.py", (Path(__file__).parent / "gateway.py").read_text())
    host.run(["systemctl", "stop", GATEWAY], check=False)
    # Nothing reaches a TLS server before it has said for whom; a name resolves without a server for names.
    host.run(["sh", "-c", "grep -q account.lab /etc/hosts || echo 127.0.0.1 account.lab >> /etc/hosts"])
    host.run(["systemd-run", "--quiet", "--collect", "--unit", GATEWAY, "python3", "/opt/gateway.py", json.dumps(modes)])
    trusted = host.read(f"/{COMPANY_CA}")
    host.write(f"/{COMPANY_CA}", trusted + certificates.pem("company"))
    host.write(NOBODY, certificates.pem("nobody"))
    deadline = time.monotonic() + 20
    while host.run(["curl", "--silent", "--output", "/dev/null", f"http://127.0.0.1:{PORTS['pass']}/"], check=False).returncode:
        assert time.monotonic() < deadline, "The gateway does not answer."
        time.sleep(0.1)

    def endpoint(name: str) -> str:
        secure = name.startswith(("tls", "stranger"))
        return f"http{'s' if secure else ''}://{'account.lab' if name == 'stranger' else host.address}:{PORTS[name]}"

    yield endpoint
    host.write(f"/{COMPANY_CA}", trusted)
    host.run(["systemctl", "stop", GATEWAY], check=False)
