# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person declares of an environment, and what is wrong with that: the same words before a run and on the host."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _waivers
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import generate, rules
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv.dialects import is_name

# execve(2), MAX_ARG_STRLEN: no program is started with a longer NAME=value and the NUL byte behind it.
LONGEST = 128 * 1024


def length(name: str, value: str) -> int:
    """Bytes that a variable takes in a program's environment."""
    return len(f"{name}={value}".encode(errors="surrogateescape")) + 1


def mistakes(given: t.Mapping[str, t.Any]) -> t.Iterator[t.Tuple[str, str]]:
    """Option and sentence, for all that is wrong; never a value.

    :param given: ``values``, ``remove``, ``generate``, ``rules`` and ``waivers``, each of its type, and ``rotate`` where there is one.
    """
    values = given["values"]
    for name, value in values.items():
        wrong = _mistake_of(name, value)
        if wrong:
            yield "values", wrong
    said = generate.mistakes(given["generate"])
    yield from (("generate", one) for one in said)
    made = [] if said else generate.keys(generate.wanted(given["generate"]))
    for name in made:
        if name in values:
            yield "generate", f"{name} is declared, too; allowed: one of both."
    for name in given["remove"]:
        if not is_name(name):
            yield "remove", f"{name} is no name of a variable; allowed: letters, digits and _, not beginning with a digit."
        elif name in values or name in made:
            yield "remove", f"{name} is {'declared' if name in values else 'generated'}, too; allowed: one of both."
    for name in given.get("rotate") or []:
        if name not in made:
            yield "rotate", f"{name} is not generated; allowed: {', '.join(made) or 'nothing, since nothing is generated'}."
    yield from (("rules", one) for one in rules.mistakes(given["rules"]))
    yield from (("waivers", one) for one in _waivers.mistakes(given["waivers"]))


def _mistake_of(name: t.Any, value: t.Any) -> str:
    if not isinstance(name, str) or not is_name(name):
        return f"{name} is no name of a variable; allowed: letters, digits and _, not beginning with a digit."
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return f"{name}: allowed is text or a whole number; put it in quotes (YAML makes True of yes, and 1.1 of 1.10)."
    try:
        size = len(f"{name}={value}".encode()) + 1
    except UnicodeEncodeError:
        return f"{name}: allowed is text in UTF-8."
    if "\0" in str(value):
        return f"{name}: allowed is text without NUL bytes."
    if size > LONGEST:
        return f"{name}: it has {size} bytes with its name; allowed: {LONGEST} (Linux starts no program with more)."
    return ""
