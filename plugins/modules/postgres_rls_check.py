#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether PostgreSQL keeps the rows of an app's users apart."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_rls_check
short_description: Check that row-level security keeps users apart
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Looks whether the tables of a schema have row-level security, enabled and forced, and a policy for each of SELECT, INSERT, UPDATE and DELETE.
  - Looks for what makes it worthless. Policies that let everybody in (C(USING (true)) in its variants) or never look at the row; views that read
    a table as somebody for whom its policies do not hold; and roles that go around it, which are superusers, those with BYPASSRLS, owners of
    tables where it is not forced, and members of these.
  - Tries it, with O(isolation). As the app's role, one user makes a row, and another one must not see it, change it, delete it, or make one in
    the first one's name. All in a transaction that is rolled back. Values of sequences that it takes are not given back.
  - Fails with all that is wrong, each with what was found, what is expected, and what to do. A query; changes nothing.
extends_documentation_fragment:
  - bulletproof.deploy.database
options:
  schema:
    description: The schema of the tables.
    type: str
    default: public
  tables:
    description: The tables, without their schema. All of the schema unless set; those of extensions do not count.
    type: list
    elements: str
    default: []
  exclude:
    description: Tables that need no row-level security.
    type: list
    elements: str
    default: [alembic_version, schema_migrations_ledger]
  role:
    description: The role that the app connects as. The user of the URL unless set.
    type: str
  forced:
    description: Row-level security has to be forced, so that it holds for the owner of a table as well.
    type: bool
    default: true
  allow_open:
    description: Policies that may let everybody in, as C(table.policy), and views that may go around policies, by name.
    type: list
    elements: str
    default: []
  trusted_roles:
    description: Roles that may log in and go around row-level security. The role that the server was set up with always may.
    type: list
    elements: str
    default: [postgres]
  maintenance_user:
    description:
      - Look as this account of the host, over the server's Unix socket, instead of as the user of the URL.
      - What is tried is tried as O(role) all the same.
    type: str
    default: ""
  isolation:
    description: On which tables to try whether users are kept apart.
    type: list
    elements: dict
    default: []
    suboptions:
      table:
        description: The table, in O(schema) unless it is named with its own.
        type: str
        required: true
      owner_column:
        description: The column that says whose a row is.
        type: str
        required: true
      users:
        description: Two values of O(isolation[].owner_column). Where it refers to another table, two that are there.
        type: list
        elements: str
        required: true
      setting:
        description: The session setting in which the app names its user.
        type: str
        default: app.current_user_id
      row:
        description: Values of the other columns that a row needs.
        type: dict
        default: {}
attributes:
  check_mode:
    description: Does the same in check mode; it changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: bulletproof.deploy.postgres_rls_helper
"""

EXAMPLES = r"""
- name: Nobody sees what is somebody else's
  bulletproof.deploy.postgres_rls_check:
    environment_files:
      - /opt/shop/shared/.env
    exclude:
      - alembic_version
      - countries
    isolation:
      - table: orders
        owner_column: user_id
        users: ["1", "2"]
        row:
          title: A trial
"""

RETURN = r"""
findings:
  description: All that is not as it must be, each with C(subject), C(found), C(expected) and C(fix). Also when the module fails.
  returned: always
  type: list
  elements: dict
isolation:
  description:
    - What came of each operation that was tried, with C(table), C(operation), C(verdict) and C(evidence). Also when the module fails.
    - The verdict is V(refused), V(possible), or V(unknown) where it could not be tried.
  returned: always
  type: list
  elements: dict
  sample:
    - table: orders
      operation: SELECT of somebody else's row
      verdict: refused
      evidence: no row
tables:
  description: The tables that were looked at.
  returned: success
  type: list
  elements: str
  sample: [public.orders]
role:
  description: The role that was taken for the app's.
  returned: success
  type: str
  sample: shop
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings as findings
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import separation, url


def look(options: _runner.Options) -> t.Dict[str, t.Any]:
    database = url.database_of(options)
    found = separation.look(database, options)
    tried = [one.as_data() for one in found.tried]
    if found.findings:
        raise findings.failure_of(found.findings, f"Row-level security of {database.shown}, schema {options['schema']}", isolation=tried)
    return {"findings": [], "isolation": tried, "tables": found.tables, "role": found.role}


def main() -> None:
    module = AnsibleModule(argument_spec={**url.SPEC, **separation.SPEC}, supports_check_mode=True)
    _runner.run(module, look, lambda options, observed: [], lambda options, observed: observed)


if __name__ == "__main__":
    main()
