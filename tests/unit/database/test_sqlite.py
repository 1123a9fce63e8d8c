# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQLite databases, backed up and restored on this machine, without a host."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, sqlite_backup, sqlite_restore, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Policy
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# Ends without closing, as a process that was killed does: what it has written last is in the -wal.
LEAVE_A_WAL = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode=WAL")
database.execute("PRAGMA wal_autocheckpoint=0")
database.executescript(sys.argv[2])
os._exit(0)
"""
HOLD_IT = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("SELECT count(*) FROM sqlite_master").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directory of backups is root's, and owners are kept")


@pytest.fixture
def place(tmp_path):
    os.chmod(tmp_path, 0o700)
    return tmp_path


@pytest.fixture
def path(place):
    (place / "data").mkdir()
    made = str(place / "data" / "app.db")
    fill(made)
    return made


@pytest.fixture
def directory(place):
    return str(place / "backups")


def fill(path, rows=500, table="entry"):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, text TEXT)")
    connection.execute(f"CREATE INDEX IF NOT EXISTS by_text_{table} ON {table} (text)")
    connection.executemany(f"INSERT INTO {table} (text) VALUES (?)", [(f"row {number} " * 20,) for number in range(rows)])
    connection.commit()
    connection.close()


def later(path, script):
    subprocess.run([sys.executable, "-c", LEAVE_A_WAL, path, script], check=True)
    assert os.path.getsize(f"{path}-wal")


def count(path, table="entry"):
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()


def names(directory):
    return sorted(name for name in os.listdir(directory) if name != "backups.mutex")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:////srv/app.db", "/srv/app.db"),
        ("sqlite:///app.db", "/opt/shop/app.db"),
        ("sqlite+aiosqlite:///instance/../app.db", "/opt/shop/app.db"),
        ("sqlite:////srv/a%20b%23.db?timeout=5", "/srv/a b#.db"),
    ],
)
def test_urls_of_sqlite(text, path):
    found = url.parse(text, "/opt/shop")
    assert (found.path, found.name) == (path, os.path.basename(path))


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(text):
    with pytest.raises(Failure, match="in memory"):
        url.parse(text)


def test_it_is_the_file_that_is_meant_and_not_a_link_to_it(place, path):
    (place / "current.db").symlink_to(path)
    assert sqlite.path_of({"path": str(place / "current.db"), "url": None}) == path


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_backup_has_what_is_in_the_wal_and_can_be_restored(path, directory, compress):
    later(path, "INSERT INTO entry (text) VALUES ('in the wal')")
    made = sqlite_backup.backup(path, directory, compress=compress).made
    assert made.facts["rows"] == {"entry": 501}
    assert names(directory) == [made.name, f"{made.name}.json"]
    assert os.stat(made.path(directory)).st_mode & 0o777 == 0o600
    later(path, "DELETE FROM entry")
    done = sqlite_restore.restore(path, directory)
    assert count(path) == 501
    assert count(done.replaced) == 0
    assert sqlite_restore.restore(path, directory).same, "restoring what is there already changes nothing"


def test_names_of_tables_are_only_names(path, directory):
    odd = 'a "quoted"; DROP TABLE entry; --'
    connection = sqlite3.connect(path)
    quoted = odd.replace('"', '""')
    connection.executescript(f'CREATE TABLE "{quoted}" (x); INSERT INTO "{quoted}" VALUES (1); CREATE VIRTUAL TABLE found USING fts5(x)')
    connection.close()
    rows = sqlite_backup.backup(path, directory).made.facts["rows"]
    assert rows["entry"] == 500
    assert rows[odd] == 1
    assert "found" not in rows
    assert "found_data" in rows


def test_a_database_that_nobody_has_filled_can_be_backed_up_and_restored(place, directory):
    path = str(place / "new.db")
    open(path, "wb").close()
    sqlite_backup.backup(path, directory)
    fill(path)
    sqlite_restore.restore(path, directory)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_collation_of_the_app_is_no_obstacle_and_is_told(path, directory):
    """Fails without the check table by table."""
    connection = sqlite3.connect(path)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.executescript(
        "CREATE TABLE word (text TEXT COLLATE german); CREATE INDEX by_word ON word (text); INSERT INTO word VALUES ('x')"
    )
    connection.close()
    made = sqlite_backup.backup(path, directory).made
    assert made.facts["unchecked"] == ["word"]
    assert made.facts["rows"] == {"entry": 500, "word": 1}


def flip(path, at):
    with open(path, "r+b") as stream:
        stream.seek(at)
        old = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([old ^ 0x20]))


def test_a_damaged_database_gives_no_backup_and_costs_none(path, directory):
    """Fails without integrity_check."""
    good = sqlite_backup.backup(path, directory, Policy(last=1)).made
    size = sqlite.header_of(path).page_size
    # The index's page is overwritten by the table's: what a disk or a careless copy does.
    with open(path, "r+b") as stream:
        stream.seek(size * 5)
        page = stream.read(size)
        stream.seek(size * 6)
        stream.write(page)
    with pytest.raises(Failure, match="damaged") as failure:
        sqlite_backup.backup(path, directory, Policy(last=1))
    assert "sqlite_restore" in failure.value.fix
    assert names(directory) == [good.name, f"{good.name}.json"]


def test_a_copy_that_has_lost_rows_is_no_backup(path, directory, monkeypatch):
    """Fails without the comparison of rows: such a copy passes integrity_check."""
    copy = sqlite.snapshot

    def lose_one(source, target, deadline, room):
        rows = copy(source, target, deadline, room)
        connection = sqlite3.connect(target)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("DELETE FROM entry WHERE id = 7")
        connection.commit()
        connection.close()
        return rows

    monkeypatch.setattr(sqlite, "snapshot", lose_one)
    with pytest.raises(Failure, match="entry: 500 expected, 499 found"):
        sqlite_backup.backup(path, directory)
    assert names(directory) == []


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\0" * 84, os.urandom(5000)])
def test_what_is_no_database_is_not_verified(place, content):
    (place / "x.db").write_bytes(content)
    with pytest.raises(sqlite.Damaged):
        sqlite.verify(str(place / "x.db"), sqlite.Deadline(10))


def test_a_full_disk_is_refused_beforehand(path, directory, monkeypatch):
    """Fails without ``require_room``: the disk would be filled to the brim, and the app with it."""
    os.mkdir(directory, 0o700)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((4096, 4096, 100, 9, 9, 0, 0, 0, 0, 255)))
    with pytest.raises(Failure, match="too full"):
        sqlite_backup.backup(path, directory)
    assert names(directory) == []


def test_it_does_not_take_forever(path, directory):
    with pytest.raises(Failure, match="not done within"):
        sqlite_backup.backup(path, directory, timeout=0.0)
    assert names(directory) == []


def test_backups_of_another_database_of_the_same_name_are_left_alone(place, path, directory):
    """Fails when rotation goes by the file's name alone."""
    (place / "other").mkdir()
    other = str(place / "other" / "app.db")
    fill(other, rows=3)
    theirs = sqlite_backup.backup(other, directory, Policy(last=1)).made
    ours = sqlite_backup.backup(path, directory, Policy(last=1)).made
    assert names(directory) == sorted([theirs.name, f"{theirs.name}.json", ours.name, f"{ours.name}.json"])
    os.unlink(ours.path(directory))
    with pytest.raises(Failure, match="no verified backup of") as failure:
        sqlite_restore.restore(path, directory)
    assert theirs.name in failure.value.fix
    sqlite_restore.restore(path, directory, name=theirs.name)
    assert count(path) == 3


def test_what_would_change_is_told_in_the_order_in_which_it_is_done(path, directory):
    first = sqlite_backup.backup(path, directory, Policy(last=1)).made
    cut = f".partial-app.db-{backups.stamp(time.time())}.db"
    open(os.path.join(directory, cut), "wb").close()
    shutil.copy(first.path(directory), os.path.join(os.path.dirname(path), "app.db.backup.20200101_120000"))
    wanted = sqlite_backup.Wanted(path, directory, Policy(last=1), adopt=True)
    observed = sqlite_backup.observe(wanted)
    changes = sqlite_backup.plan(wanted, observed)
    told = [(os.path.basename(change.target), change.before is not None, change.after is not None) for change in changes]
    new = backups.name_for("app.db", observed.now, "db")
    assert told == [
        (cut, True, False),
        (new, False, True),
        ("app.db.backup.20200101_120000", True, False),
        (first.name, True, False),
    ]


def test_foreign_files_are_taken_over_if_they_are_whole(place, path, directory, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    beside = place / "data"
    subprocess.run(["sqlite3", path, f".backup '{beside / 'app.db.backup.20240131_235959'}'"], check=True)
    sound = (beside / "app.db.backup.20240131_235959").read_bytes()
    (beside / "app.db.backup.1706742001").write_bytes(sound)
    refused = {
        "app.db.backup.truncated": sound[: len(sound) // 2],
        "app.db.backup.text": b"oops",
        "app.db.backup.empty": b"",
    }
    for name, content in refused.items():
        (beside / name).write_bytes(content)
    (beside / "app.db.bak").symlink_to(path)
    fill(str(beside / "app.db.old"), table="another_app")
    # A live database under WAL, copied while its only content was in the -wal.
    live = str(beside / "live")
    later(live, "CREATE TABLE entry (x); INSERT INTO entry VALUES (1)")
    shutil.copy(live, beside / "app.db.backup.live")
    # And one whose -wal came along.
    later(path, "INSERT INTO entry (text) VALUES ('x')")
    for suffix in ("", "-wal"):
        shutil.copy(path + suffix, str(beside / "app.db.backup.pair") + suffix)
    reported = sqlite_backup.backup(path, directory, Policy(last=99))
    assert reported.adopted == []
    assert len(reported.foreign) == 8
    done = sqlite_backup.backup(path, directory, Policy(last=99), adopt=True)
    assert sorted(done.adopted) == ["app.db-20240131T230001.000000Z.db", "app.db-20240131T235959.000000Z.db"]
    left = {os.path.basename(one.path): one.refused for one in done.foreign if one.refused}
    assert set(left) == {*refused, "app.db.old", "app.db.backup.live", "app.db.backup.pair"}
    assert "truncated" in left["app.db.backup.truncated"]
    assert "holds no table" in left["app.db.backup.live"]
    assert "-wal beside it" in left["app.db.backup.pair"]
    assert "none of the tables" in left["app.db.old"]
    assert all((beside / name).exists() for name in refused)
    assert not (beside / "app.db.backup.20240131_235959").exists()
    adopted = backups.load(directory, "app.db-20240131T235959.000000Z.db")
    assert adopted.facts["rows"] == {"entry": 500}
    assert adopted.facts["doubt"]
    assert backups.problem(directory, adopted) == ""


@pytest.mark.parametrize(
    ("name", "utc"),
    [
        ("app.db.backup.20240131_235959", "2024-01-31 23:59:59"),
        ("app.db.backup.20240131235959", "2024-01-31 23:59:59"),
        ("app.db.backup.2024-01-31T23:59:59Z", "2024-01-31 23:59:59"),
        ("app.db.backup.2024-01-31", "2024-01-31 00:00:00"),
        ("app.db.backup.20240131_2359", "2024-01-31 23:59:00"),
        ("app.db.backup.1706745599", "2024-01-31 23:59:59"),
        ("app.db.backup", "2024-06-01 00:00:00"),
        ("app.db.backup.7", "2024-06-01 00:00:00"),
        ("app.db.backup.20249999", "2024-06-01 00:00:00"),
        # The future is nobody's to take a backup of.
        ("app.db.backup.20990101", "2024-06-01 00:00:00"),
    ],
)
def test_the_time_that_a_foreign_file_carries(name, utc, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    modified = 1717200000.0
    found = sqlite_backup.time_of(name, modified, modified + 86400)
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found)) == utc


def test_a_flipped_bit_is_refused(path, directory):
    made = sqlite_backup.backup(path, directory).made
    flip(made.path(directory), made.size // 2)
    with pytest.raises(Failure, match=r"must not be restored.*has changed"):
        sqlite_restore.restore(path, directory)
    assert count(path) == 500


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_record_that_was_made_to_fit_does_not_help(path, directory, compress):
    """Fails without the checks of the file itself in ``stage``: the sum in the record is right, the content is not."""
    made = sqlite_backup.backup(path, directory, compress=compress).made
    with open(made.path(directory), "r+b") as stream:
        stream.truncate(made.size - 4096 if compress == "none" else made.size - 10)
    sha256, size = backups.digest(made.path(directory))
    record = os.path.join(directory, f"{made.name}.json")
    with open(record) as stream:
        text = stream.read()
    with open(record, "w") as stream:
        stream.write(text.replace(made.sha256, sha256).replace(f'"size": {made.size}', f'"size": {size}'))
    with pytest.raises(Failure, match=r"truncated|cannot be decompressed"):
        sqlite_restore.restore(path, directory)
    assert count(path) == 500


def test_another_database_under_the_name_of_a_backup_is_refused(place, path, directory):
    """Fails without the comparison with the record in ``stage``: it is whole, and the sums of the file were made to fit."""
    made = sqlite_backup.backup(path, directory).made
    fill(str(place / "other.db"), rows=7)
    shutil.copy(place / "other.db", made.path(directory))
    sha256, size = backups.digest(made.path(directory))
    record = Path(directory, f"{made.name}.json")
    record.write_text(
        record.read_text()
        .replace(f'"sha256": "{made.sha256}"', f'"sha256": "{sha256}"', 2)
        .replace(f'"size": {made.size}', f'"size": {size}')
    )
    text = record.read_text().replace(f'"content_sha256": "{sha256}"', f'"content_sha256": "{made.sha256}"')
    record.write_text(text)
    with pytest.raises(Failure, match="as its record says"):
        sqlite_restore.restore(path, directory)
    assert count(path) == 500


def test_a_file_without_a_record_must_be_whole(place, path, directory):
    for name, cut in (("whole", 0), ("truncated", 4096)):
        subprocess.run(["sqlite3", path, f".backup '{place / name}'"], check=True)
        os.truncate(place / name, os.path.getsize(place / name) - cut)
    live = str(place / "live")
    later(live, "CREATE TABLE entry (x); INSERT INTO entry VALUES (1)")
    shutil.copy(live, place / "copied")
    for bad in ("truncated", "copied"):
        with pytest.raises(Failure, match="must not be restored"):
            sqlite_restore.restore(path, directory, source_file=str(place / bad))
    sqlite_restore.restore(path, directory, source_file=str(place / "whole"))
    assert count(path) == 500
    # With its -wal, the live one is whole.
    sqlite_restore.restore(path, directory, source_file=live)
    assert count(path) == 1
    assert os.path.getsize(f"{live}-wal"), "what was restored from is as it was"


def test_a_torn_copy_of_a_live_database_is_refused(place, path, directory):
    """Half of the pages of before a checkpoint, half of after: what cp makes while a checkpoint runs."""
    before = Path(path).read_bytes()
    fill(path, rows=2000)
    after = Path(path).read_bytes()
    half = len(before) // 8192 * 4096
    (place / "torn").write_bytes(before[:half] + after[half:])
    with pytest.raises(Failure, match="must not be restored"):
        sqlite_restore.restore(path, directory, source_file=str(place / "torn"))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_database_that_is_in_use_is_not_replaced(path, directory, journal):
    """Fails without ``users_of``: with a rollback journal an idle connection has no lock that anybody could meet."""
    sqlite_backup.backup(path, directory)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute("DELETE FROM entry")
    connection.commit()
    connection.close()
    with subprocess.Popen([sys.executable, "-c", HOLD_IT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"open\n"
        with pytest.raises(Failure, match=rf"in use by .*{user.pid}"):
            sqlite_restore.restore(path, directory)
        user.communicate()
    assert count(path) == 0
    assert os.listdir(os.path.dirname(path)) == ["app.db"]


def test_under_wal_the_lock_alone_keeps_a_database_that_is_in_use(path, directory, monkeypatch):
    """Fails without ``settle``: in a container root may not see who has a file open."""
    sqlite_backup.backup(path, directory)
    monkeypatch.setattr(sqlite, "users_of", lambda _path: [])
    with subprocess.Popen([sys.executable, "-c", HOLD_IT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        user.stdout.readline()
        later(path, "DELETE FROM entry")
        with pytest.raises(Failure, match="in use by another process"):
            sqlite_restore.restore(path, directory)
        user.communicate()
    assert count(path) == 0


def test_whoever_comes_after_the_old_one_was_settled_keeps_it(path, directory, monkeypatch):
    """Fails without the lock, and without the look for a -wal: it would be played into the new database."""
    sqlite_backup.backup(path, directory)
    settle = sqlite.settle

    def settle_and_write(asked, deadline):
        settle(asked, deadline)
        later(path, "DELETE FROM entry")

    monkeypatch.setattr(sqlite, "settle", settle_and_write)
    later(path, "DELETE FROM entry WHERE id > 100")
    with pytest.raises(Failure, match="has just been written"):
        sqlite_restore.restore(path, directory)
    monkeypatch.setattr(sqlite, "users_of", lambda _path: [])
    with subprocess.Popen([sys.executable, "-c", HOLD_IT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        monkeypatch.setattr(sqlite, "settle", lambda _path, _deadline: user.stdout.readline())
        with pytest.raises(Failure, match="was locked by another process"):
            sqlite_restore.restore(path, directory)
        user.communicate()
    assert count(path) == 0


def test_whoever_opens_the_old_database_in_the_last_moment_is_named(path, directory, monkeypatch):
    """Fails without the second look."""
    sqlite_backup.backup(path, directory)
    later(path, "DELETE FROM entry")
    users = sqlite.users_of
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print(1, flush=True); sys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        user.stdout.readline()
        monkeypatch.setattr(sqlite, "users_of", lambda asked: [] if asked == path else users(asked))
        with pytest.raises(Failure, match=rf"is restored, but .*{user.pid}"):
            sqlite_restore.restore(path, directory)
        user.communicate()


def test_what_is_no_database_any_more_is_replaced_and_kept_with_its_wal(path, directory):
    sqlite_backup.backup(path, directory)
    wal = b"what nobody can play into it"
    Path(path).write_bytes(b"something else" * 1000)
    Path(f"{path}-wal").write_bytes(wal)
    done = sqlite_restore.restore(path, directory)
    assert count(path) == 500
    assert Path(done.replaced).read_bytes().startswith(b"something else")
    assert Path(f"{done.replaced}-wal").read_bytes() == wal


def test_a_wal_that_is_left_without_its_database_is_not_played_into_the_new_one(path, directory):
    sqlite_backup.backup(path, directory)
    later(path, "DELETE FROM entry")
    os.unlink(path)
    done = sqlite_restore.restore(path, directory)
    assert done.replaced == ""
    assert count(path) == 500
    assert any(name.endswith("-wal") and ".replaced-" in name for name in os.listdir(os.path.dirname(path)))


def test_the_new_one_is_the_apps_as_the_old_one_was(path, directory):
    """Fails without ``Ownership.give``: root's file would lock the app out."""
    sqlite_backup.backup(path, directory)
    later(path, "DELETE FROM entry")
    os.chown(path, 4711, 4712)
    os.chmod(path, 0o660)
    sqlite_restore.restore(path, directory)
    found = os.stat(path)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (4711, 4712, 0o660)


def test_what_a_killed_restore_has_left_is_tidied(path, directory):
    sqlite_backup.backup(path, directory)
    later(path, "DELETE FROM entry")
    here = os.path.dirname(path)
    os.link(path, os.path.join(here, ".app.db.replaced-1"))
    shutil.copy(path, os.path.join(here, ".app.db.replaced-2"))
    open(os.path.join(here, ".app.db.restore-3"), "wb").close()
    done = sqlite_restore.restore(path, directory)
    assert sorted(os.listdir(here)) == sorted(["app.db", "app.db.replaced-2", os.path.basename(done.replaced)])


def test_a_wrong_path_of_backups_is_told_and_not_made(path, directory):
    with pytest.raises(Failure, match="no directory of backups"):
        sqlite_restore.restore(path, directory)
    assert not os.path.exists(directory)


def test_a_drill_compares_and_leaves_nothing(path, directory):
    made = sqlite_backup.backup(path, directory, compress="zstd").made
    later(path, "DELETE FROM entry")
    before = sorted(os.listdir(directory))
    found = sqlite_restore.drill(sqlite_restore.Wanted(path, directory))
    assert (found["backup"], found["rows"]) == (made.name, {"entry": 500})
    assert sorted(os.listdir(directory)) == before
    assert count(path) == 0
    flip(made.path(directory), made.size // 2)
    with pytest.raises(Failure, match="must not be restored"):
        sqlite_restore.drill(sqlite_restore.Wanted(path, directory))
    assert sorted(os.listdir(directory)) == before
