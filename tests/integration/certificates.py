# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Certificates for servers on a lab host, of an authority that the host trusts and of one that nobody does."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab.hosts import Host

# On the host, the certificate of the authority that it does not trust.
NOBODY = "/etc/lab-nobody.pem"
# What an authority does not do.
OTHER_USES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
              "decipher_only")  # fmt: skip
CERTIFIES = x509.KeyUsage(key_cert_sign=True, **dict.fromkeys(OTHER_USES, False))


class Certificates:
    """Two authorities, one that the host trusts and one that nobody does."""

    def __init__(self, host: Host) -> None:
        self.host = host
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
            # Python 3.13 and later ask for the keys' identifiers, and for what an authority may do.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.keys[issuer].public_key()), critical=False)
        )
        if authority:
            builder = builder.add_extension(CERTIFIES, critical=True)
        if names:
            known = [x509.IPAddress(ipaddress.ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        return builder.sign(self.keys[issuer], hashes.SHA256())
