# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is planned from where database and code are, and what is said when it must not be."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _sandbox
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import alembic, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.migrating import SPEC, Migration, Observed, app_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

SQLITE = alembic.App(url.Sqlite("/srv/shop.db"), "/v/bin/python", "/srv/release", "shop")
POSTGRES = alembic.App(
    url.Postgres("shop", "db", 5432, "shop", "pa@:/?#%ss"), "/v/bin/python", "/srv/release", "shop", environment_files=("/srv/.env",)
)
OPTIONS = {name: option.get("default") for name, option in SPEC.items()}


def step(revision, down=None, sql="SELECT 1", kind="expanding"):
    return {"revision": revision, "down_revision": down, "doc": f"make {revision}", "sql": sql, "incomplete": "", "kind": kind}


def inspection(database, *steps, **more):
    judged = {one["revision"]: {"kind": one["kind"], "why": ["because"]} for one in steps}
    return alembic.Inspection(tuple(database), ("c",), frozenset("abc"), steps=steps, classification=judged, **more)


def planned(seen, app=SQLITE, **options):
    migration = Migration(dry=True)
    changes = migration.plan({**OPTIONS, **options}, Observed(app, seen))
    report = migration.report({**OPTIONS, **options}, Observed(app, seen))
    return [(change.target, change.before, change.after) for change in changes], report


B, C, DROPS = step("b", "a"), step("c", "b"), step("c", "b", kind="contracting")


def test_an_upgrade_shows_each_revision_with_its_sql():
    changes, report = planned(inspection("a", B, C))
    assert changes == [
        ("revision b (make b)", None, "SELECT 1"),
        ("revision c (make c)", None, "SELECT 1"),
        ("/srv/shop.db", "a", "c"),
    ]
    assert (report["before"], report["after"], report["applied"], report["held"]) == (["a"], ["c"], [], [])
    assert [one["revision"] for one in report["pending"]] == ["b", "c"] and report["sql"] == {"b": "SELECT 1", "c": "SELECT 1"}


def test_at_the_head_nothing_is_planned():
    assert planned(inspection("c"))[0] == []


def test_what_is_known_of_a_newer_database_is_told_and_nothing_planned():
    changes, report = planned(inspection("x", unknown=("x",)), command="current")
    assert changes == [] and report["unknown"] == ["x"]


def test_a_downgrade_is_never_asked_whether_it_contracts():
    changes, report = planned(inspection("c", DROPS), command="downgrade", revision="-1")
    assert changes == [("revision c (make c)", "SELECT 1", None), ("/srv/shop.db", "c", "b")] and report["after"] == ["b"]


def test_sql_that_is_not_all_says_so():
    seen = inspection("a", {**B, "sql": "", "incomplete": "it cannot run without a database: x"})
    assert planned(seen)[1]["sql"] == {"b": "-- This is not all: it cannot run without a database: x."}


def test_what_contracts_is_refused_held_or_let_go():
    seen = inspection("a", B, DROPS)
    with pytest.raises(Failure, match=r"make c\): contracting\n    because"):
        planned(seen)
    changes, report = planned(seen, contracting="hold")
    assert changes[-1] == ("/srv/shop.db", "a", "b") and [one["revision"] for one in report["held"]] == ["c"]
    assert planned(seen, contracting="allow")[1]["after"] == ["c"]
    assert planned(seen, allow_contracting={"c": "nobody reads it"})[1]["after"] == ["c"]
    with pytest.raises(Failure, match="found no reason for c"):
        planned(seen, allow_contracting={"c": " "})


def test_what_is_unknown_counts_as_contracting():
    with pytest.raises(Failure, match="unknown"):
        planned(inspection("a", step("b", "a", kind="unknown")))


def test_what_comes_after_what_is_held_is_held_too():
    seen = inspection("a", step("b", "a", kind="contracting"), C)
    changes, report = planned(seen, contracting="hold")
    assert changes == [] and [one["revision"] for one in report["held"]] == ["b", "c"] and report["after"] == ["a"]


def test_in_an_empty_database_no_release_can_be_hurt():
    assert planned(inspection("", step("a"), step("c", "a", kind="contracting")))[1]["after"] == ["c"]


def test_tables_without_a_revision():
    seen = inspection("", C, tables=("item",), stamped=("b",))
    with pytest.raises(Failure, match=r"has tables \(item\) and no revision"):
        planned(seen)
    with pytest.raises(Failure, match="cannot be proven"):
        planned(seen, untracked="stamp")
    assert planned(inspection("", B, tables=("item",)), untracked="ignore")[0][-1] == ("/srv/shop.db", "no revision", "b")


def proof(differences=(), unprovable=()):
    return {"differences": list(differences), "unprovable": list(unprovable), "against": "the migrations"}


def test_an_untracked_schema_is_stamped_only_when_it_is_proven():
    seen = {"tables": ("item",), "stamped": ("b",)}
    changes, _report = planned(inspection("", C, proof=proof(), **seen), untracked="stamp", untracked_revision="b")
    assert changes[0] == ("/srv/shop.db", "tables without a revision", "stamped b")
    assert changes[-1] == ("/srv/shop.db", "stamped b", "c")
    with pytest.raises(Failure, match=r"is not that of revision b .*\n- add_column item.price"):
        planned(inspection("", C, proof=proof(["add_column item.price"]), **seen), untracked="stamp", untracked_revision="b")
    with pytest.raises(Failure, match=r"cannot be proven.*\n- a: raw SQL"):
        planned(inspection("", C, proof=proof(unprovable=["a: raw SQL"]), **seen), untracked="stamp", untracked_revision="b")


def test_branches_are_followed():
    merge = step("m", ["b", "c"])
    assert alembic.after(["a"], [step("b", "a"), step("c", "a"), merge], "upgrade") == ["m"]
    assert alembic.after(["m"], [merge], "downgrade") == ["b", "c"]


@pytest.mark.parametrize(
    "error,said",
    [
        ({"kind": "no_alembic", "detail": "No module named 'alembic'"}, ["no Alembic", "/v/bin/python", "requirements"]),
        ({"kind": "several_heads", "heads": ["b (x)", "c (y)"]}, ["2 heads: b (x), c (y)", "alembic merge heads"]),
        ({"kind": "broken_chain", "detail": "KeyError: 'a'"}, ["no unbroken chain", "KeyError: 'a'", "down_revision"]),
        ({"kind": "no_such_revision", "detail": "Can't locate zz"}, ["cannot be reached", "Can't locate zz"]),
        ({"kind": "other_database", "detail": "other"}, ["works on other, not on shop@db:5432/shop", "DATABASE_URL"]),
        ({"kind": "several_databases"}, ["several databases"]),
        ({"kind": "no_context"}, ["context.run_migrations()"]),
        ({"kind": "no_models"}, ["target_metadata is None"]),
        (
            {"kind": "no_app", "detail": "it is a str", "where": "shop.py line 3: x"},
            ["gives no Flask app", "it is a str", "shop.py line 3"],
        ),
        ({"kind": "moved", "found": ["b"]}, ["is at b now", "without the lock"]),
        ({"kind": "died", "status": 9, "detail": "Killed"}, ["ended with status 9", "Killed"]),
        ({"kind": "failed", "detail": "boom", "where": "v/a.py line 1: x"}, ["The migrations failed (v/a.py line 1: x)", "boom"]),
        ({"kind": "failed", "detail": "attempt to write", "read_only": True}, ["cannot be written to", "standby"]),
    ],
)
def test_every_error_says_what_and_what_to_do(error, said):
    message = alembic.explain(error, POSTGRES).message()
    assert not [text for text in said if text not in message], message
    assert "pa@" not in message


def test_only_a_lock_time_out_is_tried_again():
    assert isinstance(alembic.explain({"kind": "failed", "detail": "lock timeout", "lock": True}, POSTGRES), alembic.LockTimeout)
    assert not isinstance(alembic.explain({"kind": "failed", "detail": "x", "lock": False}, POSTGRES), alembic.LockTimeout)


@pytest.mark.parametrize(
    "files,more,found",
    [
        (["alembic.ini"], {}, ("alembic", "alembic.ini")),
        (["alembic.ini", "migrations/env.py"], {}, ("alembic", "alembic.ini")),
        (["migrations/env.py"], {}, ("flask_migrate", "migrations")),
        (["db/env.py"], {"config": "db"}, ("flask_migrate", "db")),
        ([], {"config": "conf/alembic.ini"}, ("alembic", "conf/alembic.ini")),
        (["alembic.ini"], {"layout": "flask_migrate"}, ("flask_migrate", "migrations")),
        (["pyproject.toml"], {}, ("alembic", "alembic.ini")),
    ],
)
def test_the_layout(tmp_path, files, more, found):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("from flask import current_app\n[tool.alembic]\n")
    assert alembic.layout_of(alembic.App(SQLITE.database, "p", str(tmp_path), "shop", **more)) == found


def test_no_layout_says_what_was_looked_for(tmp_path):
    with pytest.raises(Failure, match=r"no alembic\.ini"):
        alembic.layout_of(alembic.App(SQLITE.database, "p", str(tmp_path), "shop"))


def test_a_relative_database_is_the_projects(tmp_path):
    options = {**OPTIONS, "project": "/srv/release", "python": "p", "user": "shop", "url": "sqlite:///shared/app.db"}
    assert app_of(options).database.path == "/srv/release/shared/app.db"
    assert app_of({**options, "directory": "/srv/slot"}).database.path == "/srv/slot/shared/app.db"


def test_no_secret_and_no_source_is_in_the_arguments():
    argv = alembic._command_line(POSTGRES)
    assert "--property=EnvironmentFile=-/srv/.env" in argv or "EnvironmentFile=-/srv/.env" in argv
    assert "pa@" not in " ".join(argv) and "$" not in argv[-1] and argv[-3:-1] == ["/v/bin/python", "-c"]


def test_the_program_is_told_when_its_caller_ends():
    """Its input has one line and stays open: only the end of this process, or of the conversation, ends it."""
    program = "import os,select,sys; print(sys.stdin.readline().strip(), bool(select.select([0], [], [], 0)[0]))"
    assert _sandbox.ask(["python3", "-c", program], "hello", 20).stdout == "hello False\n"
