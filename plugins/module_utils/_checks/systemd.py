# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``systemd``: a unit's state, that it stays put, and from which directory its processes run."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import processes
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    FLAG,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    one_line,
    wrong,
)

PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "ControlGroup")
STATES = ("active", "reloading", "inactive", "failed", "activating", "deactivating")

UNIT_NAME = re.compile(r"[A-Za-z0-9_:.\\@][A-Za-z0-9_:.\\@-]*")


def show_command(unit: str) -> t.List[str]:
    return ["systemctl", "show", "--property=" + ",".join(PROPERTIES), "--", unit]


def parse_show(output: str) -> t.Dict[str, str]:
    """``systemctl show``: one KEY=VALUE a line, in an order of its own; a value may hold further equal signs."""
    return {key: value for key, equal, value in (line.partition("=") for line in output.splitlines()) if equal}


def show(unit: str, timeout: float) -> t.Dict[str, str]:
    """The unit's properties as systemd tells them."""
    done = _command.run(show_command(unit), timeout=timeout)
    properties = parse_show(done.stdout)
    if not done.ok or "ActiveState" not in properties:
        raise CannotTell(f"systemd could not be asked about {unit}: {one_line(done.last_words()) or f'status {done.rc}'}.")
    return properties


def whole(properties: t.Mapping[str, str], name: str, unit: str) -> int:
    """A property that is a number; a systemd that is too old does not know it."""
    try:
        return int(properties[name])
    except (KeyError, ValueError):
        raise CannotTell(f"This systemd does not tell {name} of {unit}.") from None


def unit_mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    unit = options["unit"]
    if unit is not None and not UNIT_NAME.fullmatch(unit):
        yield wrong("unit", unit, "the name of one unit, as systemctl shows it")


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from unit_mistakes(options, given)
    directory = options["runs_from"]
    if directory is not None and not os.path.isabs(directory):
        yield wrong("runs_from", directory, "an absolute path")


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    unit = options["unit"]
    properties = show(unit, timeout)
    expected = {name: options[name] for name in CHECK.options if name != "unit" and options[name] not in (None, False)}
    found: t.Dict[str, t.Any] = {"active": properties["ActiveState"], "substate": properties.get("SubState", "")}
    if properties.get("LoadState") == "not-found":
        return Answer(FAIL, f"systemd knows no unit {unit}; expected it to be {options['active']}.", found, expected)

    problems = []
    if found["active"] != options["active"]:
        why = f", result {properties['Result']}" if properties.get("Result", "success") != "success" else ""
        problems.append(f"it is {found['active']} ({found['substate']}{why}), expected {options['active']}")
    if options["substate"] is not None and found["substate"] != options["substate"]:
        problems.append(f"its substate is {found['substate']}, expected {options['substate']}")
    if options["main_pid"] is not None or options["runs_from"] is not None or options["steady"]:
        found["main_pid"] = whole(properties, "MainPID", unit)
    if options["max_restarts"] is not None or options["steady"]:
        found["restarts"] = whole(properties, "NRestarts", unit)
    if options["main_pid"] is not None and found["main_pid"] != options["main_pid"]:
        problems.append(f"its main process is {found['main_pid']}, expected {options['main_pid']}")
    if options["max_restarts"] is not None and found["restarts"] > options["max_restarts"]:
        problems.append(f"it was restarted {found['restarts']} times, expected at most {options['max_restarts']}")
    if options["runs_from"] is not None:
        problems += _strangers(properties.get("ControlGroup", ""), found["main_pid"], options["runs_from"], found)
    if options["steady"]:
        problems += _moved(found, memory, good=not problems)
    return judged(problems, f"{unit} is {found['active']} ({found['substate']}).", f"{unit} is not as expected", found, expected)


def _moved(found: t.Dict[str, t.Any], memory: Memory, good: bool) -> t.List[str]:
    """What changed since the first good look, which this is if there was none before."""
    now = {"main_pid": found["main_pid"], "restarts": found["restarts"]}
    if good:
        memory.setdefault("first", now)
    first = memory.get("first", now)
    words = {"main_pid": "its main process", "restarts": "its number of restarts"}
    return [f"{words[name]} changed from {first[name]} to {now[name]}" for name in words if now[name] != first[name]]


def _strangers(control_group: str, main_pid: int, directory: str, found: t.Dict[str, t.Any]) -> t.List[str]:
    """The processes of the unit that do not run from the directory: they belong to another release."""
    if main_pid == 0:
        return [f"it has no main process, expected one that runs from {directory}"]
    home = os.path.realpath(directory)
    places = {pid: processes.working_directory(pid) for pid in [main_pid, *processes.in_control_group(control_group)]}
    if places[main_pid] is None:
        return [f"its main process {main_pid} has ended"]
    found["runs_from"] = sorted({place for place in places.values() if place is not None})
    # The kernel marks a removed directory with " (deleted)", which then is no part of the home either.
    return [
        f"of its processes {', '.join(str(pid) for pid in sorted(places) if places[pid] == place)} run from {place}, expected {home}"
        for place in found["runs_from"]
        if place != home and not place.startswith(home.rstrip("/") + "/")
    ]


CHECK = CheckType(
    name="systemd",
    options={
        "unit": Option(TEXT, required=True),
        "active": Option(TEXT, default="active", choices=STATES),
        "substate": Option(TEXT),
        "main_pid": Option(WHOLE, minimum=1),
        "max_restarts": Option(WHOLE, minimum=0),
        "runs_from": Option(TEXT),
        "steady": Option(FLAG, default=False),
    },
    subject=lambda options: str(options["unit"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
