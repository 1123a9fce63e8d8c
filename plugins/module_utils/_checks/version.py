# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``version``: asks over HTTP which version answers, and compares."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    PASS,
    QUOTED_LIST,
    TEXT,
    UNKNOWN,
    Answer,
    CheckType,
    Memory,
    Option,
    Options,
    pattern_mistakes,
    shown,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import BODY_LIMIT, NoAnswer, Reply, ask
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.http import (
    ASKING,
    HEADER_NAME,
    asking_mistakes,
    excerpt,
    look_up,
    request_of,
    secrets_of,
    status_problems,
    unanswered,
    where,
)

PLACES = ("json", "header", "pattern")


class _NotFound(Exception):
    """The answer holds no version where it should. The text says what it holds instead."""


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from asking_mistakes(options, given)
    yield from pattern_mistakes(options)
    if len(given & set(PLACES)) != 1:
        yield f"json, header, pattern: found {' and '.join(sorted(given & set(PLACES))) or 'none'}, allowed: one of them"
    if options["header"] is not None and not HEADER_NAME.fullmatch(options["header"]):
        yield wrong("header", options["header"], "the name of one header")


def version_in(options: Options, reply: Reply) -> str:
    """The version that the answer tells.

    :raises _NotFound: it tells none.
    """
    if options["header"] is not None:
        if options["header"].lower() not in reply.headers:
            raise _NotFound(f"there is no header {options['header']}")
        return reply.headers[options["header"].lower()].strip()
    if options["pattern"] is not None:
        match = re.search(options["pattern"], reply.text)
        # The first group, or all of it where the pattern has none.
        version = match and match.group(1 if match.re.groups else 0)
        if not version:
            raise _NotFound(f"the body does not match {shown(options['pattern'])}")
        return version.strip()
    return _json_version(options["json"], reply.body)


def _json_version(path: str, body: bytes) -> str:
    import json

    try:
        # A number stays as it is written: as a number, 1.10 would be 1.1.
        version = look_up(json.loads(body, parse_float=str, parse_int=str), path)
    except LookupError:
        raise _NotFound(f"{path} is missing") from None
    except (ValueError, RecursionError):
        raise _NotFound("the body is not JSON") from None
    if not isinstance(version, str):
        raise _NotFound(f"{path} is {shown(version)}, which is no version")
    return version


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    expected = " or ".join(options["expected"])
    try:
        reply = ask(request_of(options), timeout, options["follow_redirects"])
    except NoAnswer as problem:
        return unanswered(options, problem, options["expected"])
    place = where(options)
    said = excerpt(reply, secrets_of(options))
    problems = status_problems(options, reply)
    if problems:
        return Answer(FAIL, f"{place}: {problems[0]}, and so no version; it said: {said}", None, options["expected"])
    try:
        version = version_in(options, reply)
    except _NotFound as reason:
        if reply.partial and options["header"] is None:
            evidence = f"{place} answered with more than the {BODY_LIMIT} bytes that are read: {reason}, expected version {expected}."
            return Answer(UNKNOWN, evidence, None, options["expected"])
        return Answer(FAIL, f"{place} tells no version: {reason}, expected {expected}; it said: {said}", None, options["expected"])
    if version in options["expected"]:
        return Answer(PASS, f"{place} is version {version}, as expected.", version, options["expected"])
    return Answer(FAIL, f"{place} is version {shown(version)}, expected {expected}: another release answers.", version, options["expected"])


CHECK = CheckType(
    name="version",
    options={
        **ASKING,
        "json": Option(TEXT),
        "header": Option(TEXT),
        "pattern": Option(TEXT),
        "expected": Option(QUOTED_LIST, required=True),
    },
    subject=where,
    attempt=_attempt,
    mistakes=_mistakes,
    secrets=secrets_of,
)
