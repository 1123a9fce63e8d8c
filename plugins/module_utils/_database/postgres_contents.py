# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in a PostgreSQL database: noted when a backup is made, compared when one is restored.

Rows are counted and not only relied on: a dump that ``pg_restore`` reads without an error may still be of a database that somebody emptied before.
"""

from __future__ import annotations

import re
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres import identifier, literal, rows
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "S": "sequence", "f": "foreign table"}
# What belongs to an extension comes with the extension and not with the dump.
RELATIONS = """
    SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname), c.relkind::text,
           CASE WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid) ELSE 0 END AS size
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY size, 2
"""
# Values of these are lists of quoted names, which a literal would make one name of (pg_dump, variable_is_guc_list_quote).
LISTS = ("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces")


@dataclass(frozen=True)
class Relation:
    oid: int
    name: str
    kind: str
    size: int


@dataclass(frozen=True)
class Contents:
    """What a database holds at one moment.

    :param relations: By schema-qualified name, what kind of relation it is.
    :param rows: By table; None where nobody counted.
    """

    relations: t.Mapping[str, str]
    rows: t.Mapping[str, t.Optional[int]]
    extensions: t.Mapping[str, str] = field(default_factory=dict)
    large_objects: int = 0


def relations_of(connection: t.Any) -> t.List[Relation]:
    """Everything that a dump has to hold, the smallest first."""
    return [Relation(oid, name, KINDS[kind], size) for oid, name, kind, size in rows(connection, RELATIONS)]


def contents_of(connection: t.Any, seconds: float) -> t.Tuple[Contents, t.List[Relation]]:
    """Inside of the caller's transaction, so that all of it is of one moment.

    :param seconds: How long counting may take; the largest tables come last, and those for which it does not suffice stay uncounted.
    """
    relations = relations_of(connection)
    extensions = dict(rows(connection, "SELECT extname, extversion FROM pg_catalog.pg_extension"))
    large_objects = int(rows(connection, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")[0][0])
    deadline = time.monotonic() + seconds
    counted: t.Dict[str, t.Optional[int]] = {}
    for relation in relations:
        if relation.kind == "table":
            counted[relation.name] = _count(connection, relation.name, deadline - time.monotonic())
    return Contents({one.name: one.kind for one in relations}, counted, extensions, large_objects), relations


def _count(connection: t.Any, table: str, seconds: float) -> t.Optional[int]:
    if seconds <= 0:
        return None
    limit = max(1, int(seconds * 1000))
    try:
        # ONLY, because a table that others inherit from would count theirs again.
        found = rows(connection, f"SAVEPOINT counting; SET LOCAL statement_timeout = {limit}; SELECT count(*) FROM ONLY {table}")
    except Failure as failure:
        if failure.facts.get("sqlstate") != "57014":  # query_canceled: its time is over
            raise
        found = [(None,)]
    # Back to it, not on from it: that takes the time limit back, too.
    rows(connection, "ROLLBACK TO SAVEPOINT counting; RELEASE SAVEPOINT counting")
    return t.cast(t.Optional[int], found[0][0])


def begin(connection: t.Any, timeout: float) -> None:
    """A transaction that sees one moment, all rows of it or an error, and that no time limit of the server or the role ends while a dump needs it.

    :param timeout: Seconds that a statement may take, or wait for a table that somebody has locked.
    """
    rows(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    rows(connection, "SET LOCAL row_security = off; SET LOCAL max_parallel_workers_per_gather = 0")
    limits = "('idle_in_transaction_session_timeout', 'lock_timeout', 'transaction_timeout')"
    rows(connection, f"SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN {limits}")
    rows(connection, f"SET LOCAL statement_timeout = {max(1, int(timeout * 1000))}")


def differences(expected: Contents, found: Contents) -> t.List[str]:
    """How a restored database is not what the backup was of; empty when it is."""
    problems = []
    for name, kind in sorted(expected.relations.items()):
        if name not in found.relations:
            problems.append(f"the {kind} {name} is missing")
        elif found.relations[name] != kind:
            problems.append(f"{name} is a {found.relations[name]}, not a {kind}")
    for name, count in sorted(expected.rows.items()):
        actual = found.rows.get(name)
        if name in found.relations and count is not None and actual is not None and actual != count:
            problems.append(f"{name} has {actual} rows, not {count}")
    problems += [f"the extension {name} is missing" for name in sorted(set(expected.extensions) - set(found.extensions))]
    if found.large_objects != expected.large_objects:
        problems.append(f"it has {found.large_objects} large objects, not {expected.large_objects}")
    return problems


# What pg_restore --list shows of an archive: "3342; 1259 16386 TABLE public orders shop". Names may have spaces, but the oids stand first.
ENTRY = re.compile(r"^(\d+); (\d+) (\d+) ([A-Z][A-Z ]*?) (?=\S)", re.MULTILINE)
TABLE_DATA = re.compile(r"^(\d+); \d+ (\d+) TABLE DATA ", re.MULTILINE)
PG_CLASS = "1259"


def listed(table_of_contents: str) -> t.Tuple[t.Set[int], t.Dict[int, int]]:
    """From ``pg_restore --list``: the oids of the relations, and of each table with data the number of its entry."""
    relations = {int(oid) for _entry, catalog, oid, _what in ENTRY.findall(table_of_contents) if catalog == PG_CLASS}
    return relations, {int(oid): int(entry) for entry, oid in TABLE_DATA.findall(table_of_contents)}


def missing(relations: t.Sequence[Relation], table_of_contents: str, data_excluded: bool) -> t.List[str]:
    """What the server had and the archive has not."""
    there, data = listed(table_of_contents)
    problems = [f"the {one.kind} {one.name}" for one in relations if one.oid not in there]
    if not data_excluded:
        problems += [f"the rows of {one.name}" for one in relations if one.kind == "table" and one.oid in there and one.oid not in data]
    return problems


def properties_of(connection: t.Any, name: str) -> t.Optional[t.Dict[str, t.Any]]:
    """What a database is besides its contents, which no dump of one database holds under another name; None when it does not exist."""
    found = rows(
        connection,
        """
        SELECT to_jsonb(d), pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), s.spcname, shobj_description(d.oid, 'pg_database'),
               (SELECT jsonb_agg(jsonb_build_array(CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END, a.privilege_type, a.is_grantable))
                FROM aclexplode(d.datacl) a),
               (SELECT jsonb_agg(jsonb_build_array(CASE r.setrole WHEN 0 THEN '' ELSE pg_get_userbyid(r.setrole) END, r.setconfig))
                FROM pg_catalog.pg_db_role_setting r WHERE r.setdatabase = d.oid)
        FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace s ON s.oid = d.dattablespace
        WHERE d.datname = %s
        """,
        [name],
    )
    if not found:
        return None
    row, owner, encoding, tablespace, comment, acl = found[0][:6]
    return {
        "owner": owner,
        "encoding": encoding,
        "collate": row["datcollate"],
        "ctype": row["datctype"],
        "provider": {"i": "icu", "b": "builtin"}.get(row.get("datlocprovider", ""), "libc"),
        "locale": row.get("datlocale") or row.get("daticulocale"),
        "rules": row.get("daticurules"),
        "tablespace": tablespace,
        "limit": row["datconnlimit"],
        "comment": comment,
        "acl": sorted(acl) if acl is not None else None,
        "settings": [[role, *setting.split("=", 1)] for role, config in found[0][6] or [] for setting in config],
    }


def elements(value: str) -> t.List[str]:
    """The names in the value of a list. It is never used as it stands: the database's owner can write into it what a superuser would then run."""
    found = re.findall(r'"((?:[^"]|"")*)"|([^",\s][^",]*)', value)
    return [quoted.replace('""', '"') if not bare else bare.strip().lower() for quoted, bare in found] or [""]


def creation(name: str, of: t.Mapping[str, t.Any]) -> t.List[str]:
    """The statements that make an empty database with the properties of another."""
    new, owner = identifier(name), identifier(of["owner"])
    create = f"CREATE DATABASE {new} OWNER {owner} TEMPLATE template0 ENCODING {literal(of['encoding'])}"
    create += f" LC_COLLATE {literal(of['collate'])} LC_CTYPE {literal(of['ctype'])}"
    if of["provider"] == "icu":
        create += f" LOCALE_PROVIDER icu ICU_LOCALE {literal(of['locale'])}"
        create += f" ICU_RULES {literal(of['rules'])}" if of["rules"] else ""
    elif of["provider"] == "builtin":
        create += f" LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(of['locale'])}"
    create += f" TABLESPACE {identifier(of['tablespace'])} CONNECTION LIMIT {int(of['limit'])}"
    statements = [create]
    if of["comment"]:
        statements.append(f"COMMENT ON DATABASE {new} IS {literal(of['comment'])}")
    if of["acl"] is not None:
        statements.append(f"REVOKE ALL ON DATABASE {new} FROM PUBLIC, {owner}")
        for grantee, privilege, grantable in of["acl"]:
            to = identifier(grantee) if grantee else "PUBLIC"
            statements.append(f"GRANT {privilege} ON DATABASE {new} TO {to}{' WITH GRANT OPTION' if grantable else ''}")
    return statements


def settings(name: str, of: t.Mapping[str, t.Any]) -> t.List[str]:
    """The statements that give a database the settings of another: at the end, because with some of them (read-only) nothing could be restored."""
    statements, new = [], identifier(name)
    for role, variable, value in of["settings"]:
        subject = f"ROLE {identifier(role)} IN DATABASE {new}" if role else f"DATABASE {new}"
        text = ", ".join(literal(one) for one in elements(value)) if variable in LISTS else literal(value)
        statements.append(f"ALTER {subject} SET {'.'.join(identifier(part) for part in variable.split('.'))} TO {text}")
    return statements
