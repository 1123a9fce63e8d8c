# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``path``: a file, directory or link: that it is there, whose it is, its mode, size and age."""

from __future__ import annotations

import os
import re
import stat
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FLAG,
    NUMBER,
    QUOTED,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    wrong,
)

KINDS = {"file": stat.S_ISREG, "directory": stat.S_ISDIR, "link": stat.S_ISLNK}
STATES = ("exists", "absent", *KINDS)
MODE = re.compile(r"0?[0-7]{3,4}")
DETAILS = ("owner", "group", "mode", "min_size", "max_size", "max_age", "target")
# Clocks of file servers differ by this much without being wrong.
FUTURE = 5


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    if options["path"] is not None and not os.path.isabs(options["path"]):
        yield wrong("path", options["path"], "an absolute path")
    if options["mode"] is not None and not MODE.fullmatch(options["mode"]):
        yield wrong("mode", options["mode"], 'octal digits in quotes, such as "0640"')
    if options["state"] == "absent" and given & set(DETAILS):
        yield f"{', '.join(sorted(given & set(DETAILS)))}: found beside state absent, allowed: nothing more of a path that has to be absent"
    if "target" in given and (options["follow"] or options["state"] not in (None, "exists", "link")):
        yield "target: it goes with state link and without follow"
    if options["state"] == "link" and options["follow"]:
        yield "follow: a path that is followed is never a link"


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    path, state = options["path"], options["state"]
    expected = {name: options[name] for name in ("state", *DETAILS) if options[name] is not None}
    try:
        status: t.Optional[os.stat_result] = os.stat(path) if options["follow"] else os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        status = None
    except OSError as error:
        raise CannotTell(f"{path} could not be looked at: {error.strerror}.") from None

    if status is None:
        problems = [] if state == "absent" else ["it does not exist" + ("" if state == "exists" else f", expected a {state}")]
        return judged(problems, f"{path} does not exist, as expected.", f"{path} is not as expected", {"state": "absent"}, expected)
    found = _described(path, status)
    problems = _problems(options, found)
    good = f"{path} is a {found['state']} of {found['owner']}:{found['group']}, mode {found['mode']}, {found['size']} bytes."
    return judged(problems, good, f"{path} is not as expected", found, expected)


def _described(path: str, status: os.stat_result) -> t.Dict[str, t.Any]:
    return {
        "state": next((name for name, matches in KINDS.items() if matches(status.st_mode)), "special file"),
        "owner": _user_name(status.st_uid),
        "group": _group_name(status.st_gid),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "size": status.st_size,
        "age": round(time.time() - status.st_mtime, 1),
        "target": os.readlink(path) if stat.S_ISLNK(status.st_mode) else None,
    }


def _problems(options: Options, found: t.Mapping[str, t.Any]) -> t.List[str]:
    state = options["state"]
    if state == "absent":
        return [f"it is a {found['state']}, expected nothing there"]
    if state != "exists" and found["state"] != state:
        return [f"it is a {found['state']}, expected a {state}"]
    problems = []
    for name, number in (("owner", "uid"), ("group", "gid")):
        if options[name] is not None and options[name] not in (found[name], str(found[number])):
            problems.append(f"its {name} is {found[name]}, expected {options[name]}")
    if options["mode"] is not None and int(options["mode"], 8) != int(found["mode"], 8):
        problems.append(f"its mode is {found['mode']}, expected {int(options['mode'], 8):04o}")
    if options["min_size"] is not None and found["size"] < options["min_size"]:
        problems.append(f"it has {found['size']} bytes, expected at least {options['min_size']}")
    if options["max_size"] is not None and found["size"] > options["max_size"]:
        problems.append(f"it has {found['size']} bytes, expected at most {options['max_size']}")
    if options["max_age"] is not None and found["age"] > options["max_age"]:
        problems.append(f"it was last written {found['age']:g} s ago, expected at most {options['max_age']:g} s")
    if options["max_age"] is not None and found["age"] < -FUTURE:
        problems.append(f"it is dated {-found['age']:g} s in the future, which tells nothing about its age")
    if options["target"] is not None and not _leads_to(options["path"], found["target"], options["target"]):
        problems.append(f"it points to {found['target'] or 'nothing, being no link'}, expected {options['target']}")
    return problems


def _leads_to(path: str, written: t.Optional[str], target: str) -> bool:
    """As written, or meaning the same: relative targets count from the link's directory."""
    here = os.path.dirname(path)
    return written is not None and os.path.normpath(os.path.join(here, written)) == os.path.normpath(os.path.join(here, target))


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


CHECK = CheckType(
    name="path",
    options={
        "path": Option(TEXT, required=True),
        "state": Option(TEXT, default="exists", choices=STATES),
        "follow": Option(FLAG, default=False),
        "owner": Option(TEXT),
        "group": Option(TEXT),
        "mode": Option(QUOTED),
        "min_size": Option(WHOLE, minimum=0),
        "max_size": Option(WHOLE, minimum=0),
        "max_age": Option(NUMBER, minimum=0),
        "target": Option(TEXT),
    },
    subject=lambda options: str(options["path"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
