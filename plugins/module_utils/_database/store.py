# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backing up and restoring a database that an app is using, whichever kind it is: what a deploy does before a migration, and after one that failed."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import (
    backups,
    postgres_backup,
    postgres_restore,
    sqlite_backup,
    sqlite_restore,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Policy
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Database, Sqlite

# Seconds to wait for another backup in the same directory.
PATIENCE = 1800.0


def exists(database: Database) -> bool:
    """Whether there is anything to lose yet. A server's database exists, or nothing can be done at all."""
    return not isinstance(database, Sqlite) or os.path.exists(database.path)


def backup(database: Database, directory: str, policy: Policy, facts: t.Mapping[str, t.Any]) -> t.Optional[Backup]:
    """Make a verified backup and rotate; None when there is nothing yet.

    :param facts: What the record says besides: the revision that the schema is at.
    """
    if not exists(database):
        return None
    if isinstance(database, Sqlite):
        return sqlite_backup.backup(database.path, directory, policy, facts=facts).made
    with backups.alone(directory, PATIENCE):
        for name in backups.unfinished(directory, database.name):
            backups.discard(os.path.join(directory, name))
        made = postgres_backup.make(database, directory, facts=facts)
        for old in backups.superfluous(known(database, directory), policy, time.time()):
            backups.remove(directory, old)
    return made


def restore(database: Database, directory: str, chosen: Backup) -> str:
    """Restore a backup while the app goes on; what it replaces is kept, and its name is returned."""
    if isinstance(database, Sqlite):
        return sqlite_restore.restore(database.path, directory, name=chosen.name, in_use=True).replaced
    source = postgres_restore.Source(chosen.path(directory), chosen)
    return postgres_restore.restore(database, directory, source).replaced


def set_aside(database: Database) -> str:
    """Take a half-made new database out of the way, all of it; where it is. A server's database has nobody's place to be put back to."""
    if not isinstance(database, Sqlite):
        return f"{database.shown}, as it is"
    aside = f"{database.path}.failed-{backups.stamp(time.time())}"
    # The companions first: without them the file is not taken for whole.
    for suffix in ("-wal", "-shm", "-journal", ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(database.path + suffix, aside + suffix)
    return aside


def known(database: Database, directory: str) -> t.List[Backup]:
    """The verified backups of a database, the newest first."""
    if isinstance(database, Sqlite):
        return sqlite_backup.of_database(directory, database.path)
    return backups.backups_of(directory, database.name)
