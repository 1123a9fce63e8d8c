#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verified copies of backups in object storage, and the way back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_copy
short_description: Keep verified copies of backups in S3-compatible storage, and bring them back
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Copies the verified backups of a database from their directory to a bucket (Cloudflare R2, or any S3-compatible storage), proves that they are
    there, and removes the copies that no rule keeps. Nothing is removed before every newer copy has been proven.
  - A backup is hashed before it is sent and while it is sent. Every request carries the MD5 of its content, so that the storage refuses damaged bytes.
    What it then says it has (its ETag) must be the MD5 of what was sent, of a multipart upload the MD5 of the parts' MD5s.
    Where its ETag is something else, the object is read back, and its SHA-256 compared.
  - A copy has a record that is written last. Data without a record is no copy. What a copy that was killed has left is removed the next
    time (data without a record, uploads that were not completed), but nothing whose name is not that of a backup of this database below O(prefix).
  - A copy that is there and is what was proven is left alone. One that is damaged is sent again. Where its backup is not on the host any
    more, the module fails and says so, after it has done the rest.
  - With O(fetch) it brings one copy back into the directory of backups, compared with its record, and does nothing else.
  - A prefix belongs to one host. A second one that copies a database of the same name would remove the first one's unfinished uploads.
options:
  database:
    description: The name of the database, as its backups have it. Taken from the URL unless given.
    type: str
  prefix:
    description: What the copies' keys begin with, a folder.
    type: str
    default: backups
  part_size:
    description: Above how many MiB a file is sent in parts, and how large these are, from 5 to 1024. One part is held in memory.
    type: int
    default: 64
  read_back:
    description:
      - Read every copy back and compare its SHA-256, instead of comparing what the storage says of it.
      - Finds bytes that have changed in the storage, for as much traffic as there are copies.
    type: bool
    default: false
  fetch:
    description: Bring back the copy of this name, or the V(newest) sound one, and do nothing else.
    type: str
extends_documentation_fragment:
  - bulletproof.deploy.backups
  - bulletproof.deploy.database
  - bulletproof.deploy.object_store
attributes:
  check_mode:
    description: Reads the bucket, and shows what would be sent, removed or brought back.
    support: full
  diff_mode:
    description: Shows every copy that comes or goes, and why a damaged one is sent again.
    support: full
"""

EXAMPLES = r"""
- name: Copy the app's backups to R2, and keep more of them there than here
  bulletproof.deploy.backup_copy:
    backups: /opt/shop/backups
    environment_files: [/opt/shop/shared/.env]
    prefix: shop/backups
    keep_daily: 14
    keep_monthly: 12

- name: Once a week, read all of them
  bulletproof.deploy.backup_copy:
    backups: /opt/shop/backups
    environment_files: [/opt/shop/shared/.env]
    prefix: shop/backups
    keep_daily: 14
    keep_monthly: 12
    read_back: true

- name: Bring the newest one back to a new host
  bulletproof.deploy.backup_copy:
    backups: /opt/shop/backups
    environment_files: [/opt/shop/shared/.env]
    prefix: shop/backups
    fetch: newest
"""

RETURN = r"""
bucket:
  description: The bucket and its address.
  returned: success
  type: str
  sample: bucket shop at https://0123456789abcdef.r2.cloudflarestorage.com
copies:
  description: The sound copies, the newest first; in check mode, as they would be.
  returned: success
  type: list
  elements: dict
  sample:
    - name: shop-20261122T044700.123456Z.dump
      taken: "2026-11-22T04:47:00Z"
      size: 1048576
      sha256: 5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592
      objects: 1
sent:
  description: Names of the backups that were copied.
  returned: success
  type: list
  elements: str
removed:
  description: Names of the copies that no rule keeps any more.
  returned: success
  type: list
  elements: str
leftovers:
  description: Keys of what killed copies had left, and which was removed.
  returned: success
  type: list
  elements: str
fetched:
  description: The path of the backup that O(fetch) means, whether it was brought back now or was here.
  returned: success
  type: str
  sample: /opt/shop/backups/shop-20261122T044700.123456Z.dump
cause:
  description: What kept the storage from answering, for a program to compare.
  returned: when the storage refused
  type: str
  sample: wrong_secret
"""

import contextlib
import time
import typing as t
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _object_store, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, copies, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass
class Observed:
    """The two sides, and (in ``fetch``) what is here of the copy that is wanted."""

    store: _object_store.Store
    prefix: str
    database: str
    local: t.List[backups.Backup]
    there: copies.There
    wanted: t.Optional[copies.Copy]
    here: t.Optional[str]
    now: float


def database_name(options: Options) -> str:
    return options["database"] or url.database_of(options).name


def read(options: Options) -> Observed:
    location = _object_store.location_of(options)
    prefix, database = copies.prefix_of(options["prefix"]), database_name(options)
    if not 5 <= options["part_size"] <= 1024:
        raise Failure(f"part_size: found {options['part_size']}; allowed: 5 to 1024 (MiB).")
    backups.policy_of(options)
    store = _object_store.Store(location)
    there = copies.read(store, prefix, database, options["read_back"])
    local = backups.backups_of(options["backups"], database)
    wanted, here = None, None
    if options["fetch"]:
        wanted = copies.choose(options["fetch"], there, f"{location.shown}, prefix {prefix or 'none'}, database {database}")
        found = backups.load(options["backups"], wanted.name)
        here = backups.problem(options["backups"], found) if found else None
        if found and not here and found.sha256 != wanted.backup.sha256:
            here = "it is another backup of the same name"
    return Observed(store, prefix, database, local, there, wanted, here, time.time())


def what_to_do(options: Options, observed: Observed) -> copies.Plan:
    return copies.plan(observed.local, observed.there, backups.policy_of(options), observed.now)


def plan(options: Options, observed: Observed) -> t.List[Change]:
    if observed.wanted is not None:
        return fetching(options, observed, observed.wanted)
    store, prefix = observed.store, observed.prefix
    todo = what_to_do(options, observed)

    def send(backup: backups.Backup) -> t.Callable[[], object]:
        return lambda: copies.send(store, prefix, options["backups"], backup, options["part_size"] * _object_store.MIB)

    def remove(copy: copies.Copy) -> t.Callable[[], object]:
        return lambda: copies.remove(store, prefix, copy)

    def abort(upload: _object_store.Upload) -> t.Callable[[], object]:
        return lambda: store.abort(upload)

    def delete(key: str) -> t.Callable[[], object]:
        return lambda: store.delete(key)

    return [
        *(Change(upload.key, "upload that was not completed", None, abort(upload)) for upload in todo.uploads),
        *(
            Change(prefix + backup.name, f"damaged: {why}" if why else None, f"copy of {backup.size} bytes", send(backup))
            for backup, why in todo.send
        ),
        *(Change(key, "data without a record", None, delete(key)) for key in todo.strays),
        *(Change(prefix + copy.name, f"copy of {copy.backup.size} bytes", None, remove(copy)) for copy in todo.leave),
    ]


def fetching(options: Options, observed: Observed, copy: copies.Copy) -> t.List[Change]:
    if observed.here == "":
        return []
    ownership = backups.ownership_of(options)
    path = copy.backup.path(options["backups"])
    before = None if observed.here is None else f"damaged: {observed.here}"
    return [
        Change(
            path,
            before,
            f"backup of {copy.backup.size} bytes, brought back",
            lambda: copies.fetch(observed.store, observed.prefix, options["backups"], copy, ownership),
        )
    ]


def report(options: Options, observed: Observed, check_mode: bool) -> t.Dict[str, t.Any]:
    store, there = observed.store, observed.there
    if observed.wanted is not None:
        sound = [copies.summary(copy.backup, len(copy.objects)) for copy in there.copies if not copy.why]
        fetched = observed.wanted.backup.path(options["backups"])
        return {"bucket": store.location.shown, "copies": sound, "sent": [], "removed": [], "leftovers": [], "fetched": fetched}
    todo = what_to_do(options, observed)
    if todo.lost:
        found = "\n".join(f"- {name}: {why}" for name, why in sorted(todo.lost.items()))
        raise Failure(
            f"{len(todo.lost)} copies of {observed.database} ({store.location.shown}) are damaged, and their backups are not in {options['backups']}:\n{found}",
            fix="What could be copied is copied. Remove these objects and their records from the bucket, when nobody needs them any more.",
            cause="damaged",
        )
    if not observed.local and not check_mode:
        raise Failure(
            f"There is no verified backup of {observed.database} in {options['backups']}, so there is nothing to copy.",
            fix="Make a backup first, or bring a copy back with fetch: newest.",
            cause="backup_absent",
        )
    gone = {copy.name for copy in todo.leave}
    sent = [backup.name for backup, _why in todo.send]
    have = [(copy.backup, len(copy.objects)) for copy in there.copies if not copy.why and copy.name not in {*gone, *sent}]
    have += [(backup, len(copies.files_of(options["backups"], backup))) for backup, _why in todo.send]
    return {
        "bucket": store.location.shown,
        "copies": [copies.summary(*one) for one in sorted(have, key=lambda one: one[0].taken, reverse=True)],
        "sent": sent,
        "removed": sorted(gone),
        "leftovers": sorted([*(upload.key for upload in todo.uploads), *todo.strays]),
        "fetched": "",
    }


@contextlib.contextmanager
def guard(options: Options) -> t.Iterator[None]:
    """Two of these do not work on the same copies; and what is brought back, no backup or rotation gets into the way of."""
    location = _object_store.location_of(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(copies.alone(location.shown, copies.prefix_of(options["prefix"]), database_name(options)))
        if options["fetch"]:
            stack.enter_context(backups.alone(options["backups"], timeout=60))
        yield


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "str"},
            "prefix": {"type": "str", "default": "backups"},
            "part_size": {"type": "int", "default": 64},
            "read_back": {"type": "bool", "default": False},
            "fetch": {"type": "str"},
            **backups.SPEC,
            **url.SPEC,
            **_object_store.SPEC,
        },
        supports_check_mode=True,
    )

    def told(options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        return report(options, observed, module.check_mode)

    _runner.run(module, read, plan, told, guard=guard(module.params))


if __name__ == "__main__":
    main()
