# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup is written into a database that is in use: open connections go on, and what it replaces is kept."""

from __future__ import annotations

import os
import sqlite3

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import sqlite_backup, sqlite_restore
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@pytest.fixture
def place(tmp_path):
    tmp_path.chmod(0o700)
    return tmp_path


def opened(path):
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


def test_open_connections_see_the_backup_and_what_it_replaces_is_kept(place):
    path = str(place / "app.db")
    app = opened(path)
    reader = opened(path)
    try:
        app.execute("CREATE TABLE entry (x)")
        app.execute("INSERT INTO entry VALUES ('tea')")
        sqlite_backup.backup(path, str(place / "backups"))
        app.execute("CREATE TABLE half (x)")
        app.execute("INSERT INTO entry VALUES ('salt')")
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (2,)
        inode = os.stat(path).st_ino

        done = sqlite_restore.restore(path, str(place / "backups"), in_use=True)

        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (2,), "an open transaction goes on with what it saw"
        reader.execute("COMMIT")
        for connection in (app, reader):
            assert connection.execute("SELECT x FROM entry").fetchall() == [("tea",)]
            assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("entry",)]
        assert app.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert os.stat(path).st_ino == inode, "whoever has it open has it still"
        app.execute("INSERT INTO entry VALUES ('oil')")
        assert reader.execute("SELECT count(*) FROM entry").fetchone() == (2,)
    finally:
        app.close()
        reader.close()
    kept = sqlite3.connect(done.replaced)
    try:
        assert kept.execute("SELECT x FROM entry").fetchall() == [("tea",), ("salt",)]
        assert kept.execute("SELECT count(*) FROM half").fetchone() == (0,)
    finally:
        kept.close()
    assert not [name for name in os.listdir(place) if name.startswith(".")]


def test_a_damaged_database_is_not_written_into(place):
    """It cannot be kept as a consistent copy. Fails without the verification of that copy."""
    path = str(place / "app.db")
    app = opened(path)
    app.execute("CREATE TABLE entry (x)")
    app.executemany("INSERT INTO entry VALUES (?)", [("x" * 500,) for _number in range(400)])
    sqlite_backup.backup(path, str(place / "backups"))
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    app.close()
    content = bytearray((place / "app.db").read_bytes())
    content[3 * 4096 : 3 * 4096 + 2000] = b"\xff" * 2000
    (place / "app.db").write_bytes(content)
    with pytest.raises(Failure, match="cannot be copied") as told:
        sqlite_restore.restore(path, str(place / "backups"), in_use=True)
    assert "stop_units" in told.value.fix
    assert (place / "app.db").read_bytes() == bytes(content)
