# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lab hosts that all stories share, and the apps on them."""

from __future__ import annotations

import itertools
import os
import subprocess
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions
from e2e.apps import App, forget

from lab import hosts as lab_hosts
from lab.deployment import COLLECTIONS, REPOSITORY
from lab.hosts import Host

PORTS = itertools.count(8001)
# Each worker of pytest-xdist has hosts of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "one")

NewApp = t.Callable[..., App]


@pytest.fixture(scope="session")
def collection() -> Path:
    """The collection as it is installed: built from the checkout, which nothing refers to from then on."""
    if "BULLETPROOF_COLLECTIONS" not in os.environ:
        subprocess.run(["make", "--no-print-directory", "collection"], cwd=REPOSITORY, check=True)
    installed = COLLECTIONS / "ansible_collections" / "bulletproof" / "deploy"
    assert (installed / "MANIFEST.json").is_file(), f"{installed} is no installed collection: run make collection."
    return installed


@pytest.fixture(scope="session")
def host(collection: Path) -> Host:
    (host,) = lab_hosts.up([f"e2e-{WORKER}"])
    forget(host)
    return host


@pytest.fixture(scope="session")
def two_hosts(host: Host) -> list[Host]:
    (other,) = lab_hosts.up([f"e2e-{WORKER}-too"])
    forget(other)
    return [host, other]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example shop: a Git repository with a tag for each version, good and bad."""
    path = tmp_path_factory.mktemp("source") / "shop"
    versions.make_repository(path)
    return path


@pytest.fixture(scope="module")
def new_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewApp]:
    """Declare an app on hosts; it is stopped when the module's tests are done."""
    made: list[App] = []

    def new(name: str, hosts: list[Host], balancers: t.Sequence[Host] = (), **declaration: object) -> App:
        given = {"app_name": name, "app_listen": next(PORTS), "app_watch": 2, **declaration}
        app = App(tmp_path_factory.mktemp(name), hosts, given, balancers)
        made.append(app)
        return app

    yield new
    for app in made:
        app.stop()


@pytest.fixture(scope="module")
def new_shop(new_app: NewApp, repository: Path) -> NewApp:
    """Declare the example shop under a name of its own."""

    def new(name: str, hosts: list[Host], balancers: t.Sequence[Host] = (), **declaration: object) -> App:
        shop = {
            "app_source": str(repository),
            "app_entrypoint": "shop.wsgi:app",
            "app_health_version": {"json": "version"},
            "app_environment": {"DATABASE_URL": f"sqlite:////opt/{name}/shared/shop.db"},
        }
        return new_app(name, hosts, balancers, **{**shop, **declaration})

    return new
