# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Migrations that are killed (SIGKILL) at random points, and a look at the database and its revision afterwards.

A program of its own, run on a lab host, because every round is a process. Each round begins with nothing, and is killed

- at a random moment: the module alone, or all that it has started; or
- at a random line of the collection's code, in the module or in what it has forked; or
- (Alembic) at a random statement or commit, before or after it, in the process that migrates.

Then the database has to open, its revision has to be the one of the tables that are there, and the next run has to bring it to the newest one.

    python3 killed_migrations.py < request
"""

from __future__ import annotations

import glob
import json
import mmap
import os
import random
import runpy
import signal
import sqlite3
import subprocess
import sys
import time

ROWS = 300
FILL = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) SELECT i, 'note ' || i FROM n"
SLEEP = "SELECT pg_sleep(300)"
# Sent to the host with the collection, and run there as Ansible runs a module.
PLUGINS = "ansible_collections/bulletproof/deploy/plugins"


def sql(number):
    """What a migration of the number does, statement by statement."""
    statements = [
        f"CREATE TABLE step_{number} (id integer PRIMARY KEY, note text)",
        f"INSERT INTO step_{number} (id, note) {FILL}",
        f"CREATE INDEX step_{number}_note ON step_{number} (note)",
    ]
    return statements + ([f"ALTER TABLE step_{number - 1} ADD COLUMN more integer"] if number > 1 else [])


def trace(at, whole_group, told):
    """Run the module that the first argument names, and die at the n-th line of the collection's functions; tell how many there were."""
    name, sys.argv[1:] = sys.argv[1], []
    shared = mmap.mmap(-1, 8)

    def line(_frame, event, _argument):
        if event == "line":
            seen = int.from_bytes(shared[:], "big") + 1
            shared[:] = seen.to_bytes(8, "big")
            if seen == at:
                os.killpg(0, signal.SIGKILL) if whole_group else os.kill(os.getpid(), signal.SIGKILL)
        return line

    def called(frame, _event, _argument):
        code = frame.f_code
        own = "module_utils/_database/" in code.co_filename and not code.co_filename.endswith(("statements.py", "classify.py"))
        return line if own and code.co_name != "<module>" else None

    parent = os.getpid()
    sys.settrace(called)
    try:
        runpy.run_module(name, run_name="__main__")
    finally:
        if os.getpid() == parent:
            with open(told, "w") as stream:
                stream.write(str(int.from_bytes(shared[:], "big")))


class Sqlite:
    def __init__(self, path):
        self.path = path

    def as_owner(self, work):
        """What work returns, done by the account that the directory belongs to: root would leave files that the app cannot write."""
        owner = os.stat(os.path.dirname(self.path))
        receiving, sending = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setgid(owner.st_gid)
                os.setuid(owner.st_uid)
                os.write(sending, json.dumps(work()).encode())
                status = 0
            except BaseException as error:
                print(f"look: {error!r}", file=sys.stderr)
            finally:
                os._exit(status)
        os.close(sending)
        with os.fdopen(receiving) as stream:
            said = stream.read()
        assert os.waitpid(child, 0)[1] == 0, "the database could not be looked at"
        return json.loads(said)

    def empty(self, chance):
        for path in glob.glob(glob.escape(self.path) + "*"):
            os.unlink(path)
        if chance.random() < 0.5:
            self.as_owner(lambda: sqlite3.connect(self.path).execute("PRAGMA journal_mode=WAL").fetchall())

    def look(self, revision):
        def work():
            if not os.path.exists(self.path):
                return [[], [], [], None]
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=10)
            connection.execute("BEGIN")
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
            tables = sorted(name for name in names if name.startswith("step_") and not name.endswith("_note"))
            rows = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables]
            wide = [name for name in tables if any(column[1] == "more" for column in connection.execute(f"PRAGMA table_info({name})"))]
            found = connection.execute(f"SELECT max({revision[1]}) FROM {revision[0]}").fetchone()[0] if revision[0] in names else None
            indexes = [name for name in names if name.endswith("_note")]
            assert len(indexes) == len(tables), (indexes, tables)
            connection.execute("COMMIT")
            connection.close()
            return [tables, rows, wide, found]

        return self.as_owner(work)


class Postgres:
    def __init__(self, address):
        from ansible_collections.bulletproof.deploy.plugins.module_utils._database import postgres, url

        self.postgres, self.database = postgres, url.parse(address)

    def rows(self, *statements):
        connection = self.postgres.connect(self.database)
        try:
            return [self.postgres.rows(connection, statement) for statement in statements]
        finally:
            connection.close()

    def empty(self, _chance):
        names = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")[0]
        self.rows(*(f"DROP TABLE {name}" for (name,) in names))

    def look(self, revision):
        # One snapshot for all: a server that has not noticed yet that nobody waits for it may end its transaction at any moment.
        connection = self.postgres.connect(self.database)

        def rows(statement):
            return self.postgres.rows(connection, statement)

        try:
            rows("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            names = [name for (name,) in rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")]
            tables = sorted(name for name in names if name.startswith("step_") and not name.endswith(("_note", "_pkey")))
            counts = [rows(f"SELECT count(*) FROM {name}")[0][0] for name in tables]
            wide = "SELECT relname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attname = 'more' ORDER BY 1"
            indexes = [name for name in names if name.endswith("_note")]
            assert len(indexes) == len(tables), (indexes, tables)
            found = rows(f"SELECT max({revision[1]}) FROM {revision[0]}")[0][0] if revision[0] in names else None
            return [tables, counts, [name for (name,) in rows(wide)], found]
        finally:
            connection.close()

    def sleeping(self):
        return self.rows(f"SELECT count(*) FROM pg_stat_activity WHERE query = '{SLEEP}' AND state = 'active'")[0][0][0]


class Rounds:
    """:param given: ``module``, ``options``, ``url`` or ``path``, ``newest``, ``revision`` (a table and the column in it), ``place`` (a directory to
    write to), ``ways`` and, for Alembic, ``environment`` (the file that the app gets its environment from).
    """

    def __init__(self, given):
        self.given = given
        self.chance = random.Random(given["seed"])
        self.database = Postgres(given["url"]) if given.get("url") else Sqlite(given["path"])
        self.events = os.path.join(given["place"], "events")
        self.lines = os.path.join(given["place"], "lines")

    def start(self, traced=(), environment=()):
        if "environment" in self.given:
            each = self.chance.choice(["", "1"])
            with open(self.given["environment"], "w") as stream:
                stream.write("\n".join([self.given["variable"], f"EACH={each}", *environment, ""]))
        module = f"{PLUGINS}/modules/{self.given['module']}".replace("/", ".")
        # To follow every line takes longer than the work itself.
        process = subprocess.Popen(
            [sys.executable, __file__, module, *traced, self.lines] if traced else [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**self.given["options"], "_ansible_remote_tmp": "/tmp"}}).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def completed(self, traced=()):
        """Run it without harm, at once; how long it took."""
        began = time.monotonic()
        process = self.start(traced)
        said = process.communicate()[0].decode()
        assert process.returncode == 0, said
        assert self.where() == self.given["newest"]
        return time.monotonic() - began

    def where(self):
        """The revision; what is there has to be just what it says."""
        tables, rows, wide, found = self.database.look(self.given["revision"])
        number = int(str(found).lstrip("r")) if found is not None else 0
        wanted = [f"step_{one}" for one in range(1, number + 1)]
        assert tables == wanted, f"the revision is {found}, and there are {tables}"
        assert rows == [ROWS] * number, rows
        assert wide == wanted[:-1], wide
        return number

    def killed(self, way, took, lines, events):
        """Whether it was killed before its end."""
        whole_group = self.chance.random() < 0.5
        if way == "line":
            process = self.start([str(self.chance.randint(1, lines)), "group" if whole_group else ""])
        elif way == "statement":
            process = self.start(environment=[f"DIE_AT={self.chance.randint(1, events)}"])
        else:
            process = self.start()
            try:
                process.wait(self.chance.uniform(0, took * 1.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
        status = process.wait()
        process.stdout.close()
        return status != 0

    def read(self, path):
        with open(path) as stream:
            return int(stream.read())

    def run(self):
        self.database.empty(self.chance)
        took = self.completed(traced=["0", ""])
        lines = self.read(self.lines)
        events = self.read(self.events) if "statement" in self.given["ways"] else 0
        cut, stopped = dict.fromkeys(self.given["ways"], 0), []
        for number in range(self.given["rounds"]):
            way = self.given["ways"][number % len(self.given["ways"])]
            self.database.empty(self.chance)
            cut[way] += self.killed(way, took, lines, events)
            stopped.append(self.where())
            took = self.completed()
        return {"cut": cut, "stopped": stopped, "lines": lines, "events": events}

    def run_slow(self):
        """Killed while the server is at work for it: that goes on by itself until the server looks whether anybody waits."""
        self.database.empty(self.chance)
        process = self.start(environment=["SLOW=1"])
        deadline = time.monotonic() + 60
        while not self.database.sleeping():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        began = time.monotonic()
        process.communicate()
        # Whoever looks waits as well, for the locks of what goes on there.
        assert self.where() < self.given["newest"]
        if "ready" in self.given:
            os.replace(*self.given["ready"])
        self.completed()
        return {"seconds": time.monotonic() - began}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trace(int(sys.argv[2]), bool(sys.argv[3]), sys.argv[4])
    else:
        request = json.load(sys.stdin)
        rounds = Rounds(request)
        print(json.dumps(rounds.run_slow() if request.get("slow") else rounds.run()))
