# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL: a backup is proven before it counts, and a restore never writes over the only copy."""

from __future__ import annotations

import json
import urllib.parse

import pytest

PASSWORD = "pa@:/?#%ss"
ROOT = "/var/lib/bulletproof-test"
CONTENT = """
SET ROLE shop;
CREATE TABLE customers (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE "order lines; -- odd" (id serial PRIMARY KEY, customer integer REFERENCES customers, day date, "a % b" numeric);
CREATE VIEW spenders AS SELECT name FROM customers JOIN "order lines; -- odd" l ON l.customer = customers.id;
CREATE SCHEMA archive;
CREATE TABLE archive.events (day date NOT NULL, what text) PARTITION BY RANGE (day);
CREATE TABLE archive.events_2025 PARTITION OF archive.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE SEQUENCE invoice_numbers START 1000;
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 500) n;
INSERT INTO "order lines; -- odd" (customer, day, "a % b") SELECT 1 + n % 500, '2025-03-01', n FROM generate_series(1, 5000) n;
INSERT INTO archive.events SELECT '2025-06-01', repeat('x', 100) FROM generate_series(1, 300);
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM customers;
SELECT nextval('invoice_numbers') FROM generate_series(1, 42);
SELECT lo_from_bytea(4711, 'a large object');
RESET ROLE;
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
REVOKE CONNECT ON DATABASE shop FROM PUBLIC;
ALTER DATABASE shop SET search_path TO "$user", public, archive;
ALTER ROLE shop IN DATABASE shop SET statement_timeout TO '55s';
COMMENT ON DATABASE shop IS 'It''s the shop';
"""


@pytest.fixture
def shop(host, server):
    """A database with one of everything, and an empty directory for its backups."""
    for name in server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'shop%'").splitlines():
        server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    url = server.create("shop", PASSWORD)
    server.sql(CONTENT, "shop")
    host.run(["rm", "-rf", ROOT])
    host.run(["mkdir", "-p", ROOT])
    return {"url": url, "backups": f"{ROOT}/backups"}


def backups(host):
    """The names in the directory, without the mutex."""
    return sorted(host.run(["ls", "-A", f"{ROOT}/backups"], check=False).stdout.split()[0:]) if host.exists(f"{ROOT}/backups") else []


def data(host):
    return [name for name in backups(host) if not name.endswith((".json", ".mutex"))]


def databases(server):
    return server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1").splitlines()


def fingerprint(server, database="shop"):
    """Everything that has to be the same again."""
    return server.sql(
        """
        SELECT array_agg(name ORDER BY id) FROM customers;
        SELECT sum("a % b"), count(*) FROM "order lines; -- odd";
        SELECT count(*) FROM archive.events_2025;
        SELECT count(*) FROM spenders;
        SELECT * FROM totals;
        SELECT last_value FROM invoice_numbers;
        SELECT last_value FROM customers_id_seq;
        SELECT convert_from(lo_get(4711), 'UTF8');
        SELECT extname, extversion FROM pg_extension ORDER BY 1;
        SELECT relname, relkind, pg_get_userbyid(relowner), relacl FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, 'archive'::regnamespace) ORDER BY 1;
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1;
        SELECT pg_get_userbyid(datdba), encoding, datcollate, datctype, datacl, datconnlimit, shobj_description(oid, 'pg_database')
        FROM pg_database WHERE datname = current_database();
        SELECT setrole::regrole, setconfig FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1;
        """,
        database,
    )


def test_what_is_restored_is_what_was_backed_up(host, module, server, shop):
    before = fingerprint(server)
    made = module.must("postgres_backup_rotate", **shop)
    assert PASSWORD not in made["said"] and urllib.parse.quote(PASSWORD, safe="") not in made["said"]
    assert host.run(["stat", "--format=%U:%G %a", made["path"], f"{made['path']}.json"]).stdout.splitlines() == ["root:root 600"] * 2
    record = json.loads(host.read(f"{made['path']}.json"))["facts"]
    assert record["contents"]["rows"] == {
        'public."order lines; -- odd"': 5000,
        "public.customers": 500,
        "archive.events_2025": 300,
    }
    server.sql('DELETE FROM "order lines; -- odd"; DROP TABLE customers CASCADE; SELECT lo_unlink(4711); CREATE TABLE late ()', "shop")
    restored = module.must("postgres_restore", **shop)
    assert restored["compared"] == {"tables": 3, "rows": 5800, "uncounted": []}
    assert fingerprint(server) == before
    # What it has replaced is there, as it was.
    assert databases(server) == ["shop", restored["replaced"]]
    assert server.sql("SELECT count(*) FROM late", restored["replaced"]) == "0"
