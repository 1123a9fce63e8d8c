# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore an SQLite database while an app uses it: written into it in one transaction of its own, so that nobody has to be stopped.

SQLite's backup API works in both directions (https://www.sqlite.org/backup.html). Connections that are open see the old content until their transaction
ends, and the new one from the next on; killed at any point, the transaction never was. What was written since the backup is in the copy that is kept.
"""

from __future__ import annotations

import os
import sqlite3
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Ownership
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.sqlite import Deadline
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import sync_directory

# Seconds that a write may wait for the writers of the app, each of which takes milliseconds.
PATIENCE = 30.0


def replace_content(path: str, new: str, kept: str, deadline: Deadline) -> None:
    """Put the content of a verified file into a database in use.

    :param kept: Where a consistent copy of what it replaces is made first.
    """
    _keep(path, kept, deadline)
    _write(path, new, deadline)
    with sqlite.opened(new, sqlite.UNTOUCHED, deadline) as connection:
        tables = set(sqlite.rows_of(connection))
    wrong = _wrong(path, tables, deadline)
    if wrong:
        raise Failure(f"{path} is not what was restored: {wrong}.", fix=f"What was there before is kept as {kept}.")


def _keep(path: str, kept: str, deadline: Deadline) -> None:
    """A copy gets its name when it is whole. What begins like this is removed by the next restore."""
    here, name = os.path.split(path)
    copy = os.path.join(here, f".{name}.restore-{os.path.basename(kept)}")
    old = os.stat(path)
    try:
        os.close(sqlite.create(copy))
        sqlite.snapshot(path, copy, deadline, lambda size: backups.require_room(here, size, f"a copy of {path}"))
        sqlite.verify(copy, deadline)
        Ownership(old.st_uid, old.st_gid, 0o600).give(copy)
        os.rename(copy, kept)
        sync_directory(here)
    except sqlite.Damaged as error:
        raise Failure(
            f"{path} cannot be copied as it is, and so it cannot be kept: {error.what}",
            fix="Nothing was replaced. Stop what uses it, and restore with stop_units: then the damaged files are kept as they are.",
        ) from error
    finally:
        backups.discard(copy)


def _write(path: str, new: str, deadline: Deadline) -> None:
    try:
        with sqlite.opened(new, sqlite.UNTOUCHED, deadline) as source, sqlite.opened(path, sqlite.IN_PLACE, deadline) as target:
            target.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
            source.backup(target)
    except sqlite3.Error as error:
        raise Failure(
            f"The backup could not be written into {path}, which is as it was: {error}.",
            fix="Stop what uses it, and restore with sqlite_restore and stop_units.",
        ) from None


def _wrong(path: str, tables: t.Set[str], deadline: Deadline) -> str:
    """What differs from the backup, of what the app cannot have changed since; empty when nothing does."""
    with sqlite.opened(path, sqlite.IN_PLACE, deadline) as connection:
        found = [line for (line,) in connection.execute("PRAGMA quick_check") if line != "ok"]
        other = sorted(tables ^ set(sqlite.rows_of(connection)))
    return "; ".join(found[:5]) or (f"it has other tables: {', '.join(other)}" if other else "")
