# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways of a database that are not the usual one: back with a backup, migrated by SQL files or by Flask-Migrate, backups copied to object storage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions
from e2e.apps import App
from e2e.conftest import NewApp
from integration.database.alembic_projects import FLASK_ENV

from lab.hosts import Host
from lab.postgresql import Server
from lab.s3 import KNOWN, Bucket, ObjectStore

ORDERS = "CREATE TABLE orders (id integer PRIMARY KEY, item text NOT NULL, quantity integer NOT NULL);\n"
WITH_MIGRATE = "\nfrom flask_migrate import Migrate\n\nfrom .models import db\n\nMigrate(app, db)\n"


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, new_shop: NewApp, host: Host) -> Iterator[tuple[App, Server | None]]:
    """The example shop on its second version, with an order."""
    name = f"policy-{request.param[:6]}"
    server, declaration = None, {}
    if request.param == "postgresql":
        server = Server(host)
        server.start()
        url = server.create(name).replace("postgresql://", "postgresql+psycopg2://")
        declaration = {"app_environment": {"DATABASE_URL": url}, "app_extra_requirements": ["psycopg2-binary==2.9.10"]}
    shop = new_shop(name, [host], app_watch=0, app_database=request.param, app_migrations="alembic", **declaration)
    shop.deploy("1.1.0")
    order(shop, "tea")
    yield shop, server
    shop.stop()
    if server is not None:
        server.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The example shop as a directory, without its migrations."""
    path = tmp_path / "source"
    versions.make_tree(path, "flask", "1.0.0")
    (path / "alembic.ini").unlink()
    shutil.rmtree(path / "migrations")
    return path


@pytest.fixture
def bucket(host: Host) -> Iterator[Bucket]:
    store = ObjectStore(host)
    store.start()
    yield store.bucket("copies")
    store.stop()


def order(shop: App, item: str) -> None:
    assert shop.ask("/orders", method="POST", body={"item": item, "quantity": 1}).status == 201


def ask(shop: App, server: Server | None, statement: str, database: str = "") -> list[str]:
    """Rows of the app's database, or of another one that a restore has kept."""
    if server is not None:
        return server.sql(statement, database or shop.name).splitlines()
    return shop.host.run(["sqlite3", database or f"{shop.root}/shared/shop.db", statement]).stdout.splitlines()


def replaced(shop: App, server: Server | None) -> list[str]:
    """The databases that a restore has replaced and kept."""
    if server is not None:
        return server.sql(f"SELECT datname FROM pg_database WHERE datname LIKE '{shop.name}%replaced%'").splitlines()
    return shop.host.run(
        ["sh", "-c", f"ls {shop.root}/shared/shop.db.replaced-* | grep -v -e '-wal$' -e '-shm$'"], check=False
    ).stdout.split()


def test_a_rollback_restores_the_backup_and_keeps_what_it_replaces(shop: tuple[App, Server | None]) -> None:
    app, server = shop
    app.deploy("1.2.0-drops-customers", app_allow_contracting={"0003": "nobody reads it any more"})
    order(app, "salt")
    app.roll_back(app_rollback_schema="restore")
    assert app.version() == "1.1.0"
    assert ask(app, server, "SELECT version_num FROM alembic_version") == ["0002"]
    assert ask(app, server, "SELECT item FROM orders") == ["tea"]
    (kept,) = replaced(app, server)
    assert ask(app, server, "SELECT item FROM orders ORDER BY id", kept) == ["tea", "salt"]
    # Who writes meanwhile, writes into the database that serves.
    order(app, "oil")
    assert ask(app, server, "SELECT item FROM orders ORDER BY id") == ["tea", "oil"]
    if server is None:
        # And the way leads forward again: the host knows that the migration is pending.
        app.deploy("1.2.0-drops-customers", app_allow_contracting={"0003": "nobody reads it any more"})
        assert ask(app, server, "SELECT version_num FROM alembic_version") == ["0003"]


def test_numbered_sql_files_and_copies_of_their_backups(new_app: NewApp, host: Host, source: Path, bucket: Bucket) -> None:
    (source / "sql").mkdir()
    (source / "sql" / "001_orders.sql").write_text(ORDERS)
    (source / "sql" / "002_customers.sql").write_text("CREATE TABLE customers (id integer PRIMARY KEY);\n")
    environment = {"DATABASE_URL": "sqlite:////opt/policy-sql/shared/shop.db", **KNOWN["read_write"].environment(bucket.store, bucket.name)}
    shop = new_app(
        "policy-sql",
        [host],
        app_source={"directory": str(source)},
        app_entrypoint="shop.wsgi:app",
        app_health_version={"json": "version"},
        app_environment=environment,
        app_database="sqlite",
        app_migrations="sql",
        app_watch=0,
    )
    shop.deploy("1.0.0")
    order(shop, "tea")
    ledger = "SELECT name, applied_at FROM schema_migrations_ledger ORDER BY number"
    first = ask(shop, None, ledger)
    assert [line.split("|")[0] for line in first] == ["001_orders.sql", "002_customers.sql"]

    (source / "sql" / "003_notes.sql").write_text("ALTER TABLE orders ADD COLUMN note text;\n")
    shop.deploy("1.1.0")
    assert ask(shop, None, ledger)[:2] == first and len(ask(shop, None, ledger)) == 3
    assert shop.deploy("1.1.0").recap(host.name)["changed"] == 0
    assert ask(shop, None, "SELECT item FROM orders") == ["tea"]

    # The backup that the deploy made before 003 goes out together with the new one.
    first_copies = shop.project.must("backup", database_copy=True)
    assert first_copies.recap(host.name)["changed"] == 2
    sent = {one["Key"]: one["LastModified"] for one in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]}
    assert len(sent) == 4 and all(key.startswith(f"policy-sql/{host.name}/shop.db-") for key in sent), sent
    again = shop.project.must("backup", database_copy=True)
    now = {one["Key"]: one["LastModified"] for one in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]}
    assert {key: now[key] for key in sent} == sent, "What was there has been sent again."
    # One more backup, and nothing but that.
    assert len(now) == len(sent) + 2
    for secret in (KNOWN["read_write"].secret_access_key, KNOWN["read_write"].access_key_id):
        assert secret not in first_copies.output + again.output


def test_flask_migrate(new_app: NewApp, host: Host, source: Path) -> None:
    migrations = source / "migrations"
    shutil.copytree(
        versions.HERE / "flask_app" / "migrations" / "versions", migrations / "versions", ignore=shutil.ignore_patterns("__pycache__")
    )
    (migrations / "alembic.ini").write_text("[alembic]\n")
    (migrations / "env.py").write_text(FLASK_ENV)
    with (source / "shop" / "wsgi.py").open("a") as stream:
        stream.write(WITH_MIGRATE)
    shop = new_app(
        "policy-flask",
        [host],
        app_source={"directory": str(source)},
        app_entrypoint="shop.wsgi:app",
        app_extra_requirements=["flask-migrate==4.1.0"],
        app_health_version={"json": "version"},
        app_environment={"DATABASE_URL": "sqlite:////opt/policy-flask/shared/shop.db"},
        app_database="sqlite",
        app_migrations="flask_migrate",
        app_watch=0,
    )
    shop.deploy("1.0.0")
    order(shop, "tea")
    revision = "SELECT version_num FROM alembic_version"
    assert ask(shop, None, revision) == ["0001"]
    shutil.copy(versions.MIGRATIONS / "customers.py", migrations / "versions" / "0002_customers.py")
    shop.deploy("1.1.0")
    assert ask(shop, None, revision) == ["0002"]
    assert shop.deploy("1.1.0").recap(host.name)["changed"] == 0
    assert ask(shop, None, "SELECT item FROM orders") == ["tea"]
