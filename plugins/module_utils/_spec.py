# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options within options, held against an argument spec where Ansible has not looked at them."""

from __future__ import annotations

import typing as t

# The types of Ansible's argument specs that are used there. What is raw for a module, which knows how to explain a number there, is text in quotes here.
TYPES: t.Dict[str, t.Tuple[t.Type[t.Any], str]] = {
    "str": (str, "a text"),
    "raw": (str, "text in quotes"),
    "list": (list, "a list"),
    "bool": (bool, "true or false"),
    "dict": (dict, "a mapping"),
}


def mistakes(given: t.Mapping[str, t.Any], spec: t.Mapping[str, t.Mapping[str, t.Any]], where: str, noun: str) -> t.Iterator[str]:
    """All that is wrong in a mapping, and in the mappings of its lists.

    :param where: Begins each sentence.
    :param noun: What its keys are called.
    """
    for name in sorted(set(given) - set(spec)):
        yield f"{where}{name}: there is no such {noun}; there are {', '.join(spec)}"
    for name, one in spec.items():
        if name not in given:
            if one.get("required"):
                yield f"{where}{name}: missing"
            continue
        kind, words = TYPES[one["type"]]
        if not isinstance(given[name], kind):
            yield f"{where}{name}: found {given[name]!r}, allowed: {words}"
        elif "options" in one:
            for part in given[name]:
                if isinstance(part, dict):
                    yield from mistakes(part, one["options"], f"{where}{name}: ", noun)


def completed(given: t.Mapping[str, t.Any], spec: t.Mapping[str, t.Mapping[str, t.Any]]) -> t.Dict[str, t.Any]:
    """The same with the defaults of what is not given."""
    options = {name: given.get(name, one.get("default")) for name, one in spec.items()}
    for name, one in spec.items():
        if "options" in one:
            options[name] = [completed(part, one["options"]) for part in options[name] if isinstance(part, dict)]
    return options
