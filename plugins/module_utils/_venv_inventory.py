# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in a virtual environment, and whether it is still what was built.

Works like an index of files: size and modification time are believed when they are as recorded, the content is read only when they
are not. So a touched file is no damage, a changed one is, and the check of a sound environment reads no file at all.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import stat
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import run
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_lock import normal_name

COMPLETE = ".complete.json"
DAMAGED = ".damaged.json"
START_TIMEOUT = 30
DISTRIBUTION = re.compile(r"^(?P<name>[^~].*?)-(?P<version>[^-]+)(?:-py[0-9.]+)?\.(?:dist|egg)-info$")
# The module "json" would double the time that the interpreter takes to start.
IDENTITY = """
import sys, _imp
of = sys.implementation
print(of.name, ".".join(map(str, sys.version_info)), _imp.extension_suffixes()[0], getattr(of, "_multiarch", sys.platform),
      sys.maxsize.bit_length() + 1, sys.base_prefix, sys.prefix, sep="\\n")
"""


def interpreter(python: str) -> tuple[str, str]:
    """Ask an interpreter who it is: its identity (implementation, full version, ABI, platform, where it is) and its prefix."""
    done = run([python, "-I", "-c", IDENTITY], timeout=START_TIMEOUT)
    lines = done.stdout.splitlines()
    if not done.ok or len(lines) != 7:
        raise Failure(
            f"The interpreter {python} does not start (status {done.rc}): {done.last_words(3)}",
            fix="Install it, or name another one.",
        )
    return " ".join(lines[:6]), lines[6]


def site_packages(path: str) -> list[str]:
    """The directories that packages are installed in."""
    library = os.path.join(path, "lib")
    names = os.listdir(library) if os.path.isdir(library) else []
    candidates = [os.path.join(library, name, "site-packages") for name in sorted(names)]
    return [candidate for candidate in candidates if os.path.isdir(candidate)]


def _distributions(path: str) -> t.Iterator[tuple[str, str, str]]:
    for directory in site_packages(path):
        for entry in sorted(os.listdir(directory)):
            found = DISTRIBUTION.match(entry)
            if found:
                yield normal_name(found["name"]), found["version"], os.path.join(directory, entry)


def installed(path: str) -> dict[str, str]:
    """Name and version of every installed package, read from the names of its metadata directories."""
    return {name: version for name, version, _metadata in _distributions(path)}


def _digest(path: str, state: os.stat_result) -> str:
    whole = hashlib.sha256()
    if stat.S_ISLNK(state.st_mode):
        whole.update(os.fsencode(os.readlink(path)))
        return whole.hexdigest()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            whole.update(block)
    return whole.hexdigest()


def _files(path: str) -> t.Iterator[str]:
    """Every file but compiled bytecode, which Python writes and rewrites as it likes, relative to the environment."""
    for directory, directories, names in os.walk(path):
        directories[:] = [name for name in directories if name != "__pycache__"]
        links = [name for name in directories if os.path.islink(os.path.join(directory, name))]
        for name in [*names, *links]:
            yield os.path.relpath(os.path.join(directory, name), path)


def seal(path: str) -> None:
    """Let nobody but the owner write (uv leaves a lock file there that everybody may write)."""
    for name in _files(path):
        whole = os.path.join(path, name)
        mode = os.lstat(whole).st_mode
        if stat.S_ISREG(mode) and mode & 0o022:
            os.chmod(whole, stat.S_IMODE(mode) & ~0o022)


def take(path: str) -> dict[str, str]:
    """Record every file: ``size mtime sha256``."""

    def one(name: str) -> tuple[str, str]:
        whole = os.path.join(path, name)
        state = os.lstat(whole)
        return name, f"{state.st_size} {state.st_mtime_ns} {_digest(whole, state)}"

    with ThreadPoolExecutor(4) as pool:
        return dict(sorted(pool.map(one, [name for name in _files(path) if name not in (COMPLETE, DAMAGED)])))


def unlike_their_origin(path: str, files: t.Mapping[str, str], owner: int) -> dict[str, str]:
    """Packages with a file that is not as their own RECORD says, or that somebody else owns: name and the first such file.

    Installed files are hard links into the cache. Whoever edits one in place, or gives one away, does so to the cache too, and
    without this look every later environment would be built with it.
    """
    accepted: dict[str, set[str]] = {}
    owners: dict[str, str] = {}
    for name, _version, metadata in _distributions(path):
        base = os.path.dirname(metadata)
        for relative, digest in _record(os.path.join(metadata, "RECORD")):
            file = os.path.relpath(os.path.join(base, relative), path)
            if "__pycache__" not in file:
                owners[file] = name
                if digest:
                    accepted.setdefault(file, set()).add(digest)
    strange: dict[str, str] = {}
    for file, name in owners.items():
        known = files.get(file)
        if known is None or (file in accepted and known.split()[2] not in accepted[file]) or _foreign(os.path.join(path, file), owner):
            strange.setdefault(name, file)
    return strange


def _record(path: str) -> t.Iterator[tuple[str, str]]:
    """The files of a package, each with its sha256 in hexadecimal where the package tells it."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            for row in csv.reader(stream):
                if row and row[0]:
                    method, _equals, code = (row[1] if len(row) > 1 else "").partition("=")
                    digest = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)).hex() if method == "sha256" else ""
                    yield row[0], digest
    except (OSError, ValueError):
        return


def _foreign(path: str, owner: int) -> str:
    """Why somebody but the owner could change this, or nothing."""
    state = os.lstat(path)
    if state.st_uid not in (0, owner):
        return f"belongs to user {state.st_uid}"
    if not stat.S_ISLNK(state.st_mode) and state.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(state.st_mode):04o})"
    return ""


def damage(path: str, record: t.Mapping[str, t.Any]) -> list[str]:
    """What is no longer as it was recorded when the environment was built."""
    found = _interpreter_damage(path, record["interpreter"])
    now, then = installed(path), record["installed"]
    for name in sorted({*now, *then}):
        if now.get(name) != then.get(name):
            found.append(f"{name} was installed as {then.get(name, 'nothing')} and is now {now.get(name, 'gone')}")
    wrong = [problem for name, known in record["files"].items() for problem in _file_damage(path, name, known, record["owner"])]
    directories = {path} | {os.path.join(path, os.path.dirname(name)) for name in record["files"]}
    for directory in sorted(directories):
        why = _foreign(directory, record["owner"]) if os.path.isdir(directory) else ""
        if why:
            wrong.append(f"{directory} {why}")
    if len(wrong) > 5:
        wrong[5:] = [f"and {len(wrong) - 5} more files"]
    return found + wrong


def _interpreter_damage(path: str, recorded: str) -> list[str]:
    try:
        identity, prefix = interpreter(os.path.join(path, "bin", "python"))
    except (Failure, OSError) as error:
        return [f"its interpreter does not run: {error.what if isinstance(error, Failure) else error}"]
    if identity != recorded:
        return [f"its interpreter was {recorded} and is now {identity}"]
    if os.path.realpath(prefix) != os.path.realpath(path):
        return [f"its interpreter takes {prefix} for its environment"]
    return []


def _file_damage(path: str, name: str, known: str, owner: int) -> list[str]:
    whole = os.path.join(path, name)
    size, modified, digest = known.split()
    try:
        state = os.lstat(whole)
        if state.st_size != int(size) or (state.st_mtime_ns != int(modified) and _digest(whole, state) != digest):
            return [f"{name} was changed"]
        why = _foreign(whole, owner)
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}"]
    return [f"{name} {why}"] if why else []
