# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database in a deploy: backed up, migrated, and back where it was when that fails; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator

import pytest
from e2e.apps import App
from e2e.conftest import NewApp
from e2e.traffic import under_load

from lab.hosts import Host
from lab.postgresql import Server


class Database:
    """What is in an app's database, asked past the app."""

    def __init__(self, shop: App, server: Server | None) -> None:
        self.shop, self.server = shop, server

    def rows(self, sql: str) -> list[str]:
        if self.server is not None:
            return self.server.sql(sql, self.shop.name).splitlines()
        return self.shop.host.run(["sqlite3", f"{self.shop.root}/shared/shop.db", sql]).stdout.split()

    @property
    def revision(self) -> str:
        return ",".join(self.rows("SELECT version_num FROM alembic_version"))

    def backups(self) -> list[dict[str, t.Any]]:
        script = f'for one in {self.shop.root}/backups/*.json; do [ -e "$one" ] || continue; cat "$one"; printf "\\0"; done'
        return [json.loads(one) for one in self.shop.host.run(["sh", "-c", script]).stdout.split("\0") if one.strip()]


# What the kind of the database makes no difference to is tried on the one that starts quicker.
on_both = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest, new_shop: NewApp, host: Host) -> Iterator[Database]:
    name = f"data-{request.param[:6]}"
    server, url = None, f"sqlite:////opt/{name}/shared/shop.db"
    if request.param == "postgresql":
        server = Server(host)
        server.start()
        url = server.create(name).replace("postgresql://", "postgresql+psycopg2://")
    shop = new_shop(
        name,
        [host],
        app_watch=0,
        app_environment={"DATABASE_URL": url},
        app_database=request.param,
        app_migrations="alembic",
        app_extra_requirements=["psycopg2-binary==2.9.10"] if server else [],
    )
    yield Database(shop, server)
    if server is not None:
        server.stop()


@on_both
def test_the_first_deploy_makes_the_tables(database: Database) -> None:
    database.shop.deploy("1.0.0")
    assert database.revision == "0001"
    assert database.shop.ask("/orders", method="POST", body={"item": "tea", "quantity": 1}).status == 201
    if database.server is None:
        owner = database.shop.host.run(["sh", "-c", f"stat --format=%U {database.shop.root}/shared/shop.db*"]).stdout.split()
        assert set(owner) == {"www-data"}


@on_sqlite
def test_a_database_without_a_revision_is_stamped_only_when_it_is_proven(database: Database) -> None:
    shop = database.shop
    database.rows("DROP TABLE alembic_version")
    refused = shop.project.play("migrate")
    assert not refused.ok
    assert "database_untracked" in refused.output
    database.rows("CREATE TABLE stray (id INTEGER PRIMARY KEY)")
    wrong = shop.project.play("migrate", database_untracked="stamp")
    assert not wrong.ok
    assert "stray" in wrong.output
    database.rows("DROP TABLE stray")
    shop.project.must("migrate", database_untracked="stamp")
    assert database.revision == "0001"


@on_both
def test_an_update_migrates_after_a_backup_and_users_notice_nothing(database: Database) -> None:
    shop = database.shop
    before = len(database.backups())
    with under_load(shop, f"{shop.name}: an update that migrates"):
        shop.deploy("1.1.0")
    assert database.revision == "0002"
    assert database.rows("SELECT item FROM orders") == ["tea"]
    made = database.backups()
    assert len(made) == before + 1
    newest = max(made, key=lambda one: one["taken"])
    assert newest["facts"]["revision"] == "0001"


@on_sqlite
def test_check_mode_touches_nothing_and_the_same_again_does_nothing(database: Database) -> None:
    shop, made = database.shop, len(database.backups())
    shop.deploy("1.2.0-drops-customers", "--check", "--diff")
    shop.project.must("migrate", "--check", "--diff")
    shop.project.must("backup", "--check", "--diff")
    assert shop.deploy("1.1.0").recap(shop.host.name)["changed"] == 0
    assert len(database.backups()) == made


@on_both
def test_a_migration_that_fails_midway_is_undone(database: Database) -> None:
    """Fails on SQLite without the restore: the table of the first statement stays."""
    shop = database.shop
    with under_load(shop, f"{shop.name}: a migration that fails midway") as traffic:
        played = shop.broken_deploy("1.2.0-fails-midway")
    assert traffic.versions() == ["1.1.0"]
    assert "no_such_table" in played.output
    assert "0003" in played.output
    assert played.ended()[shop.host.name][:2] == [shop.live()] * 2
    assert database.revision == "0002"
    tables = "sqlite_master WHERE name" if database.server is None else "pg_tables WHERE tablename"
    assert database.rows(f"SELECT count(*) FROM {tables} = 'invoices'") == ["0"]
    assert database.rows("SELECT item FROM orders") == ["tea"]
    assert shop.version() == "1.1.0"


@on_sqlite
def test_two_heads_are_refused_before_anything_is_changed(database: Database) -> None:
    made = len(database.backups())
    played = database.shop.broken_deploy("1.2.0-second-head")
    assert "0002b" in played.output
    assert (database.revision, len(database.backups())) == ("0002", made)


@on_both
def test_what_the_old_release_cannot_run_on_is_refused_unless_it_is_allowed(database: Database) -> None:
    shop = database.shop
    played = shop.broken_deploy("1.2.0-drops-customers")
    assert "app_allow_contracting" in played.output
    assert database.revision == "0002"
    if database.server is not None:
        shop.deploy("1.2.0-drops-customers", app_allow_contracting={"0003": "nobody reads it any more"})
    else:
        shop.deploy("1.2.0-drops-customers", app_contracting="hold")
        assert database.revision == "0002"
        shop.project.must("migrate")
    assert database.revision == "0003"


@on_both
def test_a_rollback_looks_at_the_database(database: Database) -> None:
    """Refused by default; then the migration is undone with the newer release's code, and the older one serves."""
    shop = database.shop
    refused = shop.project.play("rollback")
    assert not refused.ok
    assert "app_rollback_schema=downgrade" in refused.output
    assert (shop.version(), database.revision) == ("1.2.0-drops-customers", "0003")
    with under_load(shop, f"{shop.name}: a rollback with a downgrade"):
        shop.roll_back(app_rollback_schema="downgrade")
    assert (shop.version(), database.revision) == ("1.1.0", "0002")
    assert database.rows("SELECT item FROM orders") == ["tea"]


@on_both
def test_backup_drill_and_restore(database: Database) -> None:
    shop = database.shop
    assert shop.project.must("backup").recap(shop.host.name)["changed"] == 1
    shop.project.must("backup_drill")
    assert shop.ask("/orders", method="POST", body={"item": "salt", "quantity": 2}).status == 201
    assert database.rows("SELECT count(*) FROM orders") == ["2"]
    shop.project.must("restore")
    assert database.rows("SELECT item FROM orders") == ["tea"]
    assert shop.ask("/orders", method="POST", body={"item": "oil", "quantity": 2}).status == 201
    assert database.rows("SELECT count(*) FROM orders") == ["2"]
