# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``tls``, against real servers with certificates that are good, too short, over, of another name, and nobody's."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A company's authority: the file of its certificate, and a way to get others from it."""
    directory = tmp_path_factory.mktemp("authority")
    root_key = ec.generate_private_key(ec.SECP256R1())

    def name_of(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def certificate(name: str, days: int, known: bool = True, authority: bool = False) -> str:
        """The file of a key and a certificate. Of fewer than no days, one that is over; unless known, of nobody else's."""
        key = root_key if authority else ec.generate_private_key(ec.SECP256R1())
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days, seconds=5)
        made = (
            x509.CertificateBuilder()
            .subject_name(name_of(name))
            .issuer_name(name_of("Company" if known else name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ends - datetime.timedelta(days=4000))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(root_key if known else key, hashes.SHA256())
        )
        path = directory / f"{name}{days}{known}.pem"
        pem = serialization.Encoding.PEM
        kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(kept + made.public_bytes(pem))
        return str(path)

    return certificate("Company", 3650, authority=True), certificate


@pytest.fixture
def tls():
    """Start a server with a certificate; returns its port."""
    listeners: list[socket.socket] = []

    def start(certificate: str) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _address = listener.accept()
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(1)
                except OSError:
                    if listener.fileno() < 0:
                        return

        threading.Thread(target=serve, daemon=True).start()
        return listener.getsockname()[1]

    yield start
    for listener in listeners:
        listener.close()


def test_certificates(authority, tls, check):
    """One server each: what is wrong is told apart, and only what is right passes."""
    root, certificate = authority
    good = tls(certificate("shop.example", 90))
    trusting = {"type": "tls", "host": "127.0.0.1", "ca_file": root, "server_name": "shop.example"}
    passed = check(**trusting, port=good)
    assert passed.verdict == "pass" and 89 < passed.found["days"] <= 90 and passed.found["version"].startswith("TLSv1."), passed
    assert passed.name == f"tls 127.0.0.1:{good} (shop.example)"
    renewed = check(**trusting, port=good, min_days=91)
    assert renewed.verdict == "fail" and "expected at least 91 days; renew it" in renewed.evidence
    told = {
        "Hostname mismatch": check(**{**trusting, "server_name": "other.example"}, port=good),
        # Without a name of its own, the host is the name; and it is none that the certificate is for.
        "IP address mismatch": check(type="tls", host="127.0.0.1", port=good, ca_file=root),
        "unable to get local issuer": check(type="tls", host="127.0.0.1", port=good, server_name="shop.example"),
        "self-signed certificate": check(**trusting, port=tls(certificate("shop.example", 90, known=False))),
        "certificate has expired": check(**trusting, port=tls(certificate("shop.example", -1))),
    }
    for said, verdict in told.items():
        assert verdict.verdict == "fail" and said in verdict.evidence.replace("self signed", "self-signed"), (said, verdict)
    assert check(**{**trusting, "ca_file": "/nonesuch"}, port=good).verdict == "unknown"


def test_servers_without_tls(check, serve_bytes):
    hello = int(serve_bytes(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")).rsplit(":")[-1].strip("/"))
    assert "no TLS connection (" in check(type="tls", host="127.0.0.1", port=hello).evidence
    silent = int(serve_bytes(lambda connection: connection.recv(10_000) and connection.recv(1)).rsplit(":")[-1].strip("/"))
    slow = check(type="tls", host="127.0.0.1", port=silent, timeout=0.3)
    assert slow.verdict == "fail" and "no TLS connection within 0.3 s" in slow.evidence
    closed = check(type="tls", host="127.0.0.1", port=1)
    assert closed.verdict == "fail" and "refused" in closed.evidence
    assert check(type="tls", host="nonesuch.invalid").verdict == "unknown"
