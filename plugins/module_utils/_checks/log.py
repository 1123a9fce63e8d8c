# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``log``: what must be in a log, what must never be, and how often something may be."""

from __future__ import annotations

import os
import re
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _evidence, _log_patterns, _logs
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    MAPPING_LIST,
    PASS,
    TEXT,
    TEXT_LIST,
    UNKNOWN,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    one_line,
    shown,
    wrong,
)

# Named sets of patterns for "never": code that is broken, whatever the app does.
SETS: t.Dict[str, t.Tuple[str, ...]] = {
    "python": (
        r"Traceback \(most recent call last\)",
        r"\b(?:Name|Import|ModuleNotFound|Attribute|UnboundLocal|Syntax|Indentation)Error\b",
        r"Worker failed to boot",
    ),
}
FROM = ("cursor", "start", "end")
# Of the time for an attempt, what is for reading.
READING = 0.8
# A line without a time has that of a line shortly before it.
LOOK_BACK = 4096
# The steps in which a window moves on, at the most: so much is remembered.
STEPS = 3600
EXCERPT = 300
BEFORE = 100
EXAMPLES = 3

# What looks like a secret, wherever it comes from.
CREDENTIALS = re.compile(r"(?<=://)[^/\s\"'<>@]*@")
ASSIGNED = re.compile(
    r"""(?i)\b([\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|authorization|signature|credential))(["']?\s*[=:]\s*["']?)"""
    r"""((?:bearer|basic)\s+)?[^\s"'&,;]+"""
)


# What a declared check need not name.
NOWHERE: Options = {"files": None, "unit": None, "container": None}


def sources_of(options: Options) -> _logs.Sources:
    return _logs.Sources(tuple(options["files"] or ()), options["unit"] or "", options["container"] or "")


class _Tally:
    """How often something was, over all that was read or within the last seconds."""

    def __init__(self, window: t.Optional[float]) -> None:
        self.window = window
        self.step = max((window or 0) / STEPS, 1.0)
        self.steps: t.Dict[int, int] = {}

    def add(self, count: int, when: t.Callable[[], float]) -> None:
        step = int(when() / self.step) if self.window else 0
        self.steps[step] = self.steps.get(step, 0) + count
        if len(self.steps) > 2 * STEPS:
            self.total()

    def total(self) -> int:
        if self.window:
            oldest = (time.time() - self.window) / self.step
            self.steps = {step: count for step, count in self.steps.items() if step >= int(oldest)}
        return sum(self.steps.values())


class _Watch:
    """What a check knows from one attempt to the next."""

    def __init__(self, options: Options, cursor: _logs.Cursor) -> None:
        self.options = options
        self.reader = _logs.Reader(cursor)
        self.patterns: t.List[_log_patterns.Pattern] = []
        self.must = {self._number(text): text for text in options["must"] or ()}
        self.never = {self._number(text): name for name in options["never"] or () for text in SETS.get(name, (name,))}
        self.counts = [(one, self._number(one["pattern"]), _Tally(one.get("window"))) for one in options["count"] or ()]
        self.ratios = [
            (
                one,
                self._number(one["pattern"]),
                self._number(one["of"]) if "of" in one else None,
                _Tally(one.get("window")),
                _Tally(one.get("window")),
            )
            for one in options["ratio"] or ()
        ]
        self.finder = _log_patterns.Finder(self.patterns)
        self.met: t.Dict[int, str] = {}
        self.broken: t.Dict[int, str] = {}
        self.times: t.Dict[int, int] = {}
        self.size = 0
        self.secrets = _evidence.secrets_in(options["environment_files"] or ())

    def _number(self, text: str) -> int:
        self.patterns.append(_log_patterns.compiled(text))
        return len(self.patterns) - 1

    def read(self, seconds: float) -> None:
        for block in self.reader.blocks(time.monotonic() + seconds):
            wanted = set(range(len(self.patterns))) - self.met.keys() if block.whole else {*self.must, *self.never} - self.met.keys()
            self._take(block, self.finder.hits(block.data, wanted) if wanted else [])

    def _take(self, block: _logs.Block, hits: t.Sequence[_log_patterns.Hit]) -> None:
        self.size += len(block.data) if block.whole else 0
        by_pattern: t.Dict[int, t.List[_log_patterns.Hit]] = {}
        for hit in hits:
            by_pattern.setdefault(hit.pattern, []).append(hit)
            if hit.pattern in self.must:
                self.met.setdefault(hit.pattern, self._where(block, hit))
            elif hit.pattern in self.never:
                self.times[hit.pattern] = self.times.get(hit.pattern, 0) + 1
                if hit.pattern not in self.broken:
                    self.broken[hit.pattern] = self._told(block, hit)
        if not block.whole:
            return
        for _one, number, tally in self.counts:
            self._count(tally, block, by_pattern.get(number, ()))
        for _one, number, of, part, all_of in self.ratios:
            self._count(part, block, by_pattern.get(number, ()))
            if of is not None:
                self._count(all_of, block, by_pattern.get(of, ()))
            elif all_of.window and block.when is None:
                self._count_lines(all_of, block)
            else:
                all_of.add(block.data.count(b"\n"), lambda: block.when or 0)

    def _count(self, tally: _Tally, block: _logs.Block, hits: t.Sequence[_log_patterns.Hit]) -> None:
        if not tally.window:
            tally.add(len(hits), lambda: 0)
            return
        for hit in hits:
            tally.add(1, lambda: _when(block, hit.offset))  # noqa: B023 - called at once

    def _count_lines(self, tally: _Tally, block: _logs.Block) -> None:
        begin = 0
        while begin < len(block.data):
            tally.add(1, lambda: _when(block, begin))  # noqa: B023 - called at once
            end = block.data.find(b"\n", begin)
            begin = end + 1 if end >= 0 else len(block.data)

    def _where(self, block: _logs.Block, hit: _log_patterns.Hit) -> str:
        if block.offset is None:
            return block.place
        return f"{block.place} at byte {block.offset + hit.offset}"

    def _told(self, block: _logs.Block, hit: _log_patterns.Hit) -> str:
        """The line, around what was found, without secrets."""
        text = ASSIGNED.sub(r"\1\2***", CREDENTIALS.sub("***@", _evidence.redact(hit.text, self.secrets)))
        match = self.patterns[hit.pattern].expression.search(text)
        begin = max(match.start() - BEFORE, 0) if match and len(text) > EXCERPT else 0
        return f"{self._where(block, hit)}: {'…' if begin else ''}{one_line(text[begin : begin + EXCERPT], EXCERPT)}"

    def answer(self) -> Answer:
        found: t.Dict[str, t.Any] = {"cursor": self.reader.cursor.as_json(), "bytes": self.size}
        expected = {name: self.options[name] for name in ("must", "never", "count", "ratio") if self.options[name]}
        problems = [*self._never_problems(found), *self._count_problems(found), *self._ratio_problems(found)]
        missing = [text for number, text in self.must.items() if number not in self.met]
        if missing:
            problems.append(f"not found, and expected: {', '.join(map(shown, missing))}")
        looked = f"{subject(self.options)}: {self.size} new bytes"
        if problems and (self.reader.finished or self.broken):
            return Answer(FAIL, f"{looked}: {'; '.join(problems)}", found, expected, final=bool(self.broken))
        if not self.reader.finished:
            return Answer(
                UNKNOWN, f"{looked} read within the time, and there are more: give it a longer timeout or a cursor.", found, expected
            )
        if self.reader.lost:
            gone = ", ".join(self.reader.lost)
            return Answer(UNKNOWN, f"{looked}, but {gone} was replaced, and what it last held could not be found.", found, expected)
        met = [f"{shown(self.must[number])} in {where}" for number, where in self.met.items()]
        return Answer(PASS, f"{looked}, as expected{': ' + '; '.join(met) if met else ''}.", found, expected)

    def _never_problems(self, found: t.Dict[str, t.Any]) -> t.Iterator[str]:
        if self.broken:
            found["never"] = {self.patterns[number].text: count for number, count in self.times.items()}
        for name in dict.fromkeys(self.never[number] for number in self.broken):
            numbers = [number for number in self.broken if self.never[number] == name]
            times = sum(self.times[number] for number in numbers)
            lines = [self.broken[number] for number in numbers][:EXAMPLES]
            yield f"found {shown(name)} {'once' if times == 1 else f'{times} times'}, expected never: {' | '.join(lines)}"

    def _count_problems(self, found: t.Dict[str, t.Any]) -> t.Iterator[str]:
        for one, _number, tally in self.counts:
            total = tally.total()
            found.setdefault("count", {})[one["pattern"]] = total
            if total > one["max"]:
                yield f"found {shown(one['pattern'])} {total} times{_within(tally)}, expected at most {one['max']}"

    def _ratio_problems(self, found: t.Dict[str, t.Any]) -> t.Iterator[str]:
        for one, _number, _of, part, all_of in self.ratios:
            some, total = part.total(), all_of.total()
            percent = 100 * some / total if total else 0.0
            found.setdefault("ratio", {})[one["pattern"]] = round(percent, 3)
            if total >= one.get("min", 1) and percent > one["max_percent"]:
                of = f"lines with {shown(one['of'])}" if "of" in one else "lines"
                yield (
                    f"found {shown(one['pattern'])} in {some} of {total} {of}{_within(part)}, which is {percent:.2f} %, "
                    f"expected at most {one['max_percent']:g} %"
                )


def _within(tally: _Tally) -> str:
    return f" in the last {tally.window:g} s" if tally.window else ""


def _when(block: _logs.Block, offset: int) -> float:
    """When a line was written: what it tells, or the line before it, or else now."""
    if block.when is not None:
        return block.when
    end = block.data.find(b"\n", offset)
    when = _logs.seconds_in(block.data[offset : min(end if end >= 0 else len(block.data), offset + 1024)])
    if when is None:
        for line in reversed(block.data[max(offset - LOOK_BACK, 0) : offset].split(b"\n")):
            when = _logs.seconds_in(line[:1024])
            if when is not None:
                break
    return time.time() if when is None else when


def subject(options: Options) -> str:
    names = [*(options["files"] or ())]
    names += [f"the journal of {options['unit']}"] if options["unit"] else []
    names += [f"container {options['container']}"] if options["container"] else []
    return ", ".join(names)


def _begin(options: Options) -> str:
    return str(options["from"] or ("cursor" if options["cursor"] else "start"))


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    watch: t.Optional[_Watch] = memory.get("watch")
    if watch is None:
        sources, begin = sources_of(options), _begin(options)
        cursor = _logs.cursor_of(options["cursor"]) if begin == "cursor" else _logs.end(sources) if begin == "end" else _logs.start(sources)
        watch = memory["watch"] = _Watch(options, cursor)
    watch.read(timeout * READING)
    if not watch.reader.seen and _looks(options):
        raise CannotTell(f"There is no log {subject(options)}, and so nothing was looked at.")
    return watch.answer()


def _looks(options: Options) -> bool:
    """Whether there has to be a log: not for a check that only takes a cursor, maybe before the app was ever started."""
    return any(options[name] for name in LOOKING)


LOOKING = ("must", "never", "count", "ratio")
COUNT = {"pattern": (str,), "max": (int,), "window": (int, float)}
RATIO = {"pattern": (str,), "of": (str,), "max_percent": (int, float), "min": (int,), "window": (int, float)}


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    if not given & {"files", "unit", "container"}:
        yield "files, unit, container: found none, allowed: one of them, or several"
    for path in options["files"] or ():
        if not os.path.isabs(path):
            yield wrong("files", path, "absolute paths")
    for name in ("unit", "container"):
        if options[name] is not None and not re.fullmatch(r"[A-Za-z0-9_.:\\@][A-Za-z0-9_.:\\@-]*", options[name]):
            yield wrong(name, options[name], "a name of letters, digits and _ . : @ -")
    yield from _cursor_mistakes(options)
    for name in ("must", "never"):
        for text in options[name] or ():
            yield from _pattern_mistakes(name, text)
    for name, allowed, required in (("count", COUNT, ("pattern", "max")), ("ratio", RATIO, ("pattern", "max_percent"))):
        for one in options[name] or ():
            yield from _rule_mistakes(name, one, allowed, required)


def _cursor_mistakes(options: Options) -> t.Iterator[str]:
    begin = _begin(options)
    looking = any(options[name] for name in LOOKING)
    if (begin == "cursor") != (options["cursor"] is not None):
        yield f"from, cursor: found from {begin} {'without' if begin == 'cursor' else 'beside'} a cursor, allowed: a cursor goes with from cursor"
    elif begin == "cursor":
        try:
            other = _logs.cursor_of(options["cursor"]).sources != sources_of(options)
        except ValueError as error:
            yield f"cursor: found {error}, allowed: what a check of the same logs gave as found.cursor"
        else:
            if other:
                yield "cursor: it was taken from other logs, allowed: one from the same files, unit and container"
    if not looking and begin != "end":
        yield f"{', '.join(LOOKING)}: found none, allowed: at least one; a check that only takes a cursor has from end"
    if looking and begin == "end" and not options["deadline"] and not options["hold"]:
        yield "from: found end without deadline and hold, which looks at nothing; allowed: one of them, or a cursor, or from start"


def _pattern_mistakes(name: str, text: str) -> t.Iterator[str]:
    try:
        _log_patterns.compiled(text)
    except (re.error, OverflowError, RecursionError) as error:
        yield wrong(name, text, f"a regular expression ({error})")


def _rule_mistakes(name: str, one: t.Mapping[t.Any, t.Any], allowed: t.Mapping[str, t.Any], required: t.Sequence[str]) -> t.Iterator[str]:
    missing = [key for key in required if key not in one]
    unknown = [str(key) for key in one if key not in allowed]
    if missing or unknown:
        yield f"{name}: found {shown(dict(one))}, allowed: {', '.join(allowed)}, of which {' and '.join(required)} have to be there"
    for key, kinds in allowed.items():
        value = one.get(key)
        if key not in one:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or (str not in kinds and value < 0) or (key == "window" and value <= 0):
            yield wrong(f"{name}.{key}", value, "a regular expression" if str in kinds else "a number of 0 or more")
        elif str in kinds:
            yield from _pattern_mistakes(f"{name}.{key}", value)


CHECK = CheckType(
    name="log",
    options={
        "files": Option(TEXT_LIST),
        "unit": Option(TEXT),
        "container": Option(TEXT),
        "from": Option(TEXT, choices=FROM),
        "cursor": Option(TEXT),
        "must": Option(TEXT_LIST),
        "never": Option(TEXT_LIST),
        "count": Option(MAPPING_LIST),
        "ratio": Option(MAPPING_LIST),
        "environment_files": Option(TEXT_LIST),
    },
    subject=subject,
    attempt=_attempt,
    mistakes=_mistakes,
    remembers=True,
)
