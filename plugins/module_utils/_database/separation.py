# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether PostgreSQL keeps the rows of an app's users apart: what the catalog says, and what comes of trying."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

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
TYPES: t.Dict[str, t.Tuple[t.Type[t.Any], str]] = {
    "str": (str, "a text"),
    "list": (list, "a list"),
    "bool": (bool, "true or false"),
    "dict": (dict, "a mapping"),
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


def completed(given: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """Options as SPEC has them, where Ansible has not looked at them: with their defaults; a Failure with all mistakes in them."""
    mistakes: t.List[str] = []
    options = _completed(given, SPEC, "", mistakes)
    if mistakes:
        told = "\n".join(f"- {mistake}." for mistake in mistakes)
        raise Failure(f"What is expected of row-level security is not clear:\n{told}", fix="Correct the options.")
    return options


def _completed(given: t.Mapping[str, t.Any], spec: t.Mapping[str, t.Any], where: str, mistakes: t.List[str]) -> t.Dict[str, t.Any]:
    mistakes += [f"{where}{name}: there is no such option; there are {', '.join(spec)}" for name in sorted(set(given) - set(spec))]
    options: t.Dict[str, t.Any] = {}
    for name, one in spec.items():
        value = given.get(name)
        options[name] = one.get("default") if value is None else value
        kind, words = TYPES[one["type"]]
        if value is None:
            if one.get("required"):
                mistakes.append(f"{where}{name}: missing")
        elif not isinstance(value, kind):
            mistakes.append(f"{where}{name}: found {value!r}, allowed: {words}")
        elif "options" in one:
            options[name] = [_completed(part, one["options"], f"{name}: ", mistakes) for part in value if isinstance(part, dict)]
    return options


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
