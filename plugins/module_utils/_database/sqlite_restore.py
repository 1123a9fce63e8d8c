# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a verified backup in the place of an SQLite database, in one rename, and keep what was there.

A ``-wal`` belongs to a path, not to a file: one that is left beside another database is played into it and destroys it
(https://www.sqlite.org/howtocorrupt.html#_file_overwrite_by_a_rogue_thread_or_process and what follows). So the old database takes its ``-wal`` in first,
alone; only then, with nothing beside it, does the new one take its name. Until that rename the path holds the old database, whole; from then on the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import stat
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, sqlite_in_use, units
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Ownership
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.sqlite import Contents, Damaged, Deadline
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.sqlite_backup import TIMEOUT, differences, of_database
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import sync_directory
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change

# The bytes that SQLite's own locks are on (PENDING_BYTE and what follows).
LOCK_BYTE, LOCK_LENGTH = 0x40000000, 512


@dataclass(frozen=True)
class Wanted:
    """One restore, as somebody asks for it.

    :param name: Of the backup; empty for the newest.
    :param source_file: A file that is no backup of ours, instead of one.
    :param in_use: Write into the database in a transaction, instead of putting another file in its place: nobody has to be stopped.
    :param ownership: Of a database that is not there yet; otherwise the new one has that of the old one.
    """

    path: str
    directory: str
    name: str = ""
    source_file: str = ""
    stop_units: t.Sequence[str] = ()
    in_use: bool = False
    ownership: t.Optional[Ownership] = None
    timeout: float = TIMEOUT


@dataclass(frozen=True)
class Source:
    """What is restored: a backup with its record, or a file without one."""

    path: str
    backup: t.Optional[Backup]

    @property
    def shown(self) -> str:
        return f"the backup {self.backup.name}" if self.backup else f"the file {self.path}"


@dataclass
class Observed:
    now: float
    source: Source
    same: bool
    replaced: str = ""
    contents: t.Optional[Contents] = None


def choose(wanted: Wanted) -> Source:
    """The backup that is meant. One of another database is taken only by its name."""
    if wanted.source_file:
        if not os.path.isfile(wanted.source_file):
            raise Failure(f"There is no file {wanted.source_file}.")
        return Source(os.path.realpath(wanted.source_file), None)
    everyone = backups.backups_of(wanted.directory, os.path.basename(wanted.path))
    if wanted.name:
        backup = backups.load(wanted.directory, os.path.basename(wanted.name))
        if backup is None or backup.kind != "sqlite":
            raise Failure(
                f"There is no verified backup {wanted.name} in {wanted.directory}.",
                fix=f"There are: {', '.join(one.name for one in everyone) or 'none'}.",
            )
        return Source(backup.path(wanted.directory), backup)
    ours = of_database(wanted.directory, wanted.path)
    if not ours:
        others = ", ".join(f"{one.name} (of {one.facts.get('source')})" for one in everyone)
        raise Failure(
            f"There is no verified backup of {wanted.path} in {wanted.directory}.",
            fix=f"Name one of these: {others}." if others else "Name a source_file, or look for the backups elsewhere.",
        )
    return Source(ours[0].path(wanted.directory), ours[0])


def observe(wanted: Wanted) -> Observed:
    """Find the backup, and refuse one that is not any more what was verified."""
    source = choose(wanted)
    if source.backup is not None:
        problem = backups.problem(wanted.directory, source.backup)
        if problem:
            raise Failure(
                f"The backup {source.backup.name} must not be restored: {problem}.",
                fix=f"Nothing was touched. Restore another one: {_others(wanted, source.backup)}.",
            )
    if os.path.isdir(wanted.path):
        raise Failure(f"{wanted.path} is a directory, not a database.")
    return Observed(time.time(), source, _is_there(wanted.path, source))


def _others(wanted: Wanted, bad: Backup) -> str:
    return ", ".join(one.name for one in of_database(wanted.directory, wanted.path) if one.name != bad.name) or "there is none"


def _is_there(path: str, source: Source) -> bool:
    """Whether the database is the backup already, byte for byte, with nothing beside it that would change it."""
    if source.backup is None or not os.path.isfile(path) or any(_size(path + suffix) for suffix in ("-wal", "-journal")):
        return False
    if os.stat(path).st_size != source.backup.facts.get("content_size"):
        return False
    return backups.digest(path)[0] == source.backup.facts.get("content_sha256")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def plan(wanted: Wanted, observed: Observed) -> t.List[Change]:
    if observed.same:
        return []
    there = os.path.exists(wanted.path)
    changes = [
        Change(
            wanted.path,
            f"a database of {_size(wanted.path)} bytes" if there else None,
            observed.source.shown,
            lambda: _restore(wanted, observed),
        )
    ]
    if there:
        changes.append(Change(f"{wanted.path}.replaced-{backups.stamp(observed.now)}", None, "the database as it was", lambda: None))
    changes += [Change(unit, "as it is", "stopped, and started again", lambda: None) for unit in wanted.stop_units]
    return changes


def restore(path: str, directory: str, **how: t.Any) -> Observed:
    """Restore a database, for who is no module.

    :param how: The other fields of Wanted.
    """
    wanted = Wanted(os.path.realpath(path), directory, **how)
    with backups.alone(directory, wanted.timeout, make=bool(wanted.source_file)):
        observed = observe(wanted)
        for change in plan(wanted, observed):
            change.apply()
    return observed


def tidy(path: str) -> None:
    """Finish what a restore that was killed has left: what it wrote goes, and what it kept gets its name."""
    here, name = os.path.split(path)
    for left in glob.glob(os.path.join(glob.escape(here), f".{glob.escape(name)}.restore-*")):
        backups.discard(left)
    for left in glob.glob(os.path.join(glob.escape(here), f".{glob.escape(name)}.replaced-*")):
        if os.path.exists(path) and os.path.samefile(left, path):
            # A second name of the database: it was killed before the new one took the first.
            os.unlink(left)
        else:
            os.rename(left, os.path.join(here, os.path.basename(left)[1:]))


def _restore(wanted: Wanted, observed: Observed) -> None:
    here, name = os.path.split(wanted.path)
    if not os.path.isdir(here):
        raise Failure(f"The directory of the database, {here}, does not exist.", fix="Correct the path, or make the directory for the app.")
    deadline = Deadline(wanted.timeout)
    moment = backups.stamp(observed.now)
    tidy(wanted.path)
    new = os.path.join(here, f".{name}.restore-{moment}")
    try:
        observed.contents = stage(observed.source, new, deadline)
        _ownership(wanted).give(new)
        if wanted.in_use and os.path.exists(wanted.path):
            observed.replaced = os.path.join(here, f"{name}.replaced-{moment}")
            sqlite_in_use.replace_content(wanted.path, new, observed.replaced, deadline)
            backups.discard(new)
        else:
            with units.stopped(wanted.stop_units, deadline.left):
                observed.replaced = take_its_place(wanted.path, new, moment, deadline)
    except BaseException:
        for left in (new, *(new + suffix for suffix in sqlite.COMPANIONS)):
            backups.discard(left)
        raise


def _ownership(wanted: Wanted) -> Ownership:
    """That of the database that is replaced, otherwise what was asked for, otherwise that of the directory."""
    with contextlib.suppress(FileNotFoundError):
        old = os.stat(wanted.path)
        return Ownership(old.st_uid, old.st_gid, stat.S_IMODE(old.st_mode))
    directory = os.stat(os.path.dirname(wanted.path))
    asked = wanted.ownership or Ownership(mode=0o640)
    return Ownership(directory.st_uid if asked.uid is None else asked.uid, directory.st_gid if asked.gid is None else asked.gid, asked.mode)


def stage(source: Source, new: str, deadline: Deadline) -> Contents:
    """Write what is restored into a new file, and prove that it is whole and what the record says."""
    backups.require_room(os.path.dirname(new), _needed(source), f"{source.shown}")
    if source.backup is None:
        users = sqlite.users_of(source.path)
        if users:
            raise Failure(
                f"{source.path} is in use by {', '.join(users)}: a copy of it would not be whole.",
                fix="Back it up with sqlite_backup_rotate, and restore that.",
            )
    sqlite.write_new(new, sqlite.blocks_of(source.path), deadline)
    if source.backup is None and not source.path.endswith(".zst"):
        # What a copy of a database in use has beside it belongs to it.
        for suffix in ("-wal", "-journal"):
            if os.path.exists(source.path + suffix):
                sqlite.write_new(new + suffix, sqlite.blocks_of(source.path + suffix), deadline)
        if os.path.exists(f"{new}-wal") or os.path.exists(f"{new}-journal"):
            sqlite.settle(new, deadline)
    try:
        contents = sqlite.verify(new, deadline, empty=source.backup is not None)
    except Damaged as error:
        raise Failure(f"{source.shown} must not be restored: {error.what}", fix="Nothing was touched. Restore another one.") from error
    if source.backup is not None:
        facts = source.backup.facts
        if contents.sha256 != facts["content_sha256"]:
            raise Failure(f"{source.shown} gave SHA-256 {contents.sha256}, not {facts['content_sha256']}, as its record says.")
        if contents.rows != facts["rows"]:
            raise Failure(f"{source.shown} has other rows than its record says: {differences(facts['rows'], contents.rows)}.")
    return contents


def _needed(source: Source) -> int:
    return int(source.backup.facts["content_size"]) if source.backup else os.stat(source.path).st_size + _size(f"{source.path}-wal")


def take_its_place(path: str, new: str, moment: str, deadline: Deadline) -> str:
    """Let a new database take the place of an old one; where the old one is kept, empty when there was none.

    Killed at any point, the path holds the old database or the new one, and the old one is under one of its names.
    """
    here, name = os.path.split(path)
    kept = os.path.join(here, f"{name}.replaced-{moment}")
    users = sqlite.users_of(path)
    if users:
        raise Failure(
            f"{path} is in use by {', '.join(users)}; what they write after a restore would be lost.",
            fix="Nothing was replaced. Name their units in stop_units, or stop them.",
        )
    if not _take_in(path, deadline):
        # It is kept as it is, and must not meet the new database.
        for suffix in ("-wal", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + suffix, kept + suffix)
    if not os.path.exists(path):
        _put(path, new)
        return ""
    hidden = os.path.join(here, f".{name}.replaced-{moment}")
    with _locked(path):
        beside = [path + suffix for suffix in ("-wal", "-journal") if _size(path + suffix)]
        if beside:
            raise Failure(f"Somebody uses {path}: {', '.join(beside)} has just been written.", fix="Name its units in stop_units.")
        os.link(path, hidden)
        sync_directory(here)
        _put(path, new)
    os.rename(hidden, kept)
    sync_directory(here)
    users = sqlite.users_of(kept)
    if users:
        raise Failure(
            f"{path} is restored, but {', '.join(users)} opened the old database (now {kept}) in that moment, and may write to it.",
            fix="Stop them at once, name their units in stop_units, and restore again.",
        )
    return kept


def _take_in(path: str, deadline: Deadline) -> bool:
    """Bring what lies beside a database into it; False when there is no database that could take it in."""
    # SQLite drops the -wal of what does not even begin like a database.
    if not os.path.exists(path) or sqlite.header_of(path) is None:
        return False
    try:
        sqlite.settle(path, deadline)
    except Damaged:
        return False
    return True


def _put(path: str, new: str) -> None:
    for suffix in sqlite.COMPANIONS:
        # Empty ones, and an index of a -wal that is not there any more.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.rename(new, path)
    sync_directory(os.path.dirname(path))


@contextlib.contextmanager
def _locked(path: str) -> t.Iterator[None]:
    """Keep everybody out of a database as SQLite itself does, while no connection of ours is open: closing one would end the lock."""
    with open(path, "r+b") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_BYTE)
        except OSError:
            raise Failure(f"{path} was locked by another process.", fix="Nothing was replaced. Name its units in stop_units.") from None
        yield


def drill(wanted: Wanted) -> t.Dict[str, t.Any]:
    """Restore into a scratch file, compare with the record, drop it. What was compared; Failure when anything differs."""
    began = time.monotonic()
    observed = observe(wanted)
    backup = observed.source.backup
    if backup is None:
        raise Failure("drill: a source_file has no record to compare with.", fix="Leave source_file out.")
    deadline = Deadline(wanted.timeout)
    # Of a name that the next backup removes, should this be killed.
    scratch = backups.partial_path(wanted.directory, backups.name_for(os.path.basename(wanted.path), observed.now, "drill"))
    try:
        contents = stage(observed.source, scratch, deadline)
        # As the app opens it: for writing, which makes what it needs beside it.
        with sqlite.opened(scratch, sqlite.IN_PLACE, deadline) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    finally:
        for left in (scratch, *(scratch + suffix for suffix in sqlite.COMPANIONS)):
            backups.discard(left)
    return {
        "backup": backup.name,
        "taken": backup.taken,
        "sha256": contents.sha256,
        "size": contents.size,
        "rows": dict(contents.rows),
        "unchecked": list(contents.unchecked),
        "seconds": round(time.monotonic() - began, 3),
    }
