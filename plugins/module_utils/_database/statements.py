# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of SQL, taken apart into its statements as the database's own shell would: by lexing, without understanding them.

It has to be known before anything runs whether a file ends the transaction that it is run in, and where a statement stands that fails.
"""

from __future__ import annotations

import re
import sqlite3
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

MARKER = re.compile(r"--\s*no-transaction\s*")

_TOKEN = {
    "postgresql": re.compile(
        r"""(?P<comment>--[^\n]*)|(?P<block>/\*)|(?P<dollar>\$(?:[^\W\d]\w*)?\$)
        |(?P<quoted>[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*")
        |(?P<word>[^\W\d][\w$]*)|(?P<number>\d[\w$.]*)|(?P<space>\s+)|(?P<other>.)""",
        re.VERBOSE | re.DOTALL,
    ),
    "sqlite": re.compile(
        r"""(?P<comment>--[^\n]*)|(?P<block>/\*.*?(?:\*/|\Z))
        |(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
        |(?P<word>[^\W\d][\w$]*)|(?P<number>\d[\w$.]*)|(?P<space>\s+)|(?P<other>.)""",
        re.VERBOSE | re.DOTALL,
    ),
}


_QUOTES = {"postgresql": "'\"", "sqlite": "'\"`["}


@dataclass(frozen=True)
class Statement:
    """One statement.

    :param line: Where it begins in its file.
    :param words: Its words in upper case, without what is in quotes or a comment.
    """

    text: str
    line: int
    words: t.Tuple[str, ...]

    def begins(self, *words: str) -> bool:
        return self.words[: len(words)] == words


@dataclass(frozen=True)
class Script:
    """What is to be run of a file.

    :param transaction: Whether it is run in one: not when it has a line ``-- no-transaction``.
    """

    statements: t.Tuple[Statement, ...]
    transaction: bool


def parse(text: str, kind: str, name: str) -> Script:
    """The statements of a file. What would make it something else than one transaction is a Failure that names all of it.

    :param kind: sqlite or postgresql.
    :param name: What the file is called in messages.
    """
    statements: t.List[Statement] = []
    problems: t.List[str] = []
    begin, start, depth, body = 0, -1, 0, 0
    words: t.List[str] = []
    transaction = True
    position, length = 0, len(text)
    while position < length:
        match = t.cast("re.Match[str]", _TOKEN[kind].match(text, position))
        token, what, position = match[0], match.lastgroup, match.end()
        if what == "block" and kind == "postgresql":
            position = _after_comment(text, match.start())
        elif what == "comment":
            transaction = transaction and not MARKER.fullmatch(token)
        if what in ("comment", "block", "space"):
            continue
        if start < 0 and token != ";":
            start = match.start()
        if what == "dollar":
            end = text.find(token, position)
            if end < 0:
                raise _never_closed(text, match.start(), name, token)
            position = end + len(token)
        elif what == "word":
            words.append(token.upper())
            body += _body(words) if kind == "postgresql" else 0
        elif token in _QUOTES[kind]:
            raise _never_closed(text, match.start(), name, token)
        elif token == "\\" and kind == "postgresql":
            problems.append(f"line {_line(text, match.start())}: a command of psql, which the server does not know")
            position = (text.find("\n", position) + 1) or length
        elif token in "()":
            depth = max(0, depth + (1 if token == "(" else -1))
        elif token == ";":
            ends = depth == 0 and body <= 0 if kind == "postgresql" else sqlite3.complete_statement(text[begin:position])
            if ends:
                if start >= 0:
                    statements.append(Statement(text[start : position - 1].strip(), _line(text, start), tuple(words)))
                begin, start, depth, body, words = position, -1, 0, 0, []
    if start >= 0:
        statements.append(Statement(text[start:].strip(), _line(text, start), tuple(words)))
    if transaction:
        statements = _unwrapped(statements)
    problems += [f"line {one.line}: {problem}" for one in statements for problem in _problems(one, kind, transaction)]
    if not statements:
        problems.append("there is no statement in it")
    if problems:
        raise Failure(
            f"{name} cannot be run: {'; '.join(problems)}.",
            fix="Correct the file. What cannot be in a transaction goes into a file of its own with the line -- no-transaction.",
        )
    return Script(tuple(statements), transaction)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _never_closed(text: str, position: int, name: str, token: str) -> Failure:
    return Failure(f"{name} cannot be run: line {_line(text, position)}: {token} is never closed.", fix="Correct the file.")


def _after_comment(text: str, begin: int) -> int:
    """Where a comment ends; PostgreSQL's may contain others."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, begin):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _body(words: t.Sequence[str]) -> int:
    """How much deeper the newest word leads into the body of a function that is not in quotes (BEGIN ATOMIC … END); psql counts the same."""
    plain = [word for word in words[:4] if word not in ("OR", "REPLACE")]
    if plain[:2] not in (["CREATE", "FUNCTION"], ["CREATE", "PROCEDURE"]) or "BEGIN" not in words:
        return 0
    return {"BEGIN": 1, "CASE": 1, "END": -1}.get(words[-1], 0)


def _opens(one: Statement) -> bool:
    return one.begins("BEGIN") or one.begins("START", "TRANSACTION")


def _closes(one: Statement) -> bool:
    return one.words[:1] in (("COMMIT",), ("END",))


def _unwrapped(statements: t.List[Statement]) -> t.List[Statement]:
    """Without the BEGIN and COMMIT around everything that many files have: they say what happens anyway."""
    if len(statements) >= 2 and _opens(statements[0]) and _closes(statements[-1]):
        return statements[1:-1]
    return statements


# Inside a transaction SQLite refuses these, or does nothing and does not say so.
_PRAGMAS = ("AUTO_VACUUM", "FOREIGN_KEYS", "JOURNAL_MODE", "LOCKING_MODE", "PAGE_SIZE", "SYNCHRONOUS", "WAL_CHECKPOINT")


def _problems(one: Statement, kind: str, transaction: bool) -> t.Iterator[str]:
    if kind == "postgresql" and one.begins("COPY") and "STDIN" in one.words:
        yield "COPY FROM STDIN, whose rows only psql can send: write INSERT"
    if not transaction:
        return
    ends = _opens(one) or _closes(one) or one.words[:1] in (("ABORT",), ("ROLLBACK",)) or one.begins("PREPARE", "TRANSACTION")
    if ends and not ("TO" in one.words[:3] and one.begins("ROLLBACK")):
        yield f"{one.words[0]}, but a file is one transaction, which begins and ends by itself"
    if kind == "sqlite" and one.words[:1] in (("VACUUM",), ("ATTACH",), ("DETACH",)):
        yield f"{one.words[0]}, which cannot be in a transaction"
    pragma = next((word for word in one.words[1:3] if word in _PRAGMAS), "")
    if kind == "sqlite" and one.begins("PRAGMA") and pragma:
        yield f"PRAGMA {pragma.lower()}, which has no effect in a transaction or is refused there"
    if kind == "postgresql" and (
        ("CONCURRENTLY" in one.words[:6] and one.words[0] in ("CREATE", "DROP", "REINDEX")) or one.begins("VACUUM")
    ):
        yield f"{one.words[0]}{' … CONCURRENTLY' if 'CONCURRENTLY' in one.words else ''}, which cannot be in a transaction"
    if kind == "postgresql" and one.words[:2] in (("CREATE", "DATABASE"), ("DROP", "DATABASE"), ("ALTER", "SYSTEM")):
        yield f"{' '.join(one.words[:2])}, which cannot be in a transaction"
