# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of backups in a real S3 server: sent, proven, rotated, damaged, killed, brought back."""

from __future__ import annotations

import os
import shlex
import typing as t

import pytest
from database.server import Module, Result

from lab.hosts import Host
from lab.s3 import KNOWN, Bucket, Identity, ObjectStore

DIRECTORY = "/opt/backups"
ENVIRONMENT = "/opt/copies.env"
PREFIX = "shop/backups"
# A backup as the modules that make them publish it; what is in it is no matter here.
PUBLISH = """
import os, random, sys
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups
directory, database, taken, kilobytes, form = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
content = random.Random(taken)
name = backups.name_for(database, taken, "dump")
partial = backups.partial_path(directory, name)
os.makedirs(directory, exist_ok=True)
os.umask(0o077)
files = {partial: kilobytes}
if form == "directory":
    files = {os.path.join(partial, "toc.dat"): 3, os.path.join(partial, "3301.dat"): kilobytes, os.path.join(partial, "blobs", "a b+c"): 0}
for path, size in files.items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        for _ in range(size):
            stream.write(content.randbytes(1024))
print(backups.publish(directory, name, database, "postgresql", taken, {"tables": {"orders": 3}}).name)
"""


class Backups:
    """A directory of backups on the host, and a bucket for their copies."""

    def __init__(self, host: Host, module: Module, bucket: Bucket) -> None:
        self.host = host
        self.module = module
        self.bucket = bucket
        self.host.run(["rm", "-rf", DIRECTORY])
        self.come_as(KNOWN["read_write"])

    def come_as(self, identity: Identity, **other: str) -> None:
        variables = {**identity.environment(self.bucket.store, self.bucket.name), **other}
        self.host.write(ENVIRONMENT, "".join(f'{name}="{value}"\n' for name, value in variables.items()), mode="0600")

    def publish(self, taken: float, kilobytes: int = 8, form: str = "file", database: str = "shop") -> str:
        """A new verified backup; its name."""
        argv = ["env", "PYTHONPATH=/opt/code", "python3", "-c", PUBLISH, DIRECTORY, database, str(taken), str(kilobytes), form]
        return self.host.run(argv).stdout.strip()

    def options(self, **options: object) -> dict[str, object]:
        return {"backups": DIRECTORY, "database": "shop", "prefix": PREFIX, "environment_files": [ENVIRONMENT], **options}

    def copy(self, *flags: str, **options: object) -> Result:
        return self.module.must("backup_copy", *flags, **self.options(**options))

    def refused(self, *said: str, **options: object) -> Result:
        return self.module.refused("backup_copy", *said, **self.options(**options))

    def sums(self, name: str) -> str:
        """The content of a backup on the host, in short."""
        path = shlex.quote(f"{DIRECTORY}/{name}")
        return self.host.run(
            ["sh", "-c", f"cd {path} 2> /dev/null && find . -type f -exec sha256sum {{}} + | sort || sha256sum < {path}"]
        ).stdout

    def names(self) -> list[str]:
        return sorted(os.path.basename(line) for line in self.host.run(["ls", "-A", DIRECTORY]).stdout.splitlines())


@pytest.fixture(scope="module")
def store(host: Host) -> t.Iterator[ObjectStore]:
    store = ObjectStore(host)
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="module")
def code(host: Host) -> None:
    """What publishes backups, on the host, as the modules have it."""
    send_code(host)


@pytest.fixture
def shop(host: Host, module: Module, tools: None, code: None, store: ObjectStore) -> Backups:
    return Backups(host, module, store.bucket("shop"))


def send_code(host: Host) -> None:
    import io
    import tarfile

    from lab.deployment import REPOSITORY

    archive = io.BytesIO()
    place = "ansible_collections/bulletproof/deploy/plugins/module_utils"
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted((REPOSITORY / "plugins" / "module_utils").rglob("*.py")):
            tar.add(path, f"{place}/{path.relative_to(REPOSITORY / 'plugins' / 'module_utils')}")
    host.run(["sh", "-c", "rm -rf /opt/code && mkdir -p /opt/code && tar -x -C /opt/code"], stdin=archive.getvalue())


def test_a_backup_is_copied_once_and_brought_back(shop):
    name = shop.publish(1_800_000_000)
    content = shop.sums(name)

    planned = shop.copy("--check", "--diff")
    assert planned["changed"] and f"+{PREFIX}/{name}: copy of" in planned["said"]
    assert shop.bucket.keys() == []

    done = shop.copy()
    assert done["changed"] and done["sent"] == [name]
    assert shop.bucket.keys() == [f"{PREFIX}/{name}", f"{PREFIX}/{name}.json"]
    again = shop.copy("--diff")
    assert not again["changed"] and [copy["name"] for copy in again["copies"]] == [name]

    shop.host.run(["rm", "-rf", DIRECTORY])
    assert shop.copy("--check", fetch="newest")["changed"]
    assert not shop.host.exists(f"{DIRECTORY}/{name}")
    assert shop.copy(fetch="newest", mode="0640")["fetched"] == f"{DIRECTORY}/{name}"
    assert shop.sums(name) == content
    assert shop.host.run(["stat", "-c", "%a %U", f"{DIRECTORY}/{name}"]).stdout.strip() == "640 root"
    assert not shop.copy(fetch=name)["changed"]
