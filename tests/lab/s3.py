# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real S3 server on a lab host (SeaweedFS), with identities that may do some things and not others.

It answers with the errors of the real ones: InvalidAccessKeyId, SignatureDoesNotMatch, AccessDenied, NoSuchBucket, RequestTimeTooSkewed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lab.hosts import Host
from lab.shell import LabError

PROGRAM = Path(sys.executable).parent / "weed"
ON_HOST = "/usr/local/bin/weed"
UNIT = "lab-s3"
DATA = "/var/lib/lab-s3"
IDENTITIES = "/etc/lab-s3.json"
PORT = 8333
START_TIMEOUT = 60


@dataclass(frozen=True)
class Identity:
    """Somebody who comes with keys."""

    name: str
    access_key_id: str
    secret_access_key: str
    actions: tuple[str, ...]

    def environment(self, store: ObjectStore, bucket: str) -> dict[str, str]:
        """The variables that an app has for this."""
        return {
            "R2_ENDPOINT": store.endpoint,
            "R2_BUCKET_NAME": bucket,
            "R2_ACCESS_KEY_ID": self.access_key_id,
            "R2_SECRET_ACCESS_KEY": self.secret_access_key,
        }


def _identity(name: str, *actions: str) -> Identity:
    return Identity(name, f"AKIDLAB{name.upper().replace('_', '')}00000000"[:20], f"canary/{name}+s3cr3t/of=the=lab", actions)


EVERYTHING = ("Read", "Write", "List", "Tagging")
KNOWN: Mapping[str, Identity] = {
    one.name: one
    for one in (
        _identity("admin", "Admin", *EVERYTHING),
        _identity("read_write", *EVERYTHING),
        _identity("read_only", "Read", "List"),
        _identity("write_only", "Write", "List"),
        _identity("without_list", "Read", "Write"),
        _identity("list_only", "List"),
        # Like a token of R2 that is made for certain buckets: of others it is not even told that they are not there.
        _identity("of_one_bucket", *(f"{action}:one-bucket" for action in EVERYTHING)),
        _identity("reader_of_one_bucket", "Read:one-bucket", "List:one-bucket"),
        _identity("nothing"),
    )
}
WRONG_KEY = Identity("wrong_key", "AKIDNOBODYKNOWS00000", KNOWN["read_write"].secret_access_key, ())
WRONG_SECRET = Identity("wrong_secret", KNOWN["read_write"].access_key_id, "canary/wrong+s3cr3t", ())


class ObjectStore:
    """The server, and a look past the modules at what it has."""

    def __init__(self, host: Host) -> None:
        self.host = host

    @property
    def endpoint(self) -> str:
        return f"http://{self.host.address}:{PORT}"

    def start(self) -> None:
        """Bring the program to the host if it is not there, start it with nothing in it, and wait until it answers."""
        if self.host.run([ON_HOST, "version"], check=False).returncode:
            self.host.run(["install", "-D", "-m", "0755", "/dev/stdin", ON_HOST], stdin=PROGRAM.read_bytes())
        identities = [
            {
                "name": one.name,
                "credentials": [{"accessKey": one.access_key_id, "secretKey": one.secret_access_key}],
                "actions": list(one.actions),
            }
            for one in KNOWN.values()
        ]
        self.host.write(IDENTITIES, json.dumps({"identities": identities}), mode="0600")
        self.stop()
        self.host.run(["rm", "-rf", DATA])
        # Many small volumes, which the server makes seven at a time, instead of a few of 30 GB.
        self.host.run(
            ["systemd-run", "--quiet", "--unit", UNIT, "--setenv=HOME=/root", "--property=StateDirectory=lab-s3",
             # It takes half a minute to say goodbye to itself, and nothing that it has is kept.
             "--property=KillSignal=SIGKILL",
             ON_HOST, "server", f"-dir={DATA}", "-ip=127.0.0.1", "-ip.bind=0.0.0.0",
             "-master.volumeSizeLimitMB=64", "-master.volumePreallocate=false", "-volume.max=100", "-volume.port=8085",
             "-s3", f"-s3.config={IDENTITIES}", f"-s3.port={PORT}"]
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        asked = ["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", f"http://127.0.0.1:{PORT}/"]
        while self.host.run(asked, check=False).stdout != "403":
            if time.monotonic() > deadline:
                raise LabError("The S3 server does not answer.", f"see `journalctl -u {UNIT}` on {self.host.name}.")
            time.sleep(0.1)

    def stop(self) -> None:
        self.host.run(["systemctl", "stop", UNIT], check=False)
        self.host.run(["systemctl", "reset-failed", UNIT], check=False)

    def client(self, identity: Identity = KNOWN["admin"]) -> Any:
        """boto3's client, as somebody."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="auto",
            aws_access_key_id=identity.access_key_id,
            aws_secret_access_key=identity.secret_access_key,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},
            ),
        )

    def bucket(self, name: str) -> Bucket:
        """An empty bucket of this name."""
        client = self.client()
        if name in [one["Name"] for one in client.list_buckets()["Buckets"]]:
            found = Bucket(self, name)
            found.empty()
            return found
        client.create_bucket(Bucket=name)
        made = Bucket(self, name)
        # Room for a bucket's objects is made with the first of them, which takes seconds on a busy machine: longer than a check waits for an answer.
        made.write("first", b"first")
        made.remove("first")
        return made


class Bucket:
    """What is in a bucket, seen by somebody who may do everything."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store = store
        self.name = name
        self.client = store.client()

    def objects(self, prefix: str = "") -> list[str]:
        """The keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", []))

    def uploads(self) -> list[tuple[str, str]]:
        """(key, id) of the multipart uploads that were not completed."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [(one["Key"], one["UploadId"]) for one in found]

    def read(self, key: str) -> bytes:
        content = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        assert isinstance(content, bytes)
        return content

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def empty(self) -> None:
        for key in self.objects():
            self.remove(key)
        for key, upload in self.uploads():
            self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)

    def flip_bit(self, content: bytes) -> None:
        """Change one bit of an object's stored bytes behind the server's back, and its checksum, so that the server gives them out."""
        said = self.store.host.run(["python3", "-c", FLIP, DATA], stdin=content).stdout
        assert said.split() == ["flipped"], f"The bytes and their checksum are in {said.count('flipped')} places."


# The server keeps a CRC-32C behind the bytes; without a new one it answers with an error, after a quarter of a minute.
FLIP = """
import glob, sys
def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return (value ^ 0xFFFFFFFF).to_bytes(4, "big")
before = sys.stdin.buffer.read()
after = bytes([before[0] ^ 1]) + before[1:]
for path in glob.glob(sys.argv[1] + "/*.dat"):
    with open(path, "r+b") as stream:
        stored = stream.read()
        at = stored.find(before)
        check = stored.find(crc32c(before), at + len(before))
        if at >= 0 and 0 <= check < at + len(before) + 400:
            for place, value in ((at, after), (check, crc32c(after))):
                stream.seek(place)
                stream.write(value)
            print("flipped")
"""
