# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bringing numbered SQL files into a database: the file and its line in the ledger in one transaction."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import as_owner, one_at_a_time, postgres, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.ledger import Entry, Step
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.statements import Script, Statement
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

LEDGER = "schema_migrations_ledger"
LEDGER_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)?[A-Za-z_]\w*")
COLUMNS = "number, name, sha256, applied_at, run, seconds"
TABLE = (
    "CREATE TABLE IF NOT EXISTS {ledger} (number bigint NOT NULL PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
    " applied_at {moment} NOT NULL, run text NOT NULL, seconds double precision NOT NULL)"
)
# lock_not_available: the one failure after which the very same may work.
LOCKED = "55P03"
CANCELED = "57014"
TOO_SLOW = (
    "Split the file, so that no statement holds up the app for long: fill rows in batches, build indexes concurrently. Or set a higher"
    " statement_timeout (in a deploy: database_statement_timeout; 0 is no limit of ours)."
)


@dataclass(frozen=True)
class Limits:
    """Seconds; 0 is no limit.

    :param lock_retries: How many times a file that could not get its locks is tried again.
    """

    lock_timeout: float = 5
    statement_timeout: float = 0
    lock_retries: int = 5


class Locked(Failure):
    """A lock could not be had in time; nothing of the file is in."""


class Store:
    """One database and its ledger."""

    shown: str

    def alone(self, wait: float) -> t.ContextManager[None]:
        """Be the only one who migrates this database while the block runs."""
        raise NotImplementedError

    def entries(self) -> t.Optional[t.List[Entry]]:
        """What the ledger says; None when there is none yet."""
        raise NotImplementedError

    def bring_in(self, step: Step, run: str) -> float:
        """Run one file and write it down; the seconds that it took. After a Failure nothing of it is in, but where the Failure says so."""
        raise NotImplementedError

    def apply(self, step: Step, run: str, retries: int) -> float:
        for attempt in range(retries + 1):
            try:
                return self.bring_in(step, run)
            except Locked:
                # What was done outside of a transaction is done: the same again could be something else.
                if attempt == retries or step.script is None or not step.script.transaction:
                    raise
                time.sleep(min(2.0**attempt * 0.5, 10))
        raise AssertionError


def store_of(database: url.Database, ledger: str, limits: Limits) -> Store:
    if not LEDGER_NAME.fullmatch(ledger):
        raise Failure(f"ledger: found {ledger!r}; allowed: the name of a table, or schema.table.", fix="Use letters, digits and _.")
    if isinstance(database, url.Sqlite):
        return SqliteStore(database, ledger, limits)
    return PostgresStore(database, ledger, limits)


def values_of(step: Step, run: str, begin: float) -> t.Tuple[t.Any, ...]:
    """A line of the ledger, without the moment."""
    return step.file.number, step.file.name, step.file.sha256, run, round(time.monotonic() - begin, 3)


def failed(step: Step, statement: Statement, line: int, why: str, done: int, kind: t.Type[Failure] = Failure, fix: str = "") -> Failure:
    """What to say when a statement failed.

    :param fix: Where the file may be right.
    """
    script = t.cast(Script, step.script)
    if script.transaction:
        return kind(
            f"{step.file.name} failed at line {line}: {why}\nNothing of it is in the database.",
            fix=fix or "Correct the file, and run it again.",
        )
    total = len(script.statements)
    return kind(
        f"{step.file.name} failed at line {line}: {why}\n"
        f"It is not run in a transaction: its first {done} of {total} statements are in the database, and it is not in the ledger.",
        fix="Undo these by hand, or write them so that they can be run twice (IF NOT EXISTS), correct the file, and run it again.",
    )


@dataclass
class PostgresStore(Store):
    """One session for everything, because the session holds the lock. Before each file it is as new."""

    database: url.Postgres
    name: str
    limits: Limits
    _connection: t.Any = field(default=None, init=False)
    _ledger: str = field(default="", init=False)

    @property
    def shown(self) -> str:  # type: ignore[override]
        return self.database.shown

    def session(self) -> t.Any:
        if self._connection is None:
            self._connection = postgres.connect(self.database)
        return self._connection

    @contextlib.contextmanager
    def alone(self, wait: float) -> t.Iterator[None]:
        try:
            one_at_a_time.of_session(self.session(), self.database, wait)
            yield
        finally:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def entries(self) -> t.Optional[t.List[Entry]]:
        session = self.session()
        schema, _dot, table = self.name.rpartition(".")
        if not schema:
            # A file may change the search path; the ledger stays where it is.
            schema = postgres.rows(session, "SELECT current_schema()")[0][0]
        if not schema:
            raise Failure(
                f"No schema of the search path of {self.shown} exists.",
                fix="Create it, or name the ledger with its schema: ledger: public.ledger.",
            )
        self._ledger = f"{postgres.identifier(schema)}.{postgres.identifier(table)}"
        if postgres.rows(session, "SELECT to_regclass(%s)", [self._ledger])[0][0] is None:
            return None
        found = postgres.rows(session, f"SELECT number, name, sha256, applied_at::text, run, seconds FROM {self._ledger} ORDER BY number")
        return [Entry(*row) for row in found]

    def bring_in(self, step: Step, run: str) -> float:
        session = self.session()
        self._renew(session)
        begin = time.monotonic()
        transaction = step.script is None or step.script.transaction
        psycopg2 = postgres.driver()
        try:
            if transaction:
                postgres.rows(session, "BEGIN")
            for done, statement in enumerate(step.script.statements if step.script else ()):
                try:
                    with session.cursor() as cursor:
                        cursor.execute(statement.text)
                except psycopg2.Error as error:
                    raise self._failed(step, statement, error, done) from None
            if not transaction:
                self._finished(session, step)
            postgres.rows(session, "RESET ROLE")
            postgres.rows(session, TABLE.format(ledger=self._ledger, moment="timestamptz"))
            number, name, digest, by, seconds = values_of(step, run, begin)
            postgres.rows(
                session, f"INSERT INTO {self._ledger} ({COLUMNS}) VALUES (%s, %s, %s, now(), %s, %s)", [number, name, digest, by, seconds]
            )
            if transaction:
                postgres.rows(session, "COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                postgres.rows(session, "ROLLBACK")
            raise
        return float(seconds)

    def _renew(self, session: t.Any) -> None:
        """What a file has set is gone for the next one. DISCARD ALL would let go of the lock too."""
        for statement in ("RESET SESSION AUTHORIZATION", "RESET ALL", "DEALLOCATE ALL", "CLOSE ALL", "UNLISTEN *", "DISCARD TEMP"):
            postgres.rows(session, statement)
        settings = {
            "lock_timeout": int(self.limits.lock_timeout * 1000),
            "statement_timeout": int(self.limits.statement_timeout * 1000),
        }
        if postgres.major(session) >= 14:
            # The server notices during a long statement that nobody waits for it any more, and undoes it.
            settings["client_connection_check_interval"] = 2000
        for name, milliseconds in settings.items():
            postgres.rows(session, "SELECT set_config(%s, %s, false)", [name, str(milliseconds)])

    def _failed(self, step: Step, statement: Statement, error: t.Any, done: int) -> Failure:
        position = int(error.diag.statement_position or 0)
        line = statement.line + statement.text.count("\n", 0, position)
        why = " ".join(
            part for part in (error.diag.message_primary or str(error).strip(), error.diag.message_detail, error.diag.message_hint) if part
        )
        if error.pgcode == CANCELED:
            limit = self.limits.statement_timeout
            why += f" (statement_timeout: {f'{limit:g} s' if limit else 'the server has one of its own'})"
            return failed(step, statement, line, why, done, fix=TOO_SLOW)
        return failed(step, statement, line, why, done, Locked if error.pgcode == LOCKED else Failure)

    def _finished(self, session: t.Any, step: Step) -> None:
        """CREATE INDEX CONCURRENTLY that failed once leaves an index that IF NOT EXISTS finds and nothing uses."""
        invalid = [
            name
            for schema, name in postgres.rows(
                session,
                "SELECT n.nspname, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE NOT i.indisvalid AND n.nspname !~ '^pg_' ORDER BY 1, 2",
            )
            if re.search(rf"(?i)\b{re.escape(name)}\b", step.file.text)
        ]
        if session.info.transaction_status != 0:
            raise Failure(f"{step.file.name} begins a transaction and does not end it.", fix="Add COMMIT at its end.")
        if invalid:
            names = ", ".join(invalid)
            raise Failure(
                f"{step.file.name} was run, but left an index that is not valid: {names}. It is not in the ledger.",
                fix=f"DROP INDEX CONCURRENTLY {names}, then run it again.",
            )


@dataclass
class SqliteStore(Store):
    """Everything is done as the account that owns the file."""

    database: url.Sqlite
    name: str
    limits: Limits

    def __post_init__(self) -> None:
        if "." in self.name:
            raise Failure(f"ledger: found {self.name}; allowed for SQLite: a name without a schema.")

    @property
    def shown(self) -> str:  # type: ignore[override]
        return self.database.shown

    def alone(self, wait: float) -> t.ContextManager[None]:
        return one_at_a_time.of_file(self.database, wait)

    def entries(self) -> t.Optional[t.List[Entry]]:
        if not os.path.exists(self.database.path):
            # There is nothing to be read, and it would be made by being opened.
            as_owner.owner_of(self.database.path)
            return None
        found = as_owner.as_owner(self.database.path, self._entries)
        return None if found is None else [Entry(*row) for row in found]

    def _entries(self) -> t.Optional[t.List[t.List[t.Any]]]:
        with as_owner.reading(self.database.path, self.limits.lock_timeout) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", [self.name]).fetchall():
                return None
            return [list(row) for row in connection.execute(f'SELECT {COLUMNS} FROM "{self.name}" ORDER BY number')]

    def bring_in(self, step: Step, run: str) -> float:
        answer = as_owner.as_owner(self.database.path, lambda: self._bring_in(step, run))
        if "locked" in answer:
            raise Locked(answer["locked"], fix=answer["fix"])
        return float(answer["seconds"])

    def _bring_in(self, step: Step, run: str) -> t.Dict[str, t.Any]:
        begin = time.monotonic()
        with as_owner.writing(self.database.path, self.limits.lock_timeout) as connection:
            transaction = step.script is None or step.script.transaction
            done, statement = 0, None
            try:
                if transaction:
                    # Not DEFERRED: a lock that is wanted halfway is refused at once, however long one would wait.
                    connection.execute("BEGIN IMMEDIATE")
                for statement in step.script.statements if step.script else ():
                    self._limit(connection)
                    connection.execute(statement.text).fetchall()
                    done += 1
                if not transaction and connection.in_transaction:
                    raise Failure(f"{step.file.name} begins a transaction and does not end it.", fix="Add COMMIT at its end.")
                connection.set_progress_handler(None, 0)
                connection.execute(TABLE.format(ledger=f'"{self.name}"', moment="text"))
                number, name, digest, by, seconds = values_of(step, run, begin)
                moment = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime())
                connection.execute(
                    f'INSERT INTO "{self.name}" ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)', [number, name, digest, moment, by, seconds]
                )
                if transaction:
                    connection.execute("COMMIT")
            except (sqlite3.Error, sqlite3.Warning) as error:
                connection.set_progress_handler(None, 0)
                failure = self._failed(step, statement, error, done)
                if isinstance(failure, Locked):
                    return {"locked": failure.what, "fix": failure.fix}
                raise failure from None
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        return {"seconds": seconds}

    def _limit(self, connection: sqlite3.Connection) -> None:
        """SQLite knows no time limit for a statement, but asks every so often whether to go on."""
        if self.limits.statement_timeout:
            deadline = time.monotonic() + self.limits.statement_timeout
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10000)

    def _failed(self, step: Step, statement: t.Optional[Statement], error: Exception, done: int) -> Failure:
        why, fix = str(error), ""
        if why == "interrupted":
            why, fix = f"it took longer than statement_timeout ({self.limits.statement_timeout:g} s)", TOO_SLOW
        kind = Locked if why in ("database is locked", "database table is locked", "database schema is locked: main") else Failure
        if kind is Locked:
            why += f", for longer than lock_timeout ({self.limits.lock_timeout:g} s)"
        elif "readonly" in why or "unable to open" in why:
            return as_owner.not_writable(self.database.path, f"{step.file.name}: {why}")
        if statement is None:
            return kind(f"{step.file.name} could not be begun: {why}.", fix="Look who uses the database: fuser -v " + self.database.path)
        return failed(step, statement, statement.line, f"{why}.", done, kind, fix)
