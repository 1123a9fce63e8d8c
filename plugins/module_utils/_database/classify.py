# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a release that does not know a migration can keep running beside it: expanding, contracting, or unknown.

Judged are the operations that were recorded, in their order. What happens to a table or a column that an earlier one of the same migrations
has made concerns nobody. What cannot be told is unknown, and is treated like contracting.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

Operation = t.Mapping[str, t.Any]
EXPANDING, CONTRACTING, UNKNOWN = "expanding", "contracting", "unknown"
WORST = (EXPANDING, UNKNOWN, CONTRACTING)
Judged = t.Tuple[str, str]


@dataclass
class Made:
    """What the migrations before have made, so that no running release can know it."""

    tables: t.Set[str] = field(default_factory=set)
    columns: t.Set[t.Tuple[str, str]] = field(default_factory=set)


def classify(steps: t.Sequence[t.Mapping[str, t.Any]]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """Revision to ``{kind, why}`` for migrations in the order in which they run.

    :param steps: Each with ``revision``, ``operations`` and ``unseen`` (why some of it could not be recorded).
    """
    made = Made()
    found = {}
    for step in steps:
        judged = [judge(operation, made) for operation in step.get("operations", [])]
        if step.get("unseen"):
            judged.append((UNKNOWN, str(step["unseen"])))
        worst = max((WORST.index(kind) for kind, _why in judged), default=0)
        found[str(step["revision"])] = {
            "kind": WORST[worst],
            "why": [why for kind, why in judged if kind == WORST[worst] or kind != EXPANDING],
        }
    return found


def judge(operation: Operation, made: Made) -> Judged:
    """One operation. What it makes is added to what was made."""
    name, table = operation["op"], str(operation.get("table_name") or operation.get("source_table") or "")
    column = str(operation.get("column_name", ""))
    if name == "CreateTableOp":
        made.tables.add(table)
        return EXPANDING, f"adds the table {table}"
    if name == "ExecuteSQLOp":
        return judge_sql(str(operation.get("sql", "")), made)
    known = name in SIMPLE or name in ("AddColumnOp", "AlterColumnOp", "CreateIndexOp", "DropIndexOp", "DropConstraintOp")
    if not known:
        return UNKNOWN, f"{name} is not an operation whose effect is known"
    if table in made.tables:
        return EXPANDING, f"changes {table}, which is new"
    if name == "AddColumnOp":
        return _add_column(operation, table, column, made)
    if (table, column) in made.columns:
        return EXPANDING, f"changes {table}.{column}, which is new"
    if name == "AlterColumnOp":
        return _alter_column(operation, f"{table}.{column}")
    if name == "CreateIndexOp":
        index = operation.get("index_name")
        if operation.get("unique"):
            return CONTRACTING, f"makes {index} on {table} unique: rows that the old release may write are refused"
        return EXPANDING, f"adds the index {index} on {table}"
    if name == "DropConstraintOp" and operation.get("constraint_type") in ("foreignkey", "check"):
        return EXPANDING, f"takes the {operation['constraint_type']} constraint {operation.get('constraint_name')} off {table}"
    kind, words = SIMPLE.get(name, (CONTRACTING, "drops {constraint_name}{index_name} of {table}, which an upsert or a query may need"))
    return kind, words.format(
        table=table,
        column=column,
        new=operation.get("new_table_name", ""),
        constraint_name=operation.get("constraint_name") or "",
        index_name=operation.get("index_name") or "",
    )


SIMPLE: t.Dict[str, Judged] = {
    "BulkInsertOp": (EXPANDING, "adds rows to {table}"),
    "CreateTableCommentOp": (EXPANDING, "comments on {table}"),
    "DropTableCommentOp": (EXPANDING, "comments on {table}"),
    "DropTableOp": (CONTRACTING, "drops the table {table}"),
    "DropColumnOp": (CONTRACTING, "drops the column {table}.{column}"),
    "RenameTableOp": (CONTRACTING, "renames the table {table} to {new}"),
    "CreateUniqueConstraintOp": (CONTRACTING, "makes {constraint_name} on {table} unique: rows that the old release may write are refused"),
    "CreateForeignKeyOp": (
        CONTRACTING,
        "adds the foreign key {constraint_name} to {table}: rows that the old release may write are refused",
    ),
    "CreateCheckConstraintOp": (
        CONTRACTING,
        "adds the check {constraint_name} to {table}: rows that the old release may write are refused",
    ),
    "CreatePrimaryKeyOp": (CONTRACTING, "adds a primary key to {table}: rows that the old release may write are refused"),
    "CreateExcludeConstraintOp": (
        CONTRACTING,
        "adds the constraint {constraint_name} to {table}: rows that the old release may write are refused",
    ),
}


def _add_column(operation: Operation, table: str, column: str, made: Made) -> Judged:
    made.columns.add((table, column))
    if not operation.get("nullable") and not operation.get("default"):
        return CONTRACTING, f"adds {table}.{column} NOT NULL without a server default: rows of the old release have no value for it"
    if operation.get("unique") and operation.get("default"):
        return CONTRACTING, f"adds {table}.{column} unique with a default: only one row of the old release can have it"
    return EXPANDING, f"adds the column {table}.{column}"


def _alter_column(operation: Operation, where: str) -> Judged:
    if operation.get("name"):
        return CONTRACTING, f"renames {where} to {operation['name']}"
    new, old = operation.get("type"), operation.get("existing_type")
    if new and not _wider(old, new):
        was = f" from {old['sql']}" if old else ""
        return CONTRACTING, f"changes the type of {where}{was} to {new['sql']}"
    if operation.get("nullable") is False:
        return CONTRACTING, f"makes {where} NOT NULL: rows of the old release may have no value for it"
    if operation.get("default") == "removed":
        return CONTRACTING, f"takes the default off {where}, which the old release may rely on"
    return EXPANDING, f"allows more in {where}"


def _wider(old: t.Optional[t.Mapping[str, t.Any]], new: t.Mapping[str, t.Any]) -> bool:
    """Whether every value of the old type is one of the new type, and no code can tell."""
    if old is None:
        return False
    if old["sql"] == new["sql"]:
        return True
    strings = ("string", "unicode", "VARCHAR", "text", "unicode_text", "TEXT")
    if old["family"] not in strings or new["family"] not in strings:
        return False
    return new["length"] is None or (old["length"] is not None and new["length"] >= old["length"])


# Raw SQL ----------------------------------------------------------------------------------------------------------------------------

NAME = r'"?(?:\w+"?\."?)?(\w+)"?'
# Literals and comments in one pass: each may contain what looks like the other.
NOISE = re.compile(r"(--[^\n]*|/\*.*?\*/)|\$(\w*)\$.*?\$\2\$|'(?:''|[^'])*'", re.DOTALL)

# The first that is found anywhere in a statement decides; the order is from what takes away to what adds.
CONTRACTS: t.Sequence[t.Tuple[str, str]] = (
    (r"^ALTER TABLE .*\bDROP (?:COLUMN\b|(?!NOT NULL|DEFAULT|CONSTRAINT|EXPRESSION|IDENTITY))", "drops a column"),
    (r"\bDROP CONSTRAINT\b", "drops a constraint"),
    (r"\bDROP DEFAULT\b", "takes a default away"),
    (r"^DROP (\w+)", "drops something"),
    (r"^TRUNCATE\b", "empties a table"),
    (r"^DELETE\b", "deletes rows"),
    (r"^REVOKE\b", "takes rights away"),
    (r"\bRENAME\b", "renames something"),
    (r"\bSET NOT NULL\b", "makes a column NOT NULL"),
    (r"\bALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE\b", "changes the type of a column"),
    (r"^CREATE UNIQUE INDEX\b", "makes a column unique"),
    (r"^ALTER TABLE .*\bADD (?:CONSTRAINT|UNIQUE|CHECK|FOREIGN KEY|PRIMARY KEY|EXCLUDE)\b", "adds a constraint"),
    (r"\b(?:ENABLE|FORCE) ROW LEVEL SECURITY\b", "hides rows"),
    (r"^CREATE OR REPLACE\b", "replaces what the old release may use"),
    (r"^CREATE (?:CONSTRAINT )?TRIGGER\b", "adds a trigger, which acts on what the old release writes"),
)
EXPANDS: t.Sequence[t.Tuple[str, str]] = (
    (r"^CREATE (?:TEMP(?:ORARY)? |UNLOGGED )?TABLE\b", "adds a table"),
    (r"^CREATE INDEX\b", "adds an index"),
    (r"^CREATE (?:MATERIALIZED )?VIEW\b", "adds a view"),
    (r"^CREATE (?:SCHEMA|EXTENSION|TYPE|SEQUENCE|FUNCTION|PROCEDURE|DOMAIN|COLLATION)\b", "adds something"),
    (r"^ALTER TYPE .*\bADD VALUE\b", "adds a value to a type"),
    (r"\bDROP NOT NULL\b", "allows more in a column"),
    (r"\bSET DEFAULT\b", "sets a default"),
    (r"^INSERT\b", "adds rows"),
    (r"^(?:COMMENT|GRANT|ANALYZE|VACUUM|REINDEX)\b", "changes nothing that a query can see"),
    (r"^(?:SET|RESET|PRAGMA|BEGIN|COMMIT|LOCK|SAVEPOINT|RELEASE)\b", "is about the session only"),
)
ADD_COLUMN = re.compile(
    rf"\bADD (?:COLUMN )?(?:IF NOT EXISTS )?(?!CONSTRAINT\b|UNIQUE\b|CHECK\b|FOREIGN\b|PRIMARY\b|EXCLUDE\b|VALUE\b){NAME} ([^,]*)",
    re.IGNORECASE,
)


def judge_sql(text: str, made: Made) -> Judged:
    """Raw SQL, statement by statement, by its keywords; literals, bodies and comments do not count."""
    judged = [judge_statement(one, made) for one in NOISE.sub(lambda match: " " if match[1] else "''", text).split(";") if one.strip()]
    worst = max((WORST.index(kind) for kind, _why in judged), default=0)
    return WORST[worst], "; ".join(why for kind, why in judged if kind == WORST[worst]) or "says nothing"


def judge_statement(statement: str, made: Made) -> Judged:
    plain = " ".join(statement.split())
    shown = plain if len(plain) <= 80 else plain[:77] + "..."
    subject = re.match(
        rf"(?:ALTER TABLE|CREATE (?:UNIQUE )?INDEX .*?\bON|UPDATE|DELETE FROM|INSERT INTO|TRUNCATE(?: TABLE)?) (?:IF EXISTS )?(?:ONLY )?{NAME}",
        plain,
        re.IGNORECASE,
    )
    table = subject[1] if subject else ""
    created = re.match(rf"CREATE (?:TEMP(?:ORARY)? |UNLOGGED )?TABLE (?:IF NOT EXISTS )?{NAME}", plain, re.IGNORECASE)
    if created:
        made.tables.add(created[1])
    if table and table in made.tables:
        return EXPANDING, f"changes {table}, which is new: {shown}"
    for pattern, why in CONTRACTS:
        if re.search(pattern, plain, re.IGNORECASE):
            return CONTRACTING, f"{why}: {shown}"
    if re.match("ALTER TABLE", plain, re.IGNORECASE):
        columns = ADD_COLUMN.findall(plain)
        for column, definition in columns:
            made.columns.add((table, column))
            if re.search(r"\bNOT NULL\b", definition, re.IGNORECASE) and not re.search(
                r"\b(DEFAULT|GENERATED)\b|SERIAL", definition, re.IGNORECASE
            ):
                return CONTRACTING, f"adds {table}.{column} NOT NULL without a default: {shown}"
        if columns:
            return EXPANDING, f"adds a column: {shown}"
    if re.match("UPDATE", plain, re.IGNORECASE):
        assigned = re.search(r"\bSET (.*?)(?:\bFROM\b|\bWHERE\b|$)", plain, re.IGNORECASE)
        columns = re.findall(r'(?:^|,)\s*"?(\w+)"?\s*=', assigned[1]) if assigned else []
        if columns and all((table, column) in made.columns for column in columns):
            return EXPANDING, f"fills what is new: {shown}"
        return UNKNOWN, f"changes rows that the old release has: {shown}"
    for pattern, why in EXPANDS:
        if re.search(pattern, plain, re.IGNORECASE):
            return EXPANDING, f"{why}: {shown}"
    return UNKNOWN, f"nothing can be told of: {shown}"
