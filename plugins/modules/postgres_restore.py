#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup becomes the PostgreSQL database again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_restore
short_description: Restore a PostgreSQL database from a verified backup, or prove that it could be
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Verifies the backup first. Its SHA-256 has to be that of its record, and C(pg_restore --list) has to read it. A O(source_file) without a record is read to
    its end.
  - With O(method=swap) it is restored into a new database with the owner, encoding, privileges and settings of the old one, and compared with the record,
    relation by relation and by counted rows. Then sessions are ended and both databases renamed in one transaction. The old one is kept as
    C(NAME_replaced_TIME), and whenever this is killed, the name has the old database or the new one. What a killed run has left is removed by the next.
  - With O(method=in_place) a verified backup of what is there is made first. Then C(pg_restore --clean --if-exists --single-transaction) restores all of it or
    nothing. Relations that the backup does not have stay, and are reported.
  - With O(drill=true) the backup is restored into a scratch database, compared, and the scratch database is dropped.
  - Creating databases takes a role that may. Where the server is on the same host, this connects over its Unix socket as the account O(maintenance_user),
    and no password is needed. Anywhere else it connects as the role of the URL, which needs C(CREATEDB) and has to be a member of the owner.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  backups:
    description: Directory of the backups.
    type: path
    required: true
  name:
    description: Which backup. The newest unless set.
    type: str
    default: ""
  source_file:
    description: Restore this dump, a file in the custom format or a directory, instead of one of the O(backups).
    type: path
  method:
    description: V(swap) restores beside and renames. V(in_place) restores over what is there.
    type: str
    choices: [swap, in_place]
    default: swap
  drill:
    description: Restore into a scratch database, compare with the record, drop it, and change nothing.
    type: bool
    default: false
  stop_units:
    description:
      - Units that use the database. They are stopped before it is replaced and started afterwards, also when that fails.
      - With O(method=swap) that is only while it is renamed.
    type: list
    elements: str
    default: []
  maintenance_user:
    description: The account as which to connect to a server on the same host. Empty connects as the role of the URL.
    type: str
    default: postgres
  jobs:
    description: How many workers restore at the same time. O(method=in_place) has one.
    type: int
    default: 1
  timeout:
    description: Seconds that C(pg_restore) may take.
    type: float
    default: 3600
  count_rows:
    description: Seconds that counting rows for the comparison may take.
    type: float
    default: 600
requirements:
  - psycopg2 in the tools environment
  - pg_restore of the server's version or a newer one
attributes:
  check_mode:
    description: Can run in check mode; verifies the backup and the privileges, and tells what would be replaced. A drill then restores nothing.
    support: full
  diff_mode:
    description: Shows which database would be replaced, by which backup.
    support: full
seealso:
  - module: bulletproof.deploy.postgres_backup_rotate
"""

EXAMPLES = r"""
- name: Go back to the newest backup
  bulletproof.deploy.postgres_restore:
    environment_files: [/opt/shop/shared/.env]
    backups: /opt/shop/backups
    stop_units: [shop-worker.service]

- name: Prove that the newest backup can be restored
  bulletproof.deploy.postgres_restore:
    environment_files: [/opt/shop/shared/.env]
    backups: /opt/shop/backups
    drill: true
"""

RETURN = r"""
source:
  description: What was restored.
  returned: success
  type: str
  sample: /opt/shop/backups/shop-20251122T044720.123456Z.dump
replaced:
  description: The name that the replaced database has now; empty if there was none.
  returned: success
  type: str
  sample: shop_replaced_20251122t050000000000
saved:
  description: With O(method=in_place), the backup of what was there before.
  returned: success
  type: str
compared:
  description: How many tables and rows were compared with the record, and which tables were not counted. Empty in check mode.
  returned: success
  type: dict
  sample:
    tables: 12
    rows: 4021
    uncounted: []
additional:
  description: Relations that are in the database and not in the backup.
  returned: success
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

import time
import typing as t
from dataclasses import asdict, dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, postgres_backup, postgres_restore, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres_restore import Restore, Restored, Source
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass
class Observed:
    database: url.Postgres
    source: Source
    databases: t.List[str]
    now: float
    result: Restored


def restore_of(options: Options) -> Restore:
    names = ("method", "jobs", "timeout", "count_rows", "stop_units")
    return Restore(account=options["maintenance_user"], **{name: options[name] for name in names})


def read(options: Options) -> Observed:
    database = postgres_backup.database_of(options)
    source = postgres_restore.choose(options["backups"], database.name, options["name"], options["source_file"] or "")
    databases = postgres_restore.look(database, options["backups"], source, restore_of(options), options["drill"])
    method = "drill" if options["drill"] else options["method"]
    return Observed(database, source, databases, time.time(), Restored(source.path, database.name, method))


def plan(options: Options, observed: Observed) -> list[Change]:
    name, how = observed.database.name, restore_of(options)
    there = name if name in observed.databases else None

    def act() -> None:
        observed.result = postgres_restore.restore(observed.database, options["backups"], observed.source, how, observed.now, verified=True)

    if options["drill"]:
        return []
    left = postgres_restore.leftovers(name, observed.databases) if options["method"] == "swap" else []
    changes = [Change(one, "left by a restore that was killed", None, lambda: None) for one in left]
    changes.append(Change(name, "the database that is there" if there else None, observed.source.path, act))
    if there and options["method"] == "swap":
        observed.result.replaced = postgres_restore.aside_name(name, "replaced", observed.now)
        changes.append(Change(observed.result.replaced, None, "the database that was there", lambda: None))
    return changes


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **url.SPEC,
            "backups": {"type": "path", "required": True},
            "name": {"type": "str", "default": ""},
            "source_file": {"type": "path"},
            "method": {"type": "str", "choices": ["swap", "in_place"], "default": "swap"},
            "drill": {"type": "bool", "default": False},
            "stop_units": {"type": "list", "elements": "str", "default": []},
            "maintenance_user": {"type": "str", "default": "postgres"},
            "jobs": {"type": "int", "default": 1},
            "timeout": {"type": "float", "default": 3600},
            "count_rows": {"type": "float", "default": 600},
        },
        mutually_exclusive=[("name", "source_file")],
        supports_check_mode=True,
    )
    options = module.params

    def report(_options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        # Not a change: what it makes, it drops again.
        if options["drill"] and not module.check_mode:
            observed.result = postgres_restore.drill(
                observed.database, options["backups"], observed.source, restore_of(options), observed.now, verified=True
            )
        return asdict(observed.result)

    # A drill only looks at the backups and may take long: no deploy should wait for it.
    guard = None if options["drill"] else backups.alone(options["backups"], options["timeout"])
    _runner.run(module, read, plan, report, guard=guard)


if __name__ == "__main__":
    main()
