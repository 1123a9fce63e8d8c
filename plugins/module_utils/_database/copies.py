# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of verified backups in a bucket: which are missing, which are damaged, which leave.

A copy is as a backup is in its directory: the data under its name (an object, or one for each file of a directory), and a record beside it
(``<name>.json``) that is written last. The record is the backup's own, and says in ``facts.copy`` which objects were proven to be there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import typing as t
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _mutex
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Ownership, Policy
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import Store, Stored, Upload

RECORD = ".json"
LOCKS = "/run/lock"
# Of what the storage says about an object, this is reason to call a copy damaged; all else may be better the next time.
GONE_BAD = ("server", "broken", "damaged", "object_absent")


@dataclass(frozen=True)
class Copy:
    """A copy that has a record.

    :param objects: By key below the prefix: size, SHA-256 and ETag as they were proven.
    :param why: Why it is not any more what was proven; empty when it is.
    """

    backup: Backup
    objects: t.Mapping[str, t.Mapping[str, t.Any]]
    why: str = ""

    @property
    def name(self) -> str:
        return self.backup.name


@dataclass(frozen=True)
class There:
    """What the bucket has of one database below one prefix.

    :param unreadable: Names whose record is there and says nothing, with the reason.
    :param strays: Keys of data that has no record.
    """

    copies: t.Tuple[Copy, ...] = ()
    unreadable: t.Mapping[str, str] = field(default_factory=dict)
    strays: t.Tuple[str, ...] = ()
    uploads: t.Tuple[Upload, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to do, in this order.

    :param send: Backups whose copy is missing or damaged (then why), the newest first.
    :param strays: Keys of data without a record that no sending will replace.
    :param leave: Copies that no rule keeps.
    :param lost: Names of copies that are damaged and whose backup is not here any more, with the reason.
    """

    send: t.Tuple[t.Tuple[Backup, str], ...] = ()
    uploads: t.Tuple[Upload, ...] = ()
    strays: t.Tuple[str, ...] = ()
    leave: t.Tuple[Copy, ...] = ()
    lost: t.Mapping[str, str] = field(default_factory=dict)


def prefix_of(text: str) -> str:
    """A prefix as the keys begin with it: a folder, or nothing."""
    parts = text.strip("/").split("/") if text.strip("/") else []
    if any(part in ("", ".", "..") for part in parts):
        raise Failure(f"prefix: found {text!r}; allowed: names with / between them, such as shop/backups.")
    return "".join(f"{part}/" for part in parts)


def pattern_of(database: str) -> t.Pattern[str]:
    """What the names of a database's backups look like; nothing else in a bucket is ours."""
    stem = backups.name_for(database, 0, "").rsplit("-1970", 1)[0]
    return re.compile(re.escape(stem) + r"-\d{8}T\d{6}\.\d{6}Z\.[^/]+")


def read(store: Store, prefix: str, database: str, read_back: bool = False) -> There:
    """Look into the bucket: one listing, and the record of each copy.

    :param read_back: Read every copy and hash it, instead of comparing what the storage says of it.
    """
    ours = pattern_of(database)
    listed: t.Dict[str, Stored] = {}
    for one in store.list(prefix):
        relative = one.key[len(prefix) :]
        if ours.fullmatch(relative.split("/")[0]):
            listed[relative] = one
    uploads = tuple(one for one in store.uploads(prefix) if ours.fullmatch(one.key[len(prefix) :].split("/")[0]))
    names = sorted(key[: -len(RECORD)] for key in listed if key.endswith(RECORD) and "/" not in key)
    copies: t.List[Copy] = []
    unreadable: t.Dict[str, str] = {}
    foreign: t.Set[str] = set()
    for name in names:
        try:
            copy = parse(name, store.get(prefix + name + RECORD))
        except ValueError as error:
            unreadable[name] = f"its record {prefix}{name}{RECORD} {error}"
            continue
        if copy.backup.database != database:
            foreign.add(name)
            continue
        why = difference(copy, listed)
        if read_back and not why:
            why = unlike(store, prefix, copy)
        copies.append(replace(copy, why=why))
    recorded = {*names, *foreign}
    strays = tuple(sorted(one.key for key, one in listed.items() if not key.endswith(RECORD) and key.split("/")[0] not in recorded))
    return There(tuple(sorted(copies, key=lambda copy: copy.backup.taken, reverse=True)), unreadable, strays, uploads)


def parse(name: str, record: bytes) -> Copy:
    """A copy from its record; ValueError says what is wrong with it. What comes from a bucket is not trusted: its keys become paths."""
    try:
        backup = Backup(**json.loads(record))
        objects = {
            str(key): {"size": int(one["size"]), "sha256": str(one["sha256"]), "etag": str(one["etag"])}
            for key, one in backup.facts["copy"]["objects"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("says nothing of what was proven") from None
    if backup.name != name:
        raise ValueError("is of another backup")
    if not objects or not all(belongs(key, name) for key in objects) or (name in objects and len(objects) > 1):
        raise ValueError("names objects that are not its own")
    return Copy(replace(backup, facts={key: value for key, value in backup.facts.items() if key != "copy"}), objects)


def belongs(key: str, name: str) -> bool:
    """Whether a key is the data of a backup, or a file of it."""
    return key == name or (key.startswith(f"{name}/") and os.path.normpath(key) == key and "\0" not in key)


def record_of(copy: Copy) -> bytes:
    backup = replace(copy.backup, facts={**copy.backup.facts, "copy": {"objects": copy.objects}})
    return (json.dumps(asdict(backup), indent=2, sort_keys=True) + "\n").encode()


def difference(copy: Copy, listed: t.Mapping[str, Stored]) -> str:
    """Why the objects are not those that were proven, as far as the storage's listing shows; empty when they are."""
    for key, proven in copy.objects.items():
        found = listed.get(key)
        if found is None:
            return f"{key} is not there"
        if found.size != proven["size"]:
            return f"{key} has {found.size} bytes, not {proven['size']}"
        if found.etag != proven["etag"]:
            return f"{key} has the ETag {found.etag}, not {proven['etag']}"
    return ""


def unlike(store: Store, prefix: str, copy: Copy) -> str:
    """Why the bytes that the storage gives back are not those that were proven; empty when they are."""
    for key, proven in copy.objects.items():
        try:
            sha256, size = store.digest(prefix + key)
        except Failure as failure:
            if failure.facts.get("cause") not in GONE_BAD:
                raise
            return failure.what
        if (sha256, size) != (proven["sha256"], proven["size"]):
            return f"{key} gives back {size} bytes of SHA-256 {sha256}, not {proven['size']} of {proven['sha256']}"
    return ""


def plan(local: t.Sequence[Backup], there: There, policy: Policy, now: float) -> Plan:
    """What to send and what to remove, so that the bucket has the verified backups that the policy keeps. Pure.

    The policy counts what is sound there and what is about to be sent; it is applied after the sending, so nothing leaves before a newer one is proven.
    """
    here = {backup.name: backup for backup in local}
    sound = {copy.name: copy for copy in there.copies if not wrong(copy, here)}
    union = {**{name: copy.backup for name, copy in sound.items()}, **here}
    superfluous = {backup.name for backup in backups.superfluous(list(union.values()), policy, now)}
    known = {copy.name: copy for copy in there.copies}

    def why(backup: Backup) -> str:
        return wrong(known[backup.name], here) if backup.name in known else there.unreadable.get(backup.name, "")

    newest_first = sorted(local, key=lambda backup: backup.taken, reverse=True)
    send = tuple((backup, why(backup)) for backup in newest_first if backup.name not in sound and backup.name not in superfluous)
    leave, lost = [], {name: reason for name, reason in there.unreadable.items() if name not in here}
    for copy in there.copies:
        if copy.name in union:
            if copy.name in superfluous:
                leave.append(copy)
        # A damaged copy takes no sound one's place, and leaves when it would have left anyway.
        elif copy.backup in backups.superfluous([*union.values(), copy.backup], policy, now) and union:
            leave.append(copy)
        else:
            lost[copy.name] = copy.why
    sending = {backup.name for backup, _why in send}
    strays = tuple(key for key in there.strays if not any(f"/{name}" in f"/{key}" for name in sending))
    return Plan(send, there.uploads, strays, tuple(sorted(leave, key=lambda copy: copy.backup.taken)), lost)


def wrong(copy: Copy, here: t.Mapping[str, Backup]) -> str:
    """Why a copy is not a sound one of the backup of its name; empty when it is."""
    backup = here.get(copy.name)
    if not copy.why and backup is not None and (backup.sha256, backup.size) != (copy.backup.sha256, copy.backup.size):
        return "it is of another backup of the same name"
    return copy.why


def send(store: Store, prefix: str, directory: str, backup: Backup, part_size: int) -> Copy:
    """Copy a backup: its data, proven to be there, and then its record."""
    problem = backups.problem(directory, backup)
    if problem:
        raise Failure(
            f"The backup {backup.path(directory)} is not copied: {problem}.",
            fix="Make a new backup; look at this one's disk, then remove it.",
            cause="backup_damaged",
        )
    # From now on what is there is no copy, until it is one again.
    store.delete(prefix + backup.name + RECORD)
    objects = {}
    for key, path in files_of(directory, backup):
        sent = store.put_file(prefix + key, path, backup.sha256 if key == backup.name else "", part_size)
        objects[key] = {"size": sent.size, "sha256": sent.sha256, "etag": sent.etag, "proven": sent.proven}
    if not objects:
        raise Failure(f"The backup {backup.path(directory)} has no file.", fix="Make a new backup.")
    copy = Copy(backup, objects)
    found = {one.key[len(prefix) :]: one for one in store.list(prefix + backup.name)}
    store.delete(*(prefix + key for key in found if belongs(key, backup.name) and key not in objects))
    why = difference(copy, found)
    if why:
        raise Failure(f"The copy of {backup.name} ({store.location.shown}) is not sound: {why}.", fix="Run it again.", cause="damaged")
    store.put(prefix + backup.name + RECORD, record_of(copy))
    return copy


def files_of(directory: str, backup: Backup) -> t.List[t.Tuple[str, str]]:
    """(key below the prefix, path) of every file of a backup."""
    path = backup.path(directory)
    if not os.path.isdir(path):
        return [(backup.name, path)]
    found = sorted(os.path.join(here, name) for here, _directories, names in os.walk(path) for name in names)
    return [(os.path.relpath(one, directory), one) for one in found]


def remove(store: Store, prefix: str, copy: Copy) -> None:
    """The record goes first: from then on the rest is no copy, whenever this ends."""
    store.delete(prefix + copy.name + RECORD)
    store.delete(*(prefix + key for key in copy.objects))


def choose(wanted: str, there: There, where: str) -> Copy:
    """The copy to bring back: by its name, or the newest sound one."""
    sound = [copy for copy in there.copies if not copy.why]
    names = ", ".join(copy.name for copy in sound) or "none"
    if wanted == "newest":
        if sound:
            return sound[0]
        raise Failure(
            f"There is no sound copy of this database ({where}).", fix="Compare bucket, prefix and database.", cause="copy_absent"
        )
    for copy in there.copies:
        if copy.name == wanted and copy.why:
            raise Failure(f"The copy {wanted} ({where}) is damaged: {copy.why}.", fix=f"Take another one; sound: {names}.", cause="damaged")
        if copy.name == wanted:
            return copy
    raise Failure(f"There is no copy {wanted} ({where}).", fix=f"Take one of these: {names}.", cause="copy_absent")


def fetch(store: Store, prefix: str, directory: str, copy: Copy, ownership: Ownership) -> Backup:
    """Bring a copy back as a backup: beside, compared with its record, and only then under its name."""
    backup = copy.backup
    backups.require_room(directory, backup.size, f"the copy {backup.name}")
    partial = backups.partial_path(directory, backup.name)
    backups.discard(partial)
    try:
        for key, proven in sorted(copy.objects.items()):
            path = partial + key[len(backup.name) :]
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            if store.get_file(prefix + key, path) != (proven["sha256"], proven["size"]):
                raise _not_the_same(store, copy, f"{key} is not what was proven")
        verified = backups.digest(partial)
        if verified != (backup.sha256, backup.size):
            raise _not_the_same(store, copy, "together its objects are not the backup")
        give(partial, ownership)
    except BaseException:
        backups.discard(partial)
        raise
    # What is in the way was never verified, or is damaged; by now there is a sound one beside it.
    backups.remove(directory, backup)
    return backups.publish(directory, backup.name, backup.database, backup.kind, backup.taken, backup.facts, verified)


def give(path: str, ownership: Ownership) -> None:
    """Owner and mode of backups for a file, or for a directory and all in it: who may read a file may enter its directory."""
    enter = replace(ownership, mode=ownership.mode | (ownership.mode & 0o444) >> 2)
    for here, _directories, names in os.walk(path):
        for name in names:
            ownership.give(os.path.join(here, name))
        enter.give(here)
    if os.path.isfile(path):
        ownership.give(path)


def _not_the_same(store: Store, copy: Copy, why: str) -> Failure:
    return Failure(
        f"The copy {copy.name} ({store.location.shown}) is damaged: {why}. Nothing was brought back.",
        fix="Take another one; backup_copy with read_back: true finds all that are damaged.",
        cause="damaged",
    )


@contextlib.contextmanager
def alone(store_shown: str, prefix: str, database: str) -> t.Iterator[None]:
    """One process of this host at a time: a second one would take the first one's unfinished uploads for left behind."""
    digest = hashlib.sha256(json.dumps([store_shown, prefix, database]).encode()).hexdigest()[:16]
    with _mutex.exclusive(LOCKS, f"backup-copy-{digest}", timeout=5):
        yield


def summary(backup: Backup, objects: int) -> t.Dict[str, t.Any]:
    """A copy for a module's result."""
    taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(backup.taken))
    return {"name": backup.name, "taken": taken, "size": backup.size, "sha256": backup.sha256, "objects": objects}
