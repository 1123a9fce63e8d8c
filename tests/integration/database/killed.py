# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups, rotations and restores that are killed (SIGKILL) at random points, and a look at what is there afterwards.

A program of its own, because every round is a fork. Half of the rounds end at a random moment; the other half at a random one of the events that Python
audits (each open, rename, link, unlink, connect and so on), so that the steps that take no time are met as often as the long ones.

    python killed.py backup|restore|restore_in_use DIRECTORY SEED ROUNDS
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, sqlite, sqlite_backup, sqlite_restore

ROWS = 400
KEEP = 2
STEPS = ("open", "os.", "sqlite3.", "shutil.", "fcntl.")


def in_child(work, at_event=0):
    """Fork; the child does the work, and dies at the n-th of its events, if it has so many."""
    child = os.fork()
    if child:
        return child
    seen = 0

    def die(event, _arguments):
        nonlocal seen
        if event.startswith(STEPS):
            seen += 1
            if seen == at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        if at_event:
            sys.addaudithook(die)
        work()
        status = 0
    except BaseException as error:
        print(f"child: {error!r}", file=sys.stderr)
    finally:
        os._exit(status)


def completed(work):
    _pid, status = os.waitpid(in_child(work), 0)
    assert status == 0, f"it ended with {status} although nobody killed it"


def killed(chance, work, seconds, events):
    """Run the work and kill it somewhere; whether it was killed before its end."""
    if chance.random() < 0.5:
        child = in_child(work, at_event=chance.randint(1, events))
    else:
        child = in_child(work)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def measured(work):
    """Seconds and events that the work takes when nobody kills it."""
    receiving, sending = os.pipe()

    def counting():
        seen = 0

        def count(event, _arguments):
            nonlocal seen
            seen += event.startswith(STEPS)

        sys.addaudithook(count)
        work()
        os.write(sending, str(seen).encode())

    began = time.monotonic()
    completed(counting)
    took = time.monotonic() - began
    events = int(os.read(receiving, 20))
    os.close(receiving)
    os.close(sending)
    return took, events


def write(path, generation):
    """One transaction that changes every row; the process ends without closing, so that it stays in the -wal."""

    def work():
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, generation INTEGER, filling TEXT)")
        connection.execute("CREATE INDEX IF NOT EXISTS of_generation ON entry (generation)")
        connection.execute("BEGIN IMMEDIATE")
        rows = [(number, generation, f"{generation}-{number}" * 20) for number in range(ROWS)]
        connection.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
        os._exit(0)

    completed(work)


def generation_of(path):
    """The one generation that all rows of a database are of."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = connection.execute(
            "SELECT generation, count(*), sum(filling LIKE generation || '-%') FROM entry GROUP BY generation"
        ).fetchall()
    finally:
        connection.close()
    assert len(found) == 1, f"rows of several generations: {found}"
    generation, count, right = found[0]
    assert count == right == ROWS, found
    return generation


def verified(directory, path):
    """All that are backups by their record; each of them is what the record says."""
    found = sqlite_backup.of_database(str(directory), path)
    for one in found:
        assert not backups.problem(str(directory), one)
        assert sqlite.verify(one.path(str(directory)), sqlite.Deadline(60)).rows == one.facts["rows"]
    return found


def backup_rounds(place, chance, rounds):
    path, directory = str(place / "app.db"), place / "backups"

    def backup():
        sqlite_backup.backup(path, str(directory), backups.Policy(last=KEEP))

    generation = 0
    for generation in range(KEEP):
        write(path, generation)
        completed(backup)
    seconds, events = measured(backup)
    cut = 0
    for number in range(rounds):
        write(path, generation + number)
        cut += killed(chance, backup, seconds * 1.1, events)
        found = verified(directory, path)
        assert len(found) >= KEEP, f"round {number}: {len(found)} verified backups are left of {KEEP}"
        assert generation_of(path) == generation + number
    completed(backup)
    found = verified(directory, path)
    left = {name for name in os.listdir(directory) if name.removesuffix(".json") not in {one.name for one in found}}
    assert len(found) == KEEP, found
    assert left == {"backups.mutex"}, left
    return cut


def restore_rounds(place, chance, rounds, in_use=False):
    path, directory = str(place / "app.db"), place / "backups"
    backed_up, generation = 1000000, 0

    def restore():
        sqlite_restore.restore(path, str(directory), in_use=in_use)

    write(path, backed_up)
    completed(lambda: sqlite_backup.backup(path, str(directory)))
    write(path, generation)
    seconds, events = measured(restore)
    cut = 0
    for number in range(rounds):
        generation += 1
        # What is there to be replaced has its newest transaction in a -wal that a killed process has left.
        write(path, generation)
        assert os.path.getsize(f"{path}-wal")
        cut += killed(chance, restore, seconds * 1.1, events)
        found = generation_of(path)
        assert found in (generation, backed_up), f"round {number}: generation {found}, neither {generation} nor {backed_up}"
        assert len(verified(directory, path)) == 1
        if found == backed_up:
            kept = [*place.glob("app.db.replaced-*"), *place.glob(".app.db.replaced-*")]
            generations = {generation_of(one) for one in kept if not one.name.endswith(sqlite.COMPANIONS)}
            assert generation in generations, f"round {number}: the old database is gone"
        for old in place.glob("app.db.replaced-*"):
            old.unlink()
    generation += 1
    write(path, generation)
    completed(restore)
    assert generation_of(path) == backed_up
    left = sorted(name for name in os.listdir(place) if name.startswith("."))
    assert not left, left
    return cut


def main():
    what, place, seed, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    chance = random.Random(seed)
    cut = {
        "backup": backup_rounds,
        "restore": restore_rounds,
        "restore_in_use": functools.partial(restore_rounds, in_use=True),
    }[what](place, chance, rounds)
    print(f"{what}: {rounds} rounds, {cut} killed before their end, seed {seed}")


if __name__ == "__main__":
    main()
