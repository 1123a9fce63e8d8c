# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Virtual environments on the host: one for each distinct lock, shared by the releases that need the same.

An environment is complete or it is nothing: the file that says so is written last. One that was complete and is damaged is neither
repaired nor removed, because a running service may be using it: it is marked, and another one is built beside it (environments
cannot be moved, so each is built where it stays). ``<key>``, ``<key>.2``, ``<key>.3`` are the same environment, and the newest
sound one counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _venv_build, _venv_inventory, _venv_lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_build import TOOLS
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_inventory import COMPLETE, DAMAGED
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv_lock import KINDS, Spec

__all__ = ["KINDS", "TOOLS", "Environment", "Spec", "Survey", "adopt", "ensure", "key", "problems", "remove", "survey", "unused"]

KEY_LENGTH = 16
NAME = re.compile(r"^(?P<key>[0-9a-f]{16})(?:\.(?P<number>[0-9]+))?$")
# A big build on a slow host; whoever waits longer than this waits for something that hangs.
MUTEX_TIMEOUT = 1800


@dataclass(frozen=True)
class Environment:
    """A sound environment, and how it was come by: ``reused``, ``built``, or ``rebuilt`` beside the damaged one in ``set_aside``."""

    path: str
    key: str
    how: str
    set_aside: t.Optional[str]
    installed: dict[str, str]
    seconds: float
    builder: str


@dataclass(frozen=True)
class Survey:
    """What there is for a key.

    :param usable: The newest sound environment.
    :param damaged: Path and problems of those that are newer than it.
    :param leftovers: Never completed: the run that built them died, or is still at it.
    :param following: Where the next one would be built.
    """

    key: str
    usable: t.Optional[str]
    damaged: dict[str, list[str]]
    leftovers: list[str]
    following: str
    lock: _venv_lock.Lock = field(compare=False, repr=False)
    interpreter: str


def key(spec: Spec) -> str:
    """Same lock, extra requirements and interpreter: same key, on whatever host and in whatever release."""
    return _key(_venv_lock.read(spec), _venv_inventory.interpreter(spec.python)[0])


def _key(lock: _venv_lock.Lock, interpreter: str) -> str:
    return lock.digest(interpreter)[:KEY_LENGTH]


def problems(path: str) -> list[str]:
    """Why this environment must not be used; empty when it is sound."""
    try:
        record = read_json(os.path.join(path, COMPLETE))
        marked = read_json(os.path.join(path, DAMAGED))
    except ValueError as error:
        return [f"its record cannot be read: {error}"]
    if record is None:
        return ["it was never completed"]
    if marked is not None:
        return [f"it was set aside before: {'; '.join(marked['why'])}"]
    return _venv_inventory.damage(path, record)


def survey(spec: Spec, venvs: str) -> Survey:
    """Look, and change nothing."""
    lock = _venv_lock.read(spec)
    interpreter = _venv_inventory.interpreter(spec.python)[0]
    name = _key(lock, interpreter)
    numbered = {int(found["number"] or 1): os.path.join(venvs, found[0]) for found in _named(venvs) if found["key"] == name}
    damaged: dict[str, list[str]] = {}
    leftovers: list[str] = []
    usable = None
    for number in sorted(numbered, reverse=True):
        path = numbered[number]
        if not os.path.exists(os.path.join(path, COMPLETE)):
            leftovers.append(path)
            continue
        found = problems(path)
        if not found:
            usable = path
            break
        damaged[path] = found
    following = max(numbered, default=0) + 1
    return Survey(
        key=name,
        usable=usable,
        damaged=damaged,
        leftovers=leftovers,
        following=os.path.join(venvs, name if following == 1 else f"{name}.{following}"),
        lock=lock,
        interpreter=interpreter,
    )


def ensure(spec: Spec, venvs: str, cache: str, uv: t.Optional[str] = None) -> Environment:
    """A sound environment for a Spec: the one that is there, or a new one.

    :param venvs: The directory of all environments of the app.
    :param cache: A directory for downloaded and unpacked packages, best on the same file system (packages are hard-linked from it).
    :param uv: The path of uv; None looks for it (TOOLS, PATH); an empty text builds with pip.
    """
    begin = time.monotonic()
    seen = survey(spec, venvs)
    if seen.usable is None:
        builder = _venv_build.choose(uv, cache)
        with _umask(0o022), _room(venvs, cache):
            os.makedirs(venvs, mode=0o755, exist_ok=True)
            with exclusive(venvs, "venvs", MUTEX_TIMEOUT):
                seen = survey(spec, venvs)
                if seen.usable is None:
                    return _new(spec, seen, builder, begin)
    return adopt(seen.usable, begin)


def adopt(path: str, begin: float, aside: t.Optional[str] = None, how: str = "reused") -> Environment:
    """A sound environment as its own record describes it."""
    record = read_json(os.path.join(path, COMPLETE))
    return Environment(path, record["key"], how, aside, record["installed"], time.monotonic() - begin, record["builder"])


def _new(spec: Spec, seen: Survey, builder: _venv_build.Builder, begin: float) -> Environment:
    for damaged, why in seen.damaged.items():
        if not os.path.exists(os.path.join(damaged, DAMAGED)):
            write_json(os.path.join(damaged, DAMAGED), {"why": why, "when": time.time()})
    for leftover in seen.leftovers:
        # Its name is not used again: an installer that outlived the run which started it would go on writing there.
        shutil.rmtree(leftover)
    path = seen.following
    try:
        files = _filled(spec, seen.lock, builder, path)
        write_json(os.path.join(path, COMPLETE), _record(spec, seen, builder, path, files))
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return adopt(path, begin, aside=next(iter(seen.damaged), None), how="rebuilt" if seen.damaged else "built")


def _filled(spec: Spec, lock: _venv_lock.Lock, builder: _venv_build.Builder, path: str) -> dict[str, str]:
    """Build, and distrust the cache once: the files, as they are recorded."""
    files = _filled_once(spec, lock, builder, path)
    strange = _venv_inventory.unlike_their_origin(path, files, os.geteuid()) if builder.program else {}
    if strange:
        _venv_build.forget(builder, strange)
        shutil.rmtree(path)
        files = _filled_once(spec, lock, builder, path)
    return files


def _filled_once(spec: Spec, lock: _venv_lock.Lock, builder: _venv_build.Builder, path: str) -> dict[str, str]:
    _venv_build.fill(builder, spec, lock, path)
    _venv_inventory.seal(path)
    return _venv_inventory.take(path)


def _record(spec: Spec, seen: Survey, builder: _venv_build.Builder, path: str, files: dict[str, str]) -> dict[str, t.Any]:
    installed = _venv_inventory.installed(path)
    wrong = _venv_lock.contradictions(seen.lock, installed)
    if wrong:
        raise Failure(
            f"What {builder.name} installed is not what is locked: {'; '.join(wrong)}.",
            fix="Lock again, so that the lock holds one consistent set of versions for the host's Python.",
        )
    record = {
        "key": seen.key,
        "spec": dict(asdict(spec), extra=[_venv_lock.redact(requirement) for requirement in spec.extra]),
        "interpreter": seen.interpreter,
        "installed": installed,
        "builder": builder.name,
        "owner": os.geteuid(),
        "files": files,
        "when": time.time(),
    }
    broken = _venv_inventory.damage(path, record)
    if broken:
        raise Failure(
            f"The environment that {builder.name} built cannot be used: {'; '.join(broken)}.",
            fix="Look at the host's Python, then run it again.",
        )
    return record


def _named(venvs: str) -> t.Iterator[t.Match[str]]:
    names = os.listdir(venvs) if os.path.isdir(venvs) else []
    return (found for found in map(NAME.match, sorted(names)) if found)


def unused(venvs: str, in_use: t.AbstractSet[str]) -> list[str]:
    """The environments that nobody needs: sound, damaged or never completed. Asked under the lock of the app, when nothing is building.

    :param in_use: Paths or names of those that releases refer to.
    """
    needed = {os.path.basename(os.path.normpath(one)) for one in in_use}
    return [os.path.join(venvs, found[0]) for found in _named(venvs) if found[0] not in needed]


def remove(path: str) -> None:
    """Remove an environment. What says that it is complete goes first: a removal that dies midway leaves a leftover, not a damaged one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(path, COMPLETE))
    shutil.rmtree(path)


@contextlib.contextmanager
def _umask(mask: int) -> t.Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _room(*directories: str) -> t.Iterator[None]:
    """Say which disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _venv_build.no_space(*directories) from error
        raise
