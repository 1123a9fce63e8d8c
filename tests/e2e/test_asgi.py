# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An ASGI application: FastAPI, its environment from uv.lock, uvicorn's workers."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.bulletproof.deploy.examples import versions
from e2e.conftest import NewApp
from e2e.traffic import under_load

from lab.hosts import Host


def test_asgi_updates_and_rollbacks_lose_no_request(new_app: NewApp, host: Host, tmp_path: Path) -> None:
    repository = tmp_path / "notes"
    versions.make_repository(repository, "fastapi")
    notes = new_app(
        "notes",
        [host],
        app_source=str(repository),
        app_entrypoint="notes.main:app",
        app_interface="asgi",
        app_worker_class="uvicorn_worker.UvicornWorker",
        app_health_version={"json": "version"},
        app_environment={"DATABASE_URL": "sqlite:////opt/notes/shared/notes.db"},
    )
    notes.deploy("1.0.0")
    with under_load(notes, "asgi deploy") as traffic:
        notes.deploy("1.1.0")
    assert traffic.versions() == ["1.0.0", "1.1.0"]
    assert not traffic.returned("1.0.0", "1.1.0")
    with under_load(notes, "asgi rollback") as traffic:
        notes.roll_back()
    assert traffic.versions() == ["1.1.0", "1.0.0"]
    assert not traffic.returned("1.1.0", "1.0.0")
    assert notes.version() == "1.0.0"
