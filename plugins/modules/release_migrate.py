#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phases 3 and 4 of a deploy: protect the data, then migrate the database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_migrate
short_description: Protect the data, then migrate the database with a release's code
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Nothing pending is nothing done. Otherwise a backup is made and verified, then what is pending is applied in the release's own environment, as the
    app's account, and the result is looked at.
  - Refuses before anything is changed what the release that serves cannot run on, several heads, a database newer than the code.
  - A migration that fails midway goes back to the backup, or stays as far as it came, by O(undo). The message says which.
  - What was applied is written down on the host; a rollback reads it.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  release:
    description: The staged release whose migrations they are. The one that serves unless set.
    type: str
  migrations:
    description: What the migrations are. C(sql) is a directory of numbered SQL files.
    type: str
    choices: [alembic, flask_migrate, sql]
    required: true
  path:
    description: Where they are in the release. C(alembic.ini), C(migrations) or C(sql) unless set.
    type: str
    default: ""
  url_variable:
    description: The variable of the app's environment that holds the database's SQLAlchemy URL. It is read on the host.
    type: str
    default: DATABASE_URL
  entrypoint:
    description: The app, C(module:attribute); Flask-Migrate needs its context.
    type: str
    required: true
  user:
    description: The account that the app runs as, and its migrations.
    type: str
    required: true
  group:
    description: The app's group.
    type: str
    required: true
  lock_timeout:
    description: Seconds that a statement may wait for a lock (PostgreSQL). C(0) is no limit.
    type: int
    default: 5
  statement_timeout:
    description: Seconds that a statement may take (PostgreSQL). C(0) is no limit.
    type: int
    default: 0
  lock_retries:
    description: How many times a migration that ran into O(lock_timeout) is tried again.
    type: int
    default: 5
  check_models:
    description: Refuse a release whose models are not what its migrations make.
    type: bool
    default: false
  untracked:
    description:
      - What to do with a database that has tables and no revision.
      - C(stamp) proves that its schema is that of O(untracked_revision), and writes that down first. C(ignore) begins with the first migration.
    type: str
    choices: [refuse, stamp, ignore]
    default: refuse
  untracked_revision:
    description: The revision that a database without one is said to have.
    type: str
    default: head
  backups:
    description: Directory of the backups. C(<root>/backups) unless set.
    type: path
  keep_last:
    description: How many of the newest backups to keep. One stays when any of the rules keeps it; the newest always does.
    type: int
    default: 3
  keep_within:
    description: Keep all that are younger, such as C(36h), C(14d), C(8w).
    type: str
  keep_daily:
    description: Of how many days to keep the newest backup.
    type: int
    default: 0
  keep_weekly:
    description: Of how many weeks to keep the newest backup.
    type: int
    default: 0
  keep_monthly:
    description: Of how many months to keep the newest backup.
    type: int
    default: 0
  contracting:
    description:
      - What becomes of migrations that the release that serves cannot run on.
      - C(refuse) changes nothing, C(hold) applies what comes before the first of them, C(allow) applies all.
    type: str
    choices: [refuse, hold, allow]
    default: refuse
  allow_contracting:
    description: Contracting migrations that may be applied nevertheless, by revision, each with the reason.
    type: dict
    default: {}
  backup:
    description: When to make a backup. Before migrations, or always.
    type: str
    choices: [migrations, always]
    default: migrations
  undo:
    description: What becomes of a migration that fails midway.
    type: str
    choices: [restore, leave]
    default: leave
  schema:
    description: What the schema must be afterwards; the options of M(bulletproof.deploy.schema_check).
    type: dict
    default: {}
  free_lock:
    description: Free the run's lock afterwards, whatever came of it, because no other phase follows. A deploy frees it with the commit.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Migrate with the code of a staged release
  bulletproof.deploy.release_migrate:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab
    migrations: alembic
    entrypoint: shop.wsgi:app
    user: www-data
    group: www-data
"""

RETURN = r"""
before:
  description: The revision before; empty when there was none.
  returned: success
  type: str
  sample: "0001"
after:
  description: The revision after.
  returned: success
  type: str
  sample: "0002"
pending:
  description: What was to be applied, in order, with its kind (expanding, contracting, unknown) and why.
  returned: success
  type: list
  elements: dict
held:
  description: What was held back.
  returned: success
  type: list
  elements: dict
applied:
  description: What was applied, in order, and how many seconds each took.
  returned: success
  type: list
  elements: dict
backup:
  description: The name of the backup from before it; empty when none was needed.
  returned: success
  type: str
  sample: shop.db-20260102T030405.000000Z.sqlite3
note:
  description: What could not be told.
  returned: in check mode, when the release is not staged
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import migrate


def main() -> None:
    migrate.run(AnsibleModule(argument_spec=migrate.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
