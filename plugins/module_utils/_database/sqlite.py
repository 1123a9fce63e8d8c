# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SQLite databases as files: copied while they are written, looked at without a trace, and who has them open.

Sources: https://www.sqlite.org/backup.html, https://www.sqlite.org/wal.html, https://www.sqlite.org/fileformat2.html,
https://www.sqlite.org/howtocorrupt.html. Root may open an app's database: SQLite gives ``-wal`` and ``-shm`` to the database's owner
(``robustFchown`` in its os_unix.c).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
import typing as t
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import url, zstd
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

MAGIC = b"SQLite format 3\0"
BLOCK = 1024 * 1024
# Pages a step: often enough to look at the clock, seldom enough not to cost anything.
STEP = 8192
# Instructions of SQLite's virtual machine between two looks at the clock.
INSTRUCTIONS = 200_000
COMPANIONS = ("-wal", "-shm", "-journal")
# Read as a file that nobody writes: no lock is taken, and no -wal or -shm is made beside it.
UNTOUCHED = "mode=ro&immutable=1"
IN_PLACE = "mode=rw"
# What integrity_check says of one table whose indexes or checks need what only the app's own process has.
APPS_OWN = re.compile(r"(?:unknown function|no such function|no such collation sequence|no such module): ?(\S+)")

SPEC: t.Dict[str, t.Any] = {"path": {"type": "path"}, **url.SPEC}


def looking_at(path: str) -> str:
    """How to read a database that may be in use, without making files beside it."""
    return "mode=ro" if os.path.exists(f"{path}-wal") else UNTOUCHED


class Damaged(Failure):
    """It is no SQLite database, or not a whole one."""


def path_of(options: t.Mapping[str, t.Any]) -> str:
    """The file that a module's options mean, with links followed: it is the file that is copied and replaced, not a link to it."""
    if options["path"]:
        return os.path.realpath(str(options["path"]))
    database = url.database_of(options)
    if not isinstance(database, url.Sqlite):
        raise Failure(
            f"The database is on a PostgreSQL server ({database.shown}), and this is for SQLite.", fix="Use the postgres_ modules."
        )
    return os.path.realpath(database.path)


class Deadline:
    """When to give up."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    @property
    def over(self) -> bool:
        return not self.left

    def check(self, path: str) -> None:
        if self.over:
            raise Failure(f"{path}: not done within {self.seconds:g} s.", fix="Nothing was changed. Give it a longer timeout.")


def explain(path: str, error: sqlite3.Error, deadline: Deadline) -> Failure:
    """SQLite's error in words. (Python has its numbers only since 3.11.)"""
    said = str(error)
    if any(sign in said for sign in ("malformed", "not a database", "unsupported file format", "file is encrypted")):
        return Damaged(f"{path} is not a whole SQLite database: {said}.")
    if "full" in said:
        return Failure(f"The disk is full ({path}).", fix="Look at df -h and df -i, make room, and run it again.")
    if "locked" in said:
        by = ", ".join(users_of(path)) or "another process"
        return Failure(
            f"{path} is in use by {by}, and was locked for too long.", fix="Stop it, or its units (stop_units), and run it again."
        )
    if "interrupted" in said:
        return Failure(f"{path}: not done within {deadline.seconds:g} s.", fix="Nothing was changed. Give it a longer timeout.")
    if "unable to open" in said or "readonly" in said:
        return Failure(
            f"{path} cannot be opened as a database here: {said}.", fix="Look at the owner and mode of the file and its directory."
        )
    return Failure(f"SQLite says of {path}: {said}.")


@contextlib.contextmanager
def opened(path: str, how: str, deadline: Deadline) -> t.Iterator[sqlite3.Connection]:
    """A connection without Python's own transactions, closed in any case; SQLite's errors become Failures."""
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(path)}?{how}",
            uri=True,
            isolation_level=None,
            timeout=min(deadline.left, 60.0),
            check_same_thread=False,
        )
        connection.set_progress_handler(lambda: int(deadline.over), INSTRUCTIONS)
        # The database is the app's: whatever functions its schema names, they must not do anything here.
        connection.execute("PRAGMA trusted_schema=OFF")
        yield connection
    except sqlite3.Error as error:
        raise explain(path, error, deadline) from error
    finally:
        if connection is not None:
            connection.close()


@dataclass(frozen=True)
class Header:
    """What the first 100 bytes of a database say."""

    wal: bool
    page_size: int
    pages: int


def header_of(path: str) -> t.Optional[Header]:
    """None for what is no SQLite database. An empty file is one to SQLite, but not one that anybody means."""
    with open(path, "rb") as stream:
        first = stream.read(100)
    if len(first) < 100 or not first.startswith(MAGIC):
        return None
    size = int.from_bytes(first[16:18], "big")
    return Header(wal=first[18] == 2, page_size=65536 if size == 1 else size, pages=int.from_bytes(first[28:32], "big"))


def rows_of(connection: sqlite3.Connection) -> t.Dict[str, int]:
    """How many rows each table has. Virtual tables are counted as the tables that hold their content."""
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 ORDER BY name")]
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in names}
    return {name: connection.execute(f"SELECT count(*) FROM {quoted[name]}").fetchone()[0] for name in names}


@dataclass(frozen=True)
class Contents:
    """What was found in a database that is whole.

    :param unchecked: Tables that use functions or collations of the app, which cannot be checked without it.
    """

    rows: t.Mapping[str, int]
    sha256: str
    size: int
    facts: t.Mapping[str, t.Any] = field(default_factory=dict)
    unchecked: t.Sequence[str] = ()


def verify(path: str, deadline: Deadline, empty: bool = False) -> Contents:
    """Look at a database that nobody writes, all of it, and leave no trace. Damaged says what is wrong with it.

    :param empty: It may be without any table.

    Checking, counting and hashing go on beside each other: none of them waits for Python.
    """
    header = header_of(path)
    size = os.stat(path).st_size
    if header is None:
        raise Damaged(f"{path} is not an SQLite database: {'it is empty' if not size else 'it does not begin like one'}.")
    if header.pages * header.page_size > size:
        raise Damaged(
            f"{path} is truncated: it says that it has {header.pages} pages of {header.page_size} bytes, and it has {size} bytes."
        )
    with ThreadPoolExecutor(3) as pool:
        checking = pool.submit(_check, path, deadline)
        counting = pool.submit(_look, path, deadline)
        hashing = pool.submit(hash_of, _plain_blocks(path), path, deadline)
        unchecked = checking.result()
        rows, facts = counting.result()
        if not rows and not empty:
            raise Damaged(f"{path} holds no table: a copy of a database under WAL whose content is still in its -wal looks like that.")
        return Contents(rows, hashing.result(), size, {**facts, "wal": header.wal}, unchecked)


def hash_of(blocks: t.Iterable[bytes], path: str, deadline: Deadline) -> str:
    hashed = hashlib.sha256()
    for block in blocks:
        hashed.update(block)
        deadline.check(path)
    return hashed.hexdigest()


def _plain_blocks(path: str) -> t.Iterator[bytes]:
    with open(path, "rb") as stream:
        yield from iter(lambda: stream.read(BLOCK), b"")


def doubt(contents: Contents) -> str:
    """What cannot be known of a file that nobody has recorded."""
    if contents.facts["wal"]:
        return "It is of a database under WAL. If it was copied while that was in use, the last transactions before the copy are not in it."
    return ""


def _look(path: str, deadline: Deadline) -> t.Tuple[t.Dict[str, int], t.Dict[str, t.Any]]:
    with opened(path, UNTOUCHED, deadline) as connection:
        facts = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "user_version", "application_id")
        }
        return rows_of(connection), facts


def _check(path: str, deadline: Deadline) -> t.List[str]:
    """Raise Damaged for what integrity_check finds; the tables that it cannot check."""
    with opened(path, UNTOUCHED, deadline) as connection:
        unchecked: t.List[str] = []
        try:
            found = _integrity(connection)
        except sqlite3.OperationalError as error:
            if APPS_OWN.search(str(error)) is None:
                raise
            found, unchecked = _table_by_table(connection)
    if found:
        raise Damaged(f"{path} does not pass integrity_check: {'; '.join(found[:5])}.")
    return unchecked


def _integrity(connection: sqlite3.Connection, table: str = "") -> t.List[str]:
    argument = "({})".format("'" + table.replace("'", "''") + "'") if table else ""
    return [line for (line,) in connection.execute(f"PRAGMA integrity_check{argument}") if line != "ok"]


def _table_by_table(connection: sqlite3.Connection) -> t.Tuple[t.List[str], t.List[str]]:
    found: t.List[str] = []
    unchecked: t.List[str] = []
    for name in rows_of(connection):
        try:
            found += _integrity(connection, name)
        except sqlite3.OperationalError as error:
            if APPS_OWN.search(str(error)) is None:
                raise
            unchecked.append(name)
    return found, unchecked


def snapshot(source: str, target: str, deadline: Deadline, room: t.Callable[[int], None]) -> t.Dict[str, int]:
    """Copy a database that is in use into an empty file, and count its rows, both in one read transaction.

    Under WAL no writer waits for it. With a rollback journal, writers wait until the copy is done.

    :param room: Told how many bytes it will take, before the first one.
    """

    def late(_status: int, _remaining: int, _total: int) -> None:
        deadline.check(source)

    with opened(source, IN_PLACE, deadline) as connection, opened(target, IN_PLACE, deadline) as into:
        connection.execute("BEGIN")
        rows = rows_of(connection)
        pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        room(pages * size)
        # Until it is published nobody believes in the target, so it needs neither a journal nor a sync for each step.
        into.execute("PRAGMA journal_mode=OFF")
        into.execute("PRAGMA synchronous=OFF")
        connection.backup(into, pages=STEP, progress=late, sleep=0.05)
        connection.execute("COMMIT")
    return rows


def settle(path: str, deadline: Deadline) -> None:
    """Bring everything that is in ``-wal`` or a journal into the database itself, alone. Damaged when it cannot be read.

    Whoever has it open makes this fail: a lock under the exclusive locking mode is had by one only.
    """
    with opened(path, IN_PLACE, deadline) as connection:
        connection.execute("PRAGMA busy_timeout=2000")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def blocks_of(path: str) -> t.Iterator[bytes]:
    """A database's bytes, from a backup that may be compressed."""
    if path.endswith(zstd.EXTENSION):
        yield from zstd.blocks(path)
        return
    yield from _plain_blocks(path)


def create(path: str) -> int:
    """A new file, root's alone until it is given away; never one that somebody has put there."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_new(path: str, blocks: t.Iterable[bytes], deadline: Deadline) -> str:
    """Make a new, durable file of blocks; its SHA-256."""
    hashed = hashlib.sha256()
    with os.fdopen(create(path), "wb") as stream:
        for block in blocks:
            hashed.update(block)
            stream.write(block)
            deadline.check(path)
        stream.flush()
        os.fsync(stream.fileno())
    return hashed.hexdigest()


def users_of(path: str) -> t.List[str]:
    """Which other processes of this host, containers included, have a file open or locked.

    In a container root may be forbidden to look at others' files, but not at their locks: under WAL, whoever has a database open has one.
    """
    try:
        wanted = os.stat(path)
    except FileNotFoundError:
        return []
    pids = set(_locking(wanted))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if any(_is_same(f"/proc/{pid}/fd/{handle}", wanted) for handle in os.listdir(f"/proc/{pid}/fd")):
                pids.add(int(pid))
    return [f"{_program(pid)} (process {pid})" for pid in sorted(pids - {os.getpid()})]


def _locking(wanted: os.stat_result) -> t.Iterator[int]:
    """Who locks a file: proc_locks(5)."""
    file = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:{wanted.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            fields = line.replace(" -> ", " ").split()
            if len(fields) > 5 and fields[5] == file and int(fields[4]) > 0:
                yield int(fields[4])


def _program(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
        return stream.read().strip()
    return "a program"


def _is_same(handle: str, wanted: os.stat_result) -> bool:
    try:
        # A pipe or a socket has no path, and asking for its status may wait.
        if not os.readlink(handle).startswith("/"):
            return False
        found = os.stat(handle)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
