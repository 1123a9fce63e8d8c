# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values that are made once."""

from __future__ import annotations

import uuid

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import generate
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import serialization

WANTED = {
    "TOKEN": "token_urlsafe",
    "LONG": {"kind": "token_urlsafe", "bytes": 64},
    "KEY": "fernet",
    "ID": {"kind": "uuid"},
    "RSA": {"kind": "rsa", "bits": 2048, "public": "RSA_PUBLIC"},
    "ED": {"kind": "ed25519", "public": "ED_PUBLIC"},
}


def public_of(private):
    key = serialization.load_pem_private_key(private.encode(), None)
    return key, key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode().strip()


def test_each_kind_is_what_its_libraries_take_and_is_kept():
    assert generate.mistakes(WANTED) == []
    wanted = generate.wanted(WANTED)
    assert sorted(generate.keys(wanted)) == ["ED", "ED_PUBLIC", "ID", "KEY", "LONG", "RSA", "RSA_PUBLIC", "TOKEN"]
    made = generate.values(wanted, {"ID": ""}, [])
    assert set(made) == set(generate.keys(wanted))
    assert (len(made["TOKEN"]), len(made["LONG"])) == (43, 86)
    assert Fernet(made["KEY"]).decrypt(Fernet(made["KEY"]).encrypt(b"x")) == b"x"
    assert str(uuid.UUID(made["ID"])) == made["ID"]
    rsa, public = public_of(made["RSA"])
    assert rsa.key_size == 2048 and made["RSA_PUBLIC"] == public
    assert made["ED_PUBLIC"] == public_of(made["ED"])[1]

    assert generate.values(wanted, made, []) == {}
    again = generate.values(wanted, made, ["TOKEN", "ED_PUBLIC"])
    assert set(again) == {"TOKEN", "ED", "ED_PUBLIC"} and again["TOKEN"] != made["TOKEN"] and again["ED"] != made["ED"]
    # A public key that is missing is made of the private one that is there.
    assert generate.values(wanted, {**made, "ED_PUBLIC": ""}, []) == {"ED_PUBLIC": made["ED_PUBLIC"]}
    with pytest.raises(Failure) as error:
        generate.values(wanted, {**made, "ED": "canary", "ED_PUBLIC": ""}, [])
    assert "canary" not in error.value.message()


def test_all_mistakes_are_told_at_once():
    wrong = {
        "1A": "uuid",
        "B": "guid",
        "C": {"kind": "token_urlsafe", "bytes": 8, "bits": 1},
        "D": {"kind": "rsa", "bits": True},
        "E": {"kind": "ed25519", "public": "F"},
        "F": "fernet",
        "G": {"kind": ["x"]},
    }
    assert generate.mistakes(wrong) == [
        "1A is no name of a variable; allowed: letters, digits and _, not beginning with a digit.",
        "B: allowed is a kind, or a mapping with kind: token_urlsafe, fernet, uuid, rsa, ed25519.",
        "C: bits: unknown; allowed with token_urlsafe: kind, bytes.",
        "C.bytes: allowed is a whole number from 16 to 1024.",
        "D.bits: allowed is a whole number from 2048 to 8192.",
        "D.public: allowed is the name of the variable that gets the public key.",
        "G: allowed is a kind, or a mapping with kind: token_urlsafe, fernet, uuid, rsa, ed25519.",
        "F is to be made twice; allowed: once.",
    ]
    assert generate.mistakes([]) == ["allowed is a mapping of names to kinds."]
