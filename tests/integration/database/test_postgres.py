# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL: a backup is proven before it counts, and a restore never writes over the only copy."""

from __future__ import annotations

import io
import json
import random
import tarfile
import textwrap
import urllib.parse
from pathlib import Path

import pytest

from lab.deployment import REPOSITORY

PASSWORD = "pa@:/?#%ss"
ROOT = "/var/lib/bulletproof-test"
CONTENT = """
SET ROLE shop;
CREATE TABLE customers (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE "order lines; -- odd" (id serial PRIMARY KEY, customer integer REFERENCES customers, day date, "a % b" numeric);
CREATE VIEW spenders AS SELECT name FROM customers JOIN "order lines; -- odd" l ON l.customer = customers.id;
CREATE SCHEMA archive;
CREATE TABLE archive.events (day date NOT NULL, what text) PARTITION BY RANGE (day);
CREATE TABLE archive.events_2025 PARTITION OF archive.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE SEQUENCE invoice_numbers START 1000;
INSERT INTO customers (name) SELECT 'customer ' || n FROM generate_series(1, 500) n;
INSERT INTO "order lines; -- odd" (customer, day, "a % b") SELECT 1 + n % 500, '2025-03-01', n FROM generate_series(1, 5000) n;
INSERT INTO archive.events SELECT '2025-06-01', repeat('x', 100) FROM generate_series(1, 300);
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM customers;
SELECT nextval('invoice_numbers') FROM generate_series(1, 42);
SELECT lo_from_bytea(4711, 'a large object');
RESET ROLE;
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
REVOKE CONNECT ON DATABASE shop FROM PUBLIC;
ALTER DATABASE shop SET search_path TO "$user", public, archive;
ALTER ROLE shop IN DATABASE shop SET statement_timeout TO '55s';
COMMENT ON DATABASE shop IS 'It''s the shop';
"""


# Runs what a phase calls on the host itself, many times in the time that Ansible needs for one.
PRELUDE = """
import json, os, random, signal, subprocess, sys, threading, time
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, postgres, postgres_backup, postgres_restore, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
given = json.load(sys.stdin)
database, directory = url.parse(given["url"]), given["backups"]
def newest(): return postgres_restore.choose(directory, database.name)
def answer(**facts): print(json.dumps(facts))
def refused(function, *arguments):
    try:
        function(*arguments)
    except Failure as failure:
        return failure.message()
    return ""
"""
MAKE = "answer(path=postgres_backup.make(database, directory).path(directory))"
DRILL = "answer(rows=postgres_restore.drill(database, directory, newest()).compared['rows'])"


@pytest.fixture(scope="session")
def library(host, server):
    """Run a script on the host, with the collection's module_utils and without Ansible; what it answers."""
    place = "ansible_collections/bulletproof/deploy/plugins/module_utils"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(REPOSITORY / "plugins" / "module_utils", place, filter=lambda one: None if "cache" in one.name else one)
    host.run(["mkdir", "-p", "/opt/library"])
    host.run(["tar", "-C", "/opt/library", "-xf", "-"], stdin=archive.getvalue())

    def run(script, timeout=300, **given):
        argv = ["env", "PYTHONPATH=/opt/library", "python3", "-c", PRELUDE + textwrap.dedent(script)]
        said = host.run(argv, stdin=json.dumps(given), timeout=timeout).stdout
        return json.loads(said)

    return run


@pytest.fixture(scope="session")
def quick(server):
    """Creating and dropping databases waits for the disk most of the time; nobody cuts the power here."""
    server.sql("ALTER SYSTEM SET fsync = off")
    server.sql("SELECT pg_reload_conf()")
    yield
    server.sql("ALTER SYSTEM RESET fsync")


@pytest.fixture
def shop(host, server, quick):
    """A database with one of everything, and an empty directory for its backups."""
    for name in server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'shop%'").splitlines():
        server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    url = server.create("shop", PASSWORD)
    server.sql(CONTENT, "shop")
    host.run(["rm", "-rf", ROOT])
    host.run(["mkdir", "-p", ROOT])
    return {"url": url, "backups": f"{ROOT}/backups"}


def backups(host):
    """The names in the directory, without the lock."""
    return [name for name in host.run(["ls", "-A", f"{ROOT}/backups"], check=False).stdout.split() if name != "backups.mutex"]


def data(host):
    return [name for name in backups(host) if not name.endswith(".json")]


def databases(server):
    return server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1").splitlines()


def fingerprint(server, database="shop"):
    """Everything that has to be the same again."""
    return server.sql(
        """
        SELECT array_agg(name ORDER BY id) FROM customers;
        SELECT sum("a % b"), count(*) FROM "order lines; -- odd";
        SELECT count(*) FROM archive.events_2025;
        SELECT count(*) FROM spenders;
        SELECT * FROM totals;
        SELECT last_value FROM invoice_numbers;
        SELECT last_value FROM customers_id_seq;
        SELECT convert_from(lo_get(4711), 'UTF8');
        SELECT extname, extversion FROM pg_extension ORDER BY 1;
        SELECT relname, relkind, pg_get_userbyid(relowner), relacl FROM pg_class
        WHERE relnamespace IN ('public'::regnamespace, 'archive'::regnamespace) ORDER BY 1;
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1;
        SELECT pg_get_userbyid(datdba), encoding, datcollate, datctype, datacl, datconnlimit, shobj_description(oid, 'pg_database')
        FROM pg_database WHERE datname = current_database();
        SELECT setrole::regrole, setconfig FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1;
        """,
        database,
    )


def test_what_is_restored_is_what_was_backed_up(host, module, server, shop):
    before = fingerprint(server)
    made = module.must("postgres_backup_rotate", **shop)
    assert PASSWORD not in made["said"] and urllib.parse.quote(PASSWORD, safe="") not in made["said"]
    assert host.run(["stat", "--format=%U:%G %a", made["path"], f"{made['path']}.json"]).stdout.splitlines() == ["root:root 600"] * 2
    record = json.loads(host.read(f"{made['path']}.json"))["facts"]
    assert record["contents"]["rows"] == {
        'public."order lines; -- odd"': 5000,
        "public.customers": 500,
        "archive.events_2025": 300,
    }
    server.sql('DELETE FROM "order lines; -- odd"; DROP TABLE customers CASCADE; SELECT lo_unlink(4711); CREATE TABLE late ()', "shop")
    restored = module.must("postgres_restore", **shop)
    assert restored["compared"] == {"tables": 3, "rows": 5800, "uncounted": []}
    assert fingerprint(server) == before
    # What it has replaced is there, as it was.
    assert databases(server) == ["shop", restored["replaced"]]
    assert server.sql("SELECT count(*) FROM late", restored["replaced"]) == "0"


def test_a_large_database_and_rotation(host, module, library, server, shop):
    """The directory format, the plan in check mode, the rotation, and what lies about from old scripts."""
    options = {**shop, "format": "directory", "jobs": 2, "keep_last": 2, "exclude_table_data": ["archive.events_2025"]}
    planned = module.must("postgres_backup_rotate", "--check", "--diff", **options)
    assert planned["changed"] and not host.exists(shop["backups"])
    assert f"{planned['path']}: a verified backup of shop" in planned["said"]
    first = module.must("postgres_backup_rotate", **options)
    assert first["removed"] == []
    second = Path(library(MAKE, **shop)["path"]).name
    assert host.run(["stat", "--format=%U:%G %a", first["path"]]).stdout.strip() == "root:root 700"
    assert set(host.run(["find", first["path"], "-type", "f", "-printf", "%u %m\n"]).stdout.splitlines()) == {"root 600"}
    assert first["backup"]["facts"]["excluded"] == ["archive.events_2025"]
    # Two dumps and a script of old; one of the dumps has lost its end.
    host.run(["sh", "-c", f"runuser -u postgres -- pg_dump --format=custom shop > {shop['backups']}/before_upgrade.dump"])
    host.run(["sh", "-c", f"head -c 20000 {shop['backups']}/before_upgrade.dump > {shop['backups']}/short.dump"])
    host.run(["sh", "-c", f"echo SELECT 1 > {shop['backups']}/shop.sql; touch -d 2020-01-01 {shop['backups']}/before_upgrade.dump"])
    # What a run that was killed has left.
    host.run(
        ["sh", "-c", f"cd {shop['backups']}; echo > .partial-shop-20250101T000000.000000Z.dump; echo > shop-20250101T000000.000001Z.dump"]
    )
    reported = module.must("postgres_backup_rotate", "--check", **options)
    assert [one["name"] for one in reported["foreign"]] == ["before_upgrade.dump", "shop.sql", "short.dump"]
    third = module.must("postgres_backup_rotate", adopt=True, **{**options, "keep_last": 2, "keep_monthly": 9})
    assert list(third["adopted"]) == ["before_upgrade.dump"]
    assert third["adopted"]["before_upgrade.dump"].startswith("shop-20200101T")
    assert {one["name"]: one["why"].partition(":")[0] for one in third["foreign"]} == {
        "shop.sql": "it is not a dump in the custom format",
        "short.dump": f"{shop['backups']}/short.dump is damaged or incomplete",
    }
    left = {".partial-shop-20250101T000000.000000Z.dump", "shop-20250101T000000.000001Z.dump"}
    assert set(third["removed"]) == left | {first["backup"]["name"]}
    there = {third["backup"]["name"], second, third["adopted"]["before_upgrade.dump"], "shop.sql", "short.dump"}
    assert set(data(host)) == there
    # A directory can be restored as well, and so can what was adopted.
    assert library(DRILL, **shop) == {"rows": 5500}
    named = "postgres_restore.choose(directory, database.name, given['name'])"
    library(
        f"answer(drilled=postgres_restore.drill(database, directory, {named}).source)", name=third["adopted"]["before_upgrade.dump"], **shop
    )
    assert databases(server) == ["shop"]


def test_what_the_record_says_is_of_the_same_moment_as_the_dump(library, server, shop):
    """Fails without ``--snapshot``: rows that were written in between would be in the dump, but not in the record."""
    told = library(
        """
        stop = threading.Event()
        def write():
            connection = postgres.connect(database)
            while not stop.is_set():
                postgres.rows(connection, "INSERT INTO customers (name) SELECT gen_random_uuid() FROM generate_series(1, 20)")
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        made = [postgres_backup.make(database, directory) for _number in range(3)]
        stop.set()
        writer.join()
        compared = [postgres_restore.drill(database, directory, postgres_restore.Source(one.path(directory), one)).compared for one in made]
        answer(rows=[one["rows"] for one in compared], taken=[one.facts["contents"]["rows"]["public.customers"] for one in made])
        """,
        **shop,
    )
    assert told["taken"] == sorted(set(told["taken"])) and told["taken"][-1] > 500


def test_a_damaged_backup_is_not_restored(host, module, library, server, shop):
    """A bit that flipped, an end that is missing: found before anything is touched. Fails without the look at SHA-256, and without reading to the end."""
    made = library(MAKE, **shop)
    middle = int(host.run(["stat", "--format=%s", made["path"]]).stdout) // 2
    flip = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2])); b = f.read(1)[0] ^ 1; f.seek(-1, 1); f.write(bytes([b]))"
    host.run(["cp", made["path"], f"{ROOT}/short.dump"])
    host.run(["python3", "-c", flip, made["path"], str(middle)])
    refused = module.refused("postgres_restore", Path(made["path"]).name, "is damaged", "SHA-256", **shop)
    host.run(["truncate", f"--size={middle}", f"{ROOT}/short.dump"])
    restore = "refused(postgres_restore.restore, database, directory, postgres_restore.Source(given['file']))"
    assert "damaged or incomplete" in library(f"answer(said={restore})", file=f"{ROOT}/short.dump", **shop)["said"]
    assert PASSWORD not in refused["said"]
    assert databases(server) == ["shop"]


def test_a_full_disk_leaves_the_older_backups_and_nothing_else(host, module, library, server, shop):
    """Fails without the removal of what was begun, and without the look at pg_dump's exit status."""
    host.run(["mkdir", "-p", shop["backups"]])
    host.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=700", "tmpfs", shop["backups"]])
    try:
        first = library(MAKE, **shop)
        noise = "SELECT gen_random_bytes(1024) FROM generate_series(1, 20480)"
        server.sql(f"CREATE EXTENSION pgcrypto; SET ROLE shop; CREATE TABLE noise AS {noise}", "shop")
        before = backups(host)
        module.refused("postgres_backup_rotate", "there is no new backup", "Make room", keep_last=1, **shop)
        assert backups(host) == before
        # What is known beforehand is said beforehand.
        host.run(["mount", "-o", "remount,size=8m", shop["backups"]])
        module.refused("postgres_backup_rotate", "MiB free", "needs about", keep_last=1, **shop)
        assert backups(host) == before
        # pg_dump is killed in the middle.
        host.run(["mount", "-o", "remount,size=200m", shop["backups"]])
        told = library(
            """
            def kill():
                while True:
                    for child in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split():
                        with open(f"/proc/{child}/comm") as stream:
                            if stream.read() == "pg_dump\\n" and any(one.startswith(".partial") for one in os.listdir(directory)):
                                os.kill(int(child), signal.SIGKILL)
                                return
            threading.Thread(target=kill, daemon=True).start()
            try:
                postgres_backup.make(database, directory)
                answer(said="")
            except Failure as failure:
                answer(said=failure.message())
            """,
            **shop,
        )
        assert "pg_dump" in told["said"] and "ended with status -9" in told["said"]
        assert backups(host) == before
        assert library(DRILL, **shop) == {"rows": 5800}
        assert host.exists(first["path"])
    finally:
        host.run(["umount", shop["backups"]])


def test_nobody_is_let_in_with_a_wrong_password(host, module, library, server, shop):
    """What is wrong with a connection is told apart, and no password is in what is said."""
    wrong = shop["url"].replace("%23", "%24")
    refused = module.refused("postgres_backup_rotate", "does not accept the password of shop", **{**shop, "url": wrong})
    assert "pa@:/" not in refused["said"] and "pa%40" not in refused["said"] and not refused.get("exception")
    script = """
def reason(database, account=""):
    try:
        postgres.connect(database, account=account)
        return ""
    except Failure as failure:
        assert "pa@:" not in failure.message(), failure.message()
        return failure.facts["reason"]
from dataclasses import replace
answer(
    database_absent=reason(replace(database, name="nowhere")),
    unreachable=reason(replace(database, port=5499)),
    no_such_host=reason(replace(database, host="nowhere.invalid")),
    tls=reason(replace(database, options={"sslmode": "verify-full", "sslrootcert": "/etc/ssl/certs/ca-certificates.crt"})),
    role_absent=reason(database, account="nobody"),
    socket=reason(database, account="postgres"),
)
"""
    assert library(script, **shop) == {
        "database_absent": "database_absent",
        "unreachable": "unreachable",
        "no_such_host": "unreachable",
        "tls": "tls",
        "role_absent": "role_absent",
        "socket": "",
    }
    assert not host.exists(shop["backups"]) or not data(host)


def test_rows_that_the_role_does_not_see_are_not_left_out(module, server, shop):
    """FORCE ROW LEVEL SECURITY: the owner's dump would be empty. It fails, and the superuser's over the socket does not."""
    server.sql("ALTER TABLE customers ENABLE ROW LEVEL SECURITY; ALTER TABLE customers FORCE ROW LEVEL SECURITY", "shop")
    module.refused("postgres_backup_rotate", "row-level security", "maintenance_user: postgres", **shop)
    made = module.must("postgres_backup_rotate", maintenance_user="postgres", format="directory", **shop)
    assert made["backup"]["facts"]["contents"]["rows"]["public.customers"] == 500


def test_a_restore_in_place_keeps_a_backup_of_what_was_there(host, module, library, server, shop):
    """And units stand still meanwhile, and run again, also when it fails.

    Fails without the backup before it, without ``--single-transaction``, and when the units are only started after a success.
    """
    before = fingerprint(server)
    made = library(MAKE, **shop)
    server.sql("UPDATE customers SET name = 'new ' || id; CREATE TABLE late (id int)", "shop")
    unit = "[Service]\nExecStart=/bin/sleep 1000\nExecStopPost=/bin/sh -c 'date +%%N >> /run/stopped'\n"
    host.write("/etc/systemd/system/shop-worker.service", unit)
    host.run(["sh", "-c", "rm -f /run/stopped; systemctl daemon-reload; systemctl start shop-worker"])
    planned = module.must("postgres_restore", "--check", "--diff", method="in_place", **shop)
    assert planned["changed"] and made["path"] in planned["said"] and not host.exists("/run/stopped")
    restored = module.must("postgres_restore", method="in_place", stop_units=["shop-worker.service"], **shop)
    assert restored["additional"] == ["public.late"]
    server.sql("DROP TABLE late", "shop")
    assert fingerprint(server) == before
    assert len(host.read("/run/stopped").split()) == 1
    # The way back again. What depends on what is restored keeps the restore from being made, whole.
    server.sql("CREATE VIEW archive.late AS SELECT id FROM customers", "shop")
    untouched = fingerprint(server)
    module.refused(
        "postgres_restore",
        "nothing was changed",
        "method: swap",
        method="in_place",
        stop_units=["shop-worker.service"],
        name=restored["saved"],
        **shop,
    )
    assert len(host.read("/run/stopped").split()) == 2
    assert host.run(["systemctl", "is-active", "shop-worker"]).stdout.strip() == "active"
    assert fingerprint(server) == untouched
    named = "postgres_restore.choose(directory, database.name, given['name'])"
    library(f"answer(source=postgres_restore.restore(database, directory, {named}).source)", name=restored["saved"], **shop)
    assert server.sql("SELECT name FROM customers WHERE id = 7", "shop") == "new 7"
    host.run(["systemctl", "stop", "shop-worker"])


def test_a_drill_finds_what_is_not_as_recorded_and_leaves_nothing(host, module, library, server, shop):
    """Fails without the comparison, and without the removal of what a killed drill has left."""
    made = library(MAKE, **shop)
    left, replaced = "shop_drill_20250101t000000000000", "shop_replaced_20250101t000000000000"
    server.sql(f"CREATE DATABASE {left}; ", "postgres")
    server.sql(f"CREATE DATABASE {replaced}; ", "postgres")
    told = module.must("postgres_restore", "--check", drill=True, **shop)
    assert not told["changed"] and left in databases(server)
    assert module.must("postgres_restore", drill=True, **shop)["compared"]["rows"] == 5800
    assert databases(server) == ["shop", replaced]
    host.run(["sed", "-i", 's/"public.customers": 500/"public.customers": 501/', f"{made['path']}.json"])
    module.refused("postgres_restore", "public.customers has 500 rows, not 501", drill=True, **shop)
    told = library(
        """
        as_role = postgres_restore.Restore(account="")
        swap = refused(postgres_restore.restore, database, directory, newest())
        answer(swap=swap, role=refused(postgres_restore.restore, database, directory, newest(), as_role))
        """,
        **shop,
    )
    assert "public.customers has 500 rows, not 501" in told["swap"]
    assert "may not create databases" in told["role"] and "CREATEDB" in told["role"]
    assert databases(server) == ["shop", replaced]


def test_a_lost_database_comes_back_as_it_was(library, server, shop):
    """Owner, encoding, privileges and settings come from the record where there is no database to take them from."""
    server.sql("ALTER DATABASE shop SET default_transaction_read_only TO on")
    before = fingerprint(server)
    library(MAKE, **shop)
    server.sql("DROP DATABASE shop WITH (FORCE)")
    restored = library("answer(replaced=postgres_restore.restore(database, directory, newest()).replaced)", **shop)
    assert restored["replaced"] == "" and databases(server) == ["shop"]
    assert fingerprint(server) == before


def test_a_pool_that_reconnects_at_once_does_not_keep_the_name(library, server, shop):
    """Sessions are ended while the rename holds the database's lock. Fails without ending them, and a client never sees anything but old or new."""
    told = library(
        """
        postgres_backup.make(database, directory)
        connection = postgres.connect(database)
        postgres.rows(connection, "CREATE TABLE old ()")
        stop, seen, errors = threading.Event(), [], []
        def client():
            while not stop.is_set():
                try:
                    mine = postgres.connect(database)
                    for _number in range(50):
                        seen.append(postgres.rows(mine, "SELECT to_regclass('public.old') IS NULL, count(*) FROM customers")[0])
                except Failure as failure:
                    errors.append(failure.facts.get("reason") or failure.facts.get("sqlstate") or failure.what)
                except postgres.driver().Error as error:
                    errors.append(type(error).__name__)
        pool = [threading.Thread(target=client, daemon=True) for _number in range(4)]
        for one in pool: one.start()
        result = postgres_restore.restore(database, directory, newest())
        after = len(seen)
        while len(seen) < after + 200: time.sleep(0.01)
        stop.set()
        for one in pool: one.join()
        answer(replaced=result.replaced, seen=sorted(set(seen)), last=seen[-1], errors=errors)
        """,
        **shop,
    )
    assert told["seen"] == [[False, 500], [True, 500]] and told["last"] == [True, 500]
    assert databases(server) == ["shop", told["replaced"]]


# One run of what a phase does, to be killed.
CHILD = (
    PRELUDE
    + """
with backups.alone(directory, 60):
    for name in backups.unfinished(directory, database.name):
        backups.discard(os.path.join(directory, name))
    print("begun", flush=True)
    seen = 0
    def count(event, _arguments):
        global seen
        if event.startswith(("open", "os.", "shutil.", "subprocess.")):
            seen += 1
            if seen == given["event"]: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    exec(given["action"])
    print(seen)
"""
)

KILLED = """
chance = random.Random(given["seed"])

def run(limit, event=0):
    '''How long it took and how many events it had; None when it was killed: after so many seconds, or at an event (an open, rename, unlink, …).'''
    process = subprocess.Popen([sys.executable, "-c", given["child"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps({**given, "event": event}))
    process.stdin.close()
    process.stdout.readline()
    began = time.monotonic()
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None
    finally:
        said, told = process.stderr.read() if process.poll() else "", process.stdout.read() if process.poll() == 0 else ""
        process.stdout.close()
        process.stderr.close()
    if event and status == -signal.SIGKILL: return None
    assert status == 0, said
    return time.monotonic() - began, int(told)

def sound():
    '''Every backup that counts as one, and there has to be one.'''
    found = backups.backups_of(directory, database.name)
    assert found, "no backup is left"
    for one in found:
        assert not backups.problem(directory, one), one.name
        postgres_backup.table_of_contents(one.path(directory), 13)
    return found

made = postgres_backup.make(database, directory)
given["backup"] = made.name
"""


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_backup_that_is_killed_is_none(library, shop, request, form):
    """SIGKILL at every event of backup and rotation, and at random moments: what counts as a backup always is one, there always is one, and the next
    run clears up.
    """
    action = f"""
made = postgres_backup.make(database, directory, postgres_backup.Dump(format={form!r}))
for one in backups.superfluous(backups.backups_of(directory, database.name), backups.Policy(last=1), made.taken):
    backups.remove(directory, one)
"""
    script = """
took, events = run(60)
killed = 0
each = list(range(1, events + 1))
for number in each if given["times"] >= 50 else chance.sample(each, 2):
    killed += run(60, number) is None
    sound()
for number in range(given["times"]):
    killed += run(chance.uniform(0, took * 1.1)) is None
    sound()
run(60)
answer(killed=killed, events=events, left=sorted(os.listdir(directory)), names=[one.name for one in sound()])
"""
    times = 50 if request.config.option.matrix else 2
    told = library(KILLED + script, child=CHILD, action=action, seed=random.randrange(10**6), times=times, timeout=900, **shop)
    assert told["events"] > 10 and told["killed"] >= (told["events"] if times >= 50 else 1)
    assert len(told["names"]) == 1
    assert told["left"] == sorted(["backups.mutex", told["names"][0], f"{told['names'][0]}.json"])


@pytest.mark.parametrize("method", ["swap", "in_place"])
def test_a_restore_that_is_killed_leaves_the_old_or_the_new(library, shop, request, method):
    """SIGKILL at random points: the name always has the old database or the restored one, whole, and nothing of the rest is left after the next run."""
    action = f"""
source = postgres_restore.choose(directory, database.name, given["backup"])
postgres_restore.restore(database, directory, source, postgres_restore.Restore(method={method!r}))
"""
    script = """
def databases():
    connection = postgres.connect(database, "postgres", "postgres")
    names = [name for (name,) in postgres.rows(connection, "SELECT datname FROM pg_database WHERE datname LIKE 'shop%'")]
    connection.close()
    return names

def state():
    '''old: what was written after the backup is there, and all of it; new: none of it.'''
    connection = postgres.connect(database)
    found = postgres.rows(connection, 'SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM "order lines; -- odd")')[0]
    connection.close()
    assert found in ((600, 5000), (500, 5000)), found
    return "old" if found[0] == 600 else "new"

def age():
    '''Write what the backup does not have, and forget what earlier restores have kept.'''
    connection = postgres.connect(database)
    postgres.rows(connection, "INSERT INTO customers (name) SELECT 'later ' || n FROM generate_series(1, 100) n")
    connection.close()
    admin = postgres.connect(database, "postgres", "postgres")
    for name in databases():
        if "_replaced_" in name: postgres.rows(admin, f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()
    for one in backups.backups_of(directory, database.name):
        if one.name != given["backup"]: backups.remove(directory, one)

age()
took, _events = run(120)
seen = []
for number in range(given["times"]):
    if state() == "new": age()
    run(chance.uniform(0, took * 1.1))
    seen.append(state())
    sound()
if state() == "new": age()
run(120)
answer(state=state(), seen=seen, kept=[name for name in databases() if name != "shop"])
"""
    times = 50 if request.config.option.matrix else 4
    told = library(KILLED + script, child=CHILD, action=action, seed=random.randrange(10**6), times=times, timeout=1800, **shop)
    assert told["state"] == "new"
    assert "old" in told["seen"] or times < 50
    assert all(name.startswith("shop_replaced_") for name in told["kept"]) and len(told["kept"]) == (1 if method == "swap" else 0)


def test_a_restore_that_is_killed_between_the_two_renames(library, server, shop):
    """The old database still has its name, and the next run clears up. Fails when the renames are two transactions, and when what is left is not dropped."""
    action = """
real = postgres.rows
def rows(connection, statement, values=()):
    if "RENAME" in statement and statement.endswith('TO "shop"'):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(connection, statement, values)
postgres.rows = rows
postgres_restore.restore(database, directory, newest())
"""
    script = """
try:
    run(60)
except AssertionError:
    pass
connection = postgres.connect(database)
there = postgres.rows(connection, "SELECT count(*) FROM customers")[0][0]
names = [name for (name,) in postgres.rows(connection, "SELECT datname FROM pg_database WHERE datname LIKE 'shop%' ORDER BY 1")]
connection.close()
answer(there=there, names=names)
"""
    told = library(KILLED + script, child=CHILD, action=action, seed=1, **shop)
    assert told["there"] == 500
    assert len(told["names"]) == 2 and told["names"][1].startswith("shop_restore_")
    replaced = library("answer(name=postgres_restore.restore(database, directory, newest()).replaced)", **shop)["name"]
    assert databases(server) == ["shop", replaced]
