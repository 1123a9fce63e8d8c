# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every page, by the test client, on a database of its own: ``python -m unittest tests.endpoints``."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
import types
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
        self.attachments = Path(directory.name) / "attachments"
        self.environment = {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "APP_VERSION": "7.0.0",
            "APP_RELEASE": "7.0.0-abc",
            "ATTACHMENT_DIRECTORY": str(self.attachments),
            "ATTACHMENT_SECRET": "for tests alone",
            "SHOP_PASSWORD": "pa:ss",
        }
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

    def attach(self, client: FlaskClient, content: bytes = b"a file") -> tuple[dict[str, str], dict[str, str]]:
        """Log in and leave a file; the answer, and the headers of who is logged in."""
        token = client.post("/login", json={"user": "shop", "password": "pa:ss"}).get_json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        answer = client.post("/attachments", headers=bearer, data={"file": (io.BytesIO(content), "../x.txt")})
        self.assertEqual(answer.status_code, 201)
        return answer.get_json(), bearer

    def test_attachments_in_a_directory(self) -> None:
        with self.assertLogs("shop", "INFO") as said:
            client = create_app().test_client()
        self.assertEqual([one.getMessage() for one in said.records], ["Using local filesystem storage"])
        attached, bearer = self.attach(client, bytes(range(256)))
        name = attached["attachment_id"]
        self.assertEqual((attached["storage_path"], [one.name for one in self.attachments.iterdir()]), (f"local:{name}", [name]))
        self.assertEqual(client.get(attached["url"]).data, bytes(range(256)))
        self.assertEqual(client.get(f"/attachments/{name}", headers=bearer).data, bytes(range(256)))
        # A token and an address are good in every worker, and an address for one file alone.
        self.assertEqual(create_app().test_client().get(attached["url"]).status_code, 200)
        other, _bearer = self.attach(client)
        self.assertEqual(client.get(attached["url"].replace(name, other["attachment_id"])).status_code, 401)
        self.assertEqual(client.delete(f"/attachments/{name}").status_code, 401)
        self.assertEqual(client.delete(f"/attachments/{name}", headers=bearer).status_code, 204)
        self.assertEqual(client.get(f"/attachments/{name}", headers=bearer).status_code, 404)
        self.assertEqual(client.get("/attachments/shop.db", headers=bearer).status_code, 404)

    def test_who_is_not_logged_in_leaves_nothing(self) -> None:
        client = create_app().test_client()
        for wrong in ("tea", {"password": "wrong"}, {"password": 5}, {}):
            self.assertEqual(client.post("/login", json=wrong).status_code, 403)
        for authorization in ("", "Bearer x", "Basic pa:ss"):
            headers = {"Authorization": authorization}
            self.assertEqual(client.post("/attachments", headers=headers, data={"file": (io.BytesIO(b"x"), "x")}).status_code, 401)
        self.assertFalse(self.attachments.exists())
        del os.environ["SHOP_PASSWORD"]
        self.assertEqual(client.post("/login", json={"password": "pa:ss"}).status_code, 503)

    def test_attachments_in_a_bucket(self) -> None:
        """With a stand-in for the library, which this environment need not have."""
        client, error = mock.MagicMock(), type("ClientError", (Exception,), {})
        client.generate_presigned_url.return_value = "https://bucket.example/attachments/x?X-Amz-Signature=y"
        modules = {name: types.ModuleType(name) for name in ("boto3", "botocore", "botocore.config", "botocore.exceptions")}
        vars(modules["boto3"])["client"] = mock.Mock(return_value=client)
        vars(modules["botocore.config"])["Config"] = mock.Mock()
        vars(modules["botocore.exceptions"]).update(ClientError=error, BotoCoreError=error)
        os.environ["ATTACHMENT_STORAGE_DRIVER"] = "r2"
        with mock.patch.dict(sys.modules, modules):
            with self.assertRaisesRegex(
                RuntimeError, "these are not set: R2_ENDPOINT, R2_BUCKET_NAME, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY"
            ):
                create_app()
            os.environ.update(R2_ENDPOINT="https://x", R2_BUCKET_NAME="shop", R2_ACCESS_KEY_ID="i", R2_SECRET_ACCESS_KEY="s")
            with self.assertLogs("shop", "INFO") as said:
                app = create_app().test_client()
            self.assertEqual([one.getMessage() for one in said.records], ["Bucket access verified"])
            client.head_bucket.assert_called_once_with(Bucket="shop")
            attached, _bearer = self.attach(app)
            key = f"attachments/{attached['attachment_id']}"
            self.assertEqual((attached["storage_path"], attached["url"]), (f"r2://shop/{key}", client.generate_presigned_url.return_value))
            client.put_object.assert_called_once_with(Bucket="shop", Key=key, Body=b"a file", ContentType="text/plain")
            # It does not fall back to files.
            client.head_bucket.side_effect = error("403 Forbidden")
            with self.assertRaisesRegex(RuntimeError, "Bucket access failed: 403 Forbidden"):
                create_app()
        self.assertFalse(self.attachments.exists())

    def test_a_driver_that_there_is_not(self) -> None:
        os.environ["ATTACHMENT_STORAGE_DRIVER"] = "R2"
        with self.assertRaisesRegex(RuntimeError, "'R2'; allowed: local, r2"):
            create_app()


if __name__ == "__main__":
    unittest.main()
