#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alembic's migrations, in the app's own environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: alembic_migrate
short_description: Migrate a database with the Alembic of the app
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Runs the migrations of a release, of Alembic or Flask-Migrate, with the release's own interpreter, as the app's account, with the app's environment as
    systemd reads it. The database's URL and other secrets never come near an argument or a log.
  - Nobody else migrates the same database meanwhile. The lock ends with this module, and the migration with the lock.
  - Refuses several heads, a database revision that the code does not know, a broken chain, tables without a revision, migrations that work on another
    database than the one that is named, and, when asked, models that differ from the migrations. Each says what to do.
  - Tells expanding migrations, on which the release that still serves can run, from contracting ones.
  - In check mode nothing is written, and the diff shows the pending migrations and their SQL.
options:
  command:
    description: What to do. V(current) only tells where database and code are.
    type: str
    choices: [upgrade, downgrade, stamp, current]
    default: upgrade
  revision:
    description: Where to, in Alembic's words, such as V(head), V(heads), V(+1), V(-1), V(base) or an id.
    type: str
    default: head
  python:
    description: The interpreter of the app's environment.
    type: path
    required: true
  project:
    description: The directory of the release, in which the migrations run.
    type: path
    required: true
  config:
    description: The path of C(alembic.ini), or of Flask-Migrate's directory, relative to O(project). Looked for unless set.
    type: str
    default: ""
  layout:
    description: Whose the migrations are. V(auto) looks at the files.
    type: str
    choices: [auto, alembic, flask_migrate]
    default: auto
  entrypoint:
    description: The Flask app for Flask-Migrate, C(module:app) or C(module:create_app()).
    type: str
    default: ""
  user:
    description: The app's account, as which the migrations run, so that an SQLite database stays the app's.
    type: str
    required: true
  group:
    description: The group to run with; the account's own unless set.
    type: str
    default: ""
  writable:
    description: What migrations may write to, besides the directory of an SQLite database.
    type: list
    elements: path
    default: []
  lock_wait:
    description: Seconds to wait for another migration of the same database.
    type: float
    default: 60
  lock_timeout:
    description: Seconds that a statement waits for a lock of the database. 0 is no limit.
    type: float
    default: 5
  statement_timeout:
    description: Seconds that a statement may take (PostgreSQL). 0 is no limit.
    type: float
    default: 0
  retries:
    description: How many times to try again when a lock could not be had within O(lock_timeout).
    type: int
    default: 3
  timeout:
    description: Seconds that all may take.
    type: int
    default: 3600
  check_models:
    description:
      - Also fail when the models differ from the database at its newest revision, as C(alembic check) does.
      - With migrations pending that can only be known after them; they stay in then.
    type: bool
    default: false
  untracked:
    description:
      - What becomes of a database that has tables and no revision. V(refuse) fails. V(stamp) proves that the schema is that of O(untracked_revision),
        stamps it and goes on from there. V(ignore) begins with the first migration.
    type: str
    choices: [refuse, stamp, ignore]
    default: refuse
  untracked_revision:
    description: The revision whose schema an untracked database has.
    type: str
    default: head
  contracting:
    description:
      - What becomes of migrations that the release that serves cannot run on, or of which that cannot be told. V(refuse) fails before anything is changed.
        V(hold) applies what comes before the first of them. V(allow) applies all.
      - An empty database has no release that runs on it; there all are applied.
    type: str
    choices: [refuse, allow, hold]
    default: refuse
  allow_contracting:
    description: Contracting migrations that may be applied all the same, by revision, each with its reason.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode; reads the database and runs the pending migrations without one, to see their SQL.
    support: full
  diff_mode:
    description: Shows the pending migrations and their SQL.
    support: full
extends_documentation_fragment:
  - bulletproof.deploy.database
notes:
  - On PostgreSQL the lock needs psycopg2 in the tools environment, C(psycopg2-binary>=2.9,<3). With C(squawk) there, its findings are added.
"""

EXAMPLES = r"""
- name: Bring the database to what the release needs
  bulletproof.deploy.alembic_migrate:
    project: /opt/shop/releases/1.4.0-1b2c3d4e
    python: /opt/shop/releases/1.4.0-1b2c3d4e/.release/venv/bin/python
    user: shop
    environment_files:
      - /opt/shop/shared/.env
      - /opt/shop/releases/1.4.0-1b2c3d4e/.release/environment
    allow_contracting:
      9c1b7f0e22aa: the column was last read by 1.2.0

- name: Take back the last migration of a Flask app
  bulletproof.deploy.alembic_migrate:
    command: downgrade
    revision: "-1"
    project: /opt/shop/current
    python: /opt/shop/current/.release/venv/bin/python
    entrypoint: shop:create_app()
    user: shop
    environment_files: [/opt/shop/shared/.env]
"""

RETURN = r"""
before:
  description: The revisions that the database had; empty when it had none.
  returned: success, and after a migration has failed
  type: list
  elements: str
  sample: [1a2b3c4d5e6f]
after:
  description: The revisions that it has now, read from it again; in check mode, those that it would have.
  returned: success, and after a migration has failed
  type: list
  elements: str
  sample: [9c1b7f0e22aa]
heads:
  description: The newest revisions of the code.
  returned: success
  type: list
  elements: str
unknown:
  description: Revisions of the database that the code does not know (V(current) only; otherwise that fails).
  returned: success
  type: list
  elements: str
applied:
  description: What was run, in order, each with C(revision), C(down_revision), C(doc) and C(seconds). After a failure, what of it is in.
  returned: success, and after a migration has failed
  type: list
  elements: dict
pending:
  description: What was to be run before, held or not.
  returned: success
  type: list
  elements: dict
sql:
  description: The SQL of what was pending, by revision. Where a migration cannot run without a database, it says so.
  returned: success
  type: dict
classification:
  description: By revision C(kind) (V(expanding), V(contracting) or V(unknown)), C(why), and C(squawk) where that has found something.
  returned: success
  type: dict
held:
  description: What was held back.
  returned: success
  type: list
  elements: dict
versions:
  description: The versions of Alembic and SQLAlchemy in the app's environment.
  returned: success
  type: dict
failing:
  description: The revision that failed.
  returned: after a migration has failed
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import migrating


def main() -> None:
    migrating.run(AnsibleModule(argument_spec=migrating.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
