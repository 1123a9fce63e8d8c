# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every page, by the test client, on a database of its own: ``python -m unittest tests.endpoints``."""

from __future__ import annotations

import os
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from alembic import command
from alembic.config import Config
from flask.testing import FlaskClient
from shop import create_app
from shop.config import TREE


class Endpoints(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.database = Path(directory.name) / "shop.db"
        self.environment = {"DATABASE_URL": f"sqlite:///{self.database}", "APP_VERSION": "7.0.0", "APP_RELEASE": "7.0.0-abc"}
        replaced = mock.patch.dict(os.environ, self.environment)
        replaced.start()
        self.addCleanup(replaced.stop)

    def client(self, migrated: bool = True) -> FlaskClient:
        if migrated:
            command.upgrade(Config(TREE / "alembic.ini"), "head")
        return create_app().test_client()

    def test_the_greeting_tells_the_version(self) -> None:
        answer = self.client().get("/")
        self.assertEqual(answer.get_json(), {"greeting": "Welcome!", "version": "7.0.0"})
        self.assertEqual(answer.headers["X-App-Version"], "7.0.0")

    def test_without_an_environment_the_version_is_that_of_the_tree(self) -> None:
        del os.environ["APP_VERSION"]
        self.assertEqual(self.client().get("/health").get_json()["version"], (TREE / "VERSION").read_text().strip())

    def test_health(self) -> None:
        self.assertEqual(
            self.client().get("/health").get_json(),
            {"status": "ok", "version": "7.0.0", "release": "7.0.0-abc", "database": "ready", "pid": os.getpid()},
        )

    def test_a_database_that_is_not_migrated_is_told_and_not_made(self) -> None:
        client = self.client(migrated=False)
        self.assertFalse(self.database.exists())
        answer = client.get("/health")
        self.assertEqual((answer.status_code, answer.get_json()["database"]), (200, "empty"))
        self.assertEqual(client.get("/orders").status_code, 503)
        self.assertEqual(client.post("/orders", json={"item": "tea"}).status_code, 503)

    def test_a_database_that_cannot_be_opened_is_an_error(self) -> None:
        os.environ["DATABASE_URL"] = "sqlite:////nowhere/shop.db"
        answer = self.client(migrated=False).get("/health")
        self.assertEqual((answer.status_code, answer.get_json()["database"]), (503, "unreachable"))

    def test_orders_are_kept(self) -> None:
        client = self.client()
        placed = client.post("/orders", json={"item": "tea", "quantity": 2})
        self.assertEqual((placed.status_code, placed.get_json()), (201, {"id": 1, "item": "tea", "quantity": 2}))
        self.assertEqual(client.get("/orders").get_json(), {"count": 1, "newest": [{"id": 1, "item": "tea", "quantity": 2}]})
        for wrong in ("tea", {"item": 3}, {"item": "tea", "quantity": "two"}):
            self.assertEqual(client.post("/orders", json=wrong).status_code, 400)

    def test_echo_changes_nothing(self) -> None:
        body = bytes(range(256))
        answer = self.client().post("/echo", data=body, content_type="image/png")
        self.assertEqual((answer.data, answer.content_type), (body, "image/png"))

    def test_slow_is_bounded(self) -> None:
        client = self.client()
        self.assertEqual(client.get("/slow?seconds=0.01").get_json(), {"slept": 0.01})
        with mock.patch.object(time, "sleep") as sleep:
            self.assertEqual(client.get("/slow?seconds=1000").get_json(), {"slept": 5.0})
        sleep.assert_called_once_with(5.0)

    def test_stream_takes_its_time(self) -> None:
        began = time.monotonic()
        answer = self.client().get("/stream")
        self.assertEqual(answer.text, "".join(f"chunk {number}\n" for number in range(10)))
        self.assertGreater(time.monotonic() - began, 0.9)

    def test_an_error_tells_the_version_too(self) -> None:
        self.assertEqual(self.client().get("/nothing").headers["X-App-Version"], "7.0.0")


if __name__ == "__main__":
    unittest.main()
