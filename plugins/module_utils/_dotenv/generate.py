# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values that are made once on the host, and then kept: nobody has to know them.

Key pairs come from ``openssl``, which every Debian has: its private key never is in a file or an argument.
"""

from __future__ import annotations

import base64
import os
import secrets
import typing as t
import uuid

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv.dialects import is_name
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

Wanted = t.Dict[str, t.Dict[str, t.Any]]
PAIRS = ("rsa", "ed25519")
# Kind to its options, each with its default, least and most.
KINDS: t.Dict[str, t.Dict[str, t.Tuple[int, int, int]]] = {
    "token_urlsafe": {"bytes": (32, 16, 1024)},
    "fernet": {},
    "uuid": {},
    "rsa": {"bits": (3072, 2048, 8192)},
    "ed25519": {},
}


def mistakes(generate: t.Any) -> t.List[str]:
    """What is wrong with what is to be generated, all of it."""
    if not isinstance(generate, dict):
        return ["allowed is a mapping of names to kinds."]
    said: t.List[str] = []
    made: t.Dict[str, int] = {}
    for key, wanted in generate.items():
        options = {"kind": wanted} if isinstance(wanted, str) else wanted
        if not isinstance(key, str) or not is_name(key):
            said.append(f"{key} is no name of a variable; allowed: letters, digits and _, not beginning with a digit.")
        if not isinstance(options, dict) or not isinstance(options.get("kind"), str) or options["kind"] not in KINDS:
            said.append(f"{key}: allowed is a kind, or a mapping with kind: {', '.join(KINDS)}.")
            continue
        kind = options["kind"]
        numbers = KINDS[kind]
        allowed = ["kind", *numbers, *(["public"] if kind in PAIRS else [])]
        unknown = [str(one) for one in options if one not in allowed]
        if unknown:
            said.append(f"{key}: {', '.join(unknown)}: unknown; allowed with {kind}: {', '.join(allowed)}.")
        for name, (default, least, most) in numbers.items():
            value = options.get(name, default)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                said.append(f"{key}.{name}: allowed is a whole number from {least} to {most}.")
        public = options.get("public")
        if kind in PAIRS and not (isinstance(public, str) and is_name(public)):
            said.append(f"{key}.public: allowed is the name of the variable that gets the public key.")
        for name in [key, *([public] if isinstance(public, str) else [])]:
            made[str(name)] = made.get(str(name), 0) + 1
    said += [f"{name} is to be made twice; allowed: once." for name, times in made.items() if times > 1]
    return said


def wanted(generate: t.Mapping[str, t.Any]) -> Wanted:
    """What is without mistakes, with all its options."""
    full: Wanted = {}
    for key, given in generate.items():
        options = {"kind": given} if isinstance(given, str) else dict(given)
        full[key] = {**{name: default for name, (default, _least, _most) in KINDS[options["kind"]].items()}, **options}
    return full


def keys(what: Wanted) -> t.List[str]:
    """All variables that are generated, the public keys too."""
    return [name for key, options in what.items() for name in (key, options.get("public")) if name]


def values(what: Wanted, present: t.Mapping[str, str], rotate: t.Collection[str]) -> t.Dict[str, str]:
    """New values for what is not there, or is to be rotated; a key pair is rotated as one. What is there is kept."""
    new: t.Dict[str, str] = {}
    for key, options in what.items():
        public = options.get("public")
        turn = key in rotate or (public is not None and public in rotate)
        if turn or not present.get(key):
            new[key] = _make(options)
            if public is not None:
                new[public] = _public(new[key])
        elif public is not None and not present.get(public):
            new[public] = _public(present[key])
    return new


def _make(options: t.Mapping[str, t.Any]) -> str:
    kind = options["kind"]
    if kind == "token_urlsafe":
        return secrets.token_urlsafe(options["bytes"])
    if kind == "fernet":
        # https://github.com/fernet/spec/blob/master/Spec.md: 32 bytes, base64url, with padding.
        return base64.urlsafe_b64encode(os.urandom(32)).decode()
    if kind == "uuid":
        return str(uuid.uuid4())
    how = ["ED25519"] if kind == "ed25519" else ["RSA", "-pkeyopt", f"rsa_keygen_bits:{options['bits']}"]
    return _openssl(["openssl", "genpkey", "-algorithm", *how], "A key pair could not be made")


def _public(private: str) -> str:
    return _openssl(["openssl", "pkey", "-pubout"], "The public key could not be made of the private one", f"{private}\n")


def _openssl(argv: t.Sequence[str], what: str, stdin: t.Optional[str] = None) -> str:
    done = _command.run(argv, stdin=stdin)
    if not done.ok:
        # What it says may repeat what it was given.
        raise Failure(
            f"{what}: openssl ended with status {done.rc}.", fix="Look whether the private key is PEM, and which openssl the host has."
        )
    return done.stdout.strip()
