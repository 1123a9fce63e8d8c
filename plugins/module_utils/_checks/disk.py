# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``disk``: free space and free inodes where a path is, as an ordinary account may use them."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    NUMBER,
    TEXT,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
    wrong,
)

MB = 1024 * 1024
LIMITS = ("min_free_mb", "min_free_percent", "min_free_inodes_percent")


def free_of(usage: os.statvfs_result) -> t.Dict[str, t.Optional[float]]:
    """What is free; None for inodes where the filesystem has no fixed number of them (btrfs, for instance).

    The blocks that are reserved for root do not count, neither as free nor as existing, as df(1) has it.
    """
    usable = usage.f_blocks - usage.f_bfree + usage.f_bavail
    usable_inodes = usage.f_files - usage.f_ffree + usage.f_favail
    return {
        "free_mb": round(usage.f_bavail * usage.f_frsize / MB, 1),
        "free_percent": round(100 * usage.f_bavail / usable, 1) if usable > 0 else 0.0,
        "free_inodes_percent": None if usage.f_files == 0 else round(100 * usage.f_favail / usable_inodes, 1) if usable_inodes > 0 else 0.0,
    }


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    if options["path"] is not None and not os.path.isabs(options["path"]):
        yield wrong("path", options["path"], "an absolute path")
    if not given & set(LIMITS):
        yield f"{', '.join(LIMITS)}: found none, allowed: at least one of them"


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    path = options["path"]
    try:
        found = free_of(os.statvfs(path))
    except OSError as error:
        raise CannotTell(f"The space at {path} could not be measured: {error.strerror}.") from None
    expected = {name: options[name] for name in LIMITS if options[name] is not None}
    units = {"free_mb": "MB free", "free_percent": "% free", "free_inodes_percent": "% of the inodes free"}
    values = {unit: (found[name], expected.get(f"min_{name}")) for name, unit in units.items()}
    short = [
        f"{value:g} {unit}, expected at least {least:g}"
        for unit, (value, least) in values.items()
        if least is not None and value is not None and value < least
    ]
    has = ", ".join("inodes without a fixed number" if value is None else f"{value:g} {unit}" for unit, (value, _least) in values.items())
    return judged(short, f"{path} has {has}.", f"{path} is short of space", found, expected)


CHECK = CheckType(
    name="disk",
    options={
        "path": Option(TEXT, required=True),
        "min_free_mb": Option(NUMBER, minimum=0),
        "min_free_percent": Option(NUMBER, minimum=0, maximum=100),
        "min_free_inodes_percent": Option(NUMBER, minimum=0, maximum=100),
    },
    subject=lambda options: str(options["path"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
