# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that are either the old or the new, never between.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import json
import os
import typing as t


def sync_directory(path: str) -> None:
    """Make the names in a directory durable (fsync(2): a rename survives a power cut only after this)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str, text: t.Union[str, bytes], mode: int = 0o644, owner: t.Optional[t.Tuple[int, int]] = None) -> None:
    """Write a file beside, make it durable, then rename it over; it has its mode and owner before it has its name.

    :param owner: (uid, gid); None leaves the writer's own.
    """
    # The agent reads far more often than it writes.
    import tempfile

    directory = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode() if isinstance(text, str) else text)
            stream.flush()
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory)


def write_json(path: str, value: object, mode: int = 0o644) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode)


def read_json(path: str) -> t.Any:
    """The value in a JSON file, or None when there is no such file. Raises ValueError when it is not JSON."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return None


def read_text(path: str, errors: str = "strict") -> t.Optional[str]:
    """The text in a file, or None when there is no such file.

    :param errors: What becomes of bytes that are no UTF-8, as for ``bytes.decode``.
    """
    try:
        with open(path, encoding="utf-8", errors=errors) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def read_link(path: str) -> t.Optional[str]:
    """The target of a symbolic link as it is written, or None when there is no such link."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def replace_link(path: str, target: str) -> None:
    """Point a symbolic link somewhere else in one rename (rename(2) is atomic): every open sees the old or the new."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    if os.path.islink(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, path)
    sync_directory(directory)
