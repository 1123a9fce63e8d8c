# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of ``shared/.env`` that releases run with.

The file is what the next switch takes. A slot runs with the version that it was switched to, ``slots/<slot>.env``, a link to a copy that never
changes: a way back leads to the release *and* the environment that served before, and so does a rollback. A copy begins with a variable that
names it, so that a process can be asked which one it was started with.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.processes import variable
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_link, replace_link, write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout

VARIABLE = "BULLETPROOF_ENVIRONMENT"


def _read(layout: Layout) -> t.Optional[bytes]:
    try:
        handle = os.open(layout.dotenv, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Failure(
            f"{layout.dotenv} is a link to {os.readlink(layout.dotenv)}: root would read whatever that is.",
            fix=f"Replace {layout.dotenv} by a file.",
        ) from None
    with os.fdopen(handle, "rb") as stream:
        return stream.read()


def name_of(text: bytes) -> str:
    """The name of a version, by what is in it."""
    return hashlib.sha256(text).hexdigest()[:16]


def now(layout: Layout) -> str:
    """The name of the version that ``shared/.env`` is now; empty where there is no such file."""
    text = _read(layout)
    return "" if text is None else name_of(text)


def keep(layout: Layout) -> str:
    """Keep ``shared/.env`` as it is now; its name."""
    text = _read(layout)
    if text is None:
        return ""
    name = name_of(text)
    if not os.path.exists(layout.environment(name)):
        os.makedirs(layout.environments, mode=0o700, exist_ok=True)
        write_atomically(layout.environment(name), f"{VARIABLE}={name}\n".encode() + text, 0o600)
    return name


def kept(layout: Layout) -> t.List[str]:
    """The names of all versions that are kept, the oldest first."""
    try:
        entries = [entry for entry in os.scandir(layout.environments) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [entry.name for entry in sorted(entries, key=lambda entry: (entry.stat().st_mtime_ns, entry.name))]


def give(layout: Layout, slot: str, name: str) -> None:
    """Let the slot's next start have this version; none for an empty name."""
    _point(layout.slot_environment(slot), layout, name)


def serve(layout: Layout, name: str) -> None:
    """Tell what works beside the app, backups for one, that this is the environment of what is served now."""
    _point(layout.current_environment, layout, name)


def _point(link: str, layout: Layout, name: str) -> None:
    target = os.path.relpath(layout.environment(name), os.path.dirname(link))
    if not name:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
    elif read_link(link) != target:
        replace_link(link, target)


def of_process(pid: int) -> str:
    """The name of the version that a process was started with."""
    return variable(pid, VARIABLE) or ""


def unused(layout: Layout, count: int, in_use: t.AbstractSet[str]) -> t.List[str]:
    """The paths of those that may go: not the newest few, nor what a release may go back to."""
    names = kept(layout)
    return [layout.environment(name) for name in names[: max(len(names) - count, 0)] if name not in in_use]
