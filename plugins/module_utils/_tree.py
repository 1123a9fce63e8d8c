# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an artefact holds, as one canonical listing: the controller and the host take the same digest of it.

A tree is its files and symbolic links. Directories are there because something is in them, so an empty one does
not count, nor do owners, times and modes beyond the execute bit: none of them survives every kind of source.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import hashlib
import os
import stat
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

FILE = "file"
LINK = "link"
# The releases' own record, in the root of every release.
RESERVED = ".release"
# Python writes it beside the code at any time; it is no part of a tree on either side.
BYTECODE = "__pycache__"
CHUNK = 1 << 20
# The kernel gives up after as many (path_resolution(7)).
_MOST_LINKS = 40

Skip = t.Callable[[str, bool], bool]
Take = t.Callable[[int, str], None]


class Entry(t.NamedTuple):
    """One file or symbolic link.

    :param path: Relative to the root, parts separated by ``/``; bytes that are not UTF-8 as surrogate escapes.
    :param content: The SHA-256 of a file's bytes, or a link's target.
    """

    path: str
    kind: str
    executable: bool
    content: str


def encode(text: str) -> bytes:
    """A name as its bytes on disk, whatever the locale says."""
    return text.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def shown(path: t.Union[str, bytes]) -> str:
    """A name as it can be printed."""
    return (path if isinstance(path, bytes) else encode(path)).decode("utf-8", "backslashreplace")


def in_order(entries: t.Iterable[Entry]) -> t.List[Entry]:
    return sorted(entries, key=lambda entry: encode(entry.path))


def digest_of(entries: t.Iterable[Entry]) -> str:
    """The identity of a tree: no field can hold a NUL, so no two trees have the same listing."""
    listing = hashlib.sha256(b"tree 1\0")
    for entry in in_order(entries):
        fields = (entry.path, entry.kind, "x" if entry.executable else "-", entry.content)
        listing.update(encode("\0".join(fields)) + b"\0")
    return listing.hexdigest()


def is_plain(path: str) -> bool:
    """Whether a relative path means what it says: no way up, no way to the root, nothing to normalise."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def check(entries: t.Sequence[Entry], origin: str) -> None:
    """Raise a Failure unless the entries can stand side by side in one release.

    :param origin: What they came from, as a person would name it.
    """
    links = {entry.path: entry.content for entry in entries if entry.kind == LINK}
    paths: t.Set[str] = set()
    for entry in entries:
        if entry.path in paths:
            raise Failure(f"{origin} holds {shown(entry.path)} twice.", fix="Make it again with each path once.")
        paths.add(entry.path)
    for entry in entries:
        parts = entry.path.split("/")
        if parts[0] == RESERVED:
            raise Failure(
                f"{origin} holds {shown(entry.path)}, but {RESERVED} in its root is where a release keeps its own record.",
                fix=f"Rename it, or leave it out with the exclude pattern /{RESERVED}.",
            )
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in paths:
                raise Failure(
                    f"{origin} holds {shown(entry.path)} below {shown('/'.join(parts[:depth]))}, which is not a directory.",
                    fix="Make it again from a real tree.",
                )
        if entry.kind == LINK and _leaves(entry.path, links):
            raise Failure(
                f"{origin} holds the symbolic link {shown(entry.path)} -> {shown(entry.content)}, which leads out of the tree or round in"
                " a circle; only relative links that stay inside are allowed.",
                fix="Put a copy in its place, exclude it, or declare it as a shared path.",
            )


def _leaves(path: str, links: t.Mapping[str, str]) -> bool:
    """Follow a link as the kernel would, through the tree's other links: a target that looks tame can leave through one."""
    place = path.split("/")[:-1]
    rest = [path.split("/")[-1]]
    followed = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                return True
            place.pop()
            continue
        target = links.get("/".join([*place, part]))
        if target is None:
            place.append(part)
            continue
        followed += 1
        if target.startswith("/") or followed > _MOST_LINKS:
            return True
        rest.extend(reversed(target.split("/")))
    return False


def entries_of(directory: str, skip: Skip, take: t.Optional[Take] = None) -> t.List[Entry]:
    """Read a directory, in order.

    :param skip: Told a path and whether it is a directory; what it says True to is neither read nor entered.
    :param take: Told each file's size before it is read; raises a Failure when that is too much.
    """
    try:
        return in_order(_read(path, where, take) for path, where in _walk(directory, skip))
    except OSError as error:
        raise Failure(
            f"{shown(error.filename or directory)} cannot be read: {error.strerror}.",
            fix="Make it readable, exclude it, or let nothing else write to the directory meanwhile.",
        ) from None


def _walk(directory: str, skip: Skip) -> t.Iterator[t.Tuple[str, bytes]]:
    pending = [("", os.fsencode(directory))]
    while pending:
        prefix, parent = pending.pop()
        with os.scandir(parent) as found:
            for item in found:
                path = prefix + decode(item.name)
                is_directory = item.is_dir(follow_symlinks=False)
                if skip(path, is_directory):
                    continue
                if is_directory:
                    pending.append((path + "/", item.path))
                else:
                    yield path, item.path


def _read(path: str, where: bytes, take: t.Optional[Take]) -> Entry:
    status = os.lstat(where)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, LINK, False, decode(os.readlink(where)))
    if not stat.S_ISREG(status.st_mode):
        raise Failure(
            f"{shown(where)} is neither a file nor a directory nor a symbolic link; a release holds nothing else.",
            fix="Remove it, or exclude it.",
        )
    if take is not None:
        take(status.st_size, path)
    with open_file(where) as stream:
        before = os.fstat(stream.fileno())
        content = hashlib.sha256()
        length = 0
        while length <= before.st_size:
            chunk = stream.read(CHUNK)
            if not chunk:
                break
            length += len(chunk)
            content.update(chunk)
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or length != before.st_size:
        raise changed_meanwhile(where)
    return Entry(path, FILE, bool(before.st_mode & stat.S_IXUSR), content.hexdigest())


def open_file(where: bytes) -> t.BinaryIO:
    """Open a regular file and nothing that was put in its place: no link is followed and no FIFO waited for."""
    handle = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise changed_meanwhile(where)
    return t.cast(t.BinaryIO, os.fdopen(handle, "rb"))


def changed_meanwhile(where: t.Union[str, bytes]) -> Failure:
    return Failure(
        f"{shown(where)} changed while it was being read.",
        fix="Stop what writes to it, or exclude it, then try again.",
    )
