# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a check type promises to the engine, and the words it answers with.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

PASS = "pass"
FAIL = "fail"
UNKNOWN = "unknown"
# Another check did not pass, and that ended this one before it had a verdict.
UNSEEN = "unseen"

Options = t.Dict[str, t.Any]
Memory = t.Dict[str, t.Any]


class CannotTell(Exception):
    """The check could not be made: neither a pass nor a fail. The text says why, for a person."""


@dataclass(frozen=True)
class Answer:
    """What one attempt found.

    :param verdict: PASS, FAIL or UNKNOWN.
    :param evidence: One sentence for a person: what was found, what was expected.
    :param final: No later attempt could find otherwise: the check ends here, whatever time it has left.
    :param silent: Nobody answered. What is asked may not have begun, while a wrong answer comes from what has.
    """

    verdict: str
    evidence: str
    found: t.Any = None
    expected: t.Any = None
    final: bool = False
    silent: bool = False

    @property
    def good(self) -> bool:
        return self.verdict == PASS


@dataclass(frozen=True)
class Kind:
    """The kind of value that an option takes.

    :param allowed: The kind in a person's words.
    :param accepts: Whether a value is of this kind.
    :param spec: The same for Ansible's argument spec.
    """

    allowed: str
    accepts: t.Callable[[t.Any], bool]
    spec: t.Mapping[str, str]


def _is_number(value: object) -> bool:
    # A bool is an int to Python and never one to the person who wrote it; the comparison refuses not-a-number and infinity.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_filled_list(value: object, accepts: t.Callable[[t.Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(accepts(element) for element in value)


TEXT = Kind("text", lambda value: isinstance(value, str) and bool(value), {"type": "str"})
# Ansible would turn 1.10 into the text "1.1" and 0644 into "420" without a word; taken raw, such a number is seen and refused.
QUOTED = Kind("text in quotes (YAML turns 0644 without them into 420)", TEXT.accepts, {"type": "raw"})
QUOTED_LIST = Kind(
    "a list of texts, each in quotes (YAML turns 1.10 without them into 1.1)",
    lambda value: _is_filled_list(value, lambda element: isinstance(element, str)),
    {"type": "list", "elements": "raw"},
)
NUMBER = Kind("a number", _is_number, {"type": "float"})
TEXT_LIST = Kind("a list of texts", lambda value: _is_filled_list(value, TEXT.accepts), {"type": "list", "elements": "str"})
WHOLE = Kind("a whole number", _is_whole, {"type": "int"})
WHOLE_LIST = Kind("a list of whole numbers", lambda value: _is_filled_list(value, _is_whole), {"type": "list", "elements": "int"})
FLAG = Kind("true or false", lambda value: isinstance(value, bool), {"type": "bool"})
MAPPING = Kind("a mapping", lambda value: isinstance(value, dict) and bool(value), {"type": "dict"})
MAPPING_LIST = Kind("a list of mappings", lambda value: _is_filled_list(value, MAPPING.accepts), {"type": "list", "elements": "dict"})


@dataclass(frozen=True)
class Option:
    """One option of a check type.

    :param secret: Its value is never shown, not even in the message about a mistake in it.
    """

    kind: Kind
    default: t.Any = None
    required: bool = False
    choices: t.Tuple[str, ...] = ()
    minimum: t.Optional[float] = None
    maximum: t.Optional[float] = None
    secret: bool = False


def _no_mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterable[str]:
    return ()


def _no_secrets(options: Options) -> t.Iterable[str]:
    return ()


@dataclass(frozen=True)
class CheckType:
    """One type of check.

    :param options: Its own options; the engine adds those that all types have.
    :param subject: What is checked, in a few words: the check's name when none is given.
    :param attempt: (options, timeout in seconds, memory) -> Answer. The memory is empty until an attempt was good and
        lasts until one is bad before the check became good: what must not change from attempt to attempt is kept in it.
        Raises CannotTell or Failure when the check cannot be made.
    :param mistakes: (options, names that were given) -> what is wrong beyond the kinds of values; options of the wrong kind are None.
    :param secrets: The texts that must not appear in any evidence.
    :param remembers: The memory outlives bad attempts too: each attempt goes on where the one before it ended.
    """

    name: str
    options: t.Mapping[str, Option]
    subject: t.Callable[[Options], str]
    attempt: t.Callable[[Options, float, Memory], Answer]
    mistakes: t.Callable[[Options, t.AbstractSet[str]], t.Iterable[str]] = _no_mistakes
    secrets: t.Callable[[Options], t.Iterable[str]] = _no_secrets
    remembers: bool = False


def wrong(option: str, found: object, allowed: str) -> str:
    """The sentence about one option's value."""
    return f"{option}: found {shown(found)}, allowed: {allowed}"


def problem_of(name: str, option: Option, value: t.Any) -> t.Optional[str]:
    """What is wrong with the value of an option; None when nothing is."""
    if value is None:
        return f"{name}: it is missing, allowed: {_allowed(option)}" if option.required else None
    if option.kind.accepts(value) and (not option.choices or value in option.choices) and _in_range(option, value):
        return None
    if option.secret:
        return f"{name}: found another kind of value (not shown), allowed: {_allowed(option)}"
    return wrong(name, value, _allowed(option))


def _in_range(option: Option, value: t.Any) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return all(
        (option.minimum is None or number >= option.minimum) and (option.maximum is None or number <= option.maximum) for number in numbers
    )


def _allowed(option: Option) -> str:
    if option.choices:
        return f"one of {', '.join(option.choices)}"
    if option.minimum is not None and option.maximum is not None:
        return f"{option.kind.allowed} from {option.minimum:g} to {option.maximum:g}"
    return option.kind.allowed if option.minimum is None else f"{option.kind.allowed} of {option.minimum:g} or more"


def shown(value: object, length: int = 200) -> str:
    """A value as a person would write it: on one line, texts in quotes, of bounded length."""
    import json

    return one_line(json.dumps(value, ensure_ascii=False, default=str), length)


def one_line(text: str, length: int = 200) -> str:
    """Text from elsewhere, made fit for a sentence: no line breaks, no control characters, of bounded length."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def redacted(text: str, secrets: t.Iterable[str]) -> str:
    """The text without the secrets; the longest first, because one may contain another."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def pattern_mistakes(options: Options) -> t.Iterator[str]:
    """What is wrong with an option ``pattern``."""
    if options["pattern"] is not None:
        try:
            re.compile(options["pattern"])
        except (re.error, OverflowError, RecursionError) as error:
            yield wrong("pattern", options["pattern"], f"a regular expression ({error})")


def judged(problems: t.Sequence[str], good: str, bad: str, found: t.Any, expected: t.Any) -> Answer:
    """The answer of a check that looked: fail with all that is wrong, or pass."""
    if problems:
        return Answer(FAIL, f"{bad}: {'; '.join(problems)}", found, expected)
    return Answer(PASS, good, found, expected)
