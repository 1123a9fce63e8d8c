# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Numbered SQL files, on a real PostgreSQL server and in the SQLite database of an account that is not root."""

from __future__ import annotations

import random
import subprocess
import threading

import pytest
from integration.database.direct import Direct
from integration.database.killed_migrations import SLEEP, sql

FILES = "/srv/sql/files"
OWNER = "www-data"
DIRECTORY = "/srv/sql/data"
SQLITE = f"{DIRECTORY}/app.db"
LEDGER = "schema_migrations_ledger"

FIRST = {
    "001_users.sql": "CREATE TABLE users (id integer PRIMARY KEY, name text);",
    "002_provider_credentials.sql": "BEGIN;\nCREATE TABLE provider_credentials (secret text);\nINSERT INTO users VALUES (1, 'a;b');\nCOMMIT;\n",
}


@pytest.fixture
def files(host):
    """Put exactly these files into the directory of the release."""

    def place(content):
        host.run(["rm", "-rf", FILES])
        host.run(["mkdir", "-p", FILES])
        for name, text in content.items():
            host.write(f"{FILES}/{name}", text)

    place(FIRST)
    return place


@pytest.fixture
def sqlite(host):
    """An empty directory of the app's; the URL of the database that will be in it."""
    host.run(["rm", "-rf", DIRECTORY])
    host.run(["install", "-d", "-o", OWNER, "-g", OWNER, "-m", "0750", DIRECTORY])
    return f"sqlite:///{SQLITE}"


@pytest.fixture
def postgres(server):
    yield server.create("migrated")
    server.drop("migrated")


def query(host, statement):
    return host.run(["sqlite3", SQLITE, statement], user=OWNER).stdout.split()


def owners(host):
    return set(host.run(["find", DIRECTORY, "-printf", "%u\\n"]).stdout.split())


def test_files_are_applied_once_and_shown_before(host, module, server, files, postgres):
    plan = module.must("sql_migrate", "--check", "--diff", url=postgres, path=FILES)
    assert plan["changed"] and plan["pending"] == list(FIRST) and plan["applied"] == []
    assert "CREATE TABLE provider_credentials" in plan["said"]
    assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "migrated") == "0"
    done = module.must("sql_migrate", url=postgres, path=FILES, run="r1")
    assert done["changed"] and [one["name"] for one in done["applied"]] == list(FIRST) and (done["before"], done["after"]) == (-1, 2)
    assert "pa@:/?#%ss" not in done["said"] + plan["said"]
    assert server.sql(f"SELECT number, name, run FROM {LEDGER} ORDER BY 1", "migrated").splitlines() == [
        "1|001_users.sql|r1",
        "2|002_provider_credentials.sql|r1",
    ]
    again = module.must("sql_migrate", url=postgres, path=FILES)
    assert not again["changed"] and again["pending"] == []


def test_an_applied_file_that_changed_and_a_failing_one(host, module, server, files, postgres):
    """Fails without the comparison of digests, and without BEGIN around a file."""
    files({**FIRST, "003_bad.sql": "CREATE TABLE half (x int);\nSELECT\n  absent;", "004_after.sql": "SELECT 1;"})
    said = module.refused(
        "sql_migrate",
        "003_bad.sql failed at line 3:",
        "In the database of this run's files: 001_users.sql, 002_provider_credentials.sql.",
        "Not tried: 004_after.sql.",
        url=postgres,
        path=FILES,
    )
    assert [one["name"] for one in said["applied"]] == list(FIRST)
    assert server.sql("SELECT to_regclass('half') IS NULL", "migrated") == "t"
    assert server.sql(f"SELECT max(number) FROM {LEDGER}", "migrated") == "2"
    digest = server.sql(f"SELECT sha256 FROM {LEDGER} WHERE number = 1", "migrated")
    files({**FIRST, "001_users.sql": "SELECT 1;", "003_good.sql": "CREATE TABLE half (x int);"})
    module.refused("sql_migrate", "001_users.sql has changed", digest, "Nothing was run", url=postgres, path=FILES)
    assert server.sql("SELECT to_regclass('half') IS NULL", "migrated") == "t"


def test_what_a_file_sets_is_gone_for_the_next_and_an_index_that_is_not_valid_is_found(host, module, server, files, postgres):
    """Fails without _renew, and without the look for indexes that are not valid."""
    files(
        {
            "001_dump.sql": "SELECT pg_catalog.set_config('search_path', '', false);\nCREATE TABLE public.t (x int);\nINSERT INTO public.t VALUES (1), (1);",
            "002_next.sql": "INSERT INTO t VALUES (2);\nCREATE TEMP TABLE scratch (x int);",
            "003_index.sql": "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_x ON t (x);",
        }
    )
    module.refused("sql_migrate", "003_index.sql failed at line 2", "first 0 of 1 statements", url=postgres, path=FILES)
    module.refused("sql_migrate", "left an index that is not valid: t_x", "DROP INDEX CONCURRENTLY t_x", url=postgres, path=FILES)
    server.sql("DROP INDEX t_x; DELETE FROM t WHERE x = 1", "migrated")
    assert module.must("sql_migrate", url=postgres, path=FILES)["after"] == 3
    assert server.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_x'::regclass", "migrated") == "t"


def test_two_at_once_apply_each_file_once(host, module, server, files, postgres, tmp_path):
    """Fails without the advisory lock: both read the empty ledger, and one fails on what the other has made."""
    files({"001_slow.sql": "SELECT pg_sleep(2);\nCREATE TABLE once (x int);"})
    results = []

    def other():
        second = type(module)(host, tmp_path)
        results.append(second("sql_migrate", url=postgres, path=FILES))

    thread = threading.Thread(target=other)
    thread.start()
    results.append(module("sql_migrate", url=postgres, path=FILES))
    thread.join()
    assert not [one["msg"] for one in results if one.get("failed")]
    assert sorted(one["changed"] for one in results) == [False, True]


def holding(host, statement, url):
    """A session of somebody else that has run a statement and stays."""
    process = subprocess.Popen(
        ["docker", "exec", "--interactive", host.container, "psql", "--quiet", "--no-psqlrc", "--tuples-only", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{statement};\n\\echo ready\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.strip() == "ready":
            return process
    raise AssertionError("psql ended")


def test_a_lock_that_is_held_is_given_up_and_who_migrates_is_named(host, module, server, files, postgres):
    """Fails without lock_timeout (it waits until statement_timeout), and without naming the session that holds the migration's lock."""
    module.must("sql_migrate", url=postgres, path=FILES)
    files({**FIRST, "003_alter.sql": "ALTER TABLE users ADD COLUMN age int;"})
    other = holding(host, "BEGIN; LOCK TABLE users", postgres)
    try:
        module.refused(
            "sql_migrate",
            "003_alter.sql failed at line 1",
            "lock timeout",
            url=postgres,
            path=FILES,
            lock_timeout=0.2,
            lock_retries=1,
            statement_timeout=10,
        )
    finally:
        other.communicate("ROLLBACK;\n")
    other = holding(host, "SELECT pg_advisory_lock(" + str(int.from_bytes(b"bulletpr", "big")) + ")", postgres)
    try:
        module.refused(
            "sql_migrate", "Another migration of migrated@127.0.0.1:5432/migrated", "process ", url=postgres, path=FILES, wait=0.3
        )
    finally:
        other.communicate("")
    # Fails without statement_timeout, and without words of its own for it.
    files({**FIRST, "003_slow.sql": "CREATE TABLE half (x int);\nSELECT pg_sleep(60);"})
    told = ["003_slow.sql failed at line 2", "statement_timeout: 0.2 s", "Nothing of it is in", "Split the file"]
    module.refused("sql_migrate", *told, url=postgres, path=FILES, statement_timeout=0.2)
    assert server.sql("SELECT to_regclass('half') IS NULL", "migrated") == "t"
    files({**FIRST, "003_alter.sql": "ALTER TABLE users ADD COLUMN age int;"})
    assert module.must("sql_migrate", url=postgres, path=FILES)["after"] == 3


def test_sqlite_belongs_to_its_owner_and_a_file_that_fails_leaves_nothing(host, module, files, sqlite):
    """Fails without as_owner (root owns the new database), and without BEGIN around a file."""
    assert module.must("sql_migrate", "--check", "--diff", url=sqlite, path=FILES)["changed"]
    assert host.run(["ls", DIRECTORY]).stdout == ""
    files({"000_wal.sql": "-- no-transaction\nPRAGMA journal_mode = WAL;", **FIRST})
    assert module.must("sql_migrate", url=sqlite, path=FILES)["after"] == 2
    assert owners(host) == {OWNER}
    reader = subprocess.Popen(
        ["docker", "exec", "--interactive", "--user", OWNER, host.container, "sqlite3", SQLITE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin is not None and reader.stdout is not None
    # While somebody has it open, the files beside the database stay.
    reader.stdin.write("SELECT count(*) FROM users;\n")
    reader.stdin.flush()
    assert reader.stdout.readline() == "1\n"
    more = {"000_wal.sql": "-- no-transaction\nPRAGMA journal_mode = WAL;", **FIRST}
    files({**more, "003_bad.sql": "CREATE TABLE half (x int);\nALTER TABLE users ADD COLUMN age int;\nSELECT absent;"})
    module.refused("sql_migrate", "003_bad.sql failed at line 3: no such column: absent", "Nothing of it is in", url=sqlite, path=FILES)
    assert not module.must("sql_migrate", "--check", url=sqlite, path=FILES, ledger="other", baseline=3)["applied"]
    assert owners(host) == {OWNER} and len(host.run(["ls", DIRECTORY]).stdout.split()) == 3
    reader.communicate("")
    assert query(host, "SELECT count(*) FROM sqlite_master WHERE name = 'half'") == ["0"]
    assert query(host, f"SELECT max(number) FROM {LEDGER}") == ["2"]


def test_a_baseline_is_written_down_and_not_run(host, module, files, sqlite):
    host.run(["sqlite3", SQLITE, FIRST["001_users.sql"]], user=OWNER)
    assert module.must("sql_migrate", url=sqlite, path=FILES, baseline=1)["after"] == 2
    assert query(host, f"SELECT name FROM {LEDGER} ORDER BY number") == list(FIRST)


def test_a_directory_that_cannot_be_written_is_said_and_not_written(host, module, files, sqlite):
    """Fails without as_owner: root can write everywhere."""
    host.run(["chown", "root:root", DIRECTORY])
    host.run(["chmod", "0755", DIRECTORY])
    host.run(["install", "-o", OWNER, "-m", "0600", "/dev/null", SQLITE])
    said = module.refused("sql_migrate", DIRECTORY, f"cannot be written by {OWNER}", f"chown {OWNER} {DIRECTORY}", url=sqlite, path=FILES)
    assert said["applied"] == []
    assert host.run(["ls", DIRECTORY]).stdout.split() == ["app.db"]


def test_files_that_root_has_left_are_named(host, module, files, sqlite):
    """Fails without the looks for a database, and for files beside it, that are root's."""
    host.run(["sqlite3", SQLITE, "PRAGMA journal_mode = WAL; CREATE TABLE a (x int);"], user=OWNER)
    host.run(["install", "-m", "0600", "/dev/null", f"{SQLITE}-wal"])
    module.refused("sql_migrate", f"{SQLITE}-wal cannot be written by {OWNER}", f"chown {OWNER} {SQLITE}-wal", url=sqlite, path=FILES)
    host.run(["rm", f"{SQLITE}-wal"])
    host.run(["chown", "root", SQLITE])
    module.refused(
        "sql_migrate", f"{SQLITE} belongs to root and its directory to {OWNER}", f"chown {OWNER}: {SQLITE}*", url=sqlite, path=FILES
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_at_any_point_the_next_run_needs_no_help(request, host, server, files, kind):
    """Fails without BEGIN around a file."""
    matrix = request.config.getoption("matrix")
    rounds = 130 if matrix else 2
    scripts = {f"{number:03}_step.sql": ";\n".join(sql(number)) + ";\n" for number in range(1, 7)}
    files(scripts)
    url = request.getfixturevalue("postgres" if kind == "postgresql" else "sqlite")
    given = {
        "module": "sql_migrate",
        "options": {"url": url, "path": FILES},
        **({"url": url} if kind == "postgresql" else {"path": SQLITE}),
        "newest": 6,
        "revision": [LEDGER, "number"],
        "place": "/srv/sql",
        "ways": ["line", "time"],
        "rounds": rounds,
    }
    direct = Direct(host)
    done = direct.killed(**given, seed=random.randrange(10**6))
    print(done)
    assert done["lines"] > 100
    assert not matrix or (sum(done["cut"].values()) >= 100 and {1, 2, 3, 4, 5} & set(done["stopped"]))
    if matrix and kind == "postgresql" and server.version >= 14:
        # Without client_connection_check_interval the server would sleep on, and its session keep the migration's lock.
        last = f"{FILES}/006_step.sql"
        host.write("/srv/sql/006_step.sql", scripts["006_step.sql"])
        host.write(last, f"{scripts['006_step.sql']}{SLEEP};\n")
        assert direct.killed(**given, seed=1, slow=True, ready=["/srv/sql/006_step.sql", last])["seconds"] < 30
