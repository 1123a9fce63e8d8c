# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A backup becomes the database again, and what it replaces is kept.

*Swap* restores into a new database, compares, and then renames: the old one away and the new one into its place. ``ALTER DATABASE … RENAME`` may stand in a
transaction block (unlike CREATE and DROP DATABASE), and both renames stand in one: whenever this process or the server dies, the name has
the old database or the new one. A client that connects just then waits for the lock that the rename holds.

*In place* is one transaction of ``pg_restore``, after a verified backup of what is there.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import threading
import time
import typing as t
import zlib
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import (
    backups,
    postgres,
    postgres_backup,
    postgres_contents,
    units,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres import identifier
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres_contents import Contents
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Postgres
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

STAMP = "%Y%m%dt%H%M%S%f"
LIMIT = 63  # NAMEDATALEN - 1: the server cuts a longer name, and two of them could become one
RENAMING = 60.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Source:
    """What is restored: a backup with its record, or a file that has none."""

    path: str
    backup: t.Optional[Backup] = None

    @property
    def contents(self) -> t.Optional[Contents]:
        found = self.backup.facts.get("contents") if self.backup else None
        return Contents(**found) if found else None

    @property
    def properties(self) -> t.Optional[t.Dict[str, t.Any]]:
        return self.backup.facts.get("properties") if self.backup else None


@dataclass(frozen=True)
class Restore:
    """How a backup is restored.

    :param account: Work over the Unix socket as this account, where the server is on this host; otherwise as the role of the URL.
    :param stop_units: Units that use the database. Stopped for as long as it is replaced, started afterwards, whatever came of it.
    """

    method: str = "swap"
    account: str = "postgres"
    jobs: int = 1
    timeout: float = 3600
    count_rows: float = 60
    stop_units: t.Sequence[str] = ()


@dataclass
class Restored:
    """What came of it.

    :param replaced: The database that has been replaced, under the name that it has now.
    :param saved: The backup that was made of what was there, before it was restored in place.
    :param additional: Relations that the backup does not have, and that are still there.
    """

    source: str
    database: str
    method: str
    replaced: str = ""
    saved: str = ""
    compared: t.Dict[str, t.Any] = field(default_factory=dict)
    additional: t.List[str] = field(default_factory=list)
    seconds: float = 0.0


def choose(directory: str, database: str, name: str = "", source_file: str = "") -> Source:
    """The backup that is meant; the newest unless one is named."""
    if source_file:
        return Source(source_file)
    found = backups.backups_of(directory, database)
    names = ", ".join(one.name for one in found[:5]) or "none"
    if not found:
        raise Failure(
            f"There is no verified backup of {database} in {directory}.", fix="Name the directory of the backups, or a source_file."
        )
    for one in found if name else found[:1]:
        if name in ("", one.name):
            return Source(one.path(directory), one)
    raise Failure(f"There is no verified backup {name} of {database} in {directory}. There are: {names}.", fix="Correct the name.")


def verify(source: Source, directory: str, version: int, timeout: float) -> None:
    """Before anything is touched: is it what was verified, and can it be read?"""
    if source.backup is not None:
        reason = backups.problem(directory, source.backup)
        if reason:
            raise Failure(
                f"The backup {source.backup.name} is damaged: {reason}.", fix="Restore another one, and look at the disk (smartctl)."
            )
        if source.contents is None:
            postgres_backup.read_through(source.path, version, timeout)
    else:
        postgres_backup.read_through(source.path, version, timeout)
    postgres_backup.table_of_contents(source.path, version)


class Administration:
    """A connection that may create and rename databases, and the way in which the client programs connect for it."""

    def __init__(self, database: Postgres, account: str) -> None:
        self.database = database
        self.account = ""
        self._why_not = ""
        self.connection = postgres.connect(database, postgres.MAINTENANCE)
        try:
            if account and (database.host in postgres.LOOPBACK or database.host.startswith("/")):
                self._become(account)
            self.rows("SET statement_timeout = 0")
            self._alone()
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Administration:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.connection.close()

    @property
    def version(self) -> int:
        return postgres.major(self.connection)

    def open(self, name: str) -> t.Any:
        return postgres.connect(self.database, name, self.account)

    def rows(self, statement: str, values: t.Sequence[t.Any] = ()) -> t.List[t.Tuple[t.Any, ...]]:
        return postgres.rows(self.connection, statement, values)

    def databases(self) -> t.List[str]:
        return [name for (name,) in self.rows("SELECT datname FROM pg_catalog.pg_database ORDER BY 1")]

    def drop(self, name: str) -> None:
        """With its sessions: of a restore that died, the server's side may still be at work. PostgreSQL before 13 cannot force it."""
        self._end_sessions(name)
        force = " WITH (FORCE)" if self.version >= 13 else ""
        self.rows(f"DROP DATABASE IF EXISTS {identifier(name)}{force}")

    def _end_sessions(self, name: str) -> None:
        end = "SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        self.rows(end, [name])

    def _become(self, account: str) -> None:
        """Be the account, if it is on this very server that it is let in: another one may listen on the port of the URL."""
        asked = "SELECT pg_postmaster_start_time()"
        try:
            other = postgres.connect(self.database, postgres.MAINTENANCE, account)
        except Failure as failure:
            self._why_not = failure.what
            return
        if postgres.rows(other, asked) != self.rows(asked):
            self._why_not = f"The server behind the Unix socket of port {self.database.port} is not the one of the URL."
            other.close()
            return
        self.connection.close()
        self.connection, self.account = other, account

    def must_create(self) -> None:
        role, superuser, may_create = self.rows(
            "SELECT rolname, rolsuper, rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user"
        )[0]
        if not superuser and not may_create:
            raise Failure(
                f"The role {role} may not create databases, which a restore and a drill need. {self._why_not}".strip(),
                fix=f"Run it on the server's host (maintenance_user: postgres), give the URL of a role that may, or: ALTER ROLE {identifier(role)} CREATEDB.",
                reason="privileges",
            )

    def _alone(self) -> None:
        # Held by the connection, and so it ends with this process. But of one that was killed the server first finishes what it is at.
        deadline = time.monotonic() + PATIENCE
        lock = "SELECT pg_try_advisory_lock(hashtext('bulletproof.deploy'), hashtext(%s))"
        while not self.rows(lock, [self.database.name])[0][0]:
            if time.monotonic() > deadline:
                raise Failure(f"Another restore or drill of {self.database.name} is under way.", fix="Wait for it.")
            time.sleep(0.1)

    def swap(self, new: str, aside: str) -> bool:
        """Give the new database the name, and the old one, if there is one, another. False when there was no old one.

        The rename locks the old database and then waits for its sessions to leave; meanwhile another connection ends them. Who reconnects at once waits for
        the lock, and so a busy pool cannot keep the rename from happening.
        """
        name = self.database.name
        failed: t.List[Failure] = []
        old = name in self.databases()
        worker = self.open(postgres.MAINTENANCE)

        def rename() -> None:
            try:
                postgres.rows(worker, "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'")
                if old:
                    postgres.rows(worker, f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(aside)}")
                postgres.rows(worker, f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(name)}")
                postgres.rows(worker, "COMMIT")
            except Failure as failure:
                failed.append(failure)
                with contextlib.suppress(Failure):
                    postgres.rows(worker, "ROLLBACK")

        deadline = time.monotonic() + RENAMING
        while True:
            failed.clear()
            thread = threading.Thread(target=rename, daemon=True)
            thread.start()
            while thread.is_alive():
                for one in (name, new):
                    self._end_sessions(one)
                thread.join(0.02)
            if not failed:
                break
            if failed[0].facts.get("sqlstate") != "55006" or time.monotonic() > deadline:  # object_in_use
                raise Failure(
                    f"{new} is restored and compared, but cannot get the name {name}: {failed[0].what}. {name} is as it was.",
                    fix="Look for what still uses it: SELECT * FROM pg_stat_activity, and pg_prepared_xacts.",
                )
        worker.close()
        return old


def aside_name(database: str, what: str, moment: float) -> str:
    """``<database>_<what>_<time>``, within the length that a name may have."""
    stamp = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).strftime(STAMP)
    return f"{_prefix(database, what)}{stamp}"


def _prefix(database: str, what: str) -> str:
    room = LIMIT - len(f"_{what}_") - len("20000101t000000000000")
    name = database
    if len(name.encode()) > room:
        name = f"{name.encode()[: room - 9].decode(errors='ignore')}~{zlib.crc32(database.encode()):08x}"
    return f"{name}_{what}_"


def leftovers(database: str, names: t.Sequence[str]) -> t.List[str]:
    """Databases that a restore or a drill of this database has left when it was killed. What was replaced is not among them."""
    ours = "|".join(re.escape(_prefix(database, what)) for what in ("restore", "drill"))
    return [name for name in names if re.fullmatch(rf"(?:{ours})\d{{8}}t\d{{12}}", name)]


def into(argv0: str, path: str, name: str, jobs: int) -> t.List[str]:
    """The command line that restores into an empty database. At the first error it ends: half a restore is none."""
    return [argv0, "--exit-on-error", "--no-password", f"--jobs={jobs}", f"--dbname={conninfo(name)}", path]


def over(argv0: str, path: str, name: str) -> t.List[str]:
    """The command line that restores over what is there, all of it or nothing."""
    flags = ["--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-password"]
    return [argv0, *flags, f"--dbname={conninfo(name)}", path]


def conninfo(name: str) -> str:
    """A database's name that is taken for nothing else: a bare one with an = in it would be a whole connection string."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _pg_restore(admin: Administration, argv: t.Sequence[str], timeout: float, otherwise: str) -> None:
    with postgres.Program(argv, admin.database, postgres.MAINTENANCE, admin.account) as running:
        done = running.wait(timeout)
    if not done.ok:
        raise Failure(f"pg_restore ended with status {done.rc}; {otherwise}\n{done.last_words()}", fix=_remedy(done.last_words()))


def _remedy(said: str) -> str:
    if re.search(r"role .* does not exist", said):
        return "Create the role first: a backup of a database does not hold the server's roles."
    if "must be owner" in said or "permission denied" in said:
        return "Restore as a superuser: on the server's host with maintenance_user: postgres."
    if "unsupported version" in said:
        return "Install client programs as new as those that made the backup (postgresql-client-N)."
    if "depends on" in said or "other objects depend" in said:
        return "Something that the backup does not have depends on what it has. Use method: swap."
    if "No space left" in said:
        return "Make room on the server's disk: a restore needs as much as the database."
    return "Look at what it says, and at the server's log."


def _compare(admin: Administration, name: str, source: Source, how: Restore) -> t.Tuple[t.Dict[str, t.Any], t.List[str]]:
    """What was compared, and what is there besides. Raises Failure when it is not what the record says."""
    connection = admin.open(name)
    try:
        postgres_contents.begin(connection, how.timeout)
        found, _relations = postgres_contents.contents_of(connection, how.count_rows)
    finally:
        connection.close()
    expected = source.contents
    if expected is None:
        return {"tables": 0, "rows": 0, "uncounted": sorted(found.rows)}, []
    problems = postgres_contents.differences(expected, found)
    if problems:
        raise Failure(f"What was restored is not what the backup was of: {'; '.join(problems[:20])}.", fix="Restore another backup.")
    counted = {table: count for table, count in expected.rows.items() if count is not None and found.rows.get(table) is not None}
    compared = {"tables": len(counted), "rows": sum(counted.values()), "uncounted": sorted(set(expected.rows) - set(counted))}
    return compared, sorted(set(found.relations) - set(expected.relations))


def look(database: Postgres, directory: str, source: Source, how: Restore, drilling: bool) -> t.List[str]:
    """Everything that can be known before: the backup is sound, the server can be reached, the privileges suffice. Returns the server's databases."""
    with Administration(database, how.account) as admin:
        if drilling or how.method == "swap":
            admin.must_create()
        if not drilling:
            units.check(how.stop_units)
        verify(source, directory, admin.version, how.timeout)
        return admin.databases()


def restore(
    database: Postgres, directory: str, source: Source, how: Restore = Restore(), now: float = 0.0, verified: bool = False
) -> Restored:
    """Verify a backup, and make it the database.

    :param verified: The caller has done that already.
    """
    began = time.monotonic()
    now = now or time.time()
    with Administration(database, how.account) as admin:
        if not verified:
            verify(source, directory, admin.version, how.timeout)
        result = (_in_place if how.method == "in_place" else _swap)(admin, directory, source, how, now)
    result.seconds = time.monotonic() - began
    return result


def drill(
    database: Postgres, directory: str, source: Source, how: Restore = Restore(), now: float = 0.0, verified: bool = False
) -> Restored:
    """Restore a backup into a scratch database, compare, and drop it."""
    began = time.monotonic()
    with Administration(database, how.account) as admin:
        if not verified:
            verify(source, directory, admin.version, how.timeout)
        with _scratch(admin, source, "drill", how, now or time.time()) as name:
            compared, _additional = _compare(admin, name, source, how)
    return Restored(source.path, database.name, "drill", compared=compared, seconds=time.monotonic() - began)


@contextlib.contextmanager
def _scratch(admin: Administration, source: Source, what: str, how: Restore, now: float) -> t.Iterator[str]:
    """A new database with the backup in it, which is gone after the block unless it has another name by then."""
    admin.must_create()
    for left in leftovers(admin.database.name, admin.databases()):
        admin.drop(left)
    properties = postgres_contents.properties_of(admin.connection, admin.database.name) or source.properties
    if properties is None:
        raise Failure(
            f"There is no database {admin.database.name}, and the file does not tell how it was made.",
            fix="Create it, empty and with its owner, encoding and privileges, and run it again.",
        )
    name = aside_name(admin.database.name, what, now)
    try:
        for statement in postgres_contents.creation(name, properties):
            admin.rows(statement)
        program = postgres.program("pg_restore", admin.version)
        _pg_restore(admin, into(program, source.path, name, how.jobs), how.timeout, f"{admin.database.name} is as it was.")
        for statement in postgres_contents.settings(name, properties):
            admin.rows(statement)
        yield name
    finally:
        admin.drop(name)


def _swap(admin: Administration, directory: str, source: Source, how: Restore, now: float) -> Restored:
    result = Restored(source.path, admin.database.name, "swap")
    with _scratch(admin, source, "restore", how, now) as name:
        result.compared, result.additional = _compare(admin, name, source, how)
        connection = admin.open(name)
        try:
            # Without statistics the first queries of the app would be planned blindly.
            postgres.rows(connection, "SET statement_timeout = 0")
            postgres.rows(connection, "ANALYZE")
        finally:
            connection.close()
        replaced = aside_name(admin.database.name, "replaced", now)
        with units.stopped(how.stop_units):
            if admin.swap(name, replaced):
                result.replaced = replaced
    return result


def _in_place(admin: Administration, directory: str, source: Source, how: Restore, now: float) -> Restored:
    result = Restored(source.path, admin.database.name, "in_place")
    if admin.database.name not in admin.databases():
        raise Failure(f"There is no database {admin.database.name} to restore into.", fix="Use method: swap, which makes it.")
    with units.stopped(how.stop_units):
        dump = postgres_backup.Dump(timeout=how.timeout, count_rows=how.count_rows, account=admin.account)
        result.saved = postgres_backup.make(admin.database, directory, dump, taken=now).name
        program = postgres.program("pg_restore", admin.version)
        _pg_restore(admin, over(program, source.path, admin.database.name), how.timeout, "nothing was changed: it was one transaction.")
        try:
            result.compared, result.additional = _compare(admin, admin.database.name, source, how)
        except Failure as failure:
            raise Failure(
                f"{failure.what} What was there before is the backup {result.saved}.", fix=f"Restore {result.saved}."
            ) from failure
    return result
