# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alembic's migrations of small generated projects, on real SQLite and real PostgreSQL."""

from __future__ import annotations

import json
import random
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
from integration.database.alembic_projects import ASYNC_ENV, ENV, FLASK_APP, FLASK_ENV, INI, KILLED_ENV, MODELS, Project
from integration.database.direct import Direct
from integration.database.killed_migrations import SLEEP, sql

# SQLite before 3.35 cannot drop a column.
BATCH = "with op.batch_alter_table('item') as batch: "
SHOP = {
    "a1": (
        None,
        "op.create_table('item', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.String(40)))",
        "op.drop_table('item')",
    ),
    "a2": ("a1", "op.add_column('item', sa.Column('price', sa.Integer))", f"{BATCH}batch.drop_column('price')"),
}
ADDS = {"a3": ("a2", "op.create_table('late', sa.Column('id', sa.Integer, primary_key=True))", "op.drop_table('late')")}
DROPS = {"a4": ("a3", f"{BATCH}batch.drop_column('name')", "op.add_column('item', sa.Column('name', sa.String(40)))")}
MIDWAY = {
    **ADDS,
    "a4": ("a3", "op.create_table('half', sa.Column('id', sa.Integer))\nop.execute('INSERT INTO nowhere VALUES (1)')", "pass"),
}
# Holds the migration until somebody says go, but not where it is only looked at.
WAITS = {
    "a3": (
        "a2",
        """import os, time
from alembic import context
here = os.path.join(os.getcwd(), '../shared')
if not context.is_offline_mode():
    with open(here + '/begun', 'w') as stream:
        stream.write(str(os.getpid()))
    while not os.path.exists(here + '/go'):
        time.sleep(0.05)
op.create_table('late', sa.Column('id', sa.Integer, primary_key=True))""",
        "op.drop_table('late')",
    )
}
WANTED = [
    "alembic",
    "sqlalchemy",
    "psycopg[binary]",
    "psycopg2-binary",
    "aiosqlite",
    "asyncpg",
    "greenlet",
    "flask-migrate",
    "flask-sqlalchemy",
]
OLD = ["alembic==1.7.7", "sqlalchemy==1.4.54", "psycopg2-binary"]


def environment(module, host, wanted: list[str]) -> str:
    host.run(["sh", "-c", "id app 2> /dev/null || useradd --system --user-group --no-create-home app"])
    built = module.must("virtualenv", kind="none", venvs="/opt/app/venvs", extra=wanted)
    return f"{built['path']}/bin/python"


@pytest.fixture(scope="module")
def python(module, server, host):
    """The environment of an app: what it needs for all of these projects."""
    return environment(module, host, WANTED)


@pytest.fixture(scope="module")
def direct(host) -> Direct:
    return Direct(host)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request, direct, host, server, python) -> Project:
    return Project(direct, host, python, server if request.param == "postgresql" else None)


@pytest.fixture
def sqlite(direct, host, python) -> Project:
    return Project(direct, host, python, None)


@pytest.fixture
def postgres(direct, host, server, python) -> Project:
    return Project(direct, host, python, server)


def ids(steps: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    return [step["revision"] for step in steps]


def until(true: t.Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, f"Waited in vain until {what}."
        time.sleep(0.1)


def up_again_and_down(project: Project) -> None:
    project.write(SHOP)
    planned = project.must("--check", "--diff")
    assert planned["changed"] and ids(planned["pending"]) == ["a1", "a2"] and planned["after"] == ["a2"]
    assert "CREATE TABLE item" in planned["sql"]["a1"] and "ADD COLUMN price" in planned["said"]
    assert project.tables() == "" and not project.database_exists_unless_server()
    done = project.must()
    assert (done["changed"], done["before"], done["after"], ids(done["applied"])) == (True, [], ["a2"], ["a1", "a2"])
    assert all(step["seconds"] >= 0 and step["doc"] == f"make {step['revision']}" for step in done["applied"])
    assert "item" in project.tables() and project.owner() == "app"
    again = project.must()
    assert (again["changed"], again["applied"], again["before"]) == (False, [], ["a2"])
    back = project.must(command="downgrade", revision="-1")
    assert (back["before"], back["after"], ids(back["applied"])) == (["a2"], ["a1"], ["a2"])
    assert project.secret not in json.dumps([planned, done, again, back])


def test_up_again_and_down(project):
    """Fails without the database in memory that stands for one that is not there: check mode makes the file."""
    up_again_and_down(project)


def test_as_ansible_runs_it(postgres, module):
    postgres.write(SHOP)
    done = module.must("alembic_migrate", "--diff", "-vvv", **postgres.options())
    assert done["after"] == ["a2"] and postgres.secret not in done["said"] and "CREATE TABLE item" in done["said"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_with_the_oldest_alembic_that_works(request, module, host, server, kind):
    if not request.config.getoption("matrix"):
        pytest.skip("Only with --matrix.")
    up_again_and_down(Project(module, host, environment(module, host, OLD), server if kind == "postgresql" else None))


def test_what_is_refused_before_anything_is_changed(sqlite):
    sqlite.write({**SHOP, "b2": ("a1", "pass", "pass")})
    heads = sqlite.refused("2 heads", "a2 (make a2)", "b2 (make b2)", "alembic merge heads")
    assert heads["kind"] == "several_heads" and not sqlite.host.exists(sqlite.path)
    sqlite.write({"a2": SHOP["a2"]})
    sqlite.refused("no unbroken chain", "a1")
    sqlite.write(SHOP)
    sqlite.refused("There is no Alembic in the app's environment", python="/usr/bin/python3")
    sqlite.must()
    sqlite.write({"a1": SHOP["a1"]})
    newer = sqlite.refused("is at a2, which this code does not know (its newest is a1)", "newer than the code")
    assert newer["kind"] == "unknown_revision" and sqlite.must(command="current")["unknown"] == ["a2"]
    # Fails without the comparison of what env.py connects to with what was named.
    sqlite.write(SHOP, env=ENV_ELSEWHERE)
    sqlite.refused("works on /tmp/elsewhere.db, not on")
    sqlite.write(
        SHOP, env=ENV.replace("    context.configure", "    connection.exec_driver_sql('PRAGMA foreign_keys = ON')\n    context.configure")
    )
    sqlite.host.run(["rm", sqlite.path])
    sqlite.refused("the database does not have them: env.py does not commit", "is at no revision")
    sqlite.host.run(["chown", "-R", "root:", f"{sqlite.root}/shared"])
    sqlite.refused(f"{sqlite.root}/shared cannot be written by the account app")


def test_models_that_differ(sqlite):
    sqlite.write({"a1": SHOP["a1"]}, models__py=MODELS)
    after = sqlite.refused("The migrations are in", "add_column item.price", check_models=True)
    assert after["differences"] == ["add_column item.price"]
    sqlite.refused("The schema differs from the models", "add_column item.price", check_models=True)
    sqlite.write(SHOP, models__py=MODELS)
    assert sqlite.must(check_models=True)["after"] == ["a2"]


def test_a_schema_without_a_revision(project):
    """Fails without the proof: a database of another shape is stamped."""
    project.write({**SHOP, **ADDS})
    project.sql("CREATE TABLE item (id integer NOT NULL PRIMARY KEY, name varchar(40));")
    project.refused("has tables (item) and no revision", "untracked: stamp")
    wrong = project.refused("is not that of revision a2", "add_column item.price", untracked="stamp", untracked_revision="a2")
    assert wrong["kind"] == "unproven" and "alembic_version" not in project.tables()
    done = project.must(untracked="stamp", untracked_revision="a1")
    assert (ids(done["applied"]), done["after"]) == (["a2", "a3"], ["a3"])


def test_a_migration_that_fails_midway(project):
    """SQLite keeps the revisions before; PostgreSQL takes all of the run back. Of the failing one nothing is left.

    Fails on SQLite without the transaction that is begun before a change of the schema: its table is there.
    """
    project.write(SHOP)
    project.must()
    project.write({**SHOP, **MIDWAY})
    wrong = project.refused(
        "Failed at a4 (make a4)", "migrations/versions/a4.py line", "nowhere", "was at a2 and is at", contracting="allow"
    )
    inside = ["a3"] if project.server is None else []
    assert (wrong["before"], wrong["after"], ids(wrong["applied"]), wrong["failing"]) == (["a2"], inside or ["a2"], inside, "a4")
    assert ("late" in project.tables()) == bool(inside) and "half" not in project.tables()
    assert "has kept" not in wrong["msg"]


def test_what_cannot_be_in_a_transaction_is_not(sqlite):
    """Fails when the transaction that was begun stays open: foreign keys stay enforced and the orders go with the old ``item``, or the other
    connection waits for it in vain."""
    orders = "CREATE TABLE orders (id integer PRIMARY KEY, item integer REFERENCES item (id) ON DELETE CASCADE)"
    first = {"a1": (None, f"{SHOP['a1'][1]}\nop.execute({orders!r})", "pass")}
    sqlite.write(first, env=FOREIGN_KEYS_ENV)
    sqlite.must()
    sqlite.sql("INSERT INTO item VALUES (1, 'tea'); INSERT INTO orders VALUES (1, 1);")
    copies = """op.create_table('told', sa.Column('id', sa.Integer))
with sa.create_engine(op.get_bind().engine.url).begin() as other:
    other.execute(sa.text('INSERT INTO told VALUES (1)'))
op.create_table('before', sa.Column('id', sa.Integer))
op.execute('PRAGMA foreign_keys = OFF')
with op.batch_alter_table('item', recreate='always') as batch:
    batch.add_column(sa.Column('price', sa.Integer))"""
    fails = """op.create_table('stays', sa.Column('id', sa.Integer))
op.execute('PRAGMA foreign_keys = ON')
op.create_table('goes', sa.Column('id', sa.Integer))
op.execute('INSERT INTO nowhere VALUES (1)')"""
    sqlite.write({**first, "a2": ("a1", copies, "pass"), "a3": ("a2", fails, "pass")}, env=FOREIGN_KEYS_ENV)
    wrong = sqlite.refused("Failed at a3", "has kept a part of the failing one", "Restore the backup", contracting="allow")
    assert wrong["after"] == ["a2"]
    assert sqlite.sql("SELECT count(*) FROM orders; SELECT count(*) FROM told; SELECT price IS NULL FROM item;").split() == ["1", "1", "1"]
    assert "stays" in sqlite.tables() and "goes" not in sqlite.tables()


def test_killed_at_any_point_the_next_run_needs_no_help(request, project):
    """Fails on SQLite without the transaction that is begun before a change of the schema: a table is there and its revision is not."""
    matrix = request.config.getoption("matrix")
    rounds = 70 if matrix else 2 if project.server is None else 1
    steps = {
        f"r{number}": (
            f"r{number - 1}" if number > 1 else None,
            "\n".join(
                [
                    *(f"op.execute({one!r})" for one in sql(number)),
                    f"import os\nif {number} == 6 and os.environ.get('SLOW'): op.execute({SLEEP!r})",
                ]
            ),
            "pass",
        )
        for number in range(1, 7)
    }
    project.write(steps, env=KILLED_ENV)
    shared = f"{project.root}/shared"
    given = {
        "module": "alembic_migrate",
        "options": project.options(contracting="allow", writable=[shared]),
        "path" if project.server is None else "url": project.path if project.server is None else project.url,
        "newest": 6,
        "revision": ["alembic_version", "version_num"],
        "place": shared,
        "ways": ["statement", "time", "line"],
        "environment": f"{project.root}/env",
        "variable": f'DATABASE_URL="{project.url}"',
        "rounds": rounds,
    }
    done = project.module.killed(**given, seed=random.randrange(10**6))
    print(done)
    assert done["events"] > 30 and done["lines"] > 300
    assert not matrix or (sum(done["cut"].values()) >= 50 and {1, 2, 3, 4, 5} & set(done["stopped"]))
    if matrix and project.server is not None and project.server.version >= 14:
        # Without client_connection_check_interval the server would sleep on, and keep its locks.
        assert project.module.killed(**given, seed=1, slow=True)["seconds"] < 30


def test_a_lock_that_somebody_holds(postgres, module):
    """Fails without the setting on the connection: it waits for ever. Fails without retries: it gives up the first time."""
    postgres.write({"a1": SHOP["a1"]})
    postgres.must()
    postgres.write(SHOP)
    with ThreadPoolExecutor(2) as pool:
        holder = pool.submit(
            postgres.host.run,
            ["psql", "--dbname", postgres.name, "--command", "BEGIN; LOCK TABLE item; SELECT pg_sleep(600)"],
            user="postgres",
            check=False,
        )
        try:
            until(lambda: postgres.server.sql(HELD, postgres.name) == "1", "the lock is held")
            wrong = postgres.refused(
                "lock timeout",
                "after 2 attempts",
                "is at a1",
                "(postgres, psql) holds AccessExclusiveLock on item",
                lock_timeout=0.3,
                retries=1,
            )
            assert wrong["after"] == ["a1"]
            patient = pool.submit(postgres.must, lock_timeout=0.5, retries=20)
            until(lambda: postgres.server.sql(WAITING, postgres.name) == "1", "the migration waits")
            until(lambda: postgres.server.sql(WAITING, postgres.name) == "0", "it has given up once")
        finally:
            postgres.server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
            )
        assert ids(patient.result()["applied"]) == ["a2"]
        holder.result()


def test_two_at_once_and_one_that_is_killed(project):
    """Fails without the lock: the second one migrates too. Fails without ``die_with_the_caller``: what it started goes on without it."""
    project.write(SHOP)
    project.must()
    project.write({**SHOP, **WAITS})
    begun, go = f"{project.root}/shared/begun", f"{project.root}/shared/go"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: project.module("alembic_migrate", **project.options(writable=[f"{project.root}/shared"])))
        try:
            until(lambda: project.host.exists(begun) and project.host.read(begun), "the first one is at work")
            project.refused("Another", "longer than 0.1 s", lock_wait=0.1)
            worker = project.host.read(begun)
            # Its own systemd-run, found by the property that only it has, and above it the module.
            argv = ["pgrep", "--full", "--oldest", f"systemd-run.*WorkingDirectory={project.root}/release"]
            module_pid = project.host.run(["ps", "-o", "ppid=", project.host.run(argv).stdout.strip()]).stdout.strip()
            project.host.run(["kill", "-9", module_pid])
            until(lambda: not project.host.exists(f"/proc/{worker}"), "its worker has ended with it")
        finally:
            project.host.run(["touch", go])
        running.exception()
    assert "late" not in project.tables()
    assert ids(project.must(writable=[f"{project.root}/shared"])["applied"]) == ["a3"]


def test_what_contracts(sqlite):
    """Fails without the classification: the drop goes in."""
    sqlite.write(SHOP)
    sqlite.must()
    sqlite.write({**SHOP, **ADDS, **DROPS})
    sqlite.refused("a4 (make a4): contracting", "drops the column item.name", "contracting: hold")
    held = sqlite.must(contracting="hold")
    assert (held["after"], ids(held["applied"]), ids(held["held"])) == (["a3"], ["a3"], ["a4"])
    assert held["classification"]["a3"]["kind"] == "expanding"
    assert not sqlite.must(contracting="hold")["changed"]
    assert sqlite.must(allow_contracting={"a4": "nobody reads it any more"})["after"] == ["a4"]


def test_flask_migrate(sqlite):
    sqlite.write(SHOP, env=FLASK_ENV, ini=None, shop__py=FLASK_APP)
    sqlite.refused("Set entrypoint")
    sqlite.refused("gives no Flask app", "no attribute 'nothing'", entrypoint="shop:nothing")
    assert sqlite.must(entrypoint="shop:create_app('test')")["after"] == ["a2"]


def test_an_asynchronous_engine_and_several_version_locations(project):
    """And limits that it keeps too: Fails without the setting of statement_timeout, and without its own words for that."""
    driver = {"sqlite:": "sqlite+aiosqlite:"} if project.server is None else {"postgresql:": "postgresql+asyncpg:"}
    for old, new in driver.items():
        project.set_url(project.url.replace(old, new))
    project.write(SHOP, env=ASYNC_ENV, ini=TWO_LOCATIONS, more=ADDS)
    assert ids(project.must("--check")["pending"]) == ["a1", "a2", "a3"]
    assert project.must()["after"] == ["a3"]
    if project.server is None:
        return
    slow = {"a4": ("a3", "op.create_table('half', sa.Column('id', sa.Integer))\nop.execute('SELECT pg_sleep(60)')", "pass")}
    project.write({**SHOP, **ADDS, **slow}, env=ASYNC_ENV)
    told = [
        "Failed at a4",
        "migrations/versions/a4.py line",
        "statement_timeout (0.3 s)",
        "Split the migration",
        "database_statement_timeout",
    ]
    wrong = project.refused(*told, contracting="allow", statement_timeout=0.3)
    assert (wrong["kind"], wrong["after"], "attempts" in wrong["msg"]) == ("statement_timeout", ["a3"], False)
    assert "half" not in project.tables()


def test_stamp_and_what_squawk_finds(postgres, module, host):
    built = module.must("virtualenv", kind="none", venvs="/opt/squawk", extra=["squawk-cli"])
    host.run(["ln", "-sfn", f"{built['path']}/bin/squawk", "/usr/local/bin/squawk"])
    try:
        postgres.write(SHOP)
        stamped = postgres.must(command="stamp", revision="a1")
        assert (stamped["changed"], stamped["after"], postgres.tables()) == (True, ["a1"], "alembic_version")
        assert not postgres.must(command="stamp", revision="a1")["changed"]
        postgres.write({**SHOP, "a3": ("a2", "op.create_index('ix', 'item', ['name'])", "pass")})
        found = postgres.must("--check")["classification"]["a3"]
        assert found["kind"] == "expanding" and any("require-concurrent-index-creation" in one for one in found["squawk"])
    finally:
        host.run(["rm", "/usr/local/bin/squawk"])


# Two directories, of which the second has the later revision.
TWO_LOCATIONS = f"{INI}version_locations = migrations/versions migrations/more\nversion_path_separator = space\n"
FOREIGN_KEYS_ENV = ENV.replace(
    "with engine",
    """from sqlalchemy import event
@event.listens_for(engine, "connect")
def enforce(connection, record):
    connection.execute("PRAGMA foreign_keys = ON")
with engine""",
)
HELD = "SELECT count(*) FROM pg_locks WHERE relation = 'item'::regclass AND granted AND mode = 'AccessExclusiveLock'"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
ENV_ELSEWHERE = """
from alembic import context
from sqlalchemy import create_engine
with create_engine("sqlite:////tmp/elsewhere.db").connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
