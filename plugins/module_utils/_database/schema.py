# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a database is what an app needs: server, privileges, tables, columns, extensions, size, rows, revision. Nothing is ever changed."""

from __future__ import annotations

import difflib
import os
import re
import secrets
import sqlite3
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import as_owner, postgres, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

# What is expected; documented by the module schema_check. Any of it may be missing.
SPEC: t.Dict[str, t.Any] = {
    "min_version": {"type": "raw"},
    "max_version": {"type": "raw"},
    "can_create_tables": {"type": "bool", "default": False},
    "tables": {"type": "list", "elements": "str", "default": []},
    "absent_tables": {"type": "list", "elements": "str", "default": []},
    "columns": {"type": "list", "elements": "str", "default": []},
    "absent_columns": {"type": "list", "elements": "str", "default": []},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "max_size_mb": {"type": "float"},
    "rows": {"type": "dict", "default": {}},
    "revision": {"type": "str"},
}

MB = 1024 * 1024
# Seconds that one question may take: a check must never be what keeps a table locked or a server busy.
PATIENCE = 30
NAME = re.compile(r'"(?:[^"]|"")+"|[^\s".]+')
# The short names that people write, and what PostgreSQL calls them (https://www.postgresql.org/docs/current/datatype.html).
ALIASES = {
    "bigserial": "bigint",
    "bool": "boolean",
    "char": "character",
    "decimal": "numeric",
    "float4": "real",
    "float8": "double precision",
    "int": "integer",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
    "serial": "integer",
    "time": "time without time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
    "timetz": "time with time zone",
    "varbit": "bit varying",
    "varchar": "character varying",
}


@dataclass(frozen=True)
class Relation:
    """A table, or what can be read like one.

    :param columns: Each column's type by its name.
    :param problem: Why the rows could not be counted.
    """

    columns: t.Mapping[str, str]
    rows: t.Optional[int] = None
    problem: str = ""


@dataclass(frozen=True)
class Observed:
    """What was asked of a database, and what it answered.

    :param relations: By the name that they were asked by; None for those that are not there.
    :param names: All tables, so that a mistyped one can be recognized.
    :param cannot_create: Why no table can be created; empty when it can, or nobody asked.
    """

    server: str
    version: t.Tuple[int, ...]
    size: int
    relations: t.Mapping[str, t.Optional[Relation]] = field(default_factory=dict)
    names: t.Sequence[str] = ()
    extensions: t.Sequence[str] = ()
    available: t.Sequence[str] = ()
    cannot_create: str = ""
    revisions: t.Optional[t.Sequence[str]] = None


@dataclass(frozen=True)
class Bounds:
    least: t.Optional[int]
    most: t.Optional[int]

    @property
    def enough(self) -> int:
        """How many rows have to be counted to know: a table of millions need not be read for its first."""
        return max(self.least or 0, 0 if self.most is None else self.most + 1)

    def __str__(self) -> str:
        if self.least is None or self.most is None:
            return f"at least {self.least}" if self.most is None else f"at most {self.most}"
        return f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Wanted:
    """What is expected, taken apart."""

    least: t.Tuple[int, ...]
    most: t.Tuple[int, ...]
    can_create: bool
    tables: t.Sequence[str]
    absent_tables: t.Sequence[str]
    columns: t.Sequence[t.Tuple[str, str, str]]
    absent_columns: t.Sequence[t.Tuple[str, str, str]]
    extensions: t.Sequence[str]
    size_mb: t.Optional[float]
    rows: t.Mapping[str, Bounds]
    revision: t.Optional[str]

    def relations(self) -> t.List[str]:
        """Every relation that has to be looked at."""
        by_column = [table for table, _column, _type in [*self.columns, *self.absent_columns]]
        return sorted({*self.tables, *self.absent_tables, *by_column, *self.rows})


def wanted_of(options: t.Mapping[str, t.Any]) -> Wanted:
    """What is expected, from the options; a Failure with all mistakes in them."""
    unknown = sorted(set(options) - set(SPEC) - set(url.SPEC))
    mistakes = [f"{name}: there is no such expectation; there are {', '.join(SPEC)}" for name in unknown]

    def tried(make: t.Callable[..., t.Any], *values: t.Any) -> t.Any:
        try:
            return make(*values)
        except ValueError as error:
            mistakes.append(str(error))
            return None

    def given(name: str) -> t.Any:
        value = options.get(name)
        return SPEC[name].get("default") if value is None else value

    wanted = Wanted(
        least=tried(_version, "min_version", given("min_version")) or (),
        most=tried(_version, "max_version", given("max_version")) or (),
        can_create=given("can_create_tables"),
        tables=[found for found in (tried(_table, "tables", one) for one in given("tables")) if found],
        absent_tables=[found for found in (tried(_table, "absent_tables", one) for one in given("absent_tables")) if found],
        columns=[found for found in (tried(_column, "columns", one) for one in given("columns")) if found],
        absent_columns=[found for found in (tried(_column, "absent_columns", one) for one in given("absent_columns")) if found],
        extensions=given("extensions"),
        size_mb=given("max_size_mb"),
        rows={str(table): bounds for table, bounds in ((one, tried(_bounds, one, two)) for one, two in given("rows").items()) if bounds},
        revision=given("revision"),
    )
    if mistakes:
        raise Failure(
            "What is expected of the database is not clear:\n" + "\n".join(f"- {one}." for one in mistakes), fix="Correct the options."
        )
    return wanted


def _version(name: str, value: t.Any) -> t.Tuple[int, ...]:
    if value is None:
        return ()
    # YAML reads 13.10 without quotes as 13.1, and nobody would see it.
    if isinstance(value, float) or not re.fullmatch(r"\d+(?:\.\d+)*", str(value)):
        raise ValueError(f'{name}: found {value}; allowed: a version in quotes, such as "12" or "13.10"')
    return tuple(int(part) for part in str(value).split("."))


def parts_of(name: str) -> t.List[str]:
    """The parts of a dotted name, each of which may be in double quotes."""
    found, rest = [], name
    while True:
        match = NAME.match(rest)
        if match is None:
            raise ValueError(f"found {name!r}; allowed: names with dots between them, in double quotes where they have dots or spaces")
        found.append(match[0][1:-1].replace('""', '"') if match[0].startswith('"') else match[0])
        rest = rest[match.end() :]
        if not rest:
            return found
        if not rest.startswith("."):
            raise ValueError(f"found {name!r}; allowed: names with dots between them, in double quotes where they have dots or spaces")
        rest = rest[1:]


def _table(option: str, text: str) -> str:
    if len(parts_of(text)) > 2:
        raise ValueError(f"{option}: found {text!r}; allowed: table, or schema.table")
    return text


def _column(option: str, text: str) -> t.Tuple[str, str, str]:
    """(table, column, type or an empty text), of ``schema.table.column type``."""
    match = re.match(r'(?:"(?:[^"]|"")+"|[^\s"])+', text.strip())
    name = match[0] if match else ""
    parts = parts_of(name) if name else []
    if not 2 <= len(parts) <= 3:
        raise ValueError(f"{option}: found {text!r}; allowed: table.column or schema.table.column, and a type after a space")
    table = name[: len(name) - len(_last(name)) - 1]
    return table, parts[-1], text.strip()[len(name) :].strip()


def _last(name: str) -> str:
    return [match[0] for match in NAME.finditer(name)][-1]


def _bounds(table: str, value: t.Any) -> Bounds:
    # True is a whole number to Python, and never to the person who wrote it.
    numbers = list(value.values()) if isinstance(value, dict) else []
    good = bool(numbers) and set(value) <= {"min", "max"}
    good = good and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers)
    if not good:
        raise ValueError(f"rows: found {value!r} for {table}; allowed: a mapping with min, max or both, whole numbers")
    return Bounds(value.get("min"), value.get("max"))


def normal(type_name: str) -> str:
    """A type as PostgreSQL's format_type would write it."""
    text = re.sub(r"\s+", " ", type_name.strip().lower())
    base, paren, rest = text.partition("(")
    base, array, more = base.strip().partition("[")
    return ALIASES.get(base, base) + (f"({rest.replace(' ', '')}" if paren else "") + (f"[{more}" if array else "")


def same_type(found: str, expected: str) -> bool:
    """Whether a column is of the expected type. An expected type without a length is had with any."""
    one, other = normal(found), normal(expected)
    return one == other or ("(" not in other and re.sub(r"\([^)]*\)", "", one) == other)


def compare(wanted: Wanted, observed: Observed) -> t.List[Finding]:
    """All that is not as it must be: pure."""
    return [
        *_server(wanted, observed),
        *_tables(wanted, observed),
        *_columns(wanted, observed),
        *_rows(wanted, observed),
        *_revision(wanted, observed),
    ]


def _server(wanted: Wanted, observed: Observed) -> t.Iterator[Finding]:
    shown = ".".join(str(part) for part in observed.version)
    if observed.version[: len(wanted.least)] < wanted.least:
        least = ".".join(str(part) for part in wanted.least)
        yield Finding(f"{observed.server} version", shown, f"at least {least}", "Upgrade it, or use another server.")
    if wanted.most and observed.version[: len(wanted.most)] > wanted.most:
        most = ".".join(str(part) for part in wanted.most)
        yield Finding(f"{observed.server} version", shown, f"at most {most}", "Try the app on it, then raise max_version.")
    if observed.cannot_create:
        yield Finding(
            "creating a table",
            observed.cannot_create,
            "that it can be done",
            "Grant it: GRANT CREATE ON SCHEMA … TO …, or give the file to the app.",
        )
    for name in wanted.extensions:
        if name not in observed.extensions:
            there = name in observed.available
            fix = f'CREATE EXTENSION "{name}" in this database.' if there else "Install its package on the server, then CREATE EXTENSION."
            yield Finding(f"extension {name}", "available, but not created" if there else "not on the server", "created", fix)
    if wanted.size_mb is not None and observed.size > wanted.size_mb * MB:
        yield Finding("size", f"{observed.size / MB:.1f} MB", f"at most {wanted.size_mb:g} MB", "Look what grows, or raise max_size_mb.")


def _tables(wanted: Wanted, observed: Observed) -> t.Iterator[Finding]:
    for name in wanted.tables:
        if observed.relations.get(name) is None:
            yield Finding(f"table {name}", "none", "one", _hint(name, observed.names) + "Run the migration that creates it.")
    for name in wanted.absent_tables:
        if observed.relations.get(name) is not None:
            yield Finding(f"table {name}", "it is there", "none", "Run the migration that drops or renames it.")


def _columns(wanted: Wanted, observed: Observed) -> t.Iterator[Finding]:
    for table, column, expected in wanted.columns:
        subject = f"column {table}.{column}"
        relation = observed.relations.get(table)
        shown = expected or "one"
        if relation is None:
            yield Finding(subject, f"no table {table}", shown, _hint(table, observed.names) + "Run the migration that creates it.")
        elif column not in relation.columns:
            yield Finding(subject, "none", shown, _hint(column, list(relation.columns)) + "Run the migration that adds or renames it.")
        elif expected and not same_type(relation.columns[column], expected):
            yield Finding(subject, relation.columns[column] or "no type", expected, "Run the migration that changes its type.")
    for table, column, _type in wanted.absent_columns:
        relation = observed.relations.get(table)
        if relation is not None and column in relation.columns:
            yield Finding(f"column {table}.{column}", "it is there", "none", "Run the migration that drops or renames it.")


def _hint(name: str, there: t.Sequence[str]) -> str:
    close = difflib.get_close_matches(parts_of(name)[-1] if "." in name else name, there, n=1)
    return f"There is {close[0]}. " if close else ""


def _rows(wanted: Wanted, observed: Observed) -> t.Iterator[Finding]:
    for table, bounds in wanted.rows.items():
        subject, relation = f"rows of {table}", observed.relations.get(table)
        if relation is None:
            yield Finding(subject, "no such table", str(bounds), "Run the migration that creates it.")
        elif relation.rows is None:
            yield Finding(
                subject, f"they could not be counted: {relation.problem}", str(bounds), "Let a role count them that sees all of them."
            )
        elif relation.rows < (bounds.least or 0):
            yield Finding(subject, str(relation.rows), str(bounds), "Load what is missing, or look what has deleted it.")
        elif bounds.most is not None and relation.rows > bounds.most:
            yield Finding(subject, f"more than {bounds.most}", str(bounds), "Look what has added them, or raise max.")


def _revision(wanted: Wanted, observed: Observed) -> t.Iterator[Finding]:
    if wanted.revision is None:
        return
    if observed.revisions is None:
        yield Finding("revision", "no table alembic_version", wanted.revision, "Run the migrations.")
    elif list(observed.revisions) != [wanted.revision]:
        found = ", ".join(observed.revisions) or "none"
        yield Finding("revision", found, wanted.revision, "Run the migrations, or deploy the release that this database belongs to.")


def observe(database: url.Database, wanted: Wanted) -> Observed:
    if isinstance(database, url.Sqlite):
        if not os.path.exists(database.path):
            raise Failure(f"There is no database {database.path}.", fix="Correct the URL, or migrate: that creates it.")
        if wanted.extensions:
            raise Failure("extensions: an SQLite database has none.", fix="Leave extensions out.")
        answer = as_owner.as_owner(database.path, lambda: _observe_sqlite(database.path, wanted))
        relations = {name: None if one is None else Relation(**one) for name, one in answer.pop("relations").items()}
        return Observed(**{**answer, "version": tuple(answer["version"]), "relations": relations})
    connection = postgres.connect(database)
    try:
        return _observe_postgres(connection, wanted)
    finally:
        connection.close()


def _observe_postgres(connection: t.Any, wanted: Wanted) -> Observed:
    def ask(statement: str, *values: t.Any) -> t.List[t.Tuple[t.Any, ...]]:
        return postgres.rows(connection, statement, values)

    cannot_create = _try_to_create(connection) if wanted.can_create else ""
    ask("SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)", f"{PATIENCE}s", "5s")
    # A policy that hides rows would make a wrong number of them; like this it is an error.
    ask("SET row_security = off")
    ask("SET default_transaction_read_only = on")
    relations: t.Dict[str, t.Optional[Relation]] = {}
    for name in wanted.relations():
        quoted = ".".join(postgres.identifier(part) for part in parts_of(name))
        found = ask(
            "SELECT c.oid::bigint, c.oid::regclass::text FROM pg_class c WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            quoted,
        )
        if not found:
            relations[name] = None
            continue
        columns = ask(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            found[0][0],
        )
        rows, problem = None, ""
        if name in wanted.rows:
            try:
                # The limit is a number of ours.
                rows = ask(f"SELECT count(*) FROM (SELECT FROM {quoted} LIMIT {wanted.rows[name].enough}) AS counted")[0][0]
            except Failure as failure:
                problem = failure.what
        relations[name] = Relation(dict(columns), rows, problem)
    revisions = None
    if wanted.revision is not None and ask("SELECT to_regclass('alembic_version')")[0][0] is not None:
        revisions = [row[0] for row in ask("SELECT version_num FROM alembic_version ORDER BY 1")]
    number = int(connection.server_version)
    return Observed(
        server="PostgreSQL",
        # Since 10, a version has two parts: 150020 is 15.20 (libpq, PQserverVersion).
        version=(number // 10000, number % 10000),
        size=ask("SELECT pg_database_size(current_database())")[0][0],
        relations=relations,
        names=[
            row[0] for row in ask("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(oid)")
        ],
        extensions=[row[0] for row in ask("SELECT extname FROM pg_extension")],
        available=[row[0] for row in ask("SELECT name FROM pg_available_extensions")] if wanted.extensions else [],
        cannot_create=cannot_create,
        revisions=revisions,
    )


def _scratch() -> str:
    return f"bulletproof_check_{secrets.token_hex(6)}"


def _try_to_create(connection: t.Any) -> str:
    """Why no table can be created. It is tried, in a transaction that is rolled back: no list of privileges says it as well."""
    postgres.rows(connection, "BEGIN")
    try:
        postgres.rows(connection, f"CREATE TABLE {_scratch()} (id integer)")
    except Failure as failure:
        return failure.what
    finally:
        postgres.rows(connection, "ROLLBACK")
    return ""


def _observe_sqlite(path: str, wanted: Wanted) -> t.Dict[str, t.Any]:
    cannot_create = ""
    if wanted.can_create:
        try:
            with as_owner.writing(path) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"CREATE TABLE {_scratch()} (id integer)")
                connection.execute("ROLLBACK")
        except Failure as failure:
            cannot_create = failure.what
    with as_owner.reading(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        # SQLite does not tell upper from lower case in names.
        by_lower = {name.lower(): name for name in names}
        relations: t.Dict[str, t.Any] = {}
        for wanted_name in wanted.relations():
            parts = parts_of(wanted_name)
            name = by_lower.get(parts[-1].lower())
            if name is None or (len(parts) == 2 and parts[0].lower() != "main"):
                relations[wanted_name] = None
                continue
            quoted = '"' + name.replace('"', '""') + '"'
            columns = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_xinfo({quoted})")}
            rows = None
            if wanted_name in wanted.rows:
                rows = connection.execute(
                    f"SELECT count(*) FROM (SELECT 1 FROM {quoted} LIMIT {wanted.rows[wanted_name].enough})"
                ).fetchone()[0]
            relations[wanted_name] = {"columns": columns, "rows": rows}
        revisions = None
        if wanted.revision is not None and "alembic_version" in by_lower:
            revisions = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version ORDER BY 1")]
    size = sum(os.path.getsize(path + end) for end in ("", "-wal") if os.path.exists(path + end))
    return {
        "server": "SQLite",
        "version": sqlite3.sqlite_version_info,
        "size": size,
        "relations": relations,
        "names": names,
        "cannot_create": cannot_create,
        "revisions": revisions,
    }


def problems(database: url.Database, options: t.Mapping[str, t.Any]) -> t.List[Finding]:
    """All that is not as the options of schema_check say; each Finding is a sentence as text."""
    wanted = wanted_of(options)
    return compare(wanted, observe(database, wanted))
