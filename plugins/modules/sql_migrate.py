#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of numbered SQL files, each applied once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sql_migrate
short_description: Apply numbered SQL files, once each and in order
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Brings the files of a directory, named as C(002_provider_credentials.sql), into a database, once each and in the order of their numbers. What is
    in, is written down in a table of the database.
  - Each file is one transaction, in which it is also written down. A file that fails leaves nothing. That goes for tables and columns too, on
    PostgreSQL and on SQLite. A C(BEGIN) and C(COMMIT) around a whole file are left out.
  - What cannot be in a transaction (C(CREATE INDEX CONCURRENTLY); on SQLite C(VACUUM) and C(PRAGMA journal_mode)) goes into a file of its own
    with a line C(-- no-transaction). Its statements are run one by one.
  - Nothing is run, and all that is wrong is said, when an applied file has changed or is missing, when a number is taken twice or left out, when
    a new file comes before one that is applied, or when a file could not be run as one transaction.
  - One migration at a time is made of a database. An SQLite database is only ever opened by the account that owns it.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  path:
    description: The directory of the files, on the host. A file of SQL in it without a number is an error.
    type: path
    required: true
  ledger:
    description: The table in which is written down what is applied. It may be named with its schema on PostgreSQL.
    type: str
    default: schema_migrations_ledger
  out_of_order:
    description: Accept gaps in the numbers, and new files that come before applied ones. Numbers of eight digits and more are dates, and may have gaps.
    type: bool
    default: false
  baseline:
    description:
      - For a database that had these files before there was a ledger. Files up to this number are written down as applied and not run.
      - Counts as long as the ledger is empty.
    type: int
  run:
    description: The id of the run, for the ledger.
    type: str
    default: ""
  lock_timeout:
    description: Seconds that a statement waits for a lock. V(0) is no limit, and on SQLite no waiting.
    type: float
    default: 5
  lock_retries:
    description: How many times a file that did not get its lock in time is tried again.
    type: int
    default: 5
  statement_timeout:
    description: Seconds that a statement may take. V(0) is no limit.
    type: float
    default: 0
  wait:
    description: Seconds to wait for another migration of the same database.
    type: float
    default: 60
attributes:
  check_mode:
    description: Can run in check mode; tells which files would be applied, and applies none.
    support: full
  diff_mode:
    description: Shows the files that are applied, with their SQL. Passwords of roles in it are not shown.
    support: full
"""

EXAMPLES = r"""
- name: Migrate
  bulletproof.deploy.sql_migrate:
    environment_files:
      - /opt/shop/shared/.env
    path: /opt/shop/current/migrations

- name: Begin with a database to which files 1 to 4 were applied by hand
  bulletproof.deploy.sql_migrate:
    environment_files:
      - /opt/shop/shared/.env
    path: /opt/shop/current/migrations
    baseline: 4
"""

RETURN = r"""
before:
  description: The highest number that was applied before, V(-1) when there was none.
  returned: success
  type: int
  sample: 4
after:
  description: The highest number that is applied; in check mode, that would be.
  returned: success
  type: int
  sample: 6
pending:
  description: The files that were to be applied, in order.
  returned: success
  type: list
  elements: str
  sample: [005_invoices.sql, 006_invoice_index.sql]
applied:
  description: The files that were applied, in order, and how many seconds each took. Also when one of them failed.
  returned: always
  type: list
  elements: dict
  sample:
    - name: 005_invoices.sql
      seconds: 0.021
database:
  description: The database, without its password.
  returned: success
  type: str
  sample: shop@127.0.0.1:5432/shop
"""

import contextlib
import re
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import ledger, sql_files, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

PASSWORD = re.compile(r"(\bpassword\s+)E?'(?:[^']|'')*'", re.IGNORECASE)


@dataclass(frozen=True)
class Observed:
    before: int
    steps: t.Sequence[ledger.Step]


class Migration:
    """One migration; it remembers how far it came."""

    def __init__(self) -> None:
        self.applied: t.List[t.Dict[str, t.Any]] = []
        self.steps: t.Sequence[ledger.Step] = ()
        self.trying = ""
        self._store: t.Optional[sql_files.Store] = None

    def store(self, options: Options) -> sql_files.Store:
        if self._store is None:
            limits = sql_files.Limits(options["lock_timeout"], options["statement_timeout"], options["lock_retries"])
            self._store = sql_files.store_of(url.database_of(options), options["ledger"], limits)
        return self._store

    @contextlib.contextmanager
    def alone(self, options: Options) -> t.Iterator[None]:
        with self.store(options).alone(options["wait"]):
            yield

    def read(self, options: Options) -> Observed:
        store = self.store(options)
        files = ledger.files_of(options["path"])
        entries = store.entries() or []
        self.steps = ledger.steps(files, entries, url.database_of(options).kind, options["out_of_order"], options["baseline"])
        return Observed(max((entry.number for entry in entries), default=-1), self.steps)

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        return [
            Change(f"{self.store(options).shown} {step.file.name}", None, told(step), partial(self._apply, options, step))
            for step in observed.steps
        ]

    def _apply(self, options: Options, step: ledger.Step) -> None:
        self.trying = step.file.name
        seconds = self.store(options).apply(step, options["run"], options["lock_retries"])
        self.applied.append({"name": step.file.name, "seconds": seconds})

    def rescue(self, options: Options, failure: Failure) -> Failure:
        stands = ledger.where_it_stands(self.steps, [one["name"] for one in self.applied], self.trying)
        return Failure(f"{failure.what}\n{stands}", fix=failure.fix, applied=self.applied, **failure.facts)

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        return {
            "before": observed.before,
            "after": max([observed.before, *(step.file.number for step in observed.steps)]),
            "pending": [step.file.name for step in observed.steps],
            "applied": self.applied,
            "database": self.store(options).shown,
        }


def told(step: ledger.Step) -> str:
    """What is done with a file, for the diff."""
    if step.script is None:
        return "written down as applied; it is in the database already"
    how = "one transaction" if step.script.transaction else f"no transaction, {len(step.script.statements)} statements"
    return f"{how}\n" + PASSWORD.sub(r"\1'********'", step.file.text.rstrip())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **url.SPEC,
            "path": {"type": "path", "required": True},
            "ledger": {"type": "str", "default": sql_files.LEDGER},
            "out_of_order": {"type": "bool", "default": False},
            "baseline": {"type": "int"},
            "run": {"type": "str", "default": ""},
            "lock_timeout": {"type": "float", "default": 5},
            "lock_retries": {"type": "int", "default": 5},
            "statement_timeout": {"type": "float", "default": 0},
            "wait": {"type": "float", "default": 60},
        },
        supports_check_mode=True,
    )
    migration = Migration()
    _runner.run(module, migration.read, migration.plan, migration.report, migration.rescue, migration.alone(module.params))


if __name__ == "__main__":
    main()
