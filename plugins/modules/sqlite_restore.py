#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verified backup in the place of an SQLite database, and what was there is kept."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sqlite_restore
short_description: Restore an SQLite database from a verified backup, and keep what it replaces
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Verifies first, while the app still runs. The backup must be what its record says, decompress, pass C(PRAGMA integrity_check) and have
    the rows that were counted when it was made.
  - Then O(stop_units) are stopped, the old database takes in its C(-wal) and is kept as C(<path>.replaced-<time>), the new one takes its
    place in one rename with the same owner, group and mode, and the units are started again, also when something fails.
  - Refuses while any process still has the database open.
  - Killed at any point, the path holds the old database or the new one, whole. What is left over is tidied by the next restore.
  - Restoring what is there already changes nothing.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  path:
    description: The database's file. Takes precedence over O(url) and O(environment_files).
    type: path
  backups:
    description: Directory of the backups.
    type: path
    required: true
  name:
    description: The backup's file name in O(backups). The newest of this database unless set.
    type: str
  source_file:
    description:
      - A file that is none of the backups, to be restored instead. Nobody has recorded what is in it, so all that can be proven is that it
        is whole. What lies beside it as C(-wal) is taken in.
    type: path
  stop_units:
    description:
      - Units that use the database, with their full names. They are stopped before and started after, together with the sockets and timers
        that would start them. A unit that was not running and had not failed stays as it is.
    type: list
    elements: str
    default: []
  in_use:
    description:
      - Write the backup into the database in one transaction, while it is used. Nobody has to be stopped; open transactions end with the old content.
      - A consistent copy of what it replaces is kept. A damaged database has to be replaced with O(stop_units) instead.
    type: bool
    default: false
  drill:
    description: Restore into a scratch file in O(backups), compare with the record, drop it, and change nothing.
    type: bool
    default: false
  owner:
    description: The account that owns the database, when there is none yet. That of its directory unless set.
    type: str
  group:
    description: The group of the database, when there is none yet. That of its directory unless set.
    type: str
  mode:
    description: The mode of the database, octal, when there is none yet.
    type: str
    default: "0640"
  timeout:
    description: Seconds that it may take, and seconds to wait for a backup in the same directory.
    type: int
    default: 1800
attributes:
  check_mode:
    description: Can run in check mode; verifies the backup's checksum and replaces nothing. A drill then compares the checksum alone.
    support: full
  diff_mode:
    description: Shows what would be replaced, by what, and which units would be stopped.
    support: full
"""

EXAMPLES = r"""
- name: Restore the newest backup
  bulletproof.deploy.sqlite_restore:
    path: /opt/shop/shared/app.db
    backups: /opt/shop/backups
    stop_units: [shop@blue.service]

- name: Prove that the newest backup can be restored
  bulletproof.deploy.sqlite_restore:
    environment_files: [/opt/shop/shared/.env]
    directory: /opt/shop/shared
    backups: /opt/shop/backups
    drill: true
"""

RETURN = r"""
restored:
  description: The name of the backup, or the path of the file. In check mode, what would be restored.
  returned: success
  type: str
  sample: app.db-20261122T043000.123456Z.db
taken:
  description: The state that it holds; seconds since the epoch, null for a file without a record.
  returned: success
  type: float
replaced:
  description: Where the database that was replaced is kept; empty when nothing was.
  returned: success
  type: str
  sample: /opt/shop/shared/app.db.replaced-20261122T050000.000000Z
rows:
  description: Rows by table, as they were counted in what was restored. Empty when nothing was.
  returned: success
  type: dict
doubt:
  description: What cannot be known of a file that has no record.
  returned: success
  type: str
drill:
  description: What was compared in a drill. Backup, moment, checksum, size, rows by table, seconds. Null when it was none.
  returned: success
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, sqlite_restore
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.sqlite_backup import TIMEOUT
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


def wanted_of(options: Options) -> sqlite_restore.Wanted:
    return sqlite_restore.Wanted(
        path=sqlite.path_of(options),
        directory=options["backups"],
        name=options["name"] or "",
        source_file=options["source_file"] or "",
        stop_units=options["stop_units"],
        in_use=options["in_use"],
        ownership=backups.ownership_of(options),
        timeout=options["timeout"],
    )


def read(options: Options) -> sqlite_restore.Observed:
    return sqlite_restore.observe(wanted_of(options))


def plan(options: Options, observed: sqlite_restore.Observed) -> t.List[Change]:
    return [] if options["drill"] else sqlite_restore.plan(wanted_of(options), observed)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **sqlite.SPEC,
            "backups": {"type": "path", "required": True},
            "name": {"type": "str"},
            "source_file": {"type": "path"},
            "stop_units": {"type": "list", "elements": "str", "default": []},
            "in_use": {"type": "bool", "default": False},
            "drill": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "str", "default": "0640"},
            "timeout": {"type": "int", "default": TIMEOUT},
        },
        mutually_exclusive=[("name", "source_file"), ("drill", "source_file"), ("in_use", "stop_units")],
        supports_check_mode=True,
    )

    def report(options: Options, observed: sqlite_restore.Observed) -> t.Dict[str, t.Any]:
        backup, contents = observed.source.backup, observed.contents
        return {
            "restored": backup.name if backup else observed.source.path,
            "taken": backup.taken if backup else None,
            "replaced": observed.replaced,
            "rows": dict(contents.rows) if contents else {},
            "doubt": sqlite.doubt(contents) if contents and not backup else "",
            "drill": sqlite_restore.drill(wanted_of(options)) if options["drill"] and not module.check_mode else None,
        }

    guard = backups.alone(module.params["backups"], module.params["timeout"], make=bool(module.params["source_file"]))
    _runner.run(module, read, plan, report, guard=guard)


if __name__ == "__main__":
    main()
