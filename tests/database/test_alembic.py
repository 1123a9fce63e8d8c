# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alembic's migrations of small generated projects, on real SQLite and real PostgreSQL."""

from __future__ import annotations

import json
import typing as t

import pytest
from database.alembic_projects import FLASK_APP, FLASK_ENV, MODELS, Project

SHOP = {
    "a1": (
        None,
        "op.create_table('item', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.String(40)))",
        "op.drop_table('item')",
    ),
    "a2": ("a1", "op.add_column('item', sa.Column('price', sa.Integer))", "op.drop_column('item', 'price')"),
}
DROPS = {"a3": ("a2", "op.drop_column('item', 'name')", "op.add_column('item', sa.Column('name', sa.String(40)))")}
ADDS = {"a4": ("a3", "op.create_table('late', sa.Column('id', sa.Integer, primary_key=True))", "op.drop_table('late')")}


@pytest.fixture(scope="module")
def python(module, server, host):
    """The environment of an app: what it needs for all of these projects."""
    host.run(["sh", "-c", "id app 2> /dev/null || useradd --system --user-group --no-create-home app"])
    wanted = ["alembic", "sqlalchemy", "psycopg[binary]", "aiosqlite", "greenlet", "flask-migrate", "flask-sqlalchemy"]
    built = module.must("virtualenv", kind="none", venvs="/opt/app/venvs", extra=wanted)
    return f"{built['path']}/bin/python"


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request, module, host, server, python) -> Project:
    return Project(module, host, python, server if request.param == "postgresql" else None)


@pytest.fixture
def sqlite(module, host, python) -> Project:
    return Project(module, host, python, None)


@pytest.fixture
def postgres(module, host, server, python) -> Project:
    return Project(module, host, python, server)


def ids(steps: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    return [step["revision"] for step in steps]


def test_up_again_and_down(project):
    """Fails without the account: an SQLite file of root's. Fails without the file's owner: ``query_only``, so that check mode makes the database."""
    project.write(SHOP)
    before = project.tables()
    planned = project.must("--check", "--diff")
    assert planned["changed"] and ids(planned["pending"]) == ["a1", "a2"] and planned["after"] == ["a2"]
    assert "CREATE TABLE item" in planned["sql"]["a1"] and "ADD COLUMN price" in planned["said"]
    assert project.tables() == before == "" and not project.database_exists_unless_server()
    done = project.must()
    assert (done["changed"], done["before"], done["after"], ids(done["applied"])) == (True, [], ["a2"], ["a1", "a2"])
    assert all(step["seconds"] >= 0 and step["doc"] == f"make {step['revision']}" for step in done["applied"])
    assert "item" in project.tables() and project.owner() == "app"
    again = project.must()
    assert (again["changed"], again["applied"], again["before"]) == (False, [], ["a2"])
    back = project.must(command="downgrade", revision="-1")
    assert (back["before"], back["after"], ids(back["applied"])) == (["a2"], ["a1"], ["a2"])
    assert project.secret not in json.dumps([planned, done, again, back])
