# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The function by which policies know who asks."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import postgres, row_security, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass(frozen=True)
class Function:
    """What is there of the name, without arguments."""

    body: str
    language: str
    type: str
    volatility: str
    definer: bool

    def __str__(self) -> str:
        kind = {"i": "IMMUTABLE", "s": "STABLE", "v": "VOLATILE"}[self.volatility]
        return f"RETURNS {self.type} LANGUAGE {self.language} {kind}{' SECURITY DEFINER' if self.definer else ''} AS {self.body.strip()}"


def body_of(options: Options) -> str:
    setting = options["setting"]
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", setting):
        raise Failure(f"setting: found {setting!r}; allowed: a name with a dot, such as app.current_user_id.")
    # A setting that was set once in a session is an empty text afterwards, not null, and an empty text is no number.
    # The names are written in full, so that the search path of who asks does not matter.
    return f"SELECT nullif(pg_catalog.current_setting('{setting}', true), '')::pg_catalog.{CASTS[options['type']]}"


CASTS = {"text": "text", "integer": "int4", "bigint": "int8", "uuid": "uuid"}


def wanted_of(options: Options) -> Function:
    return Function(body_of(options), "sql", options["type"], "s", False)


def connect(options: Options) -> t.Any:
    return postgres.connect(row_security.need_postgres(url.database_of(options)), account=options["maintenance_user"])


def read(options: Options) -> t.Optional[Function]:
    connection = connect(options)
    try:
        found = postgres.rows(
            connection,
            """
            SELECT p.prosrc, l.lanname::text, format_type(p.prorettype, NULL), p.provolatile::text, p.prosecdef
            FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE p.proname = %s AND n.nspname = %s AND p.pronargs = 0
            """,
            [options["name"], options["schema"]],
        )
    finally:
        connection.close()
    return Function(*found[0]) if found else None


def name_of(options: Options) -> str:
    return f"{postgres.identifier(options['schema'])}.{postgres.identifier(options['name'])}()"


def plan(options: Options, observed: t.Optional[Function]) -> t.List[Change]:
    wanted = wanted_of(options)
    if observed == wanted:
        return []
    if observed is not None and observed.type != wanted.type:
        raise Failure(
            f"The function {name_of(options)} returns {observed.type}, not {wanted.type}, and policies may depend on it.",
            fix=f"Set type: {observed.type}, or drop it together with its policies in a migration.",
        )
    before = None if observed is None else str(observed)
    return [Change(f"function {name_of(options)}", before, str(wanted), partial(create, options, wanted))]


def create(options: Options, wanted: Function) -> None:
    connection = connect(options)
    try:
        postgres.rows(
            connection,
            f"CREATE OR REPLACE FUNCTION {name_of(options)} RETURNS {wanted.type} LANGUAGE sql STABLE PARALLEL SAFE"
            f" AS {postgres.literal(wanted.body)}",
        )
    finally:
        connection.close()


def report(options: Options, observed: t.Optional[Function]) -> t.Dict[str, t.Any]:
    return {"function": f"{options['schema']}.{options['name']}()"}
