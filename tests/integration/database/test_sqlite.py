# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""sqlite_backup_rotate and sqlite_restore, on a host and under fire.

What needs no host (damaged files, rotation, foreign files) is in tests/unit/database.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
import typing as t
from pathlib import Path

import pytest

from lab.deployment import REPOSITORY

APP = "www-data"
KILLED = Path(__file__).with_name("killed.py")
HERE = {**os.environ, "PYTHONPATH": str(REPOSITORY / ".cache" / "collections")}

# Writes for as long as it lives, ten transactions a second and more, and says how many there were.
WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
database.execute("PRAGMA journal_mode=WAL")
while True:
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO entry (text) VALUES (hex(randomblob(200)))")
    database.execute("INSERT INTO entry (text) VALUES (hex(randomblob(200)))")
    database.execute("COMMIT")
    time.sleep(0.002)
"""
# Root reads, and is killed with the database open.
KILLED_READER = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN")
database.execute("SELECT count(*) FROM entry").fetchone()
os._exit(9)
"""


class App:
    """A directory of an app on the host, with a database under WAL that is the app's."""

    def __init__(self, host, name):
        self.host = host
        self.root = f"/srv/sqlite/{name}"
        self.path = f"{self.root}/shared/app.db"
        self.backups = f"{self.root}/backups"
        self.unit = f"sqlite-{name}.service"

    def make(self, rows):
        self.host.run(["install", "-d", "-o", APP, "-g", APP, f"{self.root}/shared"])
        self.sql(
            "PRAGMA journal_mode=WAL; CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT); CREATE INDEX by_text ON entry (text);"
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO entry (text) SELECT hex(randomblob(100)) FROM n;"
        )

    def sql(self, statements, path=None):
        return self.host.run(["sqlite3", "-cmd", ".timeout 10000", path or self.path], user=APP, stdin=statements).stdout.strip()

    def count(self, path=None):
        assert self.sql("PRAGMA integrity_check", path) == "ok"
        return int(self.sql("SELECT count(*) FROM entry", path))

    def start_writer(self):
        self.host.write(f"{self.root}/writer.py", WRITER)
        unit = f"""
            [Service]
            User={APP}
            ExecStart=/usr/bin/python3 {self.root}/writer.py {self.path}
            """
        self.host.write(f"/run/systemd/system/{self.unit}", textwrap.dedent(unit))
        self.host.run(["systemctl", "daemon-reload"])
        self.host.run(["systemctl", "start", self.unit])
        self.wait_for_writes()

    def wait_for_writes(self):
        deadline = time.monotonic() + 30
        begin = self.count()
        while self.count() == begin:
            assert time.monotonic() < deadline, "nobody writes"

    def is_active(self, unit=None):
        return self.host.run(["systemctl", "is-active", unit or self.unit], check=False).stdout.strip() == "active"

    def listing(self):
        """Everything below the root, with owner, mode and size; but not the index of the -wal, which readers share."""
        found = self.host.run(["find", self.root, "!", "-name", "*-shm", "-printf", "%P %u:%g %m %s\\n"]).stdout
        return sorted(found.splitlines())

    def names(self):
        return self.host.run(["sh", "-c", f"ls -A {self.backups} | grep -v -e mutex -e json$ || true"]).stdout.split()

    @property
    def options(self):
        return {"path": self.path, "backups": self.backups}


@pytest.fixture
def app(host, request) -> t.Iterator[App]:
    made = App(host, request.node.name.removeprefix("test_").replace("_", "-")[:40])
    host.run(["rm", "-rf", made.root])
    made.make(rows=2000)
    yield made
    for unit in (made.unit, made.unit.replace(".service", ".socket")):
        host.run(["systemctl", "stop", unit], check=False)
    host.run(["sh", "-c", f"umount {made.backups} 2> /dev/null; rm -rf {made.root}"])


def test_a_database_is_backed_up_while_the_app_writes(host, module, app):
    app.start_writer()
    results = [module.must("sqlite_backup_rotate", **app.options, keep_last=2, owner=APP, group="adm", mode="0640") for _turn in range(3)]
    assert all(result["changed"] for result in results)
    assert app.is_active()
    rows = [result["backup"]["facts"]["rows"]["entry"] for result in results]
    assert rows == sorted(rows) and rows[0] < rows[-1], "there was no load"
    # Two rows a transaction: a copy that is not one state of the database would have half of one.
    assert all(number % 2 == 0 for number in rows)
    assert app.names() == [result["backup"]["name"] for result in results[1:]]
    assert results[2]["removed"] == [results[0]["backup"]["name"]]
    newest = results[2]["backup"]["name"]
    seen = host.run(["stat", "--format=%U:%G %a", f"{app.backups}/{newest}", f"{app.backups}/{newest}.json", app.backups]).stdout
    assert seen.splitlines() == [f"{APP}:adm 640", f"{APP}:adm 640", "root:root 700"]
    beside = host.run(["sh", "-c", f"stat --format=%U {app.path}*"]).stdout.split()
    assert set(beside) == {APP}


def test_root_leaves_nothing_that_locks_the_app_out(host, app):
    """SQLite itself gives -wal and -shm to the database's owner; this is what lets root open it at all."""
    host.run(["python3", "-c", KILLED_READER, app.path], check=False)
    left = host.run(["sh", "-c", f"stat --format='%n %U:%G' {app.path}-*"]).stdout.splitlines()
    assert left == [f"{app.path}-shm {APP}:{APP}", f"{app.path}-wal {APP}:{APP}"]
    app.sql("INSERT INTO entry (text) VALUES ('x')")


def test_check_mode_shows_the_plan_and_touches_nothing(host, module, app):
    module.must("sqlite_backup_rotate", **app.options)
    app.sql(f"VACUUM INTO '{app.path}.backup.20200101_000000'")
    before = app.listing()
    planned = module.must("sqlite_backup_rotate", "--check", "--diff", **app.options, keep_last=1, adopt=True)
    assert planned["changed"]
    assert planned["backup"] is None
    assert f"-{app.backups}/{app.names()[0]}: verified backup of" in planned["said"]
    assert f": verified backup of {app.path}\n" in planned["said"]
    assert f"-{app.path}.backup.20200101_000000: found, of" in planned["said"]
    assert app.listing() == before
    app.sql("DELETE FROM entry")
    before = app.listing()
    planned = module.must("sqlite_restore", "--check", "--diff", **app.options)
    assert planned["changed"]
    assert planned["restored"] == app.names()[0]
    assert f"+{app.path}: the backup {app.names()[0]}\n" in planned["said"]
    assert f"+{app.path}.replaced-" in planned["said"]
    drilled = module.must("sqlite_restore", **app.options, drill=True)
    assert not drilled["changed"]
    assert drilled["drill"]["rows"] == {"entry": 2000}
    assert app.listing() == before


def test_a_url_and_its_password_stay_on_the_host(host, module, app):
    host.write(f"{app.root}/.env", "DATABASE_URL=sqlite:///app.db\n", mode="0600")
    found = module.must("sqlite_backup_rotate", environment_files=[f"{app.root}/.env"], directory=f"{app.root}/shared", backups=app.backups)
    assert found["backup"]["facts"]["source"] == app.path
    host.write(f"{app.root}/.env", "DATABASE_URL=postgresql://app:hunter2@db/app\n", mode="0600")
    refused = module.refused("sqlite_restore", "PostgreSQL", environment_files=[f"{app.root}/.env"], backups=app.backups)
    assert "hunter2" not in refused["said"]


def test_a_disk_that_is_full_costs_nothing(host, module, app):
    """Once told beforehand, and once in the middle: there the record is what has no room.

    Fails without ``require_room`` (SQLite would fill the disk), and without what ``publish`` takes back.
    """
    kept = module.must("sqlite_backup_rotate", **app.options)["backup"]["name"]
    host.run(["sh", "-c", f"mkdir {app.root}/saved && mv {app.backups}/* {app.root}/saved/"])

    def small(options):
        host.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", app.backups])
        host.run(["sh", "-c", f"cp -p {app.root}/saved/{kept} {app.root}/saved/{kept}.json {app.backups}/"])

    small("size=1300k")
    module.refused("sqlite_backup_rotate", "too full", "Nothing was changed", **app.options, keep_last=1)
    assert app.names() == [kept]
    host.run(["umount", app.backups])
    # The directory, the kept backup and its record, the mutex, and the new data: then no inode is left.
    small("size=16m,nr_inodes=5")
    module.refused("sqlite_backup_rotate", "The disk is full", **app.options, keep_last=1)
    assert app.names() == [kept]
    host.run(["umount", app.backups])


def test_a_restore_stops_and_starts_what_uses_the_database(host, module, app):
    made = module.must("sqlite_backup_rotate", **app.options)["backup"]["name"]
    app.start_writer()
    socket = app.unit.replace(".service", ".socket")
    host.write(f"/run/systemd/system/{socket}", f"[Socket]\nListenStream={app.root}/app.sock\n")
    host.run(["systemctl", "stop", app.unit])
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "start", socket])
    host.run(["systemctl", "start", app.unit])
    app.wait_for_writes()

    def process():
        return host.run(["systemctl", "show", "--property=MainPID", "--value", app.unit]).stdout.strip()

    first = process()
    refused = module.refused("sqlite_restore", "is in use by", first, "stop_units", **app.options)
    assert refused["msg"].count("\n") <= 2
    module.refused("sqlite_restore", "no unit another.service", **app.options, stop_units=["another.service"])
    module.refused("sqlite_restore", "no verified backup nothing.db", **app.options, name="nothing.db", stop_units=[app.unit])
    assert process() == first, "the app was stopped for a restore that could not be"

    done = module.must("sqlite_restore", **app.options, stop_units=[app.unit])
    assert (done["restored"], done["rows"]) == (made, {"entry": 2000})
    assert app.is_active() and app.is_active(socket)
    assert process() != first
    owners = host.run(["sh", "-c", f"stat --format=%U:%a {app.path}"]).stdout.strip()
    assert owners == f"{APP}:644"
    # What was replaced has all that was committed, and is whole by itself.
    assert not host.exists(f"{done['replaced']}-wal")
    assert app.count(done["replaced"]) > 2000
    assert app.count() >= 2000

    # Another one still has it open: the app is started again although the restore fails.
    second = process()
    app.wait_for_writes()
    other = "sqlite-other.service"
    host.run(["systemd-run", "--quiet", f"--unit={other}", f"--uid={APP}", "python3", f"{app.root}/writer.py", app.path])
    try:
        module.refused("sqlite_restore", "is in use by", **app.options, stop_units=[app.unit])
    finally:
        host.run(["systemctl", "stop", other], check=False)
    assert app.is_active() and app.is_active(socket)
    assert process() != second
    assert app.count() >= 2000


def test_zstd_is_the_hosts_or_that_of_the_tools_environment(host, module, app):
    """And a flipped bit in what was compressed is found."""
    host.run(["sh", "-c", "! command -v zstd"])
    before = host.run(["readlink", "/opt/bulletproof/tools"], check=False).stdout.strip()
    host.run(["rm", "-f", "/opt/bulletproof/tools"])
    try:
        module.refused("sqlite_backup_rotate", "neither", "tools_requirements", **app.options, compress="zstd")
        assert app.names() == []
        module.install_tools("zstandard>=0.22,<1")
        made = module.must("sqlite_backup_rotate", **app.options, compress="zstd")["backup"]
        assert made["name"].endswith(".db.zst")
        assert made["size"] < made["facts"]["content_size"]
        app.sql("DELETE FROM entry")
        module.must("sqlite_restore", **app.options)
        assert app.count() == 2000
        app.sql("DELETE FROM entry")
        flip = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(1000); b = f.read(1); f.seek(1000); f.write(bytes([b[0] ^ 1]))"
        host.run(["python3", "-c", flip, f"{app.backups}/{made['name']}"])
        module.refused("sqlite_restore", "has changed since it was verified", **app.options)
        assert app.count() == 0
    finally:
        host.run(["sh", "-c", 'test -z "$1" || ln -sfn "$1" /opt/bulletproof/tools', "sh", before])


# Without a host.


@pytest.mark.parametrize(("what", "rounds"), [("backup", 80), ("restore", 60), ("restore_in_use", 40)])
def test_killed_at_any_point_there_is_a_verified_backup_and_a_database(tmp_path, what, rounds):
    """The seed is printed; BULLETPROOF_KILL_SEED sets it.

    Fails when rotation comes before the new backup, when the record comes before the data, when the old database does not take in its -wal before it is
    replaced, when it is moved away instead of linked, when a -wal is left or dropped, and when what was cut short is not removed.
    """
    seed = os.environ.get("BULLETPROOF_KILL_SEED") or str(random.randrange(10**6))
    print(f"BULLETPROOF_KILL_SEED={seed}")
    os.chmod(tmp_path, 0o700)
    argv = [sys.executable, str(KILLED), what, str(tmp_path), seed, str(rounds)]
    done = subprocess.run(argv, env=HERE, capture_output=True, encoding="utf-8", check=False)
    print(done.stdout)
    assert done.returncode == 0, f"BULLETPROOF_KILL_SEED={seed}\n{done.stderr}"


def test_backups_at_the_same_time_wait_for_each_other(tmp_path):
    """Fails without the mutex: one takes the other's unfinished copy for what a dead one has left."""
    os.chmod(tmp_path, 0o700)
    path = str(tmp_path / "app.db")
    subprocess.run(["sqlite3", path, "CREATE TABLE entry (x); INSERT INTO entry VALUES (randomblob(3000000))"], check=True)
    code = """
import sys
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import sqlite_backup, backups
for turn in range(5):
    sqlite_backup.backup(sys.argv[1], sys.argv[2], backups.Policy(last=99))
"""
    argv = [sys.executable, "-c", code, path, str(tmp_path / "backups")]
    at_once = [subprocess.Popen(argv, env=HERE, stderr=subprocess.PIPE, encoding="utf-8") for _process in range(3)]
    said = [process.communicate()[1] for process in at_once]
    assert [process.returncode for process in at_once] == [0, 0, 0], said
    assert len([name for name in os.listdir(tmp_path / "backups") if name.endswith(".db")]) == 15
