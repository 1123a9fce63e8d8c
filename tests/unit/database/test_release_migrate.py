# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deploy does with the database, as data: what is chosen, what is refused, what is put back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import migrations, store
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.backups import Backup
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.migrations import Pending, Status
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Sqlite
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import migrate, unmigrate

ADDS, DROPS, RIDDLE = Pending("2", "expanding"), Pending("3", "contracting", ["drops customers"]), Pending("4", "unknown", ["raw SQL"])
OPTIONS = {"contracting": "refuse", "allow_contracting": {}}


def chosen(pending, serves="1.0.0-a", **options):
    observed = migrate.Observed("1.1.0-b", serves, Status("1", pending))
    wanted, held = migrate.chosen({**OPTIONS, **options}, observed, observed.status)
    return [one.revision for one in wanted], [one.revision for one in held]


@pytest.mark.parametrize(
    ("pending", "options", "wanted", "held"),
    [
        ([ADDS], {}, ["2"], []),
        ([ADDS, DROPS], {"contracting": "allow"}, ["2", "3"], []),
        ([ADDS, DROPS, RIDDLE], {"contracting": "hold"}, ["2"], ["3", "4"]),
        ([DROPS], {"contracting": "hold"}, [], ["3"]),
        ([ADDS, DROPS], {"allow_contracting": {"3": "nobody reads it"}}, ["2", "3"], []),
        # Nobody serves who could be broken, or it is the very release that brings them.
        ([ADDS, DROPS], {"serves": ""}, ["2", "3"], []),
        ([ADDS, DROPS], {"serves": "1.1.0-b"}, ["2", "3"], []),
    ],
)
def test_what_is_applied_and_what_is_held_back(pending, options, wanted, held):
    assert chosen(pending, **options) == (wanted, held)


@pytest.mark.parametrize("pending", [[DROPS], [RIDDLE], [ADDS, DROPS, RIDDLE]])
def test_what_the_release_that_serves_cannot_run_on_is_refused(pending):
    """Fails when what nobody can tell passes for expanding."""
    with pytest.raises(Failure, match=r"1\.0\.0-a, which serves now, cannot run") as told:
        chosen(pending)
    for one in pending:
        assert (one.describe() in told.value.what) is (one.kind != "expanding")
    assert "app_allow_contracting" in told.value.fix


def backup(name, taken, revision):
    return Backup(name, "app.db", "sqlite", taken, 1, "", {"revision": revision})


def test_a_rollback_restores_the_newest_backup_of_the_revision_from_before_the_migration():
    known = [backup("a", 10.0, "1"), backup("b", 20.0, "1"), backup("c", 30.0, "2"), backup("d", 40.0, "1")]
    assert unmigrate.backup_at(known, "1", 35.0).name == "b"
    with pytest.raises(Failure, match="no backup of the database at revision 3"):
        unmigrate.backup_at(known, "3", 35.0)
    with pytest.raises(Failure, match="no backup"):
        unmigrate.backup_at(known, "2", 25.0)


def test_a_half_made_new_database_is_set_aside_with_all_that_is_its(tmp_path):
    """Fails when only the file moves: its -wal would be played into the next database of that name."""
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"app.db{suffix}").write_text(suffix)
    aside = store.set_aside(Sqlite(str(tmp_path / "app.db")))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{aside.rpartition('/')[2]}{suffix}" for suffix in ("", "-wal", "-shm")
    )


def test_the_database_is_that_of_the_release_as_its_unit_has_it(tmp_path):
    """The release's own environment wins over shared/.env, and a relative path is relative to the release."""
    layout = Layout("shop", str(tmp_path))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".env").write_text("DATABASE_URL=sqlite:////elsewhere.db\n")
    options = {
        **{name: option.get("default") for name, option in migrations.SPEC.items()},
        "migrations": "alembic",
        "entrypoint": "shop:app",
        "user": "www-data",
        "group": "www-data",
    }
    assert migrations.of_release(options, layout, "1.0.0-a", serves=False).database == Sqlite("/elsewhere.db")
    own = tmp_path / "releases" / "1.0.0-a" / ".release"
    own.mkdir(parents=True)
    (own / "environment").write_text('DATABASE_URL="sqlite:///app.db"\n')
    assert migrations.of_release(options, layout, "1.0.0-a", serves=False).database == Sqlite(
        str(tmp_path / "releases" / "1.0.0-a" / "app.db")
    )


SQL_OPTIONS = {
    "migrations": "sql",
    "path": "db",
    "url_variable": "DATABASE_URL",
    "entrypoint": "shop:app",
    "user": "www-data",
    "group": "www-data",
    "lock_timeout": 5,
    "statement_timeout": 0,
    "lock_retries": 0,
    "check_models": False,
    "run": "run1",
}


@pytest.fixture
def sql_release(tmp_path):
    """A release with numbered SQL files, and a database of its own."""
    directory = tmp_path / "releases" / "1.0.0-a"
    (directory / ".release").mkdir(parents=True)
    (directory / "db").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / ".env").write_text(f"DATABASE_URL=sqlite:///{tmp_path}/shared/app.db\n")
    (directory / "db" / "001_orders.sql").write_text("CREATE TABLE orders (id INTEGER PRIMARY KEY);\n")
    (directory / "db" / "002_no_orders.sql").write_text("DROP TABLE orders;\n")
    return migrations.of_release(SQL_OPTIONS, Layout("shop", str(tmp_path)), "1.0.0-a", serves=False), directory / "db"


def test_sql_files_are_migrations_like_any_other(sql_release):
    code, files = sql_release
    status = code.status()
    assert (status.before, [(one.revision, one.kind) for one in status.pending]) == (
        "",
        [("001_orders.sql", "expanding"), ("002_no_orders.sql", "contracting")],
    )
    assert [(one.revision, one.before) for one in code.upgrade("001_orders.sql")] == [("001_orders.sql", "")]
    assert code.revision() == "001_orders.sql"
    (files / "002_no_orders.sql").write_text("DROP TABLE nothing;\n")
    with pytest.raises(Failure, match=r"002_no_orders\.sql failed at line 1") as told:
        code.upgrade("002_no_orders.sql")
    assert told.value.facts["applied"] == []
    assert code.revision() == "001_orders.sql"
    with pytest.raises(Failure, match="no way back"):
        code.downgrade("")


@pytest.mark.parametrize(
    ("facts", "restored"),
    [
        ({"applied": []}, False),
        ({"applied": [], "kept": True}, True),
        ({"applied": [{"revision": "0003"}]}, True),
        # Nobody could look afterwards.
        ({}, True),
    ],
)
def test_a_backup_is_restored_only_over_what_a_failed_migration_has_left(monkeypatch, tmp_path, facts, restored):
    """Fails when it always is: what users wrote since the backup would be gone for nothing."""
    asked = []
    work = migrate.Migrate(dry=False)
    work.began, work.backup = True, SimpleNamespace(name="shop-1.db")
    monkeypatch.setattr(work, "_put_back", lambda *given: asked.append("restored") or given[-1])
    monkeypatch.setattr(work, "_record", lambda *given: None)
    monkeypatch.setattr(work, "_code", lambda options, release: SimpleNamespace(database=None, revision=lambda: "0002"))
    options = {"app": "shop", "root": str(tmp_path), "release": "1.0.0-a", "undo": "restore"}
    failure = work.rescue(options, Failure("It failed.", **facts))
    assert asked == (["restored"] if restored else [])
    assert restored or "The database is at revision 0002. The backup from before it: shop-1.db." in failure.what
