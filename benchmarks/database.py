# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long the database modules take, beside the programs that people use for it by hand.

Whole processes, one after another in turns, so that a busy machine is as busy for all; ratios are taken within a round. The first round warms the caches and
is not counted. A module is measured as Ansible runs it on the host: its process, with its arguments on standard input.

sqlite: sqlite_backup_rotate on a database under WAL that is being written, against ``sqlite3 .backup`` of the idle one plus ``PRAGMA integrity_check`` of
the copy; and the slowest commit of the writer meanwhile, beside its slowest one while nothing else goes on.

alembic: alembic_migrate with nothing to do, on SQLite, against ``alembic current`` of the same project. Both see the same environment, a virtual one that
is made for it. Measured is all that the module does, with the lock, systemd-run and the process in the app's environment, but not Ansible's own start of a
module, which is shown beside it. Run it as root where systemd is, with a --directory outside of /tmp.

postgres: postgres_backup_rotate against ``pg_dump --format=custom`` plus ``pg_restore --list``, both over TCP with a password. Run it as root on a host that
has a PostgreSQL server and the tools environment; it makes a database and a role ``bulletproof_bench`` there, and drops them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
COLLECTIONS = CHECKOUT / ".cache" / "collections"
MODULES = CHECKOUT / "plugins" / "modules"
# Seconds that the writer is watched while nothing else goes on.
STILL = 3.0

WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
while True:
    began = time.monotonic()
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO entry (key, text) VALUES (hex(randomblob(8)), hex(randomblob(200)))")
    database.execute("UPDATE entry SET key = hex(randomblob(8)) WHERE id = abs(random()) % 1000")
    database.execute("COMMIT")
    print(began, time.monotonic() - began, flush=True)
    time.sleep(0.005)
"""


def timed(argv: t.Sequence[str], stdin: str = "") -> t.Tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(
        argv, input=stdin, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(COLLECTIONS)}, encoding="utf-8", check=False
    )
    took = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}")
    return took, done.stdout


def module(name: str, **options: t.Any) -> t.Tuple[float, t.Dict[str, t.Any]]:
    took, said = timed([sys.executable, str(MODULES / f"{name}.py")], json.dumps({"ANSIBLE_MODULE_ARGS": options}))
    return took, json.loads(said)


def line(name: str, values: t.Sequence[float], unit: str = "s") -> str:
    return f"  {name:<52}{statistics.median(values):9.3f} {unit} [{min(values):.3f}-{max(values):.3f}]"


def make_sqlite(path: Path, megabytes: int) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(database):
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, key TEXT, text TEXT)")
        # About 1000 bytes a row, index included.
        fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        for _part in range(megabytes // 10 or 1):
            database.execute(f"{fill} INSERT INTO entry (key, text) SELECT hex(randomblob(8)), hex(randomblob(440)) FROM n", (10_500,))
        database.execute("CREATE INDEX by_key ON entry (key)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def writing(path: Path, log: Path) -> t.Iterator[None]:
    with log.open("w") as stream, subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=stream) as writer:
        try:
            while not log.stat().st_size:
                time.sleep(0.01)
            yield
        finally:
            writer.send_signal(signal.SIGKILL)


def commits(log: Path) -> t.List[float]:
    whole = [text.split() for text in log.read_text().splitlines()[1:-1]]
    return [float(fields[1]) for fields in whole if len(fields) == 2]


def sqlite(options: argparse.Namespace, place: Path) -> None:
    path, log, copy, backups = place / "app.db", place / "commits", place / "copy.db", place / "backups"
    make_sqlite(path, options.megabytes)
    size = path.stat().st_size
    ours: t.List[float] = []
    peer: t.List[float] = []
    slowest: t.List[float] = []
    alone: t.List[float] = []
    count = 0
    for turn in range(options.rounds + 1):
        copied, _said = timed(["sqlite3", str(path), f".backup '{copy}'"])
        checked, said = timed(["sqlite3", str(copy), "PRAGMA integrity_check"])
        assert said == "ok\n", said
        for name in place.glob("copy.db*"):
            name.unlink()
        with writing(path, log):
            took, _result = module("sqlite_backup_rotate", path=str(path), backups=str(backups), keep_last=1)
        during = commits(log)
        with writing(path, log):
            time.sleep(STILL)
        if turn:
            ours.append(took)
            peer.append(copied + checked)
            slowest.append(max(during))
            alone.append(max(commits(log)))
            count += len(during)
    ratios = [mine / theirs for mine, theirs in zip(ours, peer)]
    print(f"sqlite: {size / 1e6:.0f} MB under WAL, n={options.rounds}, median [min-max]; {count} commits meanwhile")
    print(line("sqlite_backup_rotate, while it is written", ours))
    print(line("sqlite3 .backup, idle, + integrity_check", peer))
    print(line("ratio (at most 1.5)", ratios, " "))
    print(line("slowest commit during the backup", slowest))
    print(line(f"slowest commit in {STILL:g} s without one", alone))


ENV_PY = """
import os
from alembic import context
from sqlalchemy import create_engine
with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION_PY = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "r{number}", {down!r}
def upgrade():
    op.create_table("t{number}", sa.Column("id", sa.Integer, primary_key=True))
def downgrade():
    op.drop_table("t{number}")
"""
REVISIONS = 30
# The module without Ansible's start: its options as AnsibleModule would hand them over.
FUNCTION = """
import json, sys, time
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import migrating
given = json.load(sys.stdin)
options = {name: option.get("default") for name, option in migrating.SPEC.items()}
options.update(given)
began = time.monotonic()
with migrating.alone(options):
    migration = migrating.Migration(dry=False)
    observed = migration.read(options)
    assert not migration.plan(options, observed)
    migration.report(options, observed)
print(time.monotonic() - began)
"""


def alembic(options: argparse.Namespace, place: Path) -> None:
    place.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    python = place / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "alembic", "sqlalchemy"], check=True)
    versions = place / "app" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (place / "data").mkdir()
    (place / "app" / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    (versions.parent / "env.py").write_text(ENV_PY)
    for number in range(REVISIONS):
        (versions / f"r{number}.py").write_text(REVISION_PY.format(number=number, down=f"r{number - 1}" if number else None))
    url = f"sqlite:///{place}/data/app.db"
    (place / "env").write_text(f"DATABASE_URL={url}\n")
    given = {"project": str(place / "app"), "python": str(python), "user": "root", "environment_files": [str(place / "env")]}
    current = ["env", "-C", str(place / "app"), f"DATABASE_URL={url}", str(python), "-m", "alembic", "current"]
    module("alembic_migrate", **given)
    ours: t.List[float] = []
    whole: t.List[float] = []
    peer: t.List[float] = []
    for turn in range(options.rounds + 1):
        theirs, _said = timed(current)
        _took, said = timed([sys.executable, "-c", FUNCTION], json.dumps(given))
        process, result = module("alembic_migrate", **given)
        assert not result["changed"] and result["after"] == [f"r{REVISIONS - 1}"], result
        if turn:
            ours.append(float(said))
            whole.append(process)
            peer.append(theirs)
    print(f"alembic: {REVISIONS} revisions, nothing to do, n={options.rounds}, median [min-max]")
    print(line("alembic_migrate, without Ansible's start of a module", ours))
    print(line("alembic_migrate, the whole process", whole))
    print(line("alembic current", peer))
    print(line("ratio (at most 1.3)", [mine / theirs for mine, theirs in zip(ours, peer)], " "))


BENCH = "bulletproof_bench"


def psql(text: str, database: str = "postgres") -> None:
    argv = ["runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", database]
    subprocess.run(argv, input=text, encoding="utf-8", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def postgres(options: argparse.Namespace, place: Path) -> None:
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    url, backups, dump = f"postgresql://{BENCH}:{BENCH}@127.0.0.1/{BENCH}", place / "backups", place / "peer.dump"
    server = ["env", f"PGPASSWORD={BENCH}", "PGHOST=127.0.0.1", f"PGUSER={BENCH}", f"PGDATABASE={BENCH}"]
    gone = f"DROP DATABASE IF EXISTS {BENCH}; DROP ROLE IF EXISTS {BENCH};"
    psql(f"{gone} CREATE ROLE {BENCH} LOGIN PASSWORD '{BENCH}'; CREATE DATABASE {BENCH} OWNER {BENCH};")
    try:
        # About 1000 bytes a row, with an index; half of a row is the same over and over, as text is.
        row = "n, md5(n::text), repeat(md5(n::text), 10), (SELECT string_agg(md5(n::text || m), '') FROM generate_series(1, 17) m)"
        fill = f"INSERT INTO entry SELECT {row} FROM generate_series(1, {options.megabytes * 1000}) n;"
        psql(f"SET ROLE {BENCH}; CREATE TABLE entry (id int, key text, text text, noise text); {fill} CREATE INDEX ON entry (key);", BENCH)
        psql("VACUUM ANALYZE; CHECKPOINT;", BENCH)
        ours: t.List[float] = []
        peer: t.List[float] = []
        for turn in range(options.rounds + 1):
            dumped, _said = timed([*server, str(programs / "pg_dump"), "--format=custom", f"--file={dump}"])
            listed, _said = timed([str(programs / "pg_restore"), "--list", str(dump)])
            took, result = module("postgres_backup_rotate", url=url, backups=str(backups), keep_last=1)
            assert result["backup"]["facts"]["contents"]["rows"] == {"public.entry": options.megabytes * 1000}, result
            if turn:
                ours.append(took)
                peer.append(dumped + listed)
        print(f"postgres: a dump of {dump.stat().st_size / 1e6:.0f} MB, n={options.rounds}, median [min-max]")
        print(line("postgres_backup_rotate", ours))
        print(line("pg_dump + pg_restore --list", peer))
        print(line("ratio (at most 1.15)", [mine / theirs for mine, theirs in zip(ours, peer)], " "))
    finally:
        psql(gone)


PARTS = {"sqlite": sqlite, "alembic": alembic, "postgres": postgres}


def part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"there is {', '.join(PARTS)}")
    return name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=part, metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the database (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: %(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where to work; it should be on a disk as the host has it (default: a temporary one)"
    )
    options = parser.parse_args()
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=options.directory) as place:
            PARTS[name](options, Path(place))


if __name__ == "__main__":
    main()
