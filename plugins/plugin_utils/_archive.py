# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A local archive as a snapshot. Nobody has to have made it in good faith: what is not plainly a tree is refused."""

from __future__ import annotations

import gzip
import stat
import tarfile
import typing as t
import unicodedata
import zipfile
import zlib
from contextlib import contextmanager

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import is_plain, shown
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._exclude import Exclusion
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._snapshot import Budget, Snapshot, Spool, snapshot

TAR_GZ = (".tar.gz", ".tgz")
SUFFIXES = (*TAR_GZ, ".tar", ".zip")
_TAR_BLOCK = 512
# What a tar may hold beside the contents: headers, padding, long names.
_TAR_OVERHEAD = 64 << 20
# Empty members cost an archive next to nothing, and whoever reads them memory.
_MOST_MEMBERS = 200_000


@contextmanager
def archive_snapshot(
    path: str, subdirectory: t.Optional[str], patterns: t.Sequence[str], max_size: int, scratch: str
) -> t.Iterator[Snapshot]:
    """Read an archive.

    :param subdirectory: Only what is below it, and relative to it.
    :param scratch: A directory for what has to be kept meanwhile.
    """
    origin = f"The archive {path}"
    exclusion = Exclusion(patterns)
    with Spool(scratch, Budget(max_size, origin)) as spool:
        members = _Members(origin, subdirectory, exclusion)
        read = _read_zip if path.endswith(".zip") else _read_tar
        try:
            read(path, members, spool, max_size)
        except OSError as error:
            if not isinstance(error, gzip.BadGzipFile):
                raise Failure(f"{origin} cannot be read: {error.strerror or error}.", fix="Correct its path or its mode.") from None
            raise _damaged(origin, members, error) from None
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, UnicodeError) as error:
            raise _damaged(origin, members, error) from None
        if subdirectory and not members.in_subdirectory:
            raise Failure(f"{origin} holds nothing below subdirectory={subdirectory}.", fix="Correct subdirectory.")
        yield snapshot(spool.entries, spool.open, exclusion, origin)


def _damaged(origin: str, members: _Members, error: Exception) -> Failure:
    after = f" after {shown(members.last)}" if members.last else ""
    return Failure(f"{origin} is damaged or of another kind than its name says{after}: {error}.", fix="Make or fetch it again.")


class _Members:
    """Judges the names of an archive's members, in the order in which they come."""

    def __init__(self, origin: str, subdirectory: t.Optional[str], exclusion: Exclusion) -> None:
        self.origin = origin
        self.last = ""
        self.in_subdirectory = False
        self._count = 0
        self._prefix = f"{subdirectory}/" if subdirectory else ""
        self._exclusion = exclusion
        self._spelling: t.Dict[str, str] = {}
        self._files: t.Set[str] = set()

    def refuse(self, name: str, why: str, fix: str = "Make the archive again without it, from a real tree.") -> Failure:
        return Failure(f"{self.origin} is refused: its member {shown(name)} {why}.", fix=fix)

    def place(self, name: str, is_directory: bool) -> t.Optional[str]:
        """Where a member belongs in the tree; None when it is left out, or is a directory."""
        self.last = name
        self._count += 1
        if self._count > _MOST_MEMBERS:
            raise self.refuse(name, f"is one more than the {_MOST_MEMBERS} that are allowed", fix="Archive only what is deployed.")
        if name.startswith("/"):
            raise self.refuse(name, "has an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "leads out of the tree with ..")
        path = "/".join(parts)
        if not path and is_directory:
            return None
        if not is_plain(path):
            raise self.refuse(name, "has no plain name")
        self._refuse_twins(name, path, is_directory)
        if is_directory or not path.startswith(self._prefix):
            return None
        self.in_subdirectory = True
        inside = path[len(self._prefix) :]
        return None if self._exclusion.leaves_out(inside) else inside

    def _refuse_twins(self, name: str, path: str, is_directory: bool) -> None:
        """Two members that are one on some file system, or in one of two tools, are told apart by nobody who looks at the list."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = "/".join(parts[:depth])
            folded = unicodedata.normalize("NFC", prefix).casefold()
            spelling = self._spelling.setdefault(folded, prefix)
            if spelling != prefix:
                raise self.refuse(name, f"differs from {shown(spelling)} only in case or in how its letters are encoded")
        if path in self._files:
            raise self.refuse(name, "is in it twice")
        if not is_directory:
            self._files.add(path)

    def inside(self, name: str) -> str:
        """The path of a member that another one refers to."""
        path = "/".join(part for part in name.split("/") if part not in ("", "."))
        return path[len(self._prefix) :] if path.startswith(self._prefix) else ""


class _Bounded:
    """A stream that ends with a Failure before it has given more than was allowed; tarfile itself reads headers of any size."""

    def __init__(self, stream: t.IO[bytes], limit: int, refuse: t.Callable[[], Failure]) -> None:
        self._stream = stream
        self._left = limit
        self._refuse = refuse
        self._tail = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise self._refuse()
        self._tail = data[-_TAR_BLOCK:] or self._tail
        return data

    def finish(self) -> None:
        """Read to the end, where gzip has its checksum and tar a block of zeros that a cut-off file lacks."""
        while self.read(_TAR_BLOCK * 128):
            pass
        if self._tail.strip(b"\0"):
            raise EOFError("the end is missing")


def _read_tar(path: str, members: _Members, spool: Spool, max_size: int) -> None:
    budget = Budget(max_size, members.origin)
    opener = gzip.open if path.endswith(TAR_GZ) else open
    with opener(path, "rb") as stream:
        bounded = _Bounded(
            t.cast(t.IO[bytes], stream), max_size + _TAR_OVERHEAD, lambda: budget.exceeded(f"what follows {members.last or 'its start'}")
        )
        with tarfile.open(fileobj=t.cast(t.IO[bytes], bounded), mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            for info in tar:
                _take_tar_member(tar, info, members, spool)
        bounded.finish()


def _take_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, members: _Members, spool: Spool) -> None:
    path = members.place(info.name, info.isdir())
    if not (info.isdir() or info.isreg() or info.issym() or info.islnk()):
        raise members.refuse(info.name, "is a device, a FIFO or of an unknown kind")
    if path is None:
        return
    executable = bool(info.mode & stat.S_IXUSR)
    if info.issym():
        spool.add_link(path, info.linkname)
    elif info.islnk():
        if not spool.add_same(path, members.inside(info.linkname), executable):
            raise members.refuse(info.name, f"is a hard link to {shown(info.linkname)}, which is no file before it in the tree")
    else:
        content = tar.extractfile(info)
        if content is None:  # as it is for members that are no files
            raise members.refuse(info.name, "is no file")
        spool.add_file(path, executable, content, info.size)


def _read_zip(path: str, members: _Members, spool: Spool, _max_size: int) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            _take_zip_member(archive, info, members, spool)


def _take_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, members: _Members, spool: Spool) -> None:
    name = info.orig_filename
    if "\\" in name or "\0" in name:
        raise members.refuse(name, "has a backslash or a NUL in its name, which tools read differently")
    path = members.place(name, info.is_dir())
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise members.refuse(name, "is a symbolic link", fix="Put a copy in its place, or use a .tar.gz, which can carry links.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise members.refuse(name, "is a device, a FIFO or of an unknown kind")
    if info.flag_bits & 1:
        raise members.refuse(name, "is encrypted")
    if path is None:
        return
    executable = bool(info.external_attr >> 16 & stat.S_IXUSR)
    with archive.open(info) as content:
        spool.add_file(path, executable, content, info.file_size)
        # zipfile compares the checksum when it is asked for what comes after the last byte.
        if content.read(1):
            raise members.refuse(name, "is longer than it says")
