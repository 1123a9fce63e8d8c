# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new text of a file of environment variables: what has not changed stays as it is written, comments and order too."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects


def merged(text: str, values: t.Mapping[str, str], removed: t.Optional[t.Collection[str]] = None) -> str:
    """A text by which systemd has these values and no others; where one form says that to all dialects, they have them, too.

    :param values: All of them, in the order in which new ones are added. Raises ValueError for what no variable can be.
    :param removed: Names that go where systemd does not see them, either, because ``export`` stands before them. None for all but those in ``values``.
    """
    present = dialects.systemd(text)
    unchanged = {name for name, value in values.items() if present.get(name) == value}
    # A quote that is not closed would draw what follows into it; then every assignment is written anew, and only comments stay.
    for kept in (unchanged, set()):
        new = _rewritten(text, values, kept, removed)
        if _has(new, values):
            return new
    return "".join(_line(name, value) for name, value in values.items())


def _rewritten(text: str, values: t.Mapping[str, str], unchanged: t.Collection[str], removed: t.Optional[t.Collection[str]]) -> str:
    every = list(dialects.assignments(text))
    # Of several assignments the last one holds, and the new one takes its place.
    last = {_name(one): index for index, one in enumerate(every)}
    parts: t.List[str] = []
    done = 0
    for index, one in enumerate(every):
        name = _name(one)
        parts.append(text[done : one.start])
        done = one.end
        if name in values and name not in unchanged:
            parts.append(_line(name, values[name]) if last[name] == index else "")
        elif name in values or not dialects.is_name(name) or not (one.is_variable or removed is None or name in removed):
            parts.append(text[one.start : one.end])
    rest = text[done:]
    added = "".join(_line(name, value) for name, value in values.items() if name not in unchanged and name not in last)
    kept = "".join([*parts, rest])
    return kept + ("\n" if kept and added and not kept.endswith("\n") else "") + added


def _name(one: dialects.Assignment) -> str:
    """The name that an assignment is for; systemd takes ``export`` for a part of it, the others do not."""
    words = one.key.split()
    return words[1] if len(words) == 2 and words[0] == "export" else one.key


def _line(name: str, value: str) -> str:
    return dialects.written(name, value)[0]


def _has(text: str, values: t.Mapping[str, str]) -> bool:
    try:
        return dialects.systemd(text) == dict(values)
    except dialects.Unreadable:
        return False
