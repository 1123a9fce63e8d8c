# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which numbered files are run, and what is refused before anything is."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import ledger, sql_files, statements, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from hypothesis import given
from hypothesis import strategies as st


def file(number: int, name: str = "", text: str = "SELECT 1;") -> ledger.File:
    return ledger.File(number, name or f"{number:03d}_x.sql", hashlib.sha256(text.encode()).hexdigest(), text)


def entry(of: ledger.File, **other: str) -> ledger.Entry:
    return ledger.Entry(**{"number": of.number, "name": of.name, "sha256": of.sha256, "applied_at": "2025-01-01", **other})  # type: ignore[arg-type]


FILES = [file(number) for number in (1, 2, 3)]


def names(steps: list[ledger.Step]) -> list[str]:
    return [step.file.name for step in steps]


def test_what_is_not_in_the_ledger_is_run_in_order():
    assert names(ledger.steps(FILES, [], "sqlite")) == ["001_x.sql", "002_x.sql", "003_x.sql"]
    assert names(ledger.steps(FILES, [entry(FILES[0])], "sqlite")) == ["002_x.sql", "003_x.sql"]
    assert names(ledger.steps(FILES, [entry(one) for one in FILES], "sqlite")) == []


def test_a_baseline_is_written_down_and_not_run_and_counts_only_once():
    steps = ledger.steps(FILES, [], "sqlite", baseline=2)
    assert [step.script is None for step in steps] == [True, True, False]
    assert [step.script is None for step in ledger.steps(FILES, [entry(FILES[0])], "sqlite", baseline=2)] == [False, False]


@pytest.mark.parametrize(
    ("files", "entries", "said"),
    [
        ([file(1), file(3)], [], ["There is a gap between 001_x.sql and 003_x.sql."]),
        ([file(1), file(1, "001_y.sql")], [], ["The number 1 is taken 2 times: 001_x.sql, 001_y.sql."]),
        (FILES, [entry(FILES[0]), entry(FILES[2])], ["002_x.sql is new, and comes before number 3"]),
        (FILES, [entry(FILES[0], sha256="f" * 64)], ["001_x.sql has changed", "f" * 64, FILES[0].sha256]),
        (FILES, [entry(one) for one in [*FILES, file(4)]], ["004_x.sql is in the database", "newer than this code"]),
        # All at once.
        ([file(1), file(3)], [entry(FILES[0], sha256="f" * 64), entry(file(2))], ["gap", "has changed", "002_x.sql is in the database"]),
    ],
)
def test_what_contradicts_the_ledger_is_refused(files, entries, said):
    with pytest.raises(Failure) as raised:
        ledger.steps(files, entries, "sqlite")
    assert not [text for text in said if text not in raised.value.message()], raised.value.message()


def test_out_of_order_accepts_gaps_and_late_files_but_no_duplicates_and_no_changes():
    assert names(ledger.steps([file(1), file(3)], [entry(file(3))], "sqlite", out_of_order=True)) == ["001_x.sql"]
    for files, entries in (([file(1), file(1, "001_y.sql")], []), (FILES, [entry(FILES[0], sha256="f" * 64)])):
        with pytest.raises(Failure):
            ledger.steps(files, entries, "sqlite", out_of_order=True)


def test_old_files_may_be_cleared_away_and_dates_have_gaps():
    assert names(ledger.steps([file(2), file(3)], [entry(FILES[0]), entry(FILES[1])], "sqlite")) == ["003_x.sql"]
    assert len(ledger.steps([file(20250101), file(20250301)], [], "sqlite")) == 2


def test_files_are_ordered_by_number_and_named_when_they_have_none(tmp_path):
    for name in ("10_b.sql", "9_a.sql", "README.md"):
        (tmp_path / name).write_text("SELECT 1;")
    assert [one.name for one in ledger.files_of(str(tmp_path))] == ["9_a.sql", "10_b.sql"]
    (tmp_path / "schema.sql").write_text("SELECT 1;")
    with pytest.raises(Failure, match=r"schema.sql, which has no number"):
        ledger.files_of(str(tmp_path))


def test_a_directory_without_files_is_no_success(tmp_path):
    with pytest.raises(Failure, match="no SQL file"):
        ledger.files_of(str(tmp_path))
    with pytest.raises(Failure, match="no directory"):
        ledger.files_of(str(tmp_path / "absent"))


def texts(text: str, kind: str) -> list[tuple[int, str]]:
    return [(one.line, one.text) for one in statements.parse(text, kind, "x.sql").statements]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("sqlite", "SELECT 1;\n\nSELECT 2", [(1, "SELECT 1"), (3, "SELECT 2")]),
        ("postgresql", "-- why; not\nSELECT ';' /* ; /* ; */ ; */;SELECT 2;;", [(2, "SELECT ';' /* ; /* ; */ ; */"), (2, "SELECT 2")]),
        ("postgresql", "SELECT E'a\\';' ; SELECT \"a;b\"", [(1, "SELECT E'a\\';'"), (1, 'SELECT "a;b"')]),
        ("postgresql", "DO $x$ BEGIN; $$;$$ END; $x$; SELECT $1", [(1, "DO $x$ BEGIN; $$;$$ END; $x$"), (1, "SELECT $1")]),
        (
            "postgresql",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            [(1, "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"), (1, "SELECT 3")],
        ),
        (
            "postgresql",
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3",
            [(1, "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)"), (1, "SELECT 3")],
        ),
        (
            "sqlite",
            "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT ';'; END;\nSELECT [;];",
            [(1, "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; SELECT ';'; END"), (2, "SELECT [;]")],
        ),
        ("sqlite", "/* ; /* */ SELECT 1;", [(1, "SELECT 1")]),
        ("postgresql", "BEGIN;\nSELECT 1;\nCOMMIT;\n", [(2, "SELECT 1")]),
        ("sqlite", "BEGIN TRANSACTION; SELECT 1; END;", [(1, "SELECT 1")]),
    ],
)  # fmt: skip
def test_statements_are_split_as_the_shell_splits_them(kind, text, expected):
    assert texts(text, kind) == expected


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("postgresql", "SELECT 1;\nCOMMIT;\nSELECT 2;", "line 2: COMMIT, but a file is one transaction"),
        ("sqlite", "BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT;", "COMMIT, but a file is one transaction"),
        ("postgresql", "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);", "CONCURRENTLY, which cannot be in a transaction"),
        ("postgresql", "\\i other.sql\nSELECT 1;", "line 1: a command of psql"),
        ("postgresql", "COPY t FROM STDIN;\n1\n\\.\n", "COPY FROM STDIN"),
        ("sqlite", "PRAGMA journal_mode = WAL;", "PRAGMA journal_mode, which has no effect in a transaction"),
        ("sqlite", "PRAGMA foreign_keys = OFF; SELECT 1;", "PRAGMA foreign_keys"),
        ("sqlite", "VACUUM;", "VACUUM, which cannot be in a transaction"),
        ("sqlite", "SELECT 'a;", "' is never closed"),
        ("postgresql", "SELECT $a$ x", r"\$a\$ is never closed"),
        ("sqlite", "-- nothing\n", "no statement in it"),
    ],
)
def test_a_file_that_would_not_be_one_transaction_is_refused(kind, text, said):
    with pytest.raises(Failure, match=said):
        statements.parse(text, kind, "x.sql")


def test_the_marker_is_a_comment_of_its_own():
    script = statements.parse("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);\nCOMMIT;", "postgresql", "x.sql")
    assert not script.transaction and len(script.statements) == 2
    assert statements.parse("SELECT '-- no-transaction';", "postgresql", "x.sql").transaction
    assert statements.parse("ROLLBACK TO SAVEPOINT a;", "postgresql", "x.sql").transaction


@given(
    st.lists(st.sampled_from(["a", ";", "'", '"', "--", "\n", "/*", "*/", "$$", "$x$", "(", ")", "BEGIN", " ", "\\", "é", "END", "[", "`"]))
)
def test_no_text_stops_the_splitter_and_nothing_is_lost(parts):
    text = "".join(parts)
    for kind in ("sqlite", "postgresql"):
        try:
            found = statements.parse(text, kind, "x.sql").statements
        except Failure:
            continue
        place = 0
        for one in found:
            place = text.index(one.text, place) + len(one.text)


def run(directory: Path, path: Path, **limits: float) -> None:
    store = sql_files.store_of(url.Sqlite(str(path)), sql_files.LEDGER, sql_files.Limits(**limits))  # type: ignore[arg-type]
    for step in ledger.steps(ledger.files_of(str(directory)), store.entries() or [], "sqlite"):
        store.apply(step, "r1", 0)


def test_a_failing_file_leaves_neither_tables_nor_a_line(tmp_path):
    """Fails without BEGIN around the file: Python's sqlite3 commits each CREATE TABLE at once."""
    (tmp_path / "001_a.sql").write_text("CREATE TABLE a (x int);")
    (tmp_path / "002_b.sql").write_text("CREATE TABLE b (x int);\nINSERT INTO a VALUES (1);\nINSERT INTO absent VALUES (1);")
    database = tmp_path / "app.db"
    with pytest.raises(Failure, match=r"002_b\.sql failed at line 3: no such table: absent"):
        run(tmp_path, database)
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1").fetchall() == [
            ("a",),
            (sql_files.LEDGER,),
        ]
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)
        assert connection.execute(f"SELECT number, name, run FROM {sql_files.LEDGER}").fetchall() == [(1, "001_a.sql", "r1")]
    connection.close()


def test_a_statement_that_takes_too_long_is_stopped(tmp_path):
    """Fails without the progress handler."""
    (tmp_path / "001_a.sql").write_text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000000) SELECT count(*) FROM n;"
    )
    with pytest.raises(Failure, match="longer than statement_timeout"):
        run(tmp_path, tmp_path / "app.db", statement_timeout=0.05)


def test_without_a_transaction_what_ran_is_said(tmp_path):
    (tmp_path / "001_a.sql").write_text("-- no-transaction\nCREATE TABLE a (x int);\nPRAGMA journal_mode = WAL;\nSELECT absent;")
    with pytest.raises(Failure, match="its first 2 of 3 statements are in the database"):
        run(tmp_path, tmp_path / "app.db")


def test_what_is_no_database_is_said(tmp_path):
    (tmp_path / "001_a.sql").write_text("SELECT 1;")
    (tmp_path / "app.db").write_text("something else entirely")
    with pytest.raises(Failure, match="file is not a database"):
        run(tmp_path, tmp_path / "app.db")


def test_nothing_is_made_by_looking(tmp_path):
    store = sql_files.store_of(url.Sqlite(str(tmp_path / "app.db")), sql_files.LEDGER, sql_files.Limits())
    assert store.entries() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "a;b", "a.b.c", '"a"', ""])
def test_a_ledger_of_a_strange_name_is_refused(name):
    with pytest.raises(Failure):
        sql_files.store_of(url.Postgres("x"), name, sql_files.Limits())
