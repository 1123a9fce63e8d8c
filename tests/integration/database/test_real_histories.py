# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The migration histories of published applications, from nothing to their newest revision, one step down and up again.

They were written by people who had never heard of this collection: old Alembic idioms, batch operations, raw SQL, data migrations that need a live database.
"""

from __future__ import annotations

import dataclasses

import pytest
from integration.database.alembic_projects import Project
from integration.database.direct import Direct
from integration.database.test_alembic import environment


@dataclasses.dataclass(frozen=True)
class Application:
    """:param project: The directory that its alembic.ini is written for, below site-packages.
    :param first: What the application makes itself before its first migration, given an ``engine``.
    """

    name: str
    requirements: list[str]
    project: str
    config: str
    first: str = ""


MLFLOW = Application(
    "mlflow",
    ["mlflow-skinny==3.17.2", "sqlalchemy<2.1", "alembic", "psycopg2-binary"],
    "",
    "mlflow/store/db_migrations/alembic.ini",
    "from mlflow.store.tracking.dbmodels.initial_models import Base; Base.metadata.create_all(engine)",
)
OPTUNA = Application("optuna", ["optuna==5.0.0", "sqlalchemy<2.1", "psycopg2-binary"], "optuna/storages/_rdb", "alembic.ini")


@pytest.fixture(scope="module")
def direct(host) -> Direct:
    return Direct(host)


def history(module, direct, host, server, application: Application) -> None:
    python = environment(module, host, application.requirements)
    project = Project(direct, host, python, server)
    site = host.run([python, "-c", "import site; print(site.getsitepackages()[0])"]).stdout.strip()
    if application.first:
        make = f"import os, sqlalchemy; engine = sqlalchemy.create_engine({project.url!r}); {application.first}"
        host.run([python, "-c", make], user="app")
    usual = {"project": f"{site}/{application.project}", "config": application.config, "untracked": "ignore", "contracting": "allow"}
    planned = project.must("--check", **usual)
    assert len(planned["pending"]) > 5 and set(planned["classification"]) == {step["revision"] for step in planned["pending"]}
    assert {found["kind"] for found in planned["classification"].values()} <= {"expanding", "contracting", "unknown"}
    done = project.must(**usual)
    assert (done["after"], len(done["applied"])) == (done["heads"], len(planned["pending"]))
    assert not project.must(**usual)["changed"]
    newest = done["applied"][-1]
    down = newest["down_revision"]
    back = project.must(command="downgrade", revision="-1", **usual)
    assert back["after"] == ([down] if isinstance(down, str) else down)
    assert project.must(**usual)["after"] == done["heads"]


def test_a_sample(module, direct, host, server):
    history(module, direct, host, None, OPTUNA)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("application", [MLFLOW, OPTUNA], ids=lambda one: one.name)
def test_all(request, module, direct, host, server, application, kind):
    if not request.config.getoption("matrix"):
        pytest.skip("Only with --matrix.")
    history(module, direct, host, server if kind == "postgresql" else None, application)
