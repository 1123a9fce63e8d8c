# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The good versions, under a real gunicorn; and each bad one, that it is bad in just the way that it claims."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
import time
import typing as t
from collections import Counter
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine

from .conftest import PATIENCE

if t.TYPE_CHECKING:
    from .conftest import Server

Serve = t.Callable[..., "Server"]
ONE_APP_WILL_DO = pytest.mark.parametrize("app", ["flask"], indirect=True)
CREATE = {"flask": "shop.wsgi", "fastapi": "notes.main"}


def test_its_own_tests_pass(app: str, python: Path, tmp_path: Path) -> None:
    versions.make_tree(tmp_path / "tree", app, "1.0.0")
    subprocess.run([python, "-m", "unittest", "--quiet", "tests.endpoints"], cwd=tmp_path / "tree", check=True)


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_a_good_version_serves(app: str, serve: Serve, worker_class: str) -> None:
    if app == "fastapi":
        if worker_class == "gthread":
            pytest.skip("not a WSGI application")
        worker_class = ""
    server = serve("1.1.0", 3, worker_class, migrated=True, APP_VERSION="1.1.0", APP_RELEASE="1.1.0-abc")
    health = server.wait()
    assert (health.status, health.version) == (200, "1.1.0")
    told = health.json()
    assert told.pop("pid") != server.process.pid
    assert told == {"status": "ok", "version": "1.1.0", "release": "1.1.0-abc", "database": "ready"}
    assert server.ask("/").json() == {"greeting": "Welcome back!", "version": "1.1.0"}
    assert server.ask("/nothing").version == "1.1.0"

    writable: dict[str, tuple[str, dict[str, object]]] = {
        "flask": ("/orders", {"item": "tea", "quantity": 2}),
        "fastapi": ("/notes", {"text": "tea"}),
    }
    kept, body = writable[app]
    assert server.ask(kept, "POST", json.dumps(body).encode(), kind="application/json").status == 201
    assert server.ask(kept).json() == {"count": 1, "newest": [{"id": 1, **body}]}

    large = os.urandom(300_000)
    assert server.ask("/echo", "POST", large).body == large
    began = time.monotonic()
    assert server.ask("/slow?seconds=0.4").json() == {"slept": 0.4}
    assert time.monotonic() - began >= 0.4
    began = time.monotonic()
    assert server.ask("/stream").body.count(b"chunk") == 10
    assert time.monotonic() - began > 0.9


@ONE_APP_WILL_DO
def test_without_an_environment_it_tells_the_version_of_its_tree(serve: Serve) -> None:
    assert serve("2.0.0").wait("/").json() == {"greeting": "Good to see you again!", "version": "2.0.0"}


@ONE_APP_WILL_DO
def test_slow_start(serve: Serve) -> None:
    server = serve("1.2.0-slow-start")
    assert server.wait().json()["version"] == "1.2.0-slow-start"
    assert server.age() >= 3


@ONE_APP_WILL_DO
def test_very_slow_start(serve: Serve) -> None:
    server = serve("1.2.0-very-slow-start")
    server.wait_until_said("Booting worker")
    with pytest.raises(TimeoutError):
        server.ask("/health", timeout=5)


def imports(python: Path, app: str, tmp_path: Path, module: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}"}
    return subprocess.run(
        [python, "-c", f"import {module}"], cwd=tmp_path / "tree", env=environment, capture_output=True, encoding="utf-8", check=False
    )


def ends_at_once(server: Server, name: str) -> None:
    assert server.ended() == 3, server.said()
    assert f"RuntimeError: {name}: " in server.said()


def test_crash_on_import(app: str, python: Path, serve: Serve, tmp_path: Path) -> None:
    ends_at_once(serve("1.2.0-crash-on-import"), "crash-on-import")
    assert imports(python, app, tmp_path, CREATE[app]).returncode != 0


def test_crash_on_start(app: str, python: Path, serve: Serve, tmp_path: Path) -> None:
    ends_at_once(serve("1.2.0-crash-on-start"), "crash-on-start")
    assert imports(python, app, tmp_path, {"flask": "shop", "fastapi": "notes.main"}[app]).returncode == 0


def test_crash_on_boot(app: str, python: Path, serve: Serve, tmp_path: Path) -> None:
    ends_at_once(serve("1.2.0-crash-on-boot"), "crash-on-boot")
    assert imports(python, app, tmp_path, CREATE[app]).returncode == 0


def test_crash_after_5s(serve: Serve) -> None:
    server = serve("1.2.0-crash-after-5s", 3)
    assert server.wait().status == 200
    # Status 3, or 1 when a second worker ends while gunicorn is ending because of the first.
    assert server.ended() in (1, 3)
    assert server.age() >= 5
    assert "crash-after-5s: the price list is corrupt" in server.said()


@ONE_APP_WILL_DO
def test_workers_crash_after_5s(serve: Serve) -> None:
    server = serve("1.2.0-workers-crash-after-5s")
    first = server.wait().json()["pid"]
    server.wait_until_said("workers-crash-after-5s: ")
    assert server.age() >= 5
    assert server.wait().json()["pid"] != first
    assert server.process.poll() is None


def test_always_500(serve: Serve) -> None:
    server = serve("1.2.0-always-500")
    answers = [server.wait(), server.ask("/"), server.ask("/echo", "POST", b"x")]
    assert {(answer.status, answer.version) for answer in answers} == {(500, "1.2.0-always-500")}
    assert "RuntimeError: always-500" in server.said()


@ONE_APP_WILL_DO
def test_fails_from_third_request(serve: Serve) -> None:
    server = serve("1.2.0-fails-from-third-request")
    statuses = [server.wait().status] + [server.ask("/").status for _request in range(4)]
    assert statuses == [200, 200, 500, 500, 500]


@ONE_APP_WILL_DO
def test_fails_after_5s(serve: Serve) -> None:
    server = serve("1.2.0-fails-after-5s")
    assert server.wait().status == 200
    while server.ask("/health").status == 200:
        assert server.age() < 20
        time.sleep(0.1)
    assert server.age() >= 5
    assert server.ask("/").status == 500


def test_tells_old_version(serve: Serve) -> None:
    answer = serve("1.2.0-tells-old-version", APP_VERSION="1.2.0-tells-old-version").wait()
    assert (answer.status, answer.version, answer.json()["version"]) == (200, "1.0.0", "1.0.0")


def test_no_health_path(serve: Serve) -> None:
    server = serve("1.2.0-no-health-path")
    assert (server.wait("/").status, server.ask("/health").status) == (200, 404)


def booted(server: Server) -> Counter[int]:
    """How often a worker was started, and by that how often one ended."""
    return Counter(int(line.split("pid: ")[1]) for line in server.said().splitlines() if "Booting worker" in line)


@ONE_APP_WILL_DO
def test_one_worker_crashes(serve: Serve) -> None:
    server = serve("1.2.0-one-worker-crashes", 3)
    server.wait_until_said("one-worker-crashes: ", times=3)
    workers = list(booted(server))
    crashed = server.said().count("one-worker-crashes: ")
    assert server.process.poll() is None
    assert crashed <= len(workers) - 2
    # Of the first three, two are still there: only one at a time crashes.
    alive = [worker for worker in workers[:3] if os.path.exists(f"/proc/{worker}")]
    assert len(alive) == 2


def test_one_worker_hangs(serve: Serve) -> None:
    server = serve("1.2.0-one-worker-hangs", 3)
    good: set[int] = set()
    hung = False
    while not hung or len(good) < 2:
        assert server.age() < 25, f"hung: {hung}, good: {good}\n{server.said()}"
        try:
            good.add(server.ask("/health", timeout=1).json()["pid"])
        except TimeoutError:
            hung = True
        except (FileNotFoundError, ConnectionError):
            time.sleep(0.05)
    assert len(good) == 2


def test_no_environment_can_be_built_from_a_bad_lock(app: str, uv: str, tmp_path: Path) -> None:
    for tag in ("1.2.0-damaged-lock", "1.2.0-unresolvable"):
        tree = tmp_path / tag
        versions.make_tree(tree, app, tag)
        environment = tmp_path / f"{tag}-venv"
        if app == "flask":
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
            argv = [uv, "pip", "install", "--quiet", f"--python={environment}/bin/python", "-r", "requirements.txt"]
        else:
            argv = [uv, "sync", "--quiet", "--frozen"]
        failed = subprocess.run(
            argv,
            cwd=tree,
            env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert failed.returncode != 0
        assert {"1.2.0-damaged-lock": "Hash mismatch", "1.2.0-unresolvable": "99.99.99"}[tag] in failed.stderr


@ONE_APP_WILL_DO
def test_the_shop_passes_the_checks_of_its_checklist(serve: Serve, python: Path, tmp_path: Path) -> None:
    """Log in, upload, fetch, compare, clean up; a burst; what the log says; what is installed and can be imported."""
    upload = {
        "name": "upload",
        "url": "/attachments",
        "headers": {"Authorization": "Bearer {token}"},
        "form": {"file": {"content": "written by {unique}", "filename": "smoke.txt"}},
        "status": [201],
        "capture": {"id": "attachment_id", "stored": "storage_path", "address": "url"},
    }
    steps = [
        {"name": "log in", "url": "/login", "body": {"user": "shop", "password": "canary-12345"}, "capture": {"token": "token"}},
        upload,
        {"name": "fetch", "url": "{address}", "equals": {"content": "written by {unique}"}},
        {"name": "clean up", "url": "/attachments/{id}", "method": "DELETE", "headers": upload["headers"], "status": [204], "always": True},
    ]
    server = serve("1.1.0", 3, SHOP_PASSWORD="canary-12345", ATTACHMENT_SECRET="canary-67890", ATTACHMENT_DIRECTORY=str(tmp_path / "kept"))
    where = {"unix_socket": str(server.socket), "timeout": 30}
    log = {"type": "log", "files": [str(server.log)]}
    verdicts = engine.run_checks(
        [
            {"type": "smoke", "steps": steps, "deadline": PATIENCE, **where},
            {"type": "burst", "path": "/", "requests": 100, "deadline": PATIENCE, **where},
            {**log, "must": ["Booting worker", "Using local filesystem storage"], "never": ["python"], "deadline": PATIENCE},
            {
                **{"type": "import", "python": str(python), "directory": str(tmp_path / "tree"), "user": getpass.getuser()},
                **{"requires": ["flask>=2,<4", "gunicorn", "sqlalchemy~=2.0"], "entrypoint": "shop.wsgi:app", "timeout": PATIENCE},
            },
        ]
    )
    assert [one.verdict for one in verdicts] == ["pass"] * 4, engine.summary(verdicts)
    assert not list((tmp_path / "kept").iterdir()), "all was cleaned up"
    assert "canary" not in json.dumps([one.as_dict() for one in verdicts])
    # The other kind of log of the checklist, and a step that fails.
    verdict = engine.run_checks([{**log, "never": ["Using local filesystem storage"]}])[0]
    assert verdict.verdict == "fail" and "Using local filesystem storage" in verdict.evidence
    verdict = engine.run_checks([{"type": "smoke", "steps": [steps[0], {**upload, "url": "/uploads"}], **where}])[0]
    assert verdict.verdict == "fail" and "step 2 of 2, upload" in verdict.evidence
