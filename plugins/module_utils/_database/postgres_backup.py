# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verified backup of a PostgreSQL database: ``pg_dump``, and then proof.

One transaction exports its snapshot to ``pg_dump``, lists the relations and counts the rows. So what the record says and what the dump holds are of
the same moment, whatever is written meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, postgres, postgres_contents, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup, Ownership
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Postgres
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

EXTENSIONS = {"custom": "dump", "directory": "dir"}
MAGIC = b"PGDMP"
RESERVE = 16 * 1024 * 1024
TABLES_SIZE = """
    SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE (c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') OR c.oid = 'pg_catalog.pg_largeobject'::regclass
"""


@dataclass(frozen=True)
class Dump:
    """How a dump is made.

    :param format: ``custom``, one file; ``directory``, a file for each table, which several workers write at the same time.
    :param compress: As ``pg_dump --compress``; None leaves it to pg_dump.
    :param count_rows: Seconds that counting rows may take.
    :param account: Dump over the Unix socket as this account, for databases whose owner does not see all rows.
    """

    format: str = "custom"
    jobs: int = 1
    compress: t.Optional[str] = None
    exclude_table_data: t.Sequence[str] = ()
    timeout: float = 3600
    count_rows: float = 60
    account: str = ""


def hand_over(path: str, ownership: Ownership) -> None:
    """Give a dump to whom it belongs, whichever account has written it; a directory may be entered by who may read it."""
    uid = os.geteuid() if ownership.uid is None else ownership.uid
    gid = os.getegid() if ownership.gid is None else ownership.gid
    if os.path.isdir(path):
        for name in os.listdir(path):
            Ownership(uid, gid, ownership.mode).give(os.path.join(path, name))
        Ownership(uid, gid, ownership.mode | (ownership.mode & 0o444) >> 2).give(path)
    else:
        Ownership(uid, gid, ownership.mode).give(path)


def check(dump: Dump, version: int) -> None:
    """What pg_dump would refuse only after it had begun, or would understand otherwise than it was meant."""
    if dump.jobs < 1:
        raise Failure(f"jobs: found {dump.jobs}; allowed: 1 or more.")
    if dump.jobs > 1 and dump.format != "directory":
        raise Failure(f"jobs: found {dump.jobs} with format: {dump.format}; only the directory format is written by several workers.")
    if dump.compress is None:
        return
    if not re.fullmatch(r"\d|((gzip|lz4|zstd)(:\d{1,2})?|none)", dump.compress):
        raise Failure(f"compress: found {dump.compress!r}; allowed: 0 to 9, or none, gzip, lz4, zstd with a level, such as zstd:3.")
    if version < 16 and not dump.compress.isdigit():
        raise Failure(f"compress: found {dump.compress!r}; pg_dump of PostgreSQL {version} knows only 0 to 9 (16 has more).")


def arguments(program: str, path: str, dump: Dump, snapshot: str) -> t.List[str]:
    """The command line of pg_dump. It says nothing of the server: that is in the environment."""
    found = [program, f"--format={dump.format}", f"--file={path}", "--no-password", f"--snapshot={snapshot}"]
    if dump.format == "directory":
        found.append(f"--jobs={dump.jobs}")
    if dump.compress is not None:
        found.append(f"--compress={dump.compress}")
    return found + [f"--exclude-table-data={pattern}" for pattern in dump.exclude_table_data]


def needed(tables: int, newest: t.Optional[Backup]) -> int:
    """Bytes that have to be free for a dump to be begun.

    What surely does not fit is refused; the rest is found out. A dump holds the tables and no index, compressed: it is expected to need what the
    newest backup needed (no more than the tables have now), and without one a tenth of the tables. Sixteen megabytes more stay for everything else.
    """
    return (min(newest.size, tables) if newest else tables // 10) + RESERVE


def tables_size(connection: t.Any, timeout: float) -> int:
    # Waits, like pg_dump after it, for tables that somebody has locked.
    postgres.rows(connection, f"SET statement_timeout = {max(1, int(timeout * 1000))}")
    return int(postgres.rows(connection, TABLES_SIZE)[0][0])


def check_disk(directory: str, tables: int, newest: t.Optional[Backup]) -> None:
    there = directory
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    free, need = shutil.disk_usage(there).free, needed(tables, newest)
    if free < need:
        raise Failure(
            f"{directory} has {free // 2**20} MiB free; a backup of this database needs about {need // 2**20} MiB ({tables // 2**20} MiB of tables).",
            fix="Make room, keep fewer backups, or put them on another file system.",
        )


def table_of_contents(path: str, version: int) -> str:
    """What ``pg_restore --list`` reads in an archive. Raises Failure when it cannot be read."""
    program = postgres.program("pg_restore", version)
    with postgres.Program([program, "--list", path], Postgres(name="")) as listing:
        done = listing.wait(600)
    if not done.ok:
        raise Failure(f"{path} is no dump that pg_restore can read: {done.last_words()}", fix="Use another backup.")
    return done.stdout


def read_through(path: str, version: int, timeout: float) -> None:
    """Read and decompress everything in an archive that has no record: its table of contents stands at its beginning and is there when the rest is not."""
    with postgres.Program([postgres.program("pg_restore", version), "--file=/dev/null", path], Postgres(name="")) as reading:
        done = reading.wait(timeout)
    if not done.ok:
        raise Failure(f"{path} is damaged or incomplete: {done.last_words()}", fix="Use another backup.")


def check_archive(path: str, version: int, relations: t.Sequence[postgres_contents.Relation], data_excluded: bool) -> t.Set[int]:
    """Whether everything that the server has is in the archive; the oids of the tables whose rows are."""
    text = table_of_contents(path, version)
    absent = postgres_contents.missing(relations, text, data_excluded)
    data = postgres_contents.listed(text)[1]
    if os.path.isdir(path):
        files = {name.partition(".")[0] for name in os.listdir(path)}
        absent += [f"the file of entry {entry}" for entry in sorted(data.values()) if str(entry) not in files]
    if absent:
        raise Failure(
            f"The dump is not complete. These are in the database, but not in the dump: {', '.join(absent[:20])}.",
            fix="Look at what pg_dump could not see: schemas without USAGE, an old pg_dump.",
        )
    return set(data)


def make(
    database: Postgres,
    directory: str,
    dump: Dump = Dump(),
    ownership: t.Optional[Ownership] = None,
    name: str = "",
    taken: float = 0.0,
    facts: t.Optional[t.Mapping[str, t.Any]] = None,
) -> Backup:
    """Make one verified backup. Whatever goes wrong, what was begun is removed and nothing else is touched.

    :param name: The backup's; with ``taken``, when it was decided before.
    :param facts: What the record says besides.
    :param facts: What the record says besides.
    """
    taken = taken or time.time()
    name = name or backups.name_for(database.name, taken, EXTENSIONS[dump.format])
    connection = postgres.connect(database, account=dump.account)
    try:
        version = postgres.major(connection)
        check(dump, version)
        newest = next(iter(backups.backups_of(directory, database.name)), None)
        check_disk(directory, tables_size(connection, dump.timeout), newest)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        partial = backups.partial_path(directory, name)
        try:
            proven = _dump(connection, database, partial, dump, version)
            hand_over(partial, ownership or Ownership())
            return backups.publish(directory, name, database.name, "postgresql", taken, {**(facts or {}), **proven})
        except BaseException:
            backups.discard(partial)
            raise
    finally:
        connection.close()


def _dump(connection: t.Any, database: Postgres, partial: str, dump: Dump, version: int) -> t.Dict[str, t.Any]:
    """Write the dump, and prove it against what the server has in the same snapshot."""
    postgres_contents.begin(connection, dump.timeout)
    snapshot = postgres.rows(connection, "SELECT pg_export_snapshot()")[0][0]
    argv = arguments(postgres.program("pg_dump", version), partial, dump, snapshot)
    with postgres.Program(argv, database, account=dump.account) as running:
        # While it is written, not afterwards: the dump is as good as free.
        try:
            contents, relations = postgres_contents.contents_of(connection, dump.count_rows)
        except Failure as failure:
            raise Failure(f"The rows of {database.shown} cannot be counted. {failure.what}", fix=remedy(failure.what)) from failure
        properties = postgres_contents.properties_of(connection, database.name)
        done = running.wait(dump.timeout)
    postgres.rows(connection, "ROLLBACK")
    if not done.ok:
        raise Failure(
            f"pg_dump of {database.shown} ended with status {done.rc}; there is no new backup, and the older ones are untouched.\n{done.last_words()}",
            fix=remedy(done.last_words()),
        )
    data = check_archive(partial, version, relations, bool(dump.exclude_table_data))
    kept = {one.name for one in relations if one.oid in data}
    return {
        "server": version,
        "format": dump.format,
        "properties": properties,
        "contents": {**asdict(contents), "rows": {table: count for table, count in contents.rows.items() if table in kept}},
        "excluded": sorted(set(contents.rows) - kept),
    }


def remedy(said: str) -> str:
    """What to do about the usual reasons why a dump fails."""
    if re.search(r"No space left|[Dd]isk quota|could not write", said):
        return "Make room on the file system of the backups (df -h), keep fewer of them, and run it again."
    if "row-level security" in said:
        return "The role does not see all rows. Dump as one that does: maintenance_user: postgres, or a role with BYPASSRLS."
    if "permission denied" in said:
        return "Dump as the owner of everything in the database, or set maintenance_user: postgres."
    if "version mismatch" in said:
        return "Install the client programs of the server's version (postgresql-client-N)."
    return "Look at what it says, and at the server's log."


def adoptable(path: str, database: str, version: int, timeout: float) -> str:
    """Why a foreign file is no backup of the database; empty when it is a custom dump of it that can be read to its end."""
    try:
        with open(path, "rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                return "it is not a dump in the custom format"
        text = table_of_contents(path, version)
        of = re.search(r"^;\s+dbname: (.*)$", text, re.MULTILINE)
        if of is None or of[1] != database:
            return f"it is a dump of {of[1] if of else 'an unknown database'}"
        read_through(path, version, timeout)
    except (OSError, Failure) as error:
        return error.what if isinstance(error, Failure) else f"it cannot be read: {error.strerror}"
    return ""


def database_of(options: t.Mapping[str, t.Any]) -> Postgres:
    """The PostgreSQL database that a module's options mean."""
    database = url.database_of(options)
    if not isinstance(database, Postgres):
        raise Failure(f"The URL is of an SQLite database ({database.shown}).", fix="Use sqlite_backup_rotate and sqlite_restore for it.")
    return database


def adopted(path: str, database: str) -> Backup:
    """The backup that a foreign dump becomes. Its time is the file's: the dump itself does not tell it exactly."""
    taken = os.stat(path).st_mtime
    return Backup(backups.name_for(database, taken, EXTENSIONS["custom"]), database, "postgresql", taken, 0, "")


def adopt(path: str, directory: str, database: str, ownership: Ownership) -> Backup:
    """Make a foreign dump one of the backups. It has its old name until it is one, so that whenever this ends nothing is lost."""
    name, taken = adopted(path, database).name, os.stat(path).st_mtime
    backup = backups.load(directory, name)
    if backup is not None and not os.path.samefile(path, backup.path(directory)):
        raise Failure(f"{path} and the backup {name} are of the same moment.", fix="Look which one is wanted, and move the other away.")
    if backup is None:
        partial = backups.partial_path(directory, name)
        backups.discard(partial)
        os.link(path, partial)
        hand_over(partial, ownership)
        backup = backups.publish(directory, name, database, "postgresql", taken, {"format": "custom", "adopted": os.path.basename(path)})
    os.unlink(path)
    return backup
