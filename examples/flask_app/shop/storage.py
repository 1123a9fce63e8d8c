# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where attachments are kept: in a directory, or in a bucket of Cloudflare R2 or whatever else speaks S3.

Never in a directory because the bucket cannot be reached: then the application does not start.
"""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

from flask import Flask

from . import config

ADDRESS_LASTS = 300


class Storage(t.Protocol):
    def put(self, name: str, content: bytes, kind: str) -> str:
        """Keep a file; returns where it is."""

    def get(self, name: str) -> bytes | None: ...

    def delete(self, name: str) -> None: ...

    def address(self, name: str) -> str | None:
        """Where anybody can fetch it for a while, if not from this application."""


class LocalStorage:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, name: str, content: bytes, kind: str) -> str:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / name).write_bytes(content)
        return f"local:{name}"

    def get(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.is_file() else None

    def delete(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def address(self, name: str) -> str | None:
        return None


class BucketStorage:
    def __init__(self, settings: t.Mapping[str, str]) -> None:
        # Only who uses a bucket needs the library: requirements-r2.txt has it.
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        self.errors = (BotoCoreError, ClientError)
        self.bucket = settings["R2_BUCKET_NAME"]
        self.client: t.Any = boto3.client(
            "s3",
            endpoint_url=settings["R2_ENDPOINT"],
            aws_access_key_id=settings["R2_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["R2_SECRET_ACCESS_KEY"],
            region_name="auto",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                # R2 does not know the checksums that boto3 has sent by default since 1.36.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                connect_timeout=5,
                read_timeout=10,
            ),
        )

    def verify(self) -> None:
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except self.errors as error:
            raise RuntimeError(f"Bucket access failed: {error}") from None

    def _key(self, name: str) -> str:
        return f"attachments/{name}"

    def put(self, name: str, content: bytes, kind: str) -> str:
        self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=content, ContentType=kind)
        return f"r2://{self.bucket}/{self._key(name)}"

    def get(self, name: str) -> bytes | None:
        try:
            return bytes(self.client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read())
        except self.client.exceptions.NoSuchKey:
            return None

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def address(self, name: str) -> str | None:
        wanted = {"Bucket": self.bucket, "Key": self._key(name)}
        return str(self.client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=ADDRESS_LASTS))


def chosen(app: Flask) -> Storage:
    """The storage that the environment asks for; it says in the log which one that is."""
    driver = os.environ.get("ATTACHMENT_STORAGE_DRIVER") or "local"
    if driver == "local":
        app.logger.warning("Using local filesystem storage")
        return LocalStorage(config.attachment_directory())
    if driver != "r2":
        raise RuntimeError(f"ATTACHMENT_STORAGE_DRIVER is {driver!r}; allowed: local, r2")
    missing = [name for name in config.BUCKET_SETTINGS if not os.environ.get(name)]
    if missing:
        raise RuntimeError(f"ATTACHMENT_STORAGE_DRIVER is r2, and these are not set: {', '.join(missing)}")
    storage = BucketStorage(os.environ)
    storage.verify()
    app.logger.info("Bucket access verified")
    return storage
