#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a database is what an app needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_check
short_description: Check that a database is what an app needs
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Compares a PostgreSQL or SQLite database with what is expected of it, and fails with all that differs, each with what was found, what is
    expected, and what to do. A query; changes nothing.
  - Tables and columns are named as C(table) or C(schema.table), on PostgreSQL exactly as they are stored, which is in lower case for those that
    were created without quotes. A name with a dot or a space is written in double quotes.
  - An SQLite database is looked at by the account that owns it.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  min_version:
    description: The oldest version of the server, or of the host's SQLite, in quotes. V("12") is any 12.
    type: raw
  max_version:
    description: The newest version, in quotes. V("16") is any 16.
    type: raw
  can_create_tables:
    description: The role can create tables. It is tried in a transaction that is rolled back.
    type: bool
    default: false
  tables:
    description: Tables that must exist. A view counts.
    type: list
    elements: str
    default: []
  absent_tables:
    description: Tables that must not exist.
    type: list
    elements: str
    default: []
  columns:
    description:
      - Columns that must exist, as C(table.column) or C(schema.table.column), and after a space their type where it matters.
      - A type without a length is had with any length. C(varchar) is C(character varying), and so on.
    type: list
    elements: str
    default: []
  absent_columns:
    description: Columns that must not exist. Where there is no such table, there is no such column.
    type: list
    elements: str
    default: []
  extensions:
    description: Extensions that must have been created in the database. For PostgreSQL.
    type: list
    elements: str
    default: []
  max_size_mb:
    description: How large the database may be.
    type: float
  rows:
    description:
      - How many rows tables must have, C(min), C(max) or both by the name of each table. No more rows are counted than it takes to know.
      - Where row-level security hides rows from the role, that is a finding, and not a smaller number.
    type: dict
    default: {}
  revision:
    description: The revision that Alembic must have written down, and the only one.
    type: str
attributes:
  check_mode:
    description: Does the same in check mode; it changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: The database is what release 1.4 needs
  bulletproof.deploy.schema_check:
    environment_files:
      - /opt/shop/shared/.env
    min_version: "12"
    can_create_tables: true
    columns:
      - contract_sign_events.event_metadata jsonb
    absent_columns:
      - contract_sign_events.metadata
    extensions:
      - pgcrypto
    rows:
      users:
        min: 1
"""

RETURN = r"""
findings:
  description: All that is not as expected, each with C(subject), C(found), C(expected) and C(fix). Also when the module fails.
  returned: always
  type: list
  elements: dict
database:
  description: The database, without its password.
  returned: success
  type: str
  sample: shop@127.0.0.1:5432/shop
version:
  description: The server's version, or that of the host's SQLite.
  returned: success
  type: str
  sample: "15.20"
size_mb:
  description: How large the database is.
  returned: success
  type: float
  sample: 8.4
rows:
  description: How many rows were counted. A count ends where it is known whether there are enough and not too many.
  returned: success
  type: dict
  sample:
    users: 1
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings as findings
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import schema, url


def look(options: _runner.Options) -> t.Dict[str, t.Any]:
    database = url.database_of(options)
    wanted = schema.wanted_of(options)
    observed = schema.observe(database, wanted)
    found = schema.compare(wanted, observed)
    if found:
        raise findings.failure_of(found, f"The database {database.shown} is not what is expected")
    return {
        "findings": [],
        "database": database.shown,
        "version": ".".join(str(part) for part in observed.version),
        "size_mb": round(observed.size / schema.MB, 1),
        "rows": {name: one.rows for name, one in observed.relations.items() if one is not None and one.rows is not None},
    }


def main() -> None:
    module = AnsibleModule(argument_spec={**url.SPEC, **schema.SPEC}, supports_check_mode=True)
    _runner.run(module, look, lambda options, observed: [], lambda options, observed: observed)


if __name__ == "__main__":
    main()
