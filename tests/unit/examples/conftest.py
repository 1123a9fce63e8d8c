# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example applications as they really run: their own environments, real trees, real gunicorn on a Unix socket."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "examples"
SERVERS = {
    "flask": ("shop.wsgi:app", "sync"),
    "fastapi": ("notes.main:app", "uvicorn_worker.UvicornWorker"),
}
PATIENCE = 40.0


@pytest.fixture(scope="session")
def uv() -> str:
    found = shutil.which("uv", path=os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))))
    if found is None:
        pytest.fail("uv is not on this machine; it builds the environments of the example applications: pip install uv")
    return found


def environment_of(app: str, uv: str) -> Path:
    """The application's virtual environment, built from its lock once and kept for the next run."""
    example = versions.APPS[app]
    lock = (example.directory / example.lock).read_bytes()
    environment = CACHE / f"{app}-{hashlib.sha256(lock + sys.version.encode()).hexdigest()[:16]}"
    complete = environment / "complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{app}.lock", "w", encoding="utf-8") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        if not complete.exists():
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
            if app == "flask":
                argv = [uv, "pip", "install", "--quiet", "--require-hashes", f"--python={environment}/bin/python", "-r", example.lock]
            else:
                argv = [uv, "sync", "--quiet", "--frozen"]
            subprocess.run(argv, cwd=example.directory, env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}, check=True)
            complete.touch()
    return environment


@pytest.fixture(scope="session", params=sorted(versions.APPS))
def app(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def python(app: str, uv: str) -> Path:
    return environment_of(app, uv) / "bin" / "python"


@dataclass(frozen=True)
class Answer:
    status: int
    version: str | None
    body: bytes

    def json(self) -> t.Any:
        return json.loads(self.body)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Server:
    """One gunicorn that serves one version of an application."""

    def __init__(self, python: Path, app: str, tree: Path, directory: Path, workers: int, worker_class: str, **environment: str) -> None:
        self.socket = directory / "app.sock"
        self.log = directory / "log"
        self.began = time.monotonic()
        entry_point, default_class = SERVERS[app]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(python, "-m", "gunicorn", f"--bind=unix:{self.socket}", f"--workers={workers}"),
                    *(f"--worker-class={worker_class or default_class}", "--graceful-timeout=2", entry_point),
                ],
                cwd=tree,
                env={**os.environ, "DATABASE_URL": f"sqlite:///{directory / 'app.db'}", **environment},
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, timeout: float = 10, kind: str = "") -> Answer:
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            return Answer(response.status, response.headers["X-App-Version"], response.read())
        finally:
            connection.close()

    def wait(self, path: str = "/health") -> Answer:
        """The first answer."""
        while True:
            try:
                return self.ask(path, timeout=PATIENCE)
            except (FileNotFoundError, ConnectionError):
                assert self.process.poll() is None and self.age() < PATIENCE, self.said()
                time.sleep(0.05)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)

    def age(self) -> float:
        return time.monotonic() - self.began

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until_said(self, words: str, times: int = 1) -> None:
        while self.said().count(words) < times:
            assert self.age() < PATIENCE, self.said()
            time.sleep(0.05)

    def stop(self) -> None:
        # Gunicorn kills a worker that hangs when the graceful timeout is over.
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def serve(app: str, python: Path, tmp_path: Path) -> t.Iterator[t.Callable[..., Server]]:
    """Start a version under gunicorn; a short path, because a socket's may have 107 characters only."""
    directory = Path(tempfile.mkdtemp(prefix="example-"))
    started: list[Server] = []

    def start(tag: str, workers: int = 1, worker_class: str = "", migrated: bool = False, **environment: str) -> Server:
        tree = tmp_path / "tree"
        versions.make_tree(tree, app, tag)
        if migrated:
            subprocess.run(
                [python, "-m", "alembic", "--raiseerr", "upgrade", "head"],
                cwd=tree,
                env={**os.environ, "DATABASE_URL": f"sqlite:///{directory / 'app.db'}"},
                check=True,
                capture_output=True,
            )
        started.append(Server(python, app, tree, directory, workers, worker_class, **environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()
    shutil.rmtree(directory)
