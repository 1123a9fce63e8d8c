# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether PostgreSQL keeps the rows of an app's users apart: what the catalog says, and what comes of trying."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils import _spec
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import isolation, postgres, row_security, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

ISOLATION: t.Dict[str, t.Any] = {
    "table": {"type": "str", "required": True},
    "owner_column": {"type": "str", "required": True},
    "users": {"type": "list", "elements": "str", "required": True},
    "setting": {"type": "str", "default": isolation.SETTING},
    "row": {"type": "dict", "default": {}},
}
SPEC: t.Dict[str, t.Any] = {
    "schema": {"type": "str", "default": "public"},
    "tables": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": ["alembic_version", "schema_migrations_ledger"]},
    "role": {"type": "str"},
    "forced": {"type": "bool", "default": True},
    "allow_open": {"type": "list", "elements": "str", "default": []},
    "trusted_roles": {"type": "list", "elements": "str", "default": ["postgres"]},
    "maintenance_user": {"type": "str", "default": ""},
    "isolation": {"type": "list", "elements": "dict", "default": [], "options": ISOLATION},
}


@dataclass(frozen=True)
class Separation:
    """What was found.

    :param tried: What came of each operation that was tried.
    :param tables: Those that were looked at.
    :param role: The role that was taken for the app's.
    """

    findings: t.List[Finding]
    tried: t.List[isolation.Outcome]
    tables: t.List[str]
    role: str


def completed(declared: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Options as SPEC has them, where Ansible has not looked at them: with their defaults; a Failure with all mistakes in them."""
    given: t.Dict[str, t.Any] = _given(declared)
    if isinstance(given.get("isolation"), list):
        given["isolation"] = [_given(trial) for trial in given["isolation"]]
    mistakes = list(_spec.mistakes(given, SPEC, "", "option"))
    if mistakes:
        told = "\n".join(f"- {mistake}." for mistake in mistakes)
        raise Failure(f"What is expected of row-level security is not clear:\n{told}", fix="Correct the options.")
    return _spec.completed(given, SPEC)


def _given(options: t.Any) -> t.Any:
    """Without those that are null, which counts as not given, as Ansible has it; a column's value may be null."""
    return {name: one for name, one in options.items() if one is not None} if isinstance(options, dict) else options


def look(database: url.Database, options: t.Mapping[str, t.Any]) -> Separation:
    """
    :param options: As SPEC has them.
    """
    server = row_security.need_postgres(database)
    wanted = row_security.Wanted(
        schema=options["schema"],
        tables=options["tables"],
        exclude=options["exclude"],
        forced=options["forced"],
        allow_open=options["allow_open"],
        trusted=options["trusted_roles"],
    )
    trials = [isolation.trial_of(one, wanted.schema) for one in options["isolation"]]
    connection = postgres.connect(server, account=options["maintenance_user"])
    try:
        catalog = row_security.read(connection, wanted, options["role"] or server.user)
        found = row_security.findings(wanted, catalog)
        tried: t.List[isolation.Outcome] = []
        for trial in trials:
            with isolation.Session(connection, catalog.role) as session:
                tried += isolation.run(session, trial)
    finally:
        connection.close()
    return Separation([*found, *isolation.findings(tried)], tried, [table.name for table in catalog.tables], catalog.role)
