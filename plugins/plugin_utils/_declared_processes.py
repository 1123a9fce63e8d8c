# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs beside the web server, as it is declared: mistakes in it, and what a release takes of it."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import typing as t

from ansible.module_utils.common.validation import check_type_bool, check_type_int

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
MOST = 64
LONGEST_STOP = 3600
OPTIONS = ("command", "count", "singleton", "stop_timeout")

_TEXT = "text or a list of texts, such as python -m shop.worker"


def _words(value: t.Any) -> t.Optional[t.List[str]]:
    """The words of a command; None when it is none."""
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError:
            return None
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) and "\0" not in one for one in value)
        or not value[0].strip()
    ):
        return None
    return value


def _number(value: t.Any, low: int, high: int) -> t.Optional[int]:
    if isinstance(value, (bool, float, list, dict)):
        return None
    try:
        number = int(check_type_int(value))
    except (TypeError, ValueError):
        return None
    return number if low <= number <= high else None


def _flag(value: t.Any) -> t.Optional[bool]:
    try:
        return bool(check_type_bool(value))
    except (TypeError, ValueError):
        return None


def mistakes(given: t.Mapping[t.Any, t.Any]) -> t.Iterator[str]:
    """What is wrong with the processes, each beginning with the name of the one that it is about."""
    for name, one in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            yield (f"found the name {_shown(name)}; allowed: lower-case letters, digits and hyphens, at most 32, beginning with a letter.")
        elif not isinstance(one, dict):
            yield f"{name}: found {_shown(one)}; allowed: a dictionary of {', '.join(OPTIONS)}."
        else:
            yield from (f"{name}: {said}" for said in _of_one(one))
    texts = {name for name in given if isinstance(name, str)}
    for name in sorted(texts):
        # worker-1 would be the second process of that name and the first of another.
        number = re.fullmatch(r"(.+)-\d+", name)
        if number and number[1] in texts:
            yield f"{name}: the processes of {number[1]} have such names themselves; allowed: a name that does not end in a number."


def _of_one(one: t.Mapping[t.Any, t.Any]) -> t.Iterator[str]:
    for option in one:
        if option not in OPTIONS:
            near = difflib.get_close_matches(str(option), OPTIONS, n=1)
            yield f"{option}: unknown; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(OPTIONS) + '.'}"
    if "command" not in one:
        yield f"command: missing; allowed: {_TEXT}."
    elif _words(one["command"]) is None:
        yield f"command: found {_shown(one['command'])}; allowed: {_TEXT}."
    count, singleton = _number(one.get("count", 1), 1, MOST), _flag(one.get("singleton", False))
    if count is None:
        yield f"count: found {_shown(one['count'])}; allowed: a whole number from 1 to {MOST}."
    if singleton is None:
        yield f"singleton: found {_shown(one['singleton'])}; allowed: true or false."
    if singleton and count is not None and count > 1:
        yield f"count: found {count}; allowed with singleton: 1, since it must never run twice."
    if _number(one.get("stop_timeout", 1), 1, LONGEST_STOP) is None:
        yield f"stop_timeout: found {_shown(one['stop_timeout'])}; allowed: a whole number from 1 to {LONGEST_STOP}."


def _shown(value: t.Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def complete(given: t.Mapping[str, t.Mapping[str, t.Any]], stop_timeout: int) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Right ones with all their options, as a release keeps them."""
    return {
        name: {
            "command": _words(one["command"]),
            "count": _number(one.get("count", 1), 1, MOST),
            "singleton": _flag(one.get("singleton", False)),
            "stop_timeout": _number(one.get("stop_timeout", stop_timeout), 1, LONGEST_STOP),
        }
        for name, one in sorted(given.items())
    }
