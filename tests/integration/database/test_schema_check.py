# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a database is what an app needs, asked of a real PostgreSQL server and of a real SQLite database."""

from __future__ import annotations

import pytest

TABLES = """
CREATE TABLE contract_sign_events (id serial PRIMARY KEY, event_metadata jsonb, title varchar(64));
INSERT INTO contract_sign_events (title) VALUES ('a'), ('b'), ('c');
CREATE SCHEMA audit;
CREATE TABLE audit.log (id bigint);
CREATE TABLE private (id int);
INSERT INTO private VALUES (1);
ALTER TABLE private ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON ALL TABLES IN SCHEMA public, audit TO checked;
GRANT USAGE ON SCHEMA audit TO checked;
"""
DIRECTORY = "/srv/schema"
SQLITE = f"{DIRECTORY}/app.db"


@pytest.fixture
def postgres(server):
    url = server.create("checked")
    server.sql(TABLES, "checked")
    yield url
    server.drop("checked")


def test_a_database_as_expected_passes_and_stays_as_it_is(module, server, postgres):
    before = server.sql("SELECT oid, relname FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1", "checked")
    good = module.must(
        "schema_check",
        url=postgres,
        min_version="12",
        can_create_tables=True,
        tables=["contract_sign_events", "audit.log"],
        columns=["contract_sign_events.event_metadata jsonb", "audit.log.id bigint", "contract_sign_events.title varchar"],
        absent_columns=["contract_sign_events.metadata"],
        absent_tables=["audit.contract_sign_events"],
        extensions=["plpgsql"],
        max_size_mb=1000,
        rows={"contract_sign_events": {"min": 3, "max": 3}},
    )
    assert not good["changed"] and good["findings"] == [] and good["rows"] == {"contract_sign_events": 3}
    assert "pa@:/?#%ss" not in good["said"]
    assert server.sql("SELECT oid, relname FROM pg_class WHERE relname !~ '^pg_' ORDER BY 1", "checked") == before


def test_all_that_is_wrong_is_said_at_once(module, server, postgres):
    """Fails without SET row_security = off: the rows that the role may not see would be 0, which is within the bounds."""
    server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC, checked; ALTER SCHEMA public OWNER TO postgres", "checked")
    said = module.refused(
        "schema_check",
        "9 findings",
        "PostgreSQL version",
        "permission denied for schema public",
        "table log: found none; expected one",
        "There is event_metadata",
        "character varying(64)",
        "extension pgcrypto",
        "more than 1",
        "they could not be counted",
        "row-level security",
        "no table alembic_version",
        url=postgres,
        min_version="99",
        can_create_tables=True,
        tables=["log"],
        columns=["contract_sign_events.metadata", "contract_sign_events.title text"],
        extensions=["pgcrypto"],
        rows={"contract_sign_events": {"max": 1}, "private": {"max": 10}},
        revision="a1",
    )
    assert len(said["findings"]) == 9 and set(said["findings"][0]) >= {"subject", "found", "expected", "fix", "severity"}
    assert "pa@:/?#%ss" not in said["said"]


def test_sqlite_is_looked_at_by_its_owner(host, module):
    """Fails without as_owner: root can write into every directory, and so would create the table."""
    host.run(["rm", "-rf", DIRECTORY])
    host.run(["install", "-d", "-o", "www-data", DIRECTORY])
    host.run(
        ["sqlite3", SQLITE, "PRAGMA journal_mode = WAL; CREATE TABLE users (id INTEGER); INSERT INTO users VALUES (1);"], user="www-data"
    )
    url = f"sqlite:///{SQLITE}"
    good = {"can_create_tables": True, "columns": ["users.id integer"], "rows": {"users": {"min": 1}}}
    assert not module.must("schema_check", url=url, **good)["changed"]
    assert host.run(["find", DIRECTORY, "-type", "f", "-printf", "%f %u\\n"]).stdout == "app.db www-data\n"
    host.run(["sqlite3", SQLITE, "PRAGMA journal_mode = DELETE"], user="www-data")
    host.run(["chown", "root", DIRECTORY])
    module.refused(
        "schema_check", "creating a table: found", "cannot be written by www-data", "table orders", url=url, tables=["orders"], **good
    )
    module.refused("schema_check", "There is no database", url=f"sqlite:///{DIRECTORY}/absent.db")
