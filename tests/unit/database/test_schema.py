# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found wrong with a database, from what is expected and what it answered."""

from __future__ import annotations

import sqlite3
import typing as t

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import schema, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import failure_of

EVENTS = schema.Relation({"id": "integer", "event_metadata": "jsonb", "title": "character varying(64)"}, rows=3)


def found(options: dict[str, t.Any], **observed: t.Any) -> list[tuple[str, str, str]]:
    given = {
        "server": "PostgreSQL",
        "version": (15, 20),
        "size": 8 * schema.MB,
        "relations": {"events": EVENTS},
        "names": ["events"],
        **observed,
    }
    return [(one.subject, one.found, one.expected) for one in schema.compare(schema.wanted_of(options), schema.Observed(**given))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_version": "12", "max_version": "15"},
        {"min_version": 15, "max_version": "15.20"},
        {"tables": ["events"], "absent_tables": ["old"], "columns": ["events.id"], "absent_columns": ["events.metadata", "absent.x"]},
        {"columns": ["events.title varchar", "events.title varchar(64)", "events.event_metadata JSONB", "events.id int4"]},
        {"max_size_mb": 8, "rows": {"events": {"min": 3, "max": 3}}},
    ],
)
def test_what_is_as_expected_is_no_finding(options):
    assert found(options) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min_version": "16"}, ("PostgreSQL version", "15.20", "at least 16")),
        ({"max_version": "15.3"}, ("PostgreSQL version", "15.20", "at most 15.3")),
        ({"tables": ["users"]}, ("table users", "none", "one")),
        ({"absent_tables": ["events"]}, ("table events", "it is there", "none")),
        ({"columns": ["events.metadata"]}, ("column events.metadata", "none", "one")),
        ({"columns": ["users.id bigint"]}, ("column users.id", "no table users", "bigint")),
        ({"columns": ["events.title varchar(32)"]}, ("column events.title", "character varying(64)", "varchar(32)")),
        ({"absent_columns": ["events.id"]}, ("column events.id", "it is there", "none")),
        ({"extensions": ["pgcrypto"]}, ("extension pgcrypto", "not on the server", "created")),
        ({"max_size_mb": 7.9}, ("size", "8.0 MB", "at most 7.9 MB")),
        ({"rows": {"events": {"min": 4}}}, ("rows of events", "3", "at least 4")),
        ({"rows": {"events": {"min": 1, "max": 2}}}, ("rows of events", "more than 2", "1 to 2")),
        ({"rows": {"users": {"min": 1}}}, ("rows of users", "no such table", "at least 1")),
        ({"revision": "a1"}, ("revision", "no table alembic_version", "a1")),
    ],
)
def test_each_difference_is_a_finding(options, expected):
    assert found(options) == [expected]


def test_what_could_not_be_looked_at_is_a_finding():
    relation = schema.Relation({}, None, "query would be affected by row-level security")
    assert "could not be counted: query would be" in found({"rows": {"events": {"min": 0}}}, relations={"events": relation})[0][1]
    assert found({"can_create_tables": True}, cannot_create="permission denied")[0][:2] == ("creating a table", "permission denied")
    assert found({"revision": "b"}, revisions=["a", "b"])[0][1] == "a, b"
    assert found({"extensions": ["x"]}, available=["x"])[0][1] == "available, but not created"


def test_all_findings_are_said_at_once_with_what_to_do():
    wanted = schema.wanted_of({"tables": ["event"], "columns": ["events.metadata"]})
    observed = schema.Observed("PostgreSQL", (15, 1), 0, {"events": EVENTS}, ["events"])
    message = failure_of(schema.compare(wanted, observed), "Wrong").message()
    assert message.splitlines() == [
        "Wrong: 2 findings.",
        "- table event: found none; expected one. There is events. Run the migration that creates it.",
        "- column events.metadata: found none; expected one. There is event_metadata. Run the migration that adds or renames it.",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_version": 13.1}, "a version in quotes"),
        ({"min_version": "twelve"}, "a version in quotes"),
        ({"tables": ["a.b.c"]}, "table, or schema.table"),
        ({"columns": ["events"]}, "table.column"),
        ({"columns": ["a.b.c.d int"]}, "table.column"),
        ({"columns": [""]}, "table.column"),
        ({"tables": ["a..b"]}, "names with dots"),
        ({"rows": {"events": 3}}, "a mapping with min, max"),
        ({"rows": {"events": {"min": "1; DROP TABLE x"}}}, "whole numbers"),
        ({"rows": {"events": {"min": True}}}, "whole numbers"),
        ({"table": ["x"]}, "no such expectation"),
    ],
)
def test_an_expectation_that_is_not_clear_is_refused(options, said):
    with pytest.raises(Failure, match=said):
        schema.wanted_of(options)


def test_names_are_taken_apart():
    wanted = schema.wanted_of({"columns": ["audit.events.id bigint", '"My Table"."a.b" timestamp with time zone']})
    assert wanted.columns == [("audit.events", "id", "bigint"), ('"My Table"', "a.b", "timestamp with time zone")]
    assert schema.parts_of('"My ""T""".x') == ['My "T"', "x"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("timestamp with time zone", "timestamptz", True),
        ("numeric(10,2)", "decimal(10, 2)", True),
        ("numeric(10,2)", "numeric", True),
        ("numeric", "numeric(10,2)", False),
        ("integer[]", "int[]", True),
        ("VARCHAR(64)", "varchar", True),
        ("text", "varchar", False),
    ],
)
def test_types_are_compared_by_what_they_are(one, other, same):
    assert schema.same_type(one, other) is same


def test_sqlite_is_looked_at_and_not_changed(tmp_path):
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        "PRAGMA journal_mode = WAL; CREATE TABLE Users (id INTEGER, name VARCHAR(20)); INSERT INTO Users VALUES (1, 'a');"
    )
    connection.close()
    before = path.read_bytes()
    options = {
        "can_create_tables": True,
        "columns": ["users.name varchar"],
        "rows": {"users": {"min": 1, "max": 1}},
        "absent_columns": ["users.age"],
    }
    assert schema.problems(url.Sqlite(str(path)), options) == []
    assert len(schema.problems(url.Sqlite(str(path)), {"absent_tables": ["USERS"], "columns": ["users.age"], "revision": "x"})) == 3
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["app.db"]


def test_a_database_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(Failure, match="There is no database"):
        schema.problems(url.Sqlite(str(tmp_path / "app.db")), {})
    assert not list(tmp_path.iterdir())
