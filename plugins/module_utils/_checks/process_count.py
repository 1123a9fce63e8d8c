# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``process_count``: how many processes a unit has, or how many have a certain command line."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import processes
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    PASS,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    pattern_mistakes,
    shown,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.systemd import show, unit_mistakes, whole

BOUNDS = ("min", "max", "exact")


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from unit_mistakes(options, given)
    yield from pattern_mistakes(options)
    if ("unit" in given) == ("pattern" in given):
        yield f"unit, pattern: found {'both' if 'unit' in given else 'none'}, allowed: one of them"
    if "of" in given and "unit" not in given:
        yield "of: it goes with unit"
    if "user" in given and "pattern" not in given:
        yield "user: it goes with pattern"
    if "max_replaced" in given and "unit" not in given:
        yield "max_replaced: it goes with unit"
    if not given & set(BOUNDS):
        yield "min, max, exact: found none, allowed: exact, or min, or max, or both of these"
    if "exact" in given and given & {"min", "max"}:
        yield "exact: found beside min or max, allowed: exact alone"
    if options["min"] is not None and options["max"] is not None and options["min"] > options["max"]:
        yield wrong("min", options["min"], f"at most {options['max']}, which is max")


def _subject(options: Options) -> str:
    return f"{options['unit']} ({options['of']})" if options["unit"] else shown(options["pattern"], 60)


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    expected = {name: options[name] for name in BOUNDS if options[name] is not None}
    if options["unit"] is not None:
        unit = options["unit"]
        properties = show(unit, timeout)
        if properties.get("LoadState") == "not-found":
            return Answer(FAIL, f"systemd knows no unit {unit}; expected {_range(options)} processes.", None, expected)
        pids = _of_unit(properties, unit, options["of"])
        what = f"{'child processes of the main process of' if options['of'] == 'children' else 'processes in'} {unit}"
    else:
        pids = _by_pattern(options["pattern"], options["user"])
        what = f"processes whose command line matches {shown(options['pattern'])}"
        what += f" of {options['user']}" if options["user"] else ""
    found = {"count": len(pids), "pids": pids}
    if not _fits(len(pids), options):
        return Answer(FAIL, f"There are {len(pids)} {what}, expected {_range(options)}.", found, expected)
    replaced = _replaced(pids, memory)
    if options["max_replaced"] is not None and replaced > options["max_replaced"]:
        evidence = f"{replaced} of the {what} have ended and were replaced, expected at most {options['max_replaced']}."
        return Answer(FAIL, evidence, {**found, "replaced": replaced}, {**expected, "max_replaced": options["max_replaced"]})
    return Answer(PASS, f"There are {len(pids)} {what}, expected {_range(options)}.", found, expected)


def _replaced(pids: t.Sequence[int], memory: Memory) -> int:
    """How many of those that were ever counted are gone; a crash loop goes through many, of which each count shows the newest only."""
    seen = memory.setdefault("seen", set())
    seen.update(pids)
    return len(seen) - len(pids)


def _of_unit(properties: t.Mapping[str, str], unit: str, of: str) -> t.List[int]:
    main_pid = whole(properties, "MainPID", unit)
    if of == "all":
        # The control group of a unit that does not run is gone, and so are its processes.
        return processes.in_control_group(properties["ControlGroup"]) if properties.get("ControlGroup") else []
    # Without a main process its pid is 0, and that is the parent of the first process of the whole system.
    return sorted(each.pid for each in processes.everything() if each.parent == main_pid) if main_pid else []


def _by_pattern(pattern: str, user: t.Optional[str]) -> t.List[int]:
    matches = re.compile(pattern).search
    account = None if user is None else _uid(user)
    living = {each.pid: each for each in processes.everything()}
    ours = _ancestry(os.getpid(), living)
    return sorted(
        pid for pid in living.keys() - ours for line in [_command_line(pid)] if line and matches(line) and account in (None, _owner(pid))
    )


def _ancestry(pid: int, living: t.Mapping[int, processes.Process]) -> t.Set[int]:
    """This process and those that started it, whose command lines can hold the pattern itself; but never the first process."""
    line: t.Set[int] = set()
    while pid > 1 and pid in living and pid not in line:
        line.add(pid)
        pid = living[pid].parent
    return line


def _uid(user: str) -> int:
    import pwd

    try:
        return int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise CannotTell(f"There is no account {user} on this machine.") from None


def _command_line(pid: int) -> t.Optional[str]:
    """None when it has ended; empty for a thread of the kernel."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as stream:
            return stream.read().rstrip("\0").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return None


def _owner(pid: int) -> t.Optional[int]:
    """The effective account; the owner of /proc/PID itself is root for a process that may not be looked into (proc(5))."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
            return next((int(line.split()[2]) for line in stream if line.startswith("Uid:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _fits(count: int, options: Options) -> bool:
    if options["exact"] is not None:
        return bool(count == options["exact"])
    return (options["min"] is None or count >= options["min"]) and (options["max"] is None or count <= options["max"])


def _range(options: Options) -> str:
    if options["exact"] is not None:
        return f"exactly {options['exact']}"
    bounds = [f"{word} {options[name]}" for name, word in (("min", "at least"), ("max", "at most")) if options[name] is not None]
    return " and ".join(bounds)


CHECK = CheckType(
    name="process_count",
    options={
        "unit": Option(TEXT),
        "of": Option(TEXT, default="children", choices=("children", "all")),
        "pattern": Option(TEXT),
        "user": Option(TEXT),
        "min": Option(WHOLE, minimum=0),
        "max": Option(WHOLE, minimum=0),
        "exact": Option(WHOLE, minimum=0),
        "max_replaced": Option(WHOLE, minimum=0),
    },
    subject=_subject,
    attempt=_attempt,
    mistakes=_mistakes,
)
