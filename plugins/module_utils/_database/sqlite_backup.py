# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verified backups of an SQLite database that is in use, and what old scripts have left beside it.

The order is what makes it safe at every moment: copy, verify, publish, take over, and only then rotate.
"""

from __future__ import annotations

import calendar
import fnmatch
import os
import re
import sqlite3
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, zstd
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Ownership, Policy
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.sqlite import Contents, Deadline
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import sync_directory
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change

KIND = "sqlite"
COMPRESS = ("none", "zstd")
# What hand-written scripts call their copies; {name} is the database's own.
FOREIGN = ("{name}.backup*", "{name}.bak*", "{name}.old*", "{name}.[0-9]*", "{name}-[0-9]*", "{name}_[0-9]*")
TIMEOUT = 1800
# 20240131_235959, 2024-01-31T23:59:59Z, 2024-01-31, and no longer row of digits.
WRITTEN = re.compile(r"(?<!\d)(20\d\d)-?([01]\d)-?([0-3]\d)(?:[T_ .-]?([0-2]\d)[:.-]?([0-5]\d)(?:[:.-]?([0-5]\d))?)?(Z?)(?!\d)")
EPOCH = re.compile(r"(?<!\d)(1\d{9})(?!\d)")


@dataclass(frozen=True)
class Wanted:
    """One backup, as somebody asks for it."""

    path: str
    directory: str
    policy: Policy = field(default_factory=Policy)
    compress: str = "none"
    ownership: Ownership = field(default_factory=Ownership)
    foreign: t.Sequence[str] = FOREIGN
    adopt: bool = False
    timeout: float = TIMEOUT
    facts: t.Mapping[str, t.Any] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return os.path.basename(self.path)


@dataclass(frozen=True)
class Foreign:
    """A file that looks like somebody's own backup.

    :param refused: Why it is not taken over; empty when it is, or when nobody has asked.
    """

    path: str
    taken: float
    size: int
    refused: str = ""
    contents: t.Optional[Contents] = None


@dataclass
class Observed:
    now: float
    existing: t.Sequence[Backup]
    unfinished: t.Sequence[str]
    unreadable: t.Sequence[str]
    foreign: t.Sequence[Foreign]
    made: t.Optional[Backup] = None
    adopted: t.List[str] = field(default_factory=list)
    removed: t.List[str] = field(default_factory=list)


def of_database(directory: str, path: str) -> t.List[Backup]:
    """The verified backups of the database at a path, the newest first. Another one of the same name is another one."""
    return [one for one in backups.backups_of(directory, os.path.basename(path)) if one.facts.get("source") == path]


def observe(wanted: Wanted) -> Observed:
    if not os.path.isfile(wanted.path):
        raise Failure(
            f"There is no SQLite database at {wanted.path}.", fix="Correct the path or the URL; a relative one is relative to directory."
        )
    if wanted.compress not in COMPRESS:
        raise Failure(f"compress: found {wanted.compress!r}; allowed: {', '.join(COMPRESS)}.")
    if wanted.compress == "zstd":
        zstd.require()
    if os.path.isdir(wanted.directory):
        backups.trusted(wanted.directory)
        backups.require_room(wanted.directory, os.stat(wanted.path).st_size, f"a backup of {wanted.path}")
    return Observed(
        now=time.time(),
        existing=of_database(wanted.directory, wanted.path),
        unfinished=backups.unfinished(wanted.directory, wanted.database),
        unreadable=backups.unreadable(wanted.directory, wanted.database),
        foreign=foreign_of(wanted),
    )


def plan(wanted: Wanted, observed: Observed) -> t.List[Change]:
    """What is cut short goes, the new backup comes, clutter is taken over, and what no rule keeps goes: in this order."""
    directory = wanted.directory
    new = _name(wanted, observed.now)
    kept = [*observed.existing, Backup(new, wanted.database, KIND, observed.now, 0, "")]
    adopting: t.Dict[str, Foreign] = {}
    for one in observed.foreign if wanted.adopt else ():
        if not one.refused:
            taken = one.taken
            while any(backup.name == _plain_name(wanted, taken) for backup in kept):
                taken += 0.000001
            adopting[_plain_name(wanted, taken)] = one
            kept.append(Backup(_plain_name(wanted, taken), wanted.database, KIND, taken, one.size, ""))
    leaving = backups.superfluous(kept, wanted.policy, observed.now)
    gone = {backup.name for backup in leaving}

    changes = [
        Change(os.path.join(directory, name), "unfinished", None, _call(backups.discard, os.path.join(directory, name)))
        for name in observed.unfinished
    ]
    changes.append(Change(os.path.join(directory, new), None, f"verified backup of {wanted.path}", lambda: _make(wanted, observed)))
    for backup in kept:
        if backup.name in adopting and backup.name not in gone:
            one = adopting[backup.name]
            changes.append(
                Change(backup.path(directory), None, f"taken over from {one.path}", _call(_take_over, wanted, observed, one, backup))
            )
    for one in adopting.values():
        changes.append(Change(one.path, f"found, of {backups.stamp(one.taken)}", None, _call(_remove_foreign, one)))
    for backup in leaving:
        if backup.name not in adopting:
            said = f"verified backup of {backups.stamp(backup.taken)}"
            changes.append(Change(backup.path(directory), said, None, _call(_rotate, wanted, observed, backup)))
    return changes


def _call(work: t.Callable[..., object], *arguments: t.Any) -> t.Callable[[], object]:
    return lambda: work(*arguments)


def backup(path: str, directory: str, policy: t.Optional[Policy] = None, **how: t.Any) -> Observed:
    """Make a verified backup of a database and rotate, for who is no module.

    :param how: The other fields of Wanted.
    """
    wanted = Wanted(os.path.realpath(path), directory, policy or Policy(), **how)
    with backups.alone(directory, wanted.timeout):
        observed = observe(wanted)
        for change in plan(wanted, observed):
            change.apply()
    return observed


def _plain_name(wanted: Wanted, taken: float) -> str:
    return backups.name_for(wanted.database, taken, "db")


def _name(wanted: Wanted, taken: float) -> str:
    return _plain_name(wanted, taken) + (zstd.EXTENSION if wanted.compress == "zstd" else "")


def _make(wanted: Wanted, observed: Observed) -> None:
    # Not the moment of the plan: whatever was committed before this one is in it.
    taken = observed.now
    deadline = Deadline(wanted.timeout)
    plain = backups.partial_path(wanted.directory, _plain_name(wanted, taken))

    def room(size: int) -> None:
        # Compressed, both are there for a while, and nobody knows beforehand how well it compresses.
        needed = size * (2 if wanted.compress == "zstd" else 1)
        backups.require_room(wanted.directory, needed, f"a backup of {wanted.path}")

    try:
        os.close(sqlite.create(plain))
        rows = sqlite.snapshot(wanted.path, plain, deadline, room)
        try:
            contents = sqlite.verify(plain, deadline, empty=not rows)
        except sqlite.Damaged as error:
            raise Failure(
                f"The copy of {wanted.path} is damaged, and so is the database: {error.what}",
                fix="Nothing was rotated away. Look at the newest verified backup, and restore it: sqlite_restore.",
            ) from error
        if rows != contents.rows:
            raise Failure(f"The copy of {wanted.path} has other rows than the database had: {differences(rows, contents.rows)}.")
        observed.made = _publish(wanted, taken, plain, contents, wanted.compress, {}, deadline)
    except BaseException:
        backups.discard(plain)
        raise


def differences(expected: t.Mapping[str, int], found: t.Mapping[str, int]) -> str:
    names = sorted({*expected, *found})
    return "; ".join(
        f"{name}: {expected.get(name)} expected, {found.get(name)} found" for name in names if expected.get(name) != found.get(name)
    )


def _publish(
    wanted: Wanted, taken: float, plain: str, contents: Contents, compress: str, facts: t.Mapping[str, t.Any], deadline: Deadline
) -> Backup:
    """Make a verified partial file a backup, compressed if that is wanted."""
    name = os.path.basename(plain)[len(backups.PARTIAL) :]
    partial, verified = plain, (contents.sha256, contents.size)
    if compress == "zstd":
        name += zstd.EXTENSION
        partial = backups.partial_path(wanted.directory, name)
        os.close(sqlite.create(partial))
        try:
            _compress(plain, partial, contents.sha256, deadline)
        except BaseException:
            backups.discard(partial)
            raise
        backups.discard(plain)
        verified = backups.digest(partial)
    wanted.ownership.give(partial)
    record = {
        **wanted.facts,
        **contents.facts,
        "source": wanted.path,
        "rows": dict(contents.rows),
        "content_sha256": contents.sha256,
        "content_size": contents.size,
        "compress": compress,
        "sqlite": sqlite3.sqlite_version,
        "unchecked": list(contents.unchecked),
        **facts,
    }
    return backups.publish(wanted.directory, name, wanted.database, KIND, taken, record, verified)


def _compress(plain: str, packed: str, sha256: str, deadline: Deadline) -> None:
    """Compress, and read it back: what comes out has to be what went in."""
    zstd.compress(plain, packed, deadline.left)
    hashed = sqlite.hash_of(zstd.blocks(packed), packed, deadline)
    if hashed != sha256:
        raise Failure(f"{packed} does not hold what was compressed into it: SHA-256 {hashed}, not {sha256}.")


def _rotate(wanted: Wanted, observed: Observed, leaving: Backup) -> None:
    backups.remove(wanted.directory, leaving)
    observed.removed.append(leaving.name)


def time_of(name: str, modified: float, now: float) -> float:
    """When a foreign file was made: as its name says, in the host's time like date(1) in the script that made it; or when it was last written."""
    match = WRITTEN.search(name)
    if match is not None:
        year, month, day, hour, minute, second = (int(text or 0) for text in match.groups()[:6])
        try:
            parts = (year, month, day, hour, minute, second, 0, 1, -1)
            moment = float(calendar.timegm(parts) if match[7] else time.mktime(parts))
        except (OverflowError, ValueError):
            moment = modified
    else:
        epoch = EPOCH.search(name)
        moment = float(epoch[1]) if epoch else modified
    return moment if moment <= now else min(modified, now)


def foreign_of(wanted: Wanted) -> t.List[Foreign]:
    """Clutter beside the database and among the backups, the oldest first; verified when it is to be taken over."""
    patterns = [pattern.replace("{name}", wanted.database) for pattern in wanted.foreign]
    ours = backups.belongs_to(wanted.database)
    found: t.List[Foreign] = []
    for directory in dict.fromkeys((os.path.dirname(wanted.path), wanted.directory)):
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError:
            continue
        for name in names:
            path = os.path.join(directory, name)
            if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                continue
            if os.path.realpath(path) in (wanted.path, *(wanted.path + suffix for suffix in sqlite.COMPANIONS)):
                continue
            # A companion of something, not a database; and a file of our own.
            if name.endswith(sqlite.COMPANIONS) or (directory == wanted.directory and ours.fullmatch(name)):
                continue
            found.append(_judge(wanted, path))
    return sorted(found, key=lambda one: (one.taken, one.path))


def _judge(wanted: Wanted, path: str) -> Foreign:
    seen = os.lstat(path)
    taken = time_of(os.path.basename(path), seen.st_mtime, time.time())
    if not wanted.adopt:
        return Foreign(path, taken, seen.st_size)
    try:
        return Foreign(path, taken, seen.st_size, contents=_acceptable(wanted, path))
    except Failure as refusal:
        return Foreign(path, taken, seen.st_size, refused=refusal.what)
    except OSError as error:
        return Foreign(path, taken, seen.st_size, refused=f"{path} cannot be read: {error.strerror}.")


def _acceptable(wanted: Wanted, path: str) -> Contents:
    if os.path.islink(path) or not os.path.isfile(path):
        raise Failure(f"{path} is not a file.")
    beside = [path + suffix for suffix in sqlite.COMPANIONS if os.path.exists(path + suffix)]
    if beside:
        raise Failure(f"{path} has {', '.join(beside)} beside it: it is not whole without them, and somebody may be using it.")
    users = sqlite.users_of(path)
    if users:
        raise Failure(f"{path} is in use by {', '.join(users)}.")
    deadline = Deadline(wanted.timeout)
    contents = sqlite.verify(path, deadline)
    with sqlite.opened(wanted.path, sqlite.looking_at(wanted.path), deadline) as connection:
        known = set(sqlite.rows_of(connection))
    if not known & set(contents.rows):
        raise Failure(f"{path} has none of the tables that {wanted.path} has.")
    return contents


def _take_over(wanted: Wanted, observed: Observed, one: Foreign, planned: Backup) -> None:
    deadline = Deadline(wanted.timeout)
    backups.require_room(wanted.directory, one.size, f"taking over {one.path}")
    partial = backups.partial_path(wanted.directory, planned.name)
    try:
        # Only what was verified is taken over.
        contents = t.cast(Contents, one.contents)
        if sqlite.write_new(partial, sqlite.blocks_of(one.path), deadline) != contents.sha256:
            raise Failure(f"{one.path} has changed since it was verified.", fix="Somebody is using it. Nothing of it was removed.")
        _publish(wanted, planned.taken, partial, contents, "none", {"adopted": one.path, "doubt": sqlite.doubt(contents)}, deadline)
    except BaseException:
        backups.discard(partial)
        raise
    observed.adopted.append(planned.name)


def _remove_foreign(one: Foreign) -> None:
    os.unlink(one.path)
    sync_directory(os.path.dirname(one.path))
