# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An artefact becomes a directory on the host, and a directory shows that it still is that artefact.

The standard library alone, because the agent on the host uses it without Ansible. Python 3.9 does not promise tarfile's
extraction filters, and an artefact needs less than they allow, so each member is checked and written by hand.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import tarfile
import typing as t
import zlib

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import (
    BYTECODE,
    CHUNK,
    FILE,
    LINK,
    RESERVED,
    Entry,
    check,
    digest_of,
    encode,
    entries_of,
    is_plain,
    shown,
)

_BLOCK = 4096


def unpack(archive: str, directory: str, digest: str) -> None:
    """Extract an artefact, and be sure that it is the one meant.

    On a Failure nothing of it is left. Nothing is synced to the disk: who declares the release staged does that once.

    :param directory: Made when it is missing; must be empty but for the release's own record.
    :param digest: What the controller said that the tree's digest is.
    """
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        present = [name for name in os.listdir(directory) if name != RESERVED]
    except OSError as error:
        raise _explained(error, archive, directory) from None
    if present:
        raise Failure(f"{directory} is not empty: it holds {present[0]}.", fix="Unpack into a new directory.")
    try:
        entries = _extract(archive, os.fsencode(directory))
        check(entries, f"The artefact {archive}")
        found = digest_of(entries)
        if found != digest:
            raise Failure(
                f"The artefact {archive} is not the one meant: its digest is {found}, not {digest}.",
                fix="Remove it here and from the controller's cache, then deploy again.",
            )
    except BaseException as error:
        _empty(directory)
        if isinstance(error, OSError):
            raise _explained(error, archive, directory) from None
        if isinstance(error, (tarfile.TarError, EOFError, zlib.error)):
            raise _damaged(archive, str(error)) from None
        raise


def tree_digest(directory: str, ignore: t.Collection[str] = ()) -> str:
    """The digest of what a release holds now: the controller's own as long as nobody changed it.

    :param ignore: Paths relative to the directory that are no part of the artefact, such as links to shared paths.
    """
    ignored = {RESERVED, *(path.strip("/") for path in ignore)}

    def skip(path: str, is_directory: bool) -> bool:
        return path in ignored or path.rpartition("/")[2] == BYTECODE

    return digest_of(entries_of(directory, skip))


def tree_problem(layout: Layout, manifest: Manifest) -> str:
    """What is wrong with the files of a release, empty when they are what was staged."""
    if tree_digest(layout.release(manifest.release), manifest.links) != manifest.tree:
        return "its files are not those that were staged"
    return ""


def _extract(archive: str, directory: bytes) -> t.List[Entry]:
    entries: t.List[Entry] = []
    made = {b""}
    last = b""
    for tar, info in _members(archive):
        path = info.name
        if not is_plain(path):
            raise _damaged(archive, f"the member {shown(path)} is not a plain relative path")
        name = encode(path)
        if name <= last:
            raise _damaged(archive, f"the member {shown(path)} is out of order or there twice")
        last = name
        try:
            _make_parents(directory, name, made)
            where = os.path.join(directory, name)
            if info.type == tarfile.SYMTYPE:
                os.symlink(encode(info.linkname), where)
                entries.append(Entry(path, LINK, False, info.linkname))
            elif info.type == tarfile.REGTYPE:
                executable = bool(info.mode & 0o100)
                entries.append(Entry(path, FILE, executable, _write(tar, info, where, 0o755 if executable else 0o644)))
            else:
                raise _damaged(archive, f"the member {shown(path)} is neither a file nor a symbolic link")
        except (FileExistsError, NotADirectoryError):
            raise _damaged(archive, f"the member {shown(path)} is in the way of another one, or below a link or file") from None
    return entries


def _members(archive: str) -> t.Iterator[t.Tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with gzip.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            yield tar, info


def _make_parents(directory: bytes, name: bytes, made: t.Set[bytes]) -> None:
    """Every directory above a member is one that was made here, by mkdir(2), which takes no link for a directory."""
    parent = os.path.dirname(name)
    if parent in made:
        return
    _make_parents(directory, parent, made)
    where = os.path.join(directory, parent)
    os.mkdir(where)
    os.chmod(where, 0o755)
    made.add(parent)


def _write(tar: tarfile.TarFile, info: tarfile.TarInfo, where: bytes, mode: int) -> str:
    source = tar.extractfile(info)
    if source is None:  # as it is for members that are no files, which do not come here
        raise tarfile.ExtractError(f"{info.name} is no file")
    content = hashlib.sha256()
    handle = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb", buffering=0) as target:
        while True:
            chunk = source.read(CHUNK)
            if not chunk:
                break
            content.update(chunk)
            _write_all(target, chunk)
        os.fchmod(handle, mode)
    return content.hexdigest()


def _write_all(target: t.BinaryIO, chunk: bytes) -> None:
    """write(2) on a disk that fills up writes a part first and fails only the next time."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[target.write(rest) :]


def _empty(directory: str) -> None:
    for item in list(os.scandir(directory)):
        if item.name == RESERVED:
            continue
        if item.is_dir(follow_symlinks=False):
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            os.unlink(item.path)


def _damaged(archive: str, why: str) -> Failure:
    return Failure(
        f"The artefact {archive} is damaged or was not made by this collection: {why}.",
        fix="Remove it here and from the controller's cache, then deploy again.",
    )


def _explained(error: OSError, archive: str, directory: str) -> Failure:
    if isinstance(error, gzip.BadGzipFile):
        return _damaged(archive, str(error))
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return Failure(f"The artefact {archive} could not be unpacked: {error}.", fix="Correct that on the host, then deploy again.")
    sizes = {info.name: info.size for _tar, info in _members(archive)}
    directories = {name[:position] for name in sizes for position, letter in enumerate(name) if letter == "/"}
    inodes = len(sizes) + len(directories)
    needed = sum(sizes.values()) + inodes * _BLOCK
    existing = os.path.abspath(directory)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    space = os.statvfs(existing)
    free = space.f_bavail * space.f_frsize
    limit = "The quota is used up" if error.errno == errno.EDQUOT else "The disk is full"
    return Failure(
        f"{limit} at {directory}: the release needs about {_mebibytes(needed)} and {inodes} inodes;"
        f" {_mebibytes(free)} and {space.f_favail} inodes are free there.",
        fix="Make room on that file system, then deploy again; what was unpacked has been removed.",
        needed_bytes=needed,
        free_bytes=free,
        needed_inodes=inodes,
        free_inodes=space.f_favail,
    )


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
