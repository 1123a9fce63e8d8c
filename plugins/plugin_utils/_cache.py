# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's cache: artefacts by digest, and which commit became which.

It belongs to one user. Everything in it can be removed at any time; it is made again.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import tarfile
import tempfile
import time
import typing as t
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import LINK, Entry, changed_meanwhile, encode
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._snapshot import Snapshot

# Higher levels cost more time here than they save on the way to a host.
_COMPRESSION = 3
# Longer than anyone packs; what is older was left by a process that died.
_ABANDONED = 24 * 3600


@dataclass(frozen=True)
class Artefact:
    """One packed tree."""

    path: str
    digest: str
    size: int
    paths: t.Sequence[str]


class Cache:
    """One cache directory."""

    def __init__(self, directory: t.Optional[str] = None) -> None:
        self.directory = os.path.abspath(os.path.expanduser(directory)) if directory else _default()
        try:
            for path in (self.directory, self._in("artefacts"), self._in("git"), self._in("index")):
                os.makedirs(path, mode=0o700, exist_ok=True)
        except OSError as error:
            raise Failure(
                f"The cache directory {self.directory} cannot be made: {error.strerror}.", fix="Set cache to one that can."
            ) from None
        status = os.stat(self.directory)
        if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
            raise Failure(
                f"Others than its user can write to the cache directory {self.directory}, and so decide what is deployed.",
                fix=f"chown it to yourself and chmod 0700 {self.directory}, or set cache to a directory of your own.",
            )

    def _in(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def mirror(self, name: str) -> str:
        return self._in("git", name)

    @property
    def scratch(self) -> str:
        """For files without a name, on the disk that has the room."""
        return self._in("artefacts")

    def find(self, digest: str) -> t.Optional[Artefact]:
        """The artefact, when it is there and as long as it was made."""
        try:
            known = read_json(self._in("artefacts", f"{digest}.json"))
            path = self._in("artefacts", f"{digest}.tar.gz")
            if known is None or os.path.getsize(path) != known["size"]:
                return None
            return Artefact(path, digest, known["size"], known["paths"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def find_indexed(self, key: t.Sequence[object]) -> t.Optional[Artefact]:
        """The artefact that was once made from what the key names."""
        try:
            digest = read_json(self._index(key))
        except (OSError, ValueError):
            return None
        return self.find(digest) if isinstance(digest, str) else None

    def index(self, key: t.Sequence[object], artefact: Artefact) -> None:
        write_json(self._index(key), artefact.digest, mode=0o600)

    def _index(self, key: t.Sequence[object]) -> str:
        return self._in("index", hashlib.sha256(json.dumps(key).encode()).hexdigest() + ".json")

    def store(self, snapshot: Snapshot) -> Artefact:
        """Pack a snapshot, unless what it holds has been packed before."""
        digest = snapshot.digest
        found = self.find(digest)
        if found is not None:
            return found
        self._clear_abandoned()
        handle, temporary = tempfile.mkstemp(prefix=".", dir=self._in("artefacts"))
        try:
            with os.fdopen(handle, "wb") as stream:
                pack(snapshot, stream)
                stream.flush()
                os.fsync(handle)
            size = os.path.getsize(temporary)
            artefact = Artefact(self._in("artefacts", f"{digest}.tar.gz"), digest, size, [entry.path for entry in snapshot.entries])
            os.rename(temporary, artefact.path)
        except BaseException as error:
            os.unlink(temporary)
            if isinstance(error, OSError):
                raise Failure(
                    f"The artefact cannot be written to {self.directory}: {error.strerror or error}.", fix="Make room there."
                ) from None
            raise
        write_json(self._in("artefacts", f"{digest}.json"), {"size": size, "paths": list(artefact.paths)}, mode=0o600)
        return artefact

    def _clear_abandoned(self) -> None:
        for item in os.scandir(self._in("artefacts")):
            if item.name.startswith(".") and time.time() - item.stat().st_mtime > _ABANDONED:
                os.unlink(item.path)


def _default() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bulletproof-deploy")


@contextmanager
def locked(path: str, timeout: float) -> t.Iterator[None]:
    """Hold a lock file. The kernel gives it back when the holder dies; the file itself stays, so that all mean the same one."""
    deadline = time.monotonic() + timeout
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure(
                        f"Another process has held {path} for {timeout:g} s.", fix=f"See who with 'fuser {path}'; wait, or end it."
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def pack(snapshot: Snapshot, target: t.IO[bytes]) -> None:
    """Write a snapshot as a tar.gz of which every byte follows from the entries alone."""
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION, fileobj=target, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as tar,
    ):
        for entry in snapshot.entries:
            _pack_entry(tar, entry, snapshot)


def _pack_entry(tar: tarfile.TarFile, entry: Entry, snapshot: Snapshot) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mode = 0o755 if entry.executable else 0o644
    if entry.kind == LINK:
        info.type = tarfile.SYMTYPE
        info.mode = 0o777
        info.linkname = entry.content
        tar.addfile(info)
        return
    with snapshot.open(entry.path) as (stream, info.size):
        hashing = _Hashing(stream)
        try:
            tar.addfile(info, t.cast(t.IO[bytes], hashing))
        except EOFError:
            raise changed_meanwhile(encode(entry.path)) from None
    if hashing.content.hexdigest() != entry.content:
        raise changed_meanwhile(encode(entry.path))


class _Hashing:
    """Passes on what it reads, and knows its SHA-256."""

    def __init__(self, stream: t.BinaryIO) -> None:
        self._stream = stream
        self.content = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError
        self.content.update(data)
        return data
