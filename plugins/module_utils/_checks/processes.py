# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes as the kernel shows them in /proc and in the control groups; for the check types that look at processes.

A zombie is not a process here: it does not work any more, it only waits for its parent.
"""

from __future__ import annotations

import os
import subprocess
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import CannotTell

# systemd keeps its own tree in the first place on cgroup v1, in the second on the hybrid layout, in the third on v2.
CGROUP_ROOTS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
DEAD_STATES = ("Z", "X", "x")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    state: str

    @property
    def lives(self) -> bool:
        return self.state not in DEAD_STATES


def parse_stat(line: str) -> Process:
    """/proc/PID/stat (proc(5)): the name in parentheses may itself hold blanks and parentheses."""
    pid, _blank, rest = line.partition(" ")
    state, parent = rest[rest.rindex(")") + 1 :].split()[:2]
    return Process(int(pid), int(parent), state)


def process(pid: int) -> t.Optional[Process]:
    """The process, or None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return parse_stat(stream.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def everything() -> t.List[Process]:
    """Every living process.

    :raises CannotTell: /proc hides those of other accounts (mount option hidepid).
    """
    if process(1) is None:
        raise CannotTell("/proc shows only this account's processes; the check needs root.")
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [each for each in found if each is not None and each.lives]


def in_control_group(control_group: str, roots: t.Sequence[str] = CGROUP_ROOTS) -> t.List[int]:
    """Every living process in a control group and in those below it."""
    for root in roots:
        top = os.path.join(root, control_group.lstrip("/"))
        if control_group and os.path.exists(os.path.join(top, "cgroup.procs")):
            members = {pid for directory, _dirs, _files in os.walk(top) for pid in _members(directory)}
            return sorted(pid for pid in members for each in [process(pid)] if each is not None and each.lives)
    raise CannotTell(f"The control group {control_group or '(none)'} is in none of {', '.join(roots)}.")


def _members(directory: str) -> t.List[int]:
    try:
        with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as stream:
            return [int(line) for line in stream]
    except (FileNotFoundError, NotADirectoryError):
        return []  # it went away during the walk
    except OSError as error:
        # A threaded group (cgroups(7)) says so when it is read; its processes are listed by its parent.
        if error.strerror == "Operation not supported":
            return []
        raise CannotTell(f"{directory}/cgroup.procs could not be read: {error.strerror}.") from None


def working_directory(pid: int) -> t.Optional[str]:
    """From where a process runs, all links resolved, or None when it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        seen = _seen_by_its_owner(pid, ["readlink", f"/proc/{pid}/cwd"])
        return None if seen is None else os.fsdecode(seen).rstrip("\n")


def variable(pid: int, name: str) -> t.Optional[str]:
    """What a variable of a process's environment was when it started, or None when it was not set or the process has ended."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            environment: t.Optional[bytes] = stream.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        environment = _seen_by_its_owner(pid, ["cat", f"/proc/{pid}/environ"])
    prefix = f"{name}=".encode()
    found = [one[len(prefix) :] for one in (environment or b"").split(b"\0") if one.startswith(prefix)]
    return os.fsdecode(found[-1]) if found else None


def _seen_by_its_owner(pid: int, argv: t.Sequence[str]) -> t.Optional[bytes]:
    """What a command shows of a process to its own account: a root without CAP_SYS_PTRACE, as in most containers, may not look (ptrace(2)).

    None when the process has ended.
    """
    unseen = CannotTell(f"Process {pid} cannot be looked at; the check needs root.")
    if os.geteuid() != 0:
        raise unseen
    try:
        owner = os.stat(f"/proc/{pid}")
    except FileNotFoundError:
        return None
    try:
        done = subprocess.run(
            list(argv),
            user=owner.st_uid,
            group=owner.st_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        raise unseen from None
    if done.returncode == 0:
        return done.stdout
    now = process(pid)
    if now is not None and now.lives:
        raise unseen
    return None
