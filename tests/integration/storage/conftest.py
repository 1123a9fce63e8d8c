# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything in front of an S3 server that can go wrong."""

from __future__ import annotations

import datetime
import ipaddress
import json
import time
import typing as t
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from integration.storage.gateway import PORTS

from lab.hosts import COMPANY_CA, Host
from lab.s3 import ObjectStore

GATEWAY = "lab-gateway"


@pytest.fixture(scope="session")
def faketime(host: Host) -> None:
    """A program that gives one process a clock of its own."""
    if host.run(["sh", "-c", "command -v faketime"], check=False).returncode:
        host.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "faketime"], timeout=300)


@pytest.fixture(scope="module")
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
