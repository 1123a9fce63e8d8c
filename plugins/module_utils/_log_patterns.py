# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding patterns in blocks of lines, about as fast as grep.

Python's regular expressions look at one character after another; its search for bytes does not. So what a pattern cannot match without (in
``user \\d+ failed`` that is `` failed``) is searched for first, in the block as it is, and the pattern is tried on those lines alone. A
pattern without such a text, or with one that is in every other line, is tried on the block as a whole.
"""

from __future__ import annotations

import importlib
import re
import typing as t
from dataclasses import dataclass, field

# A longer line is looked at in pieces of this size, which overlap.
LINE = 64 * 1024
OVERLAP = 1024
# A shorter text is in nearly every line.
SHORTEST = 3
# A byte that is rarer than one in this many is searched for instead of the text that it is in, because that is memchr(3), and costs next to nothing.
RARE = 512
# A text that is in more than one line of this many is no help.
COMMON = 8
# Blocks from one look at what is rare, and what is common, to the next.
SAMPLED = 64


@dataclass(frozen=True)
class Pattern:
    """One pattern, ready to be searched for.

    :param literals: Every line that it matches contains one of them, in UTF-8. Empty when nothing is known.
    :param of_blocks: The same for a block of lines: it finds something in each line that the pattern matches, and maybe in more. None
        for a pattern that could miss a line because of its neighbours, such as one that looks ahead for what must not follow.
    """

    text: str
    expression: t.Pattern[str] = field(repr=False)
    literals: t.Tuple[bytes, ...]
    of_blocks: t.Optional[t.Pattern[str]] = field(repr=False, default=None)

    def found_in(self, line: bytes) -> t.Optional[str]:
        """The line, or the piece of it, that matches."""
        for begin in range(0, max(len(line), 1), LINE):
            piece = line[max(begin - OVERLAP, 0) : begin + LINE].removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors="replace")
            if self.expression.search(piece):
                return piece
        return None


def compiled(text: str) -> Pattern:
    """
    :raises re.error: it is no regular expression.
    """
    try:
        parser = importlib.import_module("re._parser")
    except ImportError:  # before Python 3.11
        parser = importlib.import_module("sre_parse")
    expression, parsed = re.compile(text), parser.parse(text)
    texts = () if parsed.state.flags & re.IGNORECASE else _needed(parsed) or ()
    return Pattern(
        text,
        expression,
        tuple(found.encode("utf-8", "replace") for found in texts),
        re.compile(text, re.MULTILINE) if _is_monotone(parsed) else None,
    )


MONOTONE = {
    "LITERAL",
    "NOT_LITERAL",
    "ANY",
    "IN",
    "BRANCH",
    "SUBPATTERN",
    "MAX_REPEAT",
    "MIN_REPEAT",
    "AT",
    "AT_BEGINNING",
    "AT_END",
    "AT_BOUNDARY",
    "AT_NON_BOUNDARY",
}


def _is_monotone(parsed: t.Any) -> bool:
    """Whether more text around a match leaves it a match."""
    for operation, value in parsed:
        name = operation.name
        inner = value[1] if name == "BRANCH" else [value[-1]] if name in ("SUBPATTERN", "MAX_REPEAT", "MIN_REPEAT") else []
        if name not in MONOTONE or (name == "AT" and value.name not in MONOTONE) or not all(map(_is_monotone, inner)):
            return False
    return True


def _needed(parsed: t.Any) -> t.Optional[t.Tuple[str, ...]]:
    """Texts of which each match has at least one; None when none is known. The fewest, then the longest."""
    candidates: t.List[t.Tuple[str, ...]] = []
    run = ""
    for operation, value in parsed:
        name = operation.name
        if name == "LITERAL":
            run += chr(value)
            continue
        if name == "AT":
            continue
        candidates.append((run,))
        run = ""
        if name == "SUBPATTERN" and not value[1] & re.IGNORECASE:
            candidates.append(_needed(value[3]) or ())
        elif name in ("MAX_REPEAT", "MIN_REPEAT") and value[0]:
            candidates.append(_needed(value[2]) or ())
        elif name == "BRANCH":
            alternatives = [_needed(one) for one in value[1]]
            candidates.append(tuple(text for one in alternatives for text in one or ()) if all(alternatives) else ())
    candidates.append((run,))
    usable = [texts for texts in candidates if texts and min(map(len, texts)) >= SHORTEST]
    return max(usable, key=lambda texts: (-len(texts), min(map(len, texts))), default=None)


class Hit(t.NamedTuple):
    """:param offset: Where the line begins in the block."""

    pattern: int
    offset: int
    text: str


class Finder:
    """Finds patterns in blocks. How it does so adapts to what it sees."""

    def __init__(self, patterns: t.Sequence[Pattern]) -> None:
        self.patterns = patterns
        self._needles: t.Dict[bytes, t.List[int]] = {}
        self._rare: t.Dict[bytes, t.Tuple[int, bytes]] = {}
        self._common: t.List[int] = []
        self._everywhere = [number for number, pattern in enumerate(patterns) if not pattern.literals]
        literals = sorted({literal for pattern in patterns for literal in pattern.literals}, key=len)
        for number, pattern in enumerate(patterns):
            # Who looks for "Error" finds "NameError", too.
            for needle in {next(one for one in literals if one in literal) for literal in pattern.literals}:
                self._needles.setdefault(needle, []).append(number)
        self._blocks = 0

    def hits(self, data: bytes, wanted: t.Optional[t.AbstractSet[int]] = None) -> t.List[Hit]:
        """Every line with a pattern in it, once for each pattern, in the order of the block.

        :param wanted: The numbers of the patterns to look for; all by default.
        """
        if not data:
            return []
        if self._blocks % SAMPLED == 0:
            self._sample(data)
        self._blocks += 1
        found: t.Set[t.Tuple[int, int]] = set()
        hits: t.List[Hit] = []

        def look(begin: int, end: int, numbers: t.Sequence[int]) -> None:
            for number in numbers:
                if (begin, number) not in found:
                    text = self.patterns[number].found_in(data[begin:end])
                    if text is not None:
                        found.add((begin, number))
                        hits.append(Hit(number, begin, text))

        for needle, all_numbers in self._needles.items():
            numbers = [number for number in all_numbers if (wanted is None or number in wanted) and number not in self._common]
            at = self._next(data, needle, 0) if numbers else -1
            while at >= 0:
                begin, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
                end = len(data) if end < 0 else end
                look(begin, end, numbers)
                at = self._next(data, needle, end)
        everywhere = [number for number in (*self._everywhere, *self._common) if wanted is None or number in wanted]
        lines = [number for number in everywhere if self.patterns[number].of_blocks is None]
        if lines:
            begin = 0
            for line in _split(data):
                look(begin, begin + len(line), lines)
                begin += len(line)
        if len(everywhere) > len(lines):
            # As the lines have it: without their ends, of either kind.
            text = data.decode("utf-8", errors="replace").replace("\r\n", "\n").removesuffix("\n").removesuffix("\r")
            for number in everywhere:
                if number not in lines:
                    self._over_all(data, text, number, look)
        return sorted(hits, key=lambda hit: (hit.offset, hit.pattern))

    def _over_all(self, data: bytes, text: str, number: int, look: t.Callable[[int, int, t.Sequence[int]], None]) -> None:
        search = t.cast("t.Pattern[str]", self.patterns[number].of_blocks).search
        # The same line feed in the text and in the bytes, whose places differ by what is not ASCII.
        seen, begin = 0, 0
        same = len(text) == len(data.removesuffix(b"\n"))
        match = search(text)
        while match is not None:
            line = text.rfind("\n", 0, match.start()) + 1
            if same:
                begin = line
            else:
                for _feed in range(text.count("\n", seen, line)):
                    begin = data.find(b"\n", begin) + 1
            end = data.find(b"\n", begin)
            look(begin, len(data) if end < 0 else end, [number])
            seen = line
            following = text.find("\n", line) + 1
            match = search(text, following) if following else None

    def _sample(self, data: bytes) -> None:
        self._rare, self._common = {}, []
        lines = data.count(b"\n")
        for needle, numbers in self._needles.items():
            count, index = min((data.count(needle[index : index + 1]), index) for index in range(len(needle)))
            if count * RARE < len(data):
                self._rare[needle] = (index, needle[index : index + 1])
            elif data.count(needle) * COMMON > lines:
                self._common += numbers

    def _next(self, data: bytes, needle: bytes, begin: int) -> int:
        """Where a text is next; -1 when it is nowhere."""
        if needle not in self._rare:
            return data.find(needle, begin)
        index, byte = self._rare[needle]
        at = data.find(byte, begin + index)
        while at >= 0:
            if data.startswith(needle, at - index):
                return at - index
            at = data.find(byte, at + 1)
        return -1


def _split(data: bytes) -> t.List[bytes]:
    """Into lines at line feeds alone."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    return lines[:-1] if data.endswith(b"\n") else lines
