#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verified backup of a PostgreSQL database, and the rotation of older ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_backup_rotate
short_description: Make a verified backup of a PostgreSQL database, then rotate
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Dumps the database with C(pg_dump) of the server's version, beside its final name and readable for nobody else. It becomes a backup only when
    C(pg_dump) has ended well, C(pg_restore --list) can read it, and everything that the server lists in the same snapshot is in it.
  - Rows are counted in that snapshot while the dump is written, and recorded, so that a restore can be compared.
  - Older backups are removed only after that, by the rules O(keep_last), O(keep_within), O(keep_daily), O(keep_weekly), O(keep_monthly). A backup that fails
    removes what it has begun and nothing else.
  - Refuses when the disk surely cannot hold it. Free must be 16 MiB and what the newest backup needed, but no more than the tables have now. Without an older
    backup it is a tenth of the tables.
  - The password reaches C(pg_dump) through its environment, never through a command line.
extends_documentation_fragment:
  - bulletproof.deploy.database
  - bulletproof.deploy.backups
options:
  format:
    description: V(custom) is one file. V(directory) is a file for each table, written by O(jobs) workers at the same time, for large databases.
    type: str
    choices: [custom, directory]
    default: custom
  jobs:
    description: How many workers write a backup of the format V(directory).
    type: int
    default: 1
  compress:
    description:
      - As C(pg_dump --compress). V(0) to V(9), or from PostgreSQL 16 on a method and a level, such as C(zstd:3).
      - Left to C(pg_dump) unless set.
    type: str
  exclude_table_data:
    description: Patterns of tables whose rows are left out, as for C(pg_dump --exclude-table-data).
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that C(pg_dump) may take, and before that another run that works on O(backups).
    type: float
    default: 3600
  count_rows:
    description:
      - Seconds that counting rows may take. Small tables are counted first; those for which the time does not suffice are compared only by their being there.
      - V(0) counts none.
    type: float
    default: 60
  maintenance_user:
    description:
      - Dump as this account of the host over the server's Unix socket, instead of as the role of the URL, such as V(postgres).
      - Needed where the role of the URL does not see all rows, as with C(FORCE ROW LEVEL SECURITY). Without it such a dump fails.
    type: str
    default: ""
  foreign:
    description: Names of files in O(backups) that are none of its backups, as shell patterns. They are reported.
    type: list
    elements: str
    default: ["*.sql", "*.sql.gz", "*.dump", "*.backup", "*.pgdump"]
  adopt:
    description:
      - Make foreign files that are dumps of this database in the custom format, and that can be read to their end, into backups. From then on they are rotated.
      - Others stay as they are, with the reason in RV(foreign).
    type: bool
    default: false
requirements:
  - psycopg2 in the tools environment
  - pg_dump and pg_restore of the server's version or a newer one
attributes:
  check_mode:
    description: Can run in check mode; connects, looks at the disk, and tells what would be made and removed.
    support: full
  diff_mode:
    description: Shows which backups would come and go.
    support: full
seealso:
  - module: bulletproof.deploy.postgres_restore
"""

EXAMPLES = r"""
- name: Back up, and keep the newest five and one of each of the last fourteen days
  bulletproof.deploy.postgres_backup_rotate:
    environment_files: [/opt/shop/shared/.env]
    backups: /opt/shop/backups
    keep_last: 5
    keep_daily: 14

- name: A large database, with four workers, without the rows of its sessions
  bulletproof.deploy.postgres_backup_rotate:
    environment_files: [/opt/shop/shared/.env]
    backups: /opt/shop/backups
    format: directory
    jobs: 4
    exclude_table_data: [public.sessions]
"""

RETURN = r"""
backup:
  description: The new backup and what was verified. In check mode only its name, database and format.
  returned: success
  type: dict
  sample:
    name: shop-20251122T044720.123456Z.dump
    database: shop
    sha256: 6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b
    size: 10240
path:
  description: Where it is.
  returned: success
  type: str
  sample: /opt/shop/backups/shop-20251122T044720.123456Z.dump
removed:
  description: Names of what was removed, older backups and the rest of a run that was killed.
  returned: success
  type: list
  elements: str
adopted:
  description: By the name of a foreign file, the name of the backup that it became.
  returned: success
  type: dict
foreign:
  description: The files in the directory that match O(foreign) and stay, each with its size and why it is not adopted.
  returned: success
  type: list
  elements: dict
  sample:
    - name: shop_old.sql
      size: 1234
      why: it is not a dump in the custom format
"""

import fnmatch
import os
import time
import typing as t
from dataclasses import asdict, dataclass, field
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, postgres, postgres_backup, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres_backup import Dump
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass
class Observed:
    database: url.Postgres
    taken: float
    existing: t.List[Backup]
    unfinished: t.List[str]
    foreign: t.List[t.Dict[str, t.Any]]
    # By name, the backup that a foreign file becomes.
    adoptable: t.Dict[str, Backup] = field(default_factory=dict)
    backup: t.Dict[str, t.Any] = field(default_factory=dict)
    removed: t.List[str] = field(default_factory=list)


def dump_of(options: Options) -> Dump:
    names = ("format", "jobs", "compress", "exclude_table_data", "timeout", "count_rows")
    return Dump(account=options["maintenance_user"], **{name: options[name] for name in names})


def read(options: Options) -> Observed:
    database = postgres_backup.database_of(options)
    directory = options["backups"]
    backups.policy_of(options)
    backups.ownership_of(options)
    connection = postgres.connect(database, account=options["maintenance_user"])
    try:
        version = postgres.major(connection)
        existing = backups.backups_of(directory, database.name)
        postgres_backup.check(dump_of(options), version)
        postgres_backup.check_disk(directory, postgres_backup.tables_size(connection, options["timeout"]), next(iter(existing), None))
    finally:
        connection.close()
    observed = Observed(database, time.time(), existing, backups.unfinished(directory, database.name), [])
    unreadable = backups.unreadable(directory, database.name)
    for name in [*unreadable, *strangers(options, {*observed.unfinished, *unreadable})]:
        path = os.path.join(directory, name)
        if name in unreadable:
            why = "it is a backup whose record cannot be read"
        elif not options["adopt"]:
            why = "adopt is not set"
        else:
            why = postgres_backup.adoptable(path, database.name, version, options["timeout"])
        if why:
            observed.foreign.append({"name": name, "size": os.lstat(path).st_size, "why": why})
        else:
            observed.adoptable[name] = postgres_backup.adopted(path, database.name)
    return observed


def strangers(options: Options, ours: t.AbstractSet[str]) -> t.List[str]:
    directory = options["backups"]
    names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    return [
        name
        for name in names
        if any(fnmatch.fnmatch(name, pattern) for pattern in options["foreign"])
        and not name.startswith(backups.PARTIAL)
        and name not in ours
        and os.path.isfile(os.path.join(directory, name))
        and not os.path.islink(os.path.join(directory, name))
        and backups.load(directory, name) is None
    ]


def plan(options: Options, observed: Observed) -> list[Change]:
    directory, database = options["backups"], observed.database
    name = backups.name_for(database.name, observed.taken, postgres_backup.EXTENSIONS[options["format"]])
    new = Backup(name, database.name, "postgresql", observed.taken, 0, "")
    observed.backup = {"name": name, "database": database.name, "format": options["format"]}

    def make() -> None:
        made = postgres_backup.make(database, directory, dump_of(options), backups.ownership_of(options), name, observed.taken)
        observed.backup = asdict(made)

    changes = [
        Change(os.path.join(directory, left), "unfinished", None, partial(backups.discard, os.path.join(directory, left)))
        for left in observed.unfinished
    ]
    changes.append(Change(os.path.join(directory, name), None, f"a verified backup of {database.name}", make))
    for found, backup in observed.adoptable.items():
        path = os.path.join(directory, found)
        after = f"the backup {backup.name}"
        changes.append(
            Change(path, "foreign", after, partial(postgres_backup.adopt, path, directory, database.name, backups.ownership_of(options)))
        )
    every = [*observed.existing, *observed.adoptable.values(), new]
    leaving = backups.superfluous(every, backups.policy_of(options), observed.taken)
    for one in leaving:
        changes.append(Change(one.path(directory), "a backup that no rule keeps", None, partial(backups.remove, directory, one)))
    observed.removed = [*observed.unfinished, *(one.name for one in leaving)]
    return changes


def report(options: Options, observed: Observed) -> t.Dict[str, t.Any]:
    return {
        "backup": observed.backup,
        "path": os.path.join(options["backups"], observed.backup["name"]),
        "removed": observed.removed,
        "adopted": {name: backup.name for name, backup in observed.adoptable.items()},
        "foreign": observed.foreign,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **url.SPEC,
            **backups.SPEC,
            "format": {"type": "str", "choices": list(postgres_backup.EXTENSIONS), "default": "custom"},
            "jobs": {"type": "int", "default": 1},
            "compress": {"type": "str"},
            "exclude_table_data": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 3600},
            "count_rows": {"type": "float", "default": 60},
            "maintenance_user": {"type": "str", "default": ""},
            "foreign": {"type": "list", "elements": "str", "default": ["*.sql", "*.sql.gz", "*.dump", "*.backup", "*.pgdump"]},
            "adopt": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    _runner.run(module, read, plan, report, guard=backups.alone(module.params["backups"], module.params["timeout"]))


if __name__ == "__main__":
    main()
