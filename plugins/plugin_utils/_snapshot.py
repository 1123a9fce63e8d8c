# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A source at one moment, whatever its kind: the listing of its tree and a way to read each file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import typing as t
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import (
    CHUNK,
    FILE,
    LINK,
    Entry,
    changed_meanwhile,
    check,
    digest_of,
    encode,
    entries_of,
    in_order,
    open_file,
    shown,
)
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._exclude import NEVER_FROM_DIRECTORY, Exclusion

# Opens a file by its path: the stream, set to its first byte, and how many bytes belong to it.
Opener = t.Callable[[str], t.ContextManager[t.Tuple[t.BinaryIO, int]]]


class Budget:
    """Bounds what a source may unpack to, so that an archive of a few bytes cannot fill the controller's disk."""

    def __init__(self, limit: int, origin: str) -> None:
        self.limit = limit
        self._origin = origin
        self._left = limit

    def take(self, size: int, name: str) -> None:
        self._left -= size
        if self._left < 0:
            raise self.exceeded(name)

    def exceeded(self, name: str) -> Failure:
        return Failure(
            f"{self._origin} holds more than max_size={self.limit} bytes; {shown(name)} went over it.",
            fix="Exclude what does not belong in a release, or raise max_size.",
        )


@dataclass(frozen=True)
class Snapshot:
    """The entries are in order and have been checked; they are not empty."""

    entries: t.Sequence[Entry]
    open: Opener

    @property
    def digest(self) -> str:
        return digest_of(self.entries)


def snapshot(entries: t.Iterable[Entry], opener: Opener, exclusion: Exclusion, origin: str) -> Snapshot:
    """The one place where the entries of every source are checked."""
    exclusion.verify()
    ordered = in_order(entries)
    if not ordered:
        raise Failure(f"{origin} holds no file that could be deployed.", fix="Correct the source, its subdirectory, or what is excluded.")
    check(ordered, origin)
    return Snapshot(ordered, opener)


class Spool:
    """The contents of a source that can be read only once and in its own order, in one nameless file.

    No name from the source is ever made on the controller's disk.
    """

    def __init__(self, directory: str, budget: Budget) -> None:
        self.entries: t.List[Entry] = []
        self._budget = budget
        self._places: t.Dict[str, t.Tuple[int, int, str]] = {}
        self._file = t.cast(t.BinaryIO, tempfile.TemporaryFile(dir=directory))  # noqa: SIM115 (closed by __exit__)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def add_file(self, path: str, executable: bool, stream: t.IO[bytes], size: int) -> None:
        """Take exactly ``size`` bytes from a stream."""
        self._budget.take(size, path)
        offset = self._file.tell()
        content = hashlib.sha256()
        left = size
        while left:
            chunk = stream.read(min(left, CHUNK))
            if not chunk:
                raise EOFError(f"{shown(path)} ends {left} bytes early")
            left -= len(chunk)
            content.update(chunk)
            self._file.write(chunk)
        self._places[path] = (offset, size, content.hexdigest())
        self.entries.append(Entry(path, FILE, executable, content.hexdigest()))

    def add_link(self, path: str, target: str) -> None:
        self.entries.append(Entry(path, LINK, False, target))

    def add_same(self, path: str, other: str, executable: bool) -> bool:
        """Another name of a file that is there already; False when there is none."""
        if other not in self._places:
            return False
        self._places[path] = self._places[other]
        self.entries.append(Entry(path, FILE, executable, self._places[other][2]))
        return True

    @contextmanager
    def open(self, path: str) -> t.Iterator[t.Tuple[t.BinaryIO, int]]:
        offset, size, _content = self._places[path]
        self._file.seek(offset)
        yield self._file, size


def directory_snapshot(directory: str, patterns: t.Sequence[str], max_size: int) -> Snapshot:
    """A directory as it is now; whoever reads it again compares with the listing."""
    origin = f"The directory {directory}"
    exclusion = Exclusion(patterns, NEVER_FROM_DIRECTORY)
    budget = Budget(max_size, origin)

    entries = entries_of(directory, exclusion.skip, budget.take)
    return snapshot(entries, _opener(directory), exclusion, origin)


def wheel_snapshot(path: str, patterns: t.Sequence[str], max_size: int) -> Snapshot:
    """One wheel, unaltered: it is what gets installed, so it is what gets sent."""
    directory, name = os.path.split(path)
    if not name.endswith(".whl") or name.count("-") not in (4, 5):
        raise Failure(
            f"{path} is not named like a wheel.", fix="Give it the name that its build gave it: NAME-VERSION-PYTHON-ABI-PLATFORM.whl."
        )
    try:
        with zipfile.ZipFile(path) as wheel:
            complete = any(member.endswith(".dist-info/METADATA") for member in wheel.namelist())
    except zipfile.BadZipFile:
        complete = False
    if not complete:
        raise Failure(f"{path} is not a wheel: it is no zip file with a .dist-info/METADATA in it.", fix="Build it again.")
    exclusion = Exclusion(patterns)
    budget = Budget(max_size, f"The wheel {path}")
    entries = [] if exclusion.leaves_out(name) else entries_of(directory, lambda other, _is_directory: other != name, budget.take)
    # An installer reads it; that it may have been made executable is no property of the wheel.
    entries = [entry._replace(executable=False) for entry in entries]
    return snapshot(entries, _opener(directory), exclusion, f"The wheel {path}")


def _opener(directory: str) -> Opener:
    @contextmanager
    def opener(path: str) -> t.Iterator[t.Tuple[t.BinaryIO, int]]:
        where = os.path.join(os.fsencode(directory), encode(path))
        try:
            stream = open_file(where)
        except OSError:
            raise changed_meanwhile(where) from None
        with stream:
            yield stream, os.fstat(stream.fileno()).st_size

    return opener
