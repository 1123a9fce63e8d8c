# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the rest of the lab stands on: commands, the cache directory, locks, and the one error type."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "lab"


class LabError(Exception):
    """The lab cannot do what was asked: what was found, and what to do about it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}\nWhat to do: {fix}" if fix else what)


def say(text: str) -> None:
    """Progress goes to standard error, so that standard output stays the answer."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 120,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; with ``check``, a failure carries what the command said."""
    environment = dict(os.environ, LC_ALL="C.UTF-8", **(env or {}))
    try:
        done = subprocess.run(
            list(argv),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"The program {argv[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"No end after {timeout:g} s: {' '.join(argv)}") from error
    finished = subprocess.CompletedProcess(
        list(argv), done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and finished.returncode != 0:
        said = "\n".join((finished.stdout + finished.stderr).strip().splitlines()[-30:])
        raise LabError(f"Exit status {finished.returncode}: {' '.join(argv)}\n{said}")
    return finished


def docker(*arguments: str, check: bool = True, timeout: float = 120, stdin: bytes | None = None) -> str:
    """Ask the engine; the answer is what it printed."""
    return run(["docker", *arguments], check=check, timeout=timeout, stdin=stdin).stdout.strip()


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Keep two commands that start at the same time from doing the same work twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
