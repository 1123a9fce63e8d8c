# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories and files that are to be there, each with an owner, a group and a mode. A link is never followed."""

from __future__ import annotations

import os
import stat
import typing as t

# uid, gid, mode.
Place = t.Tuple[int, int, int]


def found(path: str) -> t.Optional[Place]:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return None
    return (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode))


def words(kind: str, place: t.Optional[Place]) -> t.Optional[str]:
    return None if place is None else f"{kind}, owner {place[0]}, group {place[1]}, mode {place[2]:04o}"


def make_directory(path: str, wanted: Place) -> None:
    os.makedirs(path, exist_ok=True)
    _put_right(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), wanted)


def make_file(path: str, wanted: Place) -> None:
    """An empty file, unless there is one; its content is left alone."""
    # O_NONBLOCK: opening a FIFO for writing waits for its other end.
    _put_right(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600), wanted)


def _put_right(handle: int, wanted: Place) -> None:
    try:
        os.fchown(handle, *wanted[:2])
        os.fchmod(handle, wanted[2])
    finally:
        os.close(handle)
