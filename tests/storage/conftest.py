# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lab host with a real S3 server, and everything in front of it that can go wrong."""

from __future__ import annotations

import datetime
import io
import ipaddress
import json
import os
import tarfile
import time
import typing as t
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from database.server import Module
from storage.gateway import PORTS

from lab import up
from lab.deployment import REPOSITORY
from lab.hosts import COMPANY_CA, Host
from lab.s3 import ObjectStore

# A host for each worker of pytest-xdist; another one for whoever works on the tests while they run.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "one")
NAME = os.environ.get("BULLETPROOF_STORAGE_HOST", f"storage-{WORKER}")
RELEASE = os.environ.get("BULLETPROOF_STORAGE_RELEASE", "bookworm")
GATEWAY = "lab-gateway"


@pytest.fixture(scope="session")
def host() -> Host:
    return up([NAME], RELEASE)[0]


@pytest.fixture(scope="session")
def module(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Module:
    """Run one module of the checkout on the host, over SSH and as root, with the tools that it needs, and get what it returns."""
    module = Module(host, tmp_path_factory.mktemp("modules"))
    module.install_tools("boto3>=1.36,<2")
    return module


@pytest.fixture(scope="session")
def store(host: Host) -> t.Iterator[ObjectStore]:
    store = ObjectStore(host)
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="session")
def code(host: Host) -> None:
    """The modules' own code on the host, for many checks in one process."""
    archive = io.BytesIO()
    source = REPOSITORY / "plugins" / "module_utils"
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(source.rglob("*.py")):
            tar.add(path, f"ansible_collections/bulletproof/deploy/plugins/module_utils/{path.relative_to(source)}")
    host.run(["sh", "-c", "rm -rf /opt/code && mkdir -p /opt/code && tar -x -C /opt/code"], stdin=archive.getvalue())


@pytest.fixture(scope="session")
def faketime(host: Host) -> None:
    """A program that gives one process a clock of its own."""
    if host.run(["sh", "-c", "command -v faketime"], check=False).returncode:
        host.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "faketime"], timeout=300)


@pytest.fixture(scope="session")
def gateway(host: Host, store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[t.Callable[[str], str]]:
    """Proxies in front of the storage; gives the endpoint of the one that does a certain thing wrong."""
    certificates = Certificates(host, tmp_path_factory.mktemp("certificates"))
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


class Certificates:
    """Two authorities, one that the host trusts and one that nobody does."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("company", "nobody")}

    def pem(self, issuer: str) -> str:
        """The certificate of an authority."""
        key = self.keys[issuer]
        return self.made(issuer, key, issuer, [], 30, authority=True).public_bytes(serialization.Encoding.PEM).decode()

    def install(self, name: str, issuer: str, names: list[str], days: int) -> str:
        """The path on the host of a key with a certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        text += self.made(name, key, issuer, names, days).public_bytes(pem)
        self.host.write(f"/etc/lab-{name}.pem", text.decode(), mode="0600")
        return f"/etc/lab-{name}.pem"

    def made(
        self, name: str, key: ec.EllipticCurvePrivateKey, issuer: str, names: list[str], days: int, authority: bool = False
    ) -> x509.Certificate:
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
        common = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
        builder = (
            x509.CertificateBuilder(common[1], common[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(ends - datetime.timedelta(days=400))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            known = [x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        return builder.sign(self.keys[issuer], hashes.SHA256())
