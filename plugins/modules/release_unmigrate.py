#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a rollback: take the database back to where the older release can run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_unmigrate
short_description: Take the database back to where an older release can run
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Looks at what was migrated since the release that a rollback goes to has served. Where its code can run on that, nothing is done.
  - Otherwise the migrations are undone with the code of the release that serves, after a verified backup, or the backup from before them is restored.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  version:
    description: The version or release id that the rollback goes to. What served before unless set.
    type: str
  method:
    description: C(downgrade) undoes the migrations. C(restore) restores the backup from before them; what it replaces is kept.
    type: str
    choices: [downgrade, restore]
    required: true
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
"""

EXAMPLES = r"""
- name: Take the database back
  bulletproof.deploy.release_unmigrate:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    method: downgrade
    migrations: alembic
    entrypoint: shop.wsgi:app
    user: www-data
    group: www-data
"""

RETURN = r"""
target:
  description: The release that the rollback goes to.
  returned: success
  type: str
revision:
  description: Where the database had to go; null when it could stay.
  returned: success
  type: str
done:
  description: What was done.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import unmigrate


def main() -> None:
    unmigrate.run(AnsibleModule(argument_spec=unmigrate.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
