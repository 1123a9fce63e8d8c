# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every page, by the test client, on a database of its own: ``python -m unittest tests.endpoints``."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from alembic import command
from alembic.config import Config
from fastapi.testclient import TestClient

# The application reads its environment when it is imported.
DIRECTORY = tempfile.TemporaryDirectory()
unittest.addModuleCleanup(DIRECTORY.cleanup)
DATABASE = Path(DIRECTORY.name) / "notes.db"
os.environ.update({"DATABASE_URL": f"sqlite:///{DATABASE}", "APP_VERSION": "7.0.0", "APP_RELEASE": "7.0.0-abc"})

from notes.config import TREE  # noqa: E402
from notes.main import app  # noqa: E402
from notes.models import engine  # noqa: E402


class Endpoints(unittest.TestCase):
    def setUp(self) -> None:
        engine.dispose()
        for path in DATABASE.parent.iterdir():
            path.unlink()

    def client(self, migrated: bool = True) -> TestClient:
        if migrated:
            command.upgrade(Config(TREE / "alembic.ini"), "head")
        return self.enterContext(TestClient(app)) if hasattr(self, "enterContext") else TestClient(app)

    def test_the_greeting_tells_the_version(self) -> None:
        answer = self.client().get("/")
        self.assertEqual(answer.json(), {"greeting": "Welcome!", "version": "7.0.0"})
        self.assertEqual(answer.headers["X-App-Version"], "7.0.0")

    def test_health(self) -> None:
        self.assertEqual(
            self.client().get("/health").json(),
            {"status": "ok", "version": "7.0.0", "release": "7.0.0-abc", "database": "ready", "pid": os.getpid()},
        )

    def test_a_database_that_is_not_migrated_is_told_and_not_made(self) -> None:
        client = self.client(migrated=False)
        self.assertFalse(DATABASE.exists())
        answer = client.get("/health")
        self.assertEqual((answer.status_code, answer.json()["database"]), (200, "empty"))
        self.assertEqual(client.get("/notes").status_code, 503)

    def test_notes_are_kept(self) -> None:
        client = self.client()
        written = client.post("/notes", json={"text": "buy tea"})
        self.assertEqual((written.status_code, written.json()), (201, {"id": 1, "text": "buy tea"}))
        self.assertEqual(client.get("/notes").json(), {"count": 1, "newest": [{"id": 1, "text": "buy tea"}]})
        self.assertEqual(client.post("/notes", json={"text": 3}).status_code, 422)

    def test_echo_changes_nothing(self) -> None:
        body = bytes(range(256))
        answer = self.client().post("/echo", content=body, headers={"Content-Type": "image/png"})
        self.assertEqual((answer.content, answer.headers["Content-Type"]), (body, "image/png"))

    def test_slow_is_bounded(self) -> None:
        client = self.client()
        self.assertEqual(client.get("/slow?seconds=0.01").json(), {"slept": 0.01})
        self.assertEqual(client.get("/slow?seconds=1000").status_code, 422)

    def test_stream(self) -> None:
        self.assertEqual(self.client().get("/stream").text, "".join(f"chunk {number}\n" for number in range(10)))

    def test_an_error_tells_the_version_too(self) -> None:
        self.assertEqual(self.client().get("/nothing").headers["X-App-Version"], "7.0.0")


if __name__ == "__main__":
    unittest.main()
