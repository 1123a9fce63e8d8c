# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of verified backups: how one comes into it, and which ones leave it.

A backup is its data (a file, or a directory) under its final name, and a record beside it (``<name>.json``) that says what was verified. The record is
written last: data without a record was never verified, and is no backup. Nothing is rotated away but by a plan that keeps the newest verified one.

Whoever changes such a directory holds it (``alone``), so what is unfinished there belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _accounts, _mutex
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import sync_directory, write_atomically

STAMP = "%Y%m%dT%H%M%S"
PARTIAL = ".partial-"
BLOCK = 1024 * 1024

# Options that every module that makes backups has; documented by the fragment ``backups``. Names and meaning are restic's.
SPEC: t.Dict[str, t.Any] = {
    "backups": {"type": "path", "required": True},
    "keep_last": {"type": "int", "default": 3},
    "keep_within": {"type": "str"},
    "keep_daily": {"type": "int", "default": 0},
    "keep_weekly": {"type": "int", "default": 0},
    "keep_monthly": {"type": "int", "default": 0},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "str", "default": "0600"},
}


@dataclass(frozen=True)
class Backup:
    """A verified backup.

    :param database: Which database it is of, by name.
    :param taken: When the state that it holds was read; seconds since the epoch.
    :param sha256: Of the data; of a directory, of all its files.
    :param facts: What was compared when it was made: rows by table, server version, revision.
    """

    name: str
    database: str
    kind: str
    taken: float
    size: int
    sha256: str
    facts: t.Mapping[str, t.Any] = field(default_factory=dict)

    def path(self, directory: str) -> str:
        return os.path.join(directory, self.name)


@dataclass(frozen=True)
class Policy:
    """What stays. A backup stays when one of the rules keeps it (restic-forget(1)); the newest always does.

    :param within: Seconds; all that are younger stay.
    """

    last: int = 3
    within: float = 0.0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def policy_of(options: t.Mapping[str, t.Any]) -> Policy:
    within = options["keep_within"] or "0h"
    match = re.fullmatch(r"(\d+)([hdw])", within)
    if match is None:
        raise Failure(f"keep_within: found {within!r}; allowed: a number with h, d or w, such as 36h or 14d.")
    counts = {name: options[f"keep_{name}"] for name in ("last", "daily", "weekly", "monthly")}
    for name, value in counts.items():
        if value < 0:
            raise Failure(f"keep_{name}: found {value}; allowed: 0 or more.")
    return Policy(within=int(match[1]) * UNITS[match[2]], **counts)


@dataclass(frozen=True)
class Ownership:
    """Whose a file is, and who may read it. None leaves the account that writes it."""

    uid: t.Optional[int] = None
    gid: t.Optional[int] = None
    mode: int = 0o600

    def give(self, path: str) -> None:
        """Only for what is in a directory that nobody else can change."""
        os.chown(path, -1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid)
        os.chmod(path, self.mode)


def mode_of(text: str) -> int:
    if re.fullmatch(r"0?[0-7]{3}", text) is None:
        raise Failure(f"mode: found {text!r}; allowed: an octal mode such as 0600 or 0640.")
    return int(text, 8)


def ownership_of(options: t.Mapping[str, t.Any]) -> Ownership:
    return Ownership(
        uid=_accounts.uid_of(options["owner"]) if options["owner"] else None,
        gid=_accounts.gid_of(options["group"]) if options["group"] else None,
        mode=mode_of(options["mode"]),
    )


def trusted(directory: str) -> None:
    """Refuse a directory where others can put a link in the way of what root writes, and where they can take backups away."""
    try:
        found = os.stat(directory)
    except FileNotFoundError:
        return
    if os.geteuid() == 0 and (found.st_uid != 0 or found.st_mode & 0o022):
        raise Failure(
            f"The directory of the backups, {directory}, can be changed by others than root: its owner is {found.st_uid},"
            f" its mode {found.st_mode & 0o7777:04o}. Whoever can do that can have root write over other files, or remove backups.",
            fix=f"chown root {directory} && chmod go-w {directory}; give the backups themselves away with owner and group.",
        )


@contextlib.contextmanager
def alone(directory: str, timeout: float, make: bool = True) -> t.Iterator[None]:
    """Hold a directory of backups: one backup, restore or rotation at a time.

    :param make: It is made if it is not there. Who only reads backups would make what a wrong path names.
    """
    if not make and not os.path.isdir(directory):
        raise Failure(f"There is no directory of backups at {directory}.", fix="Correct the path, backups.")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    trusted(directory)
    with _mutex.exclusive(directory, "backups", timeout):
        yield


def require_room(directory: str, needed: int, what: str) -> None:
    """Refuse beforehand what the disk cannot hold."""
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise Failure(
            f"The disk is too full for {what}: {directory} has {free} bytes free, {needed} are needed.",
            fix="Look at df -h, make room or keep fewer backups, and run it again. Nothing was changed.",
        )


def superfluous(backups: t.Sequence[Backup], policy: Policy, now: float) -> t.List[Backup]:
    """Which verified backups of one database no rule keeps, the oldest first."""
    newest_first = sorted(backups, key=lambda backup: (backup.taken, backup.name), reverse=True)
    kept = {backup.name for backup in newest_first[: max(policy.last, 1)]}
    kept |= {backup.name for backup in newest_first if policy.within and backup.taken >= now - policy.within}
    for form, count in (("%Y-%m-%d", policy.daily), ("%G-%V", policy.weekly), ("%Y-%m", policy.monthly)):
        # The newest of each period stands for it.
        periods: t.Dict[str, str] = {}
        for backup in newest_first:
            day = datetime.datetime.fromtimestamp(backup.taken, datetime.timezone.utc)
            periods.setdefault(day.strftime(form), backup.name)
        kept |= set(list(periods.values())[:count])
    return [backup for backup in reversed(newest_first) if backup.name not in kept]


def _stem(database: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", database)


def stamp(moment: float) -> str:
    """``<UTC time>``, with microseconds: two moments never share it."""
    at = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return f"{at.strftime(STAMP)}.{at.microsecond:06d}Z"


def name_for(database: str, taken: float, extension: str) -> str:
    """``<database>-<UTC time>.<extension>``."""
    return f"{_stem(database)}-{stamp(taken)}.{extension}"


def partial_path(directory: str, name: str) -> str:
    """Where the data is written until it has been verified."""
    return os.path.join(directory, PARTIAL + name)


def digest(path: str) -> t.Tuple[str, int]:
    """SHA-256 and size in bytes of a file or of all files of a directory."""
    hashed, size = hashlib.sha256(), 0
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(here, name) for here, _directories, names in os.walk(path) for name in names)
    for one in files:
        with open(one, "rb") as stream:
            if one != path:
                # With its length, so that no name can be taken for the end of the file before it.
                hashed.update(f"{os.path.relpath(one, path)}\0{os.fstat(stream.fileno()).st_size}\0".encode())
            for block in iter(lambda: stream.read(BLOCK), b""):
                hashed.update(block)
                size += len(block)
    return hashed.hexdigest(), size


def publish(
    directory: str,
    name: str,
    database: str,
    kind: str,
    taken: float,
    facts: t.Mapping[str, t.Any],
    verified: t.Optional[t.Tuple[str, int]] = None,
) -> Backup:
    """Make verified data a backup: durable, under its final name, and then its record.

    :param verified: SHA-256 and size, where the caller has them from reading the data already.
    """
    partial = partial_path(directory, name)
    final = os.path.join(directory, name)
    for here, _directories, names in os.walk(partial):
        for one in names:
            _sync(os.path.join(here, one))
        sync_directory(here)
    if os.path.isfile(partial):
        _sync(partial)
    sha256, size = verified or digest(partial)
    backup = Backup(name, database, kind, taken, size, sha256, facts)
    like = os.stat(partial)
    os.rename(partial, final)
    try:
        sync_directory(directory)
        record = json.dumps(asdict(backup), indent=2, sort_keys=True) + "\n"
        write_atomically(f"{final}.json", record, like.st_mode & 0o666, (like.st_uid, like.st_gid))
    except BaseException:
        # On a full disk the record is what does not fit any more, and then the data must not stay.
        discard(final)
        raise
    return backup


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(directory: str, name: str) -> t.Optional[Backup]:
    """The backup of a name, or None where record or data is missing or the record cannot be read."""
    try:
        with open(os.path.join(directory, f"{name}.json"), encoding="utf-8") as stream:
            backup = Backup(**json.load(stream))
    except (OSError, ValueError, TypeError):
        return None
    return backup if backup.name == name and os.path.exists(os.path.join(directory, name)) else None


def backups_of(directory: str, database: str) -> t.List[Backup]:
    """The verified backups of a database, the newest first."""
    try:
        names = [name[: -len(".json")] for name in os.listdir(directory) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    found = [backup for backup in (load(directory, name) for name in names) if backup is not None and backup.database == database]
    return sorted(found, key=lambda backup: backup.taken, reverse=True)


def problem(directory: str, backup: Backup) -> str:
    """Why the data is not any more what was verified; empty when it is."""
    try:
        sha256, size = digest(backup.path(directory))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if (sha256, size) != (backup.sha256, backup.size):
        return f"its content has changed since it was verified: {size} bytes of SHA-256 {sha256}, not {backup.size} of {backup.sha256}"
    return ""


def remove(directory: str, backup: Backup) -> None:
    """The record goes first: from then on the rest is no backup, whenever this ends."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{backup.path(directory)}.json")
    sync_directory(directory)
    discard(backup.path(directory))


def discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def belongs_to(database: str) -> t.Pattern[str]:
    """Names that belong to backups of a database: data, records, and what either was written as."""
    return re.compile(rf"(?:\.|{re.escape(PARTIAL)})?{re.escape(_stem(database))}-\d{{8}}T\d{{6}}\.\d{{6}}Z\..+")


def _names(directory: str, database: str) -> t.List[str]:
    ours = belongs_to(database)
    try:
        return sorted(name for name in os.listdir(directory) if ours.fullmatch(name))
    except FileNotFoundError:
        return []


def unfinished(directory: str, database: str) -> t.List[str]:
    """Names of what a backup or a rotation that was cut short has left: what was never verified, or has lost its record.

    Data whose record is there and cannot be read is not among them: it was verified once, and a person has to look (``unreadable``).
    """
    names = _names(directory, database)
    return [name for name in names if name.startswith(".") or not (name.endswith(".json") or f"{name}.json" in names)]


def unreadable(directory: str, database: str) -> t.List[str]:
    """Names of data whose record is there and cannot be read, and of which nobody can say any more whether it is good."""
    names = _names(directory, database)
    return [name for name in names if not name.startswith(".") and f"{name}.json" in names and load(directory, name) is None]
