#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verified backup of an SQLite database that is in use, and then rotation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_backup_rotate
short_description: Back up an SQLite database that is in use, verify the backup, then rotate
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Copies a live database in one read transaction with SQLite's backup API. Under WAL, no writer waits for it. With a rollback journal,
    writers wait until the copy is done.
  - The copy becomes a backup only when C(PRAGMA integrity_check) passes and every table has as many rows as in the transaction that was
    copied. Its record, C(<name>.json), is written last. Only then backups that no rule keeps are removed.
  - Refuses beforehand when the disk cannot hold it, and removes what a backup that was killed has left.
  - Backups of another database with the same file name are left alone.
  - One backup, restore or rotation at a time in one directory; the next one waits.
extends_documentation_fragment:
  - bulletproof.deploy.database
  - bulletproof.deploy.backups
options:
  path:
    description: The database's file. Takes precedence over O(url) and O(environment_files).
    type: path
  compress:
    description: V(zstd) needs the program C(zstd), or C(zstandard) in C(tools_requirements). It needs room for both forms while it works.
    type: str
    choices: [none, zstd]
    default: none
  foreign:
    description:
      - What copies by hand and old scripts are called, as patterns of the shell, beside the database and in O(backups). They are reported.
      - C({name}) stands for the database's file name.
    type: list
    elements: str
    default: ["{name}.backup*", "{name}.bak*", "{name}.old*", "{name}.[0-9]*", "{name}-[0-9]*", "{name}_[0-9]*"]
  adopt:
    description:
      - Take over what O(foreign) finds. Each is verified, becomes a backup of the time that its name carries (its modification time
        otherwise), and is rotated like any other; what no rule keeps is removed. Those that are not whole databases are left and reported.
    type: bool
    default: false
  timeout:
    description: Seconds that it may take, and seconds to wait for another backup in the same directory.
    type: int
    default: 1800
attributes:
  check_mode:
    description: Can run in check mode; makes and removes nothing.
    support: full
  diff_mode:
    description: Shows the backup that would be made, and what would be taken over and removed.
    support: full
"""

EXAMPLES = r"""
- name: Back up the app's database
  bulletproof.deploy.sqlite_backup_rotate:
    environment_files: [/opt/shop/shared/.env]
    directory: /opt/shop/shared
    backups: /opt/shop/backups
    keep_last: 3
    keep_daily: 7
    keep_weekly: 4

- name: Back up, and take over what the old script has left
  bulletproof.deploy.sqlite_backup_rotate:
    path: /opt/shop/shared/app_dev.db
    backups: /opt/shop/backups
    foreign: ["app_dev.db.backup.*"]
    adopt: true
    compress: zstd
"""

RETURN = r"""
backup:
  description: The record of the new backup; null in check mode.
  returned: success
  type: dict
  contains:
    name:
      description: Its file name in O(backups).
      type: str
      sample: app.db-20261122T043000.123456Z.db
    database:
      description: The database's file name.
      type: str
    kind:
      description: Always V(sqlite).
      type: str
    taken:
      description: Everything that was committed before this moment is in it; seconds since the epoch.
      type: float
    size:
      description: Bytes.
      type: int
    sha256:
      description: Of the file.
      type: str
    facts:
      description: Rows by table, where it came from, and what else was looked at.
      type: dict
removed:
  description: Names of the backups that were rotated away.
  returned: success
  type: list
  elements: str
discarded:
  description: Names of what a backup that was cut short had left, which is removed.
  returned: success
  type: list
  elements: str
foreign:
  description: What O(foreign) has found, the oldest first, and why it is not taken over.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: Where it is, or was.
      type: str
    taken:
      description: The time that it carries; seconds since the epoch.
      type: float
    size:
      description: Bytes.
      type: int
    refused:
      description: Why it is not taken over; empty when it is, or when O(adopt) is not set.
      type: str
adopted:
  description: Names of the backups that were taken over.
  returned: success
  type: list
  elements: str
unreadable:
  description: Names of backups whose record cannot be read. They are never removed; a person has to look.
  returned: success
  type: list
  elements: str
"""

import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, sqlite_backup
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


def wanted_of(options: Options) -> sqlite_backup.Wanted:
    return sqlite_backup.Wanted(
        path=sqlite.path_of(options),
        directory=options["backups"],
        policy=backups.policy_of(options),
        compress=options["compress"],
        ownership=backups.ownership_of(options),
        foreign=options["foreign"],
        adopt=options["adopt"],
        timeout=options["timeout"],
    )


def read(options: Options) -> sqlite_backup.Observed:
    return sqlite_backup.observe(wanted_of(options))


def plan(options: Options, observed: sqlite_backup.Observed) -> t.List[Change]:
    return sqlite_backup.plan(wanted_of(options), observed)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **sqlite.SPEC,
            **backups.SPEC,
            "compress": {"type": "str", "choices": list(sqlite_backup.COMPRESS), "default": "none"},
            "foreign": {"type": "list", "elements": "str", "default": list(sqlite_backup.FOREIGN)},
            "adopt": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": sqlite_backup.TIMEOUT},
        },
        supports_check_mode=True,
    )

    def report(options: Options, observed: sqlite_backup.Observed) -> t.Dict[str, t.Any]:
        for name in observed.unreadable:
            module.warn(
                f"The record of the backup {name} cannot be read: nobody can tell whether it is good, and it is never removed. Look at it."
            )
        return {
            "backup": asdict(observed.made) if observed.made else None,
            "removed": observed.removed,
            "discarded": list(observed.unfinished),
            "foreign": [{"path": one.path, "taken": one.taken, "size": one.size, "refused": one.refused} for one in observed.foreign],
            "adopted": observed.adopted,
            "unreadable": list(observed.unreadable),
        }

    _runner.run(module, read, plan, report, guard=backups.alone(module.params["backups"], module.params["timeout"]))


if __name__ == "__main__":
    main()
