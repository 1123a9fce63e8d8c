# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a file of environment variables means: to systemd, to Docker Compose, and to python-dotenv.

They agree on less than one thinks. What each reads here is what it reads in truth, oddities included, as tried against the programs themselves
(systemd 247 and 252, Compose 5.6, python-dotenv 1.2), with nothing in the environment that a reference could mean.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import functools
import re
import typing as t

Values = t.Dict[str, str]


class Unreadable(Exception):
    """A program refuses the whole file. The text says why, as the rest of a sentence that begins with the program; never a value."""


@functools.cache
def _re(pattern: str) -> t.Pattern[str]:
    """Compiled when it is first needed: every phase imports this, and few read what is not systemd's."""
    return re.compile(pattern)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


# systemd: systemd.exec(5), EnvironmentFile=; the states of its reader are in src/basic/env-file.c.

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_BLANKS = r"[ \t]*"
_BLANK_LINES = r"[ \t\r\n]*"
_COMMENT = r"[^\r\n]*"
# Before version 254, a backslash at the end of a comment drew the next line into it.
_COMMENT_THAT_GOES_ON = r"(?s)[^\\\r\n]*(?:\\.[^\\\r\n]*)*"
_KEY = r"[^=\r\n]*"
_PLAIN = r"(?s)[^\\\r\n]*(?:\\.[^\\\r\n]*)*"
_IN_DOUBLE = r'(?s)[^"\\]*(?:\\.[^"\\]*)*'
_ESCAPED = r"(?s)\\(.)"
_SURROGATE = r"[\ud800-\udfff]"


def is_name(text: str) -> bool:
    return _re(NAME).fullmatch(text) is not None


class Assignment(t.NamedTuple):
    """One assignment, as systemd sees it.

    :param key: As it is written; not every key is the name of a variable.
    :param start: Where its line begins in the text.
    :param end: Where the next line begins.
    :param equals: Where its equals sign is.
    """

    key: str
    value: str
    start: int
    end: int
    equals: int

    @property
    def is_variable(self) -> bool:
        return is_name(self.key)


def assignments(text: str, comments_go_on: bool = False) -> t.Iterator[Assignment]:
    """Every assignment in a text, in order, in the way of systemd.

    :param comments_go_on: As before version 254.
    """
    position, size = 0, len(text)
    comment = _COMMENT_THAT_GOES_ON if comments_go_on else _COMMENT
    while True:
        start = position = _end(_BLANK_LINES, text, position)
        if position >= size:
            return
        if text[position] in "#;":
            position = _end(comment, text, position) + 1
            continue
        # Whatever a line begins with belongs to its key, an equals sign too.
        position = _end(_KEY, text, position + 1)
        if position >= size:
            return
        if text[position] != "=":
            position += 1
            continue
        equals = position
        value, position = _systemd_value(text, equals + 1)
        if text.startswith("\r\n", position - 1):
            position += 1
        yield Assignment(text[start:equals].rstrip(" \t"), value, start, min(position, size), equals)


def _end(pattern: str, text: str, position: int) -> int:
    match = _re(pattern).match(text, position)
    return position if match is None else match.end()


def _systemd_value(text: str, position: int) -> t.Tuple[str, int]:
    """The value that begins at a position, and where the next line does. Quoted parts follow one another until something is not quoted."""
    parts: t.List[str] = []
    while True:
        position = _end(_BLANKS, text, position)
        first = text[position : position + 1]
        if first in ("", "\r", "\n"):
            break
        if first == "'":
            end = text.find("'", position + 1)
            end = len(text) if end < 0 else end
            parts.append(text[position + 1 : end])
            position = end + 1
        elif first == '"':
            end = _end(_IN_DOUBLE, text, position + 1)
            parts.append(_re(_ESCAPED).sub(_in_double, text[position + 1 : end]))
            # At the end of the file may be a backslash that nothing follows, or no quote.
            position = len(text) if text[end : end + 1] != '"' else end + 1
        else:
            end = _end(_PLAIN, text, position)
            # A backslash that the file ends with escapes nothing, but the blanks before it stay.
            alone = text[end : end + 1] == "\\"
            parts.append(_plain(text[position:end], stripped=not alone))
            position = len(text) if alone else end
            break
    return "".join(parts), position + 1


def _in_double(match: t.Match[str]) -> str:
    return "" if match[1] == "\n" else match[1] if match[1] in '"\\`$' else match[0]


def _plain(raw: str, stripped: bool) -> str:
    """A value without quotes: blanks at its end go, unless the last of them was escaped."""
    last = 0
    for match in _re(_ESCAPED).finditer(raw):
        last = match.end()
    rest = raw[last:].rstrip(" \t") if stripped else raw[last:]
    return _re(_ESCAPED).sub(lambda match: "" if match[1] in "\r\n" else match[1], raw[:last]) + rest


def systemd(text: str, comments_go_on: bool = False) -> Values:
    """The variables that a unit gets. Raises Unreadable: then it gets none, or does not start."""
    if "\0" in text:
        raise Unreadable(f"refuses the file: there is a NUL byte in line {_line(text, text.index(chr(0)))}")
    found: Values = {}
    for one in assignments(text, comments_go_on):
        if _re(_SURROGATE).search(one.key) or _re(_SURROGATE).search(one.value):
            raise Unreadable(f"refuses the file: what begins in line {_line(text, one.start)} is not UTF-8")
        if one.is_variable:
            found[one.key] = one.value
    return found


def systemd_before_254(text: str) -> Values:
    return systemd(text, comments_go_on=True)


# Docker Compose: https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax; what is not said there is
# in the packages dotenv and template of compose-go.

_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_GO_BLANK = "\t\v\f\r \x85\xa0"
_GO_SPACES = f"[{_GO_SPACE}]*"
_GO_BLANKS = f"[{_GO_BLANK}]*"
_GO_EXPORT = r"export(?=[\t\n\f\r ])"
_GO_ESCAPE = r'\\(?:[abcfnrtv$"\\]|0[0-9]{0,3})'
_GO_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "$": "$$"}
_GO_QUOTED = {quote: rf"(?s)[^{quote}\\]*(?:\\.[^{quote}\\]*)*" for quote in "\"'"}
# Go lets two more letters pass for s and k where case does not matter.
_GO_NAME = "[_a-zA-Z\u017f\u212a][_a-zA-Z0-9\u017f\u212a]*"
_GO_REFERENCE = rf"\$(?:(?P<escaped>\$)|(?P<named>{_GO_NAME})|\{{(?:(?P<braced>{_GO_NAME}(?::?[-+?].*)?)\}}|(?P<invalid>)))"
_GO_OPERATORS = (":?", "?", ":-", "-", ":+", "+")


def compose(text: str) -> Values:
    """The variables that ``env_file`` gives to a container. Raises Unreadable: then nothing is started."""
    text = text[1:] if text.startswith("\ufeff") else text
    found: Values = {}
    position = 0
    while True:
        position = _end(_GO_SPACES, text, position)
        if position >= len(text):
            break
        if text[position] == "#":
            newline = text.find("\n", position)
            position = len(text) if newline < 0 else newline
            continue
        key, position, assigned = _compose_key(text, position)
        if " " in key:
            raise Unreadable(f"refuses the file: there is a blank within the name in line {_line(text, position - 1)}")
        if assigned:
            found[key], position = _compose_value(text, position, found)
    return found


def _compose_key(text: str, position: int) -> t.Tuple[str, int, bool]:
    """The key, where its value begins, and whether there is one. A name alone means the variable of whoever starts Compose."""
    if _re(_GO_EXPORT).match(text, position):
        position = _end(_GO_BLANKS, text, position + len("export"))
    for index in range(position, len(text)):
        char = text[index]
        if char in _GO_BLANK:
            continue
        if char in "=:\n":
            return text[position:index].rstrip(_GO_SPACE), _end(_GO_BLANKS, text, index + 1), char != "\n"
        if char not in "_.-[]" and not char.isalpha() and not char.isnumeric():
            raise Unreadable(
                f"refuses the file: what begins in line {_line(text, position)} has a name with a character that it does not allow"
            )
    if position >= len(text):
        raise Unreadable("refuses the file: it ends after export")
    # Without an end of line, a name alone is taken for the value of a variable without a name.
    return "", _end(_GO_BLANKS, text, position), True


def _compose_value(text: str, position: int, known: Values) -> t.Tuple[str, int]:
    quote = text[position : position + 1]
    if quote not in ("'", '"'):
        newline = text.find("\n", position)
        end = len(text) if newline < 0 else newline
        return _compose_expand(text[position:end].partition(" #")[0].rstrip(_GO_SPACE), known, text, position), min(end + 1, len(text))
    end = _end(_GO_QUOTED[quote], text, position + 1)
    if text[end : end + 1] != quote:
        raise Unreadable(f"refuses the file: the quote in line {_line(text, position)} is never closed")
    value = text[position + 1 : end]
    value = _re(_ESCAPED).sub(lambda match: quote if match[1] == quote else match[0], value)
    if quote == '"':
        value = _compose_expand(_re(_GO_ESCAPE).sub(_compose_unescape, value), known, text, position)
    return value, end + 1


def _compose_unescape(match: t.Match[str]) -> str:
    letter, digits = match[0][1], match[0][2:]
    if letter != "0":
        return _GO_LETTERS.get(letter, match[0])
    octal = re.fullmatch(r"[0-7]{3}", digits)
    # What is no character loses its zero.
    return chr(int(digits, 8)) if octal and int(digits, 8) < 256 else f"\\{digits}"


def _compose_expand(template: str, known: Values, text: str, position: int) -> str:
    try:
        return _compose_substitute(template, known)
    except (ValueError, RecursionError):
        raise Unreadable(
            f"refuses the file: the value in line {_line(text, position)} is no reference that it knows, or to what is missing"
        ) from None


def _compose_substitute(template: str, known: Values) -> str:
    return _re(_GO_REFERENCE).sub(lambda match: _compose_reference(match[0], known), template)


def _compose_reference(reference: str, known: Values) -> str:
    """What stands for a reference. The pattern takes a braced one up to the last brace of the line; what follows its own brace is looked at again."""
    rest = ""
    operator = _first_operator(reference)
    closing = _first_closing_brace(reference)
    if closing >= 0:
        reference, rest = reference[: closing + 1], reference[closing + 1 :]
    match = _re(_GO_REFERENCE).search(reference)
    if match is None or match["invalid"] is not None:
        raise ValueError("no reference")
    if match["escaped"]:
        return "$"
    name = match["named"] or match["braced"]
    if match["braced"] and operator in name:
        name, _operator, word = name.partition(operator)
        return _compose_operator(operator, known.get(name), word, known) + _compose_substitute(rest, known)
    # Here Compose forgets the rest.
    return known.get(name, "")


def _first_closing_brace(text: str) -> int:
    opened, index = 0, 0
    while index < len(text):
        if text[index] == "}":
            opened -= 1
            if opened == 0:
                return index
        if text[index] == "{":
            opened += 1
            index += 1
        index += 1
    return -1


def _first_operator(text: str) -> str:
    there = [(text.index(operator), order, operator) for order, operator in enumerate(_GO_OPERATORS) if operator in text]
    return min(there)[2] if there else _GO_OPERATORS[0]


def _compose_operator(operator: str, value: t.Optional[str], word: str, known: Values) -> str:
    there = value is not None and (value != "" or not operator.startswith(":"))
    if operator.endswith("?"):
        if not there:
            raise ValueError("required")
        return value or ""
    if operator.endswith("+"):
        return _compose_substitute(word, known) if there else value or ""
    return value or "" if there else _compose_substitute(word, known)


# python-dotenv: https://saurabh-kumar.com/python-dotenv/#file-format and its parser. It opens the file as text, which makes every end of a line "\n".

_PY_BLANKS = r"[^\S\n]*"
_PY_SPACES = r"\s*"
_PY_EXPORT = r"export[^\S\n]+"
_PY_KEY = r"'([^']+)'|((?!')[^=#\s]+)"
_PY_CLOSING = {quote: rf"(?<!\\){quote}" for quote in "\"'"}
_PY_ESCAPE = {"'": r"\\([\\'])", '"': r"\\([\\'\"abfnrtv])"}
_PY_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_PY_COMMENT = r"(?<!\s)\s+#"
_PY_END = r"(?:[^\S\n]*#[^\n]*)?[^\S\n]*(?:\n|\Z)"
_PY_REST = r"[^\n]*\n?"
_PY_AFTER_NAME = r"[}:]"


def python_dotenv(text: str) -> Values:
    """The variables that ``load_dotenv`` sets. Raises Unreadable: then it raises, too."""
    strange = _re(_SURROGATE).search(text)
    if strange:
        raise Unreadable(f"refuses the file: line {_line(text, strange.start())} is not UTF-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found: t.Dict[str, t.Optional[str]] = {}
    position = 0
    while position < len(text):
        position = _end(_PY_SPACES, text, position)
        if position >= len(text):
            break
        key, value, position = _python_statement(text, position)
        if key is not None:
            found[key] = None if value is None else _python_expand(value, found)
    return {name: value for name, value in found.items() if value is not None}


def _python_statement(text: str, position: int) -> t.Tuple[t.Optional[str], t.Optional[str], int]:
    """One line: its key, if it has one and is in order; its value, if it has one; where the next line begins."""
    position = _end(_PY_EXPORT, text, position)
    key, value = None, None
    if text[position : position + 1] != "#":
        match = _re(_PY_KEY).match(text, position)
        if match is None:
            return None, None, _end(_PY_REST, text, position)
        key, position = match[1] or match[2], match.end()
    position = _end(_PY_BLANKS, text, position)
    if text[position : position + 1] == "=":
        position = _end(_PY_BLANKS, text, position + 1)
        quote = text[position : position + 1]
        if quote in _PY_CLOSING:
            closing = _python_closing(text, position, quote)
            if closing < 0:
                return None, None, _end(_PY_REST, text, position)
            raw = text[position + 1 : closing]
            value, position = _re(_PY_ESCAPE[quote]).sub(lambda found: _PY_LETTERS.get(found[1], found[1]), raw), closing + 1
        else:
            newline = text.find("\n", position)
            end = len(text) if newline < 0 else newline
            raw = text[position:end]
            comment = _re(_PY_COMMENT).search(raw)
            value, position = (raw if comment is None else raw[: comment.start()]).rstrip(), end
    end = _end(_PY_END, text, position)
    if end == position and position < len(text):
        return None, None, _end(_PY_REST, text, position)
    return key, value, end


def _python_closing(text: str, position: int, quote: str) -> int:
    """Where a quote ends: at the first one without a backslash before it, be that backslash escaped or not; if the file has none, at its last one."""
    match = _re(_PY_CLOSING[quote]).search(text, position + 1)
    return text.rfind(quote, position + 1) if match is None else match.start()


def _python_expand(value: str, known: t.Mapping[str, t.Optional[str]]) -> str:
    """Put values where ``${NAME}`` and ``${NAME:-default}`` stand. No character is looked at for each of many that begin like one."""
    parts: t.List[str] = []
    done, after_name = 0, 0
    start = value.find("${")
    while start >= 0:
        if after_name < start + 2:
            match = _re(_PY_AFTER_NAME).search(value, start + 2)
            if match is None:
                break
            after_name = match.start()
        if value[after_name] == "}":
            end, default = after_name, ""
        elif value.startswith(":-", after_name):
            end = value.find("}", after_name + 2)
            if end < 0:
                break
            default = value[after_name + 2 : end]
        else:
            start = value.find("${", start + 1)
            continue
        name = value[start + 2 : after_name]
        parts += [value[done:start], known.get(name, default) or ""]
        done = end + 1
        start = value.find("${", done)
    return "".join([*parts, value[done:]])


# All of them.

DIALECTS: t.Dict[str, t.Callable[[str], Values]] = {"systemd": systemd, "compose": compose, "python_dotenv": python_dotenv}
TITLES = {"systemd": "systemd", "compose": "Docker Compose", "python_dotenv": "python-dotenv", "systemd_before_254": "systemd before 254"}
_USUAL = r"[A-Z_][A-Z0-9_]*|[a-z_][a-z0-9_]*"


def disagreements(text: str, which: t.Collection[str] = tuple(DIALECTS)) -> t.List[str]:
    """Where programs read something else than the first of them does, one sentence for each name; never a value.

    :param which: The dialects that matter.
    """
    readers = {name: reader for name, reader in DIALECTS.items() if name in which}
    if "systemd" in readers:
        readers["systemd_before_254"] = systemd_before_254
    readings: t.Dict[str, Values] = {}
    said: t.List[str] = []
    for name, reader in readers.items():
        try:
            readings[name] = reader(text)
        except Unreadable as error:
            if name != "systemd_before_254" or "systemd" in readings:
                said.append(f"{TITLES[name]} {error}.")
    for key in dict.fromkeys(key for values in readings.values() for key in values):
        groups: t.Dict[t.Optional[str], t.List[str]] = {}
        for name, values in readings.items():
            groups.setdefault(values.get(key), []).append(TITLES[name])
        if len(groups) > 1:
            one = next(value for value in groups if value is not None)
            clauses = [_clause(names, value, one) for value, names in groups.items()]
            said.append(f"{shown(key)}: {'; '.join(clauses)}.")
    return said


def shown(key: str) -> str:
    """A name from a file, as a person may see it: in a file with a mistake, a piece of a secret can stand where a name does."""
    return key if _re(_USUAL).fullmatch(key) else "a name that is not shown"


def _clause(names: t.Sequence[str], value: t.Optional[str], one: str) -> str:
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    if value is None:
        return f"{listed} {'does' if len(names) == 1 else 'do'} not have it"
    return f"{listed} {'reads' if len(names) == 1 else 'read'} {'one value' if value == one else 'another'}"


def forms(text: str) -> t.Iterator[t.Tuple[str, str]]:
    """Name and value, in every form in which a value may be met elsewhere: as each program reads it, and as it is written."""
    for reader in (*DIALECTS.values(), systemd_before_254):
        try:
            yield from reader(text).items()
        except Unreadable:
            continue
    for one in assignments(text):
        word = (one.key.split() or [""])[-1]
        name = word if is_name(word) else "value"
        raw = text[one.equals + 1 : one.end].strip()
        quoted = len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "\"'"
        yield name, one.value
        yield name, raw[1:-1] if quoted else raw


# Whatever follows a line, it must not be drawn into its value.
_FOLLOWING = "B=\"b\"\nC='c'\n"
_UNQUOTED = r"[A-Za-z0-9_./:@%+,=-]*"


def written(name: str, value: str) -> t.Tuple[str, t.List[str]]:
    """A line that says a value, and the dialects that read it as something else.

    Of all forms it is the one that the most read alike, systemd always. Raises ValueError for what no variable can be.
    """
    if "\0" in value or _re(_SURROGATE).search(value):
        raise ValueError("no variable can have this value")
    escaped = re.sub(r'(["\\])', r"\\\1", value)
    candidates = [f"'{value}'", f'"{escaped}"', '"' + escaped.replace("$", "\\$") + '"']
    if _re(_UNQUOTED).fullmatch(value):
        candidates.insert(0, value)
    best: t.Tuple[str, t.List[str]] = ("", list(DIALECTS))
    for candidate in candidates:
        others = [dialect for dialect, reader in DIALECTS.items() if not _reads(reader, candidate, value)]
        if "systemd" not in others and len(others) < len(best[1]):
            best = (f"{name}={candidate}\n", others)
        if not others:
            break
    return best


def _reads(reader: t.Callable[[str], Values], candidate: str, value: str) -> bool:
    try:
        return reader(f"A={candidate}\n{_FOLLOWING}") == {"A": value, "B": "b", "C": "c"}
    except Unreadable:
        return False
