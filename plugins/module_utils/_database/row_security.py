# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row-level security, read from PostgreSQL's catalog: which tables have it, what its policies let through, and who goes around it.

https://www.postgresql.org/docs/current/ddl-rowsecurity.html says what holds for whom.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import postgres, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
EVERYBODY = "public"
ON = ("true", "on", "yes", "1")


@dataclass(frozen=True)
class Clause:
    """USING or WITH CHECK of a policy.

    :param looks: Whether it mentions a column of anything at all.
    """

    text: str
    looks: bool = True


@dataclass(frozen=True)
class Policy:
    """:param command: A letter of COMMANDS, or ``*`` for all."""

    name: str
    command: str = "*"
    permissive: bool = True
    roles: t.Tuple[str, ...] = (EVERYBODY,)
    using: t.Optional[Clause] = None
    check: t.Optional[Clause] = None

    @property
    def commands(self) -> t.Tuple[str, ...]:
        return tuple(COMMANDS) if self.command == "*" else (self.command,)

    def clauses(self, command: str) -> t.List[t.Tuple[str, Clause]]:
        """What decides about a command, each with its name. Without WITH CHECK, USING stands for it."""
        found = []
        if command != "a" and self.using is not None:
            found.append(("USING", self.using))
        if command in "aw":
            found += [("WITH CHECK", self.check)] if self.check is not None else []
            if self.check is None and self.using is not None and command == "a":
                found.append(("USING", self.using))
        return found


@dataclass(frozen=True)
class Table:
    """:param name: As ``schema.table``."""

    name: str
    owner: str
    enabled: bool
    forced: bool
    policies: t.Tuple[Policy, ...] = ()


@dataclass(frozen=True)
class Role:
    """:param first: The role that the server was set up with; every server has it."""

    name: str
    superuser: bool = False
    bypass: bool = False
    login: bool = True
    first: bool = False
    member_of: t.FrozenSet[str] = frozenset()


@dataclass(frozen=True)
class View:
    """:param reads: Tables and views, by name.
    :param used: Whether the app's role may use it.
    """

    name: str
    owner: str
    invoker: bool
    used: bool
    reads: t.Tuple[str, ...]
    materialized: bool = False


@dataclass(frozen=True)
class Catalog:
    """What the catalog says.

    :param role: The app's role.
    """

    role: str
    version: int
    tables: t.Sequence[Table]
    roles: t.Mapping[str, Role]
    views: t.Sequence[View] = ()


@dataclass(frozen=True)
class Wanted:
    """What is expected.

    :param tables: By name without the schema; all of the schema when it is empty.
    :param allow_open: Policies that may let everybody in, as ``table.policy``.
    :param trusted: Roles that may go around row-level security.
    """

    schema: str = "public"
    tables: t.Sequence[str] = ()
    exclude: t.Sequence[str] = ()
    forced: bool = True
    allow_open: t.Sequence[str] = ()
    trusted: t.Sequence[str] = ()


def need_postgres(database: url.Database) -> url.Postgres:
    if isinstance(database, url.Sqlite):
        raise Failure(f"{database.shown} is an SQLite database, which has no row-level security.", fix="Leave this check out for SQLite.")
    return database


def split(text: str, word: str) -> t.List[str]:
    """An expression at a word (OR, AND, =) that is in no parentheses and no quotes."""
    parts, depth, start, position = [], 0, 0, 0
    token = re.compile(rf"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[()]|(?<![\w<>!=~]){re.escape(word)}(?![\w<>=~])", re.IGNORECASE)
    for match in token.finditer(text):
        if match[0] in "()":
            depth += 1 if match[0] == "(" else -1
        elif depth == 0 and match[0].upper() == word:
            parts.append(text[start : match.start()])
            start = match.end()
        position = match.end()
    return [*parts, text[start:]] if position else [text]


def bare(text: str) -> str:
    """An expression without the parentheses around all of it."""
    text = text.strip()
    while text.startswith("(") and text.endswith(")"):
        depth = 0
        for match in re.finditer(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[()]", text):
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            if depth == 0 and match.end() < len(text):
                return text
        text = text[1:-1].strip()
    return text


def always(text: str) -> bool:
    """Whether an expression is true for every row, as far as its form tells: ``true``, ``1 = 1``, ``x = x``, ``… OR true``, ``x IS NOT NULL``."""
    text = bare(text)
    alternatives = split(text, "OR")
    if len(alternatives) > 1:
        return any(always(one) for one in alternatives)
    together = split(text, "AND")
    if len(together) > 1:
        return all(always(one) for one in together)
    if re.fullmatch(r"(?i)true|'(?:t|true|y|yes|on|1)'::bool(?:ean)?|not\s+\(?\s*false\s*\)?|[\w.\"]+ is not null", text):
        return True
    sides = [bare(one) for one in split(text, "=")]
    return len(sides) == 2 and sides[0] == sides[1]


def never(text: str) -> bool:
    return re.fullmatch(r"(?i)false|'(?:f|false)'::bool(?:ean)?", bare(text)) is not None


def leak(clause: Clause) -> str:
    """How a clause lets through what it should not; empty when it does not."""
    if always(clause.text):
        return "lets everybody in"
    if not clause.looks and not never(clause.text):
        return "decides without looking at the row"
    return ""


def applies(policy: Policy, role: Role) -> bool:
    return EVERYBODY in policy.roles or bool({role.name, *role.member_of} & set(policy.roles))


def findings(wanted: Wanted, catalog: Catalog) -> t.List[Finding]:
    """All that is not as it must be: pure."""
    role = catalog.roles[catalog.role]
    return [
        *_absent(wanted, catalog),
        *(one for table in catalog.tables for one in _table(wanted, table, role)),
        *_role(catalog, role),
        *_others(wanted, catalog, role),
        *_views(wanted, catalog),
    ]


def _absent(wanted: Wanted, catalog: Catalog) -> t.Iterator[Finding]:
    there = {table.name.rpartition(".")[2] for table in catalog.tables}
    for name in wanted.tables:
        if name not in there:
            yield Finding(
                f"table {wanted.schema}.{name}", "none", "one", "Correct its name or the schema, or run the migration that creates it."
            )
    if not catalog.tables and not wanted.tables:
        yield Finding(f"schema {wanted.schema}", "no table", "tables with row-level security", "Correct the schema, or migrate first.")


def _table(wanted: Wanted, table: Table, role: Role) -> t.Iterator[Finding]:
    if not table.enabled:
        idle = f", and {len(table.policies)} policies that have no effect" if table.policies else ""
        yield Finding(
            table.name, f"no row-level security{idle}", "row-level security", f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY;"
        )
        return
    if wanted.forced and not table.forced:
        found = f"row-level security that does not hold for its owner {table.owner}"
        yield Finding(table.name, found, "that it is forced", f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY;")
    if not table.policies:
        yield Finding(
            table.name, "row-level security without a policy, so that nobody sees a row", "policies", f"CREATE POLICY … ON {table.name} …;"
        )
        return
    relevant = [policy for policy in table.policies if applies(policy, role)]
    for command, word in COMMANDS.items():
        if not any(policy.permissive and command in policy.commands for policy in relevant):
            fix = f"CREATE POLICY … ON {table.name} FOR {word} …; or one FOR ALL."
            yield Finding(f"{table.name} {word}", f"no policy for {role.name}, so that it is refused", "a policy", fix)
    for policy in relevant:
        if policy.permissive and f"{table.name.rpartition('.')[2]}.{policy.name}" not in wanted.allow_open:
            yield from _open(table, policy, [one for one in relevant if not one.permissive])


def _open(table: Table, policy: Policy, restrictive: t.Sequence[Policy]) -> t.Iterator[Finding]:
    found: t.Dict[str, t.List[str]] = {}
    for command in policy.commands:
        # A restrictive policy has to let it in as well.
        if any(command in one.commands and not any(leak(clause) for _name, clause in one.clauses(command)) for one in restrictive):
            continue
        for name, clause in policy.clauses(command):
            if leak(clause):
                found.setdefault(f"{name} ({bare(clause.text)}) {leak(clause)}", []).append(COMMANDS[command])
    for what, commands in found.items():
        yield Finding(
            f"{table.name} policy {policy.name}",
            f"for {', '.join(commands)}: {what}",
            "that it compares the row with who asks",
            f"Drop or correct it; where it is meant, add {table.name.rpartition('.')[2]}.{policy.name} to allow_open.",
        )


def _role(catalog: Catalog, role: Role) -> t.Iterator[Finding]:
    """How the app's role goes around all policies, by itself or through a role that it can become."""
    for name in [role.name, *sorted(role.member_of)]:
        one = catalog.roles[name]
        through = "" if name == role.name else f" a member of {name}, which is"
        leave = f"REVOKE {name} FROM {role.name};" if through else ""
        subject = f"the app's role {role.name}"
        if one.superuser:
            yield Finding(
                subject,
                f"it is{through} a superuser, for whom no policy holds",
                "an ordinary role",
                leave or f"ALTER ROLE {name} NOSUPERUSER;",
            )
        if one.bypass:
            yield Finding(
                subject, f"it is{through} BYPASSRLS, for whom no policy holds", "NOBYPASSRLS", leave or f"ALTER ROLE {name} NOBYPASSRLS;"
            )
        owned = [table.name for table in catalog.tables if table.owner == name and table.enabled and not table.forced]
        if owned:
            found = f"it is{through} the owner of {', '.join(owned)}, for whom their policies do not hold"
            yield Finding(
                subject,
                found,
                "FORCE ROW LEVEL SECURITY, or another owner",
                "".join(f"ALTER TABLE {one} FORCE ROW LEVEL SECURITY; " for one in owned).strip(),
            )


def _others(wanted: Wanted, catalog: Catalog, role: Role) -> t.Iterator[Finding]:
    for name, one in sorted(catalog.roles.items()):
        if (
            name == role.name
            or name in role.member_of
            or one.first
            or name in wanted.trusted
            or not one.login
            or not (one.superuser or one.bypass)
        ):
            continue
        kind = "a superuser" if one.superuser else "BYPASSRLS"
        fix = f"ALTER ROLE {name} {'NOSUPERUSER' if one.superuser else 'NOBYPASSRLS'}; where it is meant, add it to trusted_roles."
        yield Finding(f"role {name}", f"it can log in and is {kind}", "that policies hold for it", fix)


def _views(wanted: Wanted, catalog: Catalog) -> t.Iterator[Finding]:
    """Views through which the app's role reads tables as somebody for whom their policies do not hold."""
    views = {view.name: view for view in catalog.views}
    tables = {table.name: table for table in catalog.tables if table.enabled}

    def around(name: str, reader: str, seen: t.FrozenSet[str]) -> t.Iterator[t.Tuple[str, str]]:
        """(table, as whom) for all that is read through a view without its policies."""
        view = views[name]
        # What a view reads, it reads as its owner; with security_invoker, as who reads the view.
        reader = reader if view.invoker and not view.materialized else view.owner
        for read in view.reads:
            if read in tables and (view.materialized or _sees_all(catalog.roles[reader], tables[read])):
                yield read, reader
            elif read in views and read not in seen:
                yield from around(read, reader, seen | {read})

    for view in catalog.views:
        found = sorted(set(around(view.name, catalog.role, frozenset({view.name})))) if view.used else []
        if not found or f"{view.name.rpartition('.')[2]}" in wanted.allow_open:
            continue
        read = ", ".join(table for table, _reader in found)
        if view.materialized:
            yield Finding(
                f"materialized view {view.name}",
                f"a copy of {read}, without policies",
                "that the app cannot read it",
                f"REVOKE ALL ON {view.name} FROM {catalog.role}; or from PUBLIC.",
            )
            continue
        readers = ", ".join(sorted({reader for _table, reader in found}))
        fix = (
            f"ALTER VIEW {view.name} SET (security_invoker = true);"
            if catalog.version >= 15
            else f"ALTER VIEW {view.name} OWNER TO a role for which the policies hold."
        )
        yield Finding(
            f"view {view.name}", f"it reads {read} as {readers}, for whom the policies do not hold", "that it reads as who uses it", fix
        )


def _sees_all(role: Role, table: Table) -> bool:
    owns = table.owner in {role.name, *role.member_of}
    return role.superuser or role.bypass or (owns and not table.forced)


def read(connection: t.Any, wanted: Wanted, role: str = "") -> Catalog:
    """What the catalog says about the tables that are meant."""

    def ask(statement: str, *values: t.Any) -> t.List[t.Tuple[t.Any, ...]]:
        return postgres.rows(connection, statement, values)

    role = role or ask("SELECT current_user")[0][0]
    roles = _roles(ask)
    if role not in roles:
        raise Failure(f"There is no role {role} on the server.", fix="Correct role: the role that the app connects as.")
    if not ask("SELECT 1 FROM pg_namespace WHERE nspname = %s", wanted.schema):
        raise Failure(f"There is no schema {wanted.schema} in the database.", fix="Correct schema.")
    policies: t.Dict[int, t.List[Policy]] = {}
    for table, name, command, permissive, granted, using, using_looks, check, check_looks in ask(
        r"""
        SELECT polrelid::bigint, polname, polcmd::text, polpermissive,
               ARRAY(SELECT CASE WHEN one = 0 THEN 'public' ELSE pg_get_userbyid(one)::text END FROM unnest(polroles) one),
               pg_get_expr(polqual, polrelid), polqual::text ~ '\{VAR ', pg_get_expr(polwithcheck, polrelid), polwithcheck::text ~ '\{VAR '
        FROM pg_policy ORDER BY polname
        """
    ):
        clauses = [None if text is None else Clause(text, looks) for text, looks in ((using, using_looks), (check, check_looks))]
        policies.setdefault(table, []).append(Policy(name, command, permissive, tuple(granted), *clauses))
    tables = [
        Table(name, owner, enabled, forced, tuple(policies.get(oid, ())))
        for oid, relation, name, owner, enabled, forced in ask(
            """
            SELECT c.oid::bigint, c.relname, format('%%I.%%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)::text,
                   c.relrowsecurity, c.relforcerowsecurity
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
            ORDER BY 2
            """,
            wanted.schema,
        )
        if relation not in wanted.exclude and (not wanted.tables or relation in wanted.tables)
    ]
    return Catalog(role, postgres.major(connection), tables, roles, _all_views(ask, role))


def _roles(ask: t.Callable[..., t.List[t.Tuple[t.Any, ...]]]) -> t.Dict[str, Role]:
    direct: t.Dict[str, t.Set[str]] = {}
    for member, of in ask("SELECT pg_get_userbyid(member)::text, pg_get_userbyid(roleid)::text FROM pg_auth_members"):
        direct.setdefault(member, set()).add(of)

    def closure(name: str) -> t.FrozenSet[str]:
        found: t.Set[str] = set()
        todo = [name]
        while todo:
            more = direct.get(todo.pop(), set()) - found
            found |= more
            todo += more
        return frozenset(found - {name})

    # 10 is BOOTSTRAP_SUPERUSERID on every server.
    return {
        name: Role(name, superuser, bypass, login, oid == 10, closure(name))
        for oid, name, superuser, bypass, login in ask(
            "SELECT oid::bigint, rolname::text, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles"
        )
    }


def _all_views(ask: t.Callable[..., t.List[t.Tuple[t.Any, ...]]], role: str) -> t.List[View]:
    found = ask(
        """
        SELECT format('%%I.%%I', n.nspname, v.relname), pg_get_userbyid(v.relowner)::text,
               coalesce((SELECT option_value FROM pg_options_to_table(v.reloptions) WHERE option_name = 'security_invoker'), ''),
               has_table_privilege(%s, v.oid, 'SELECT, INSERT, UPDATE, DELETE') OR has_any_column_privilege(%s, v.oid, 'SELECT'),
               v.relkind = 'm', array_agg(DISTINCT format('%%I.%%I', m.nspname, c.relname))
        FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> v.oid
        JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace m ON m.oid = c.relnamespace
        WHERE v.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        GROUP BY v.oid, n.nspname, v.relname, v.relowner, v.reloptions, v.relkind ORDER BY 1
        """,
        role,
        role,
    )
    return [View(name, owner, option.lower() in ON, used, tuple(reads), copy) for name, owner, option, used, copy, reads in found]
