# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The points of a deploy: every task that goes to a host, as a run has told them."""

from __future__ import annotations

import functools
import json
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Point:
    """A task of a run.

    :param name: The task's name, with its number where the run has several of this name (in each batch, for instance).
    :param seconds: From its beginning to that of the next.
    :param goes_out: Whether it went to a host over a connection.
    """

    name: str
    batch: int
    path: str
    seconds: float
    goes_out: bool


def environment(path: Path) -> t.Dict[str, str]:
    """What makes a run tell its points in a file."""
    return {
        "BULLETPROOF_POINTS": str(path),
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "points",
        "ANSIBLE_SSH_EXECUTABLE": str(HERE / "ssh"),
    }


def read(path: Path) -> t.List[Point]:
    """The points that a run has begun, in order."""
    try:
        now = path.stat()
    except FileNotFoundError:
        return []
    return list(_read(path, now.st_ino, now.st_mtime_ns, now.st_size))


@functools.lru_cache(maxsize=1)
def _read(path: Path, *_version: int) -> t.Sequence[Point]:
    """Asked for every few milliseconds, so that no fault comes late, and read anew only when the file is another than before."""
    lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return points(lines)


def points(lines: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Point]:
    found: t.List[Point] = []
    times: t.Dict[str, int] = {}
    begun = [number for number, line in enumerate(lines) if line["event"] == "begun"]
    for at, until in zip(begun, [*begun[1:], len(lines)]):
        # Without the role's name, which is in the path.
        line, name = lines[at], lines[at]["task"].rpartition(" : ")[2]
        times[name] = times.get(name, 0) + 1
        ended = lines[until if until < len(lines) else -1]["time"]
        found.append(
            Point(
                name if times[name] == 1 else f"{name} ({times[name]})",
                line["batch"],
                line["path"],
                max(0.0, ended - line["time"]),
                any(one["event"] == "connection" for one in lines[at + 1 : until]),
            )
        )
    return found


def wait_for(path: Path, name: str, ended: t.Callable[[], bool], timeout: float) -> bool:
    """Wait until a run has begun a point; False when it ends, or takes too long, without coming there."""
    deadline = time.monotonic() + timeout
    while True:
        over = ended() or time.monotonic() > deadline
        if any(point.name == name for point in read(path)):
            return True
        if over:
            return False
        time.sleep(0.005)
