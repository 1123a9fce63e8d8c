# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running other programs: argument lists only, always bounded in time.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import os
import subprocess
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# Lines of a long output's beginning that are shown.
BEGINNING = 6


def shortened(text: str, lines: int) -> t.List[str]:
    """At most so many lines of a text: its end and, where there is room for both, its beginning."""
    said = text.splitlines()
    if len(said) <= lines or lines < 2 * BEGINNING:
        return said[-lines:]
    return [*said[:BEGINNING], "[...]", *said[BEGINNING + 1 - lines :]]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    argv: t.Tuple[str, ...]
    rc: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.rc == 0

    def last_words(self, lines: int = 20) -> str:
        """What it said: when that is long, its end, which usually holds the reason, and the few lines that it began with, which name what it is about."""
        return "\n".join(shortened(self.stderr.strip() or self.stdout.strip(), lines))


def run(
    argv: t.Sequence[str],
    timeout: float = 60,
    cwd: t.Optional[str] = None,
    env: t.Optional[t.Mapping[str, str]] = None,
    stdin: t.Optional[str] = None,
) -> Finished:
    """Run a command to its end.

    :param timeout: Seconds; a command that takes longer is killed and reported as a Failure.
    :param env: Added to this process's environment. Secrets go here or into ``stdin``, never into ``argv``.
    """
    environment = dict(os.environ, LC_ALL="C.UTF-8", **(env or {}))
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=environment,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise Failure(
            f"The program {argv[0]} is not on this machine.", fix=f"Install {os.path.basename(argv[0])}, or correct its path."
        ) from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(argv)} did not finish within {timeout:g} s and was stopped.") from None
    return Finished(tuple(argv), done.returncode, done.stdout, done.stderr)


def must(argv: t.Sequence[str], what: str, fix: str = "", **kwargs: t.Any) -> Finished:
    """Run a command that has to succeed; otherwise raise a Failure that begins with ``what`` and carries its last words."""
    done = run(argv, **kwargs)
    if not done.ok:
        raise Failure(f"{what}: {os.path.basename(argv[0])} ended with status {done.rc}.\n{done.last_words()}", fix=fix)
    return done
