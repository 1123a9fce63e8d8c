# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what a person wrote as the source of an app to the one artefact that every host gets."""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import is_plain, shown
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _archive, _git
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Artefact, Cache
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._nearest import nearest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._snapshot import directory_snapshot, wheel_snapshot

# What one key means for each kind of source, and which keys may stand beside it.
_KINDS: t.Dict[str, t.Tuple[str, ...]] = {"git": ("ref", "subdirectory"), "directory": (), "archive": ("subdirectory",), "wheel": ()}
# To be raised when the same commit and patterns no longer give the same tree.
_INDEX_FORMAT = 1
_LONGEST_VERSION = 100


@dataclass(frozen=True)
class Source:
    """A source whose form has been checked; nothing has been read yet."""

    kind: str
    location: str
    ref: t.Optional[str] = None
    subdirectory: t.Optional[str] = None


@dataclass(frozen=True)
class Options:
    """How a source becomes an artefact."""

    exclude: t.Sequence[str]
    max_size: int
    timeout: float


@dataclass(frozen=True)
class Built:
    """An artefact, and where it came from."""

    artefact: Artefact
    description: str
    commit: t.Optional[str] = None


def parse_source(value: object) -> Source:
    """Understand ``source``. Values are not repeated in messages: a URL may hold a password."""
    if isinstance(value, str):
        return _detect(value)
    if not isinstance(value, t.Mapping):
        raise Failure(f"source must be text or a mapping, not {type(value).__name__}.", fix=_FIX)
    kinds = [key for key in value if key in _KINDS]
    if len(kinds) != 1:
        raise Failure(f"source must have exactly one of {', '.join(_KINDS)}; it has {' and '.join(kinds) or 'none of them'}.", fix=_FIX)
    kind = str(kinds[0])
    unknown = sorted(str(key) for key in value if key != kind and key not in _KINDS[kind])
    if unknown:
        allowed = f"only {' and '.join(_KINDS[kind])}" if _KINDS[kind] else "nothing"
        raise Failure(f"source.{unknown[0]} is not an option: beside {kind} {allowed} can be given.", fix=f"Remove {unknown[0]}.")
    texts = {key: item for key, item in value.items() if item is not None}
    for key, item in texts.items():
        if not isinstance(item, str) or not item:
            raise Failure(f"source.{key} must be text that is not empty, not {type(item).__name__}.", fix=f"Correct source.{key}.")
    if kind not in texts:
        raise Failure(f"source.{kind} is empty.", fix=_FIX)
    subdirectory = texts.get("subdirectory")
    if subdirectory is not None:
        subdirectory = subdirectory.rstrip("/")
        if not is_plain(subdirectory):
            raise Failure(f"source.subdirectory is {subdirectory!r}; a path relative to the root of the source, without .., is allowed.")
    return Source(kind, texts[kind], texts.get("ref"), subdirectory)


_FIX = "Write a URL or a path, or one of {git: URL, ref: REF}, {directory: PATH}, {archive: PATH}, {wheel: PATH}."


def _detect(value: str) -> Source:
    if not value:
        raise Failure("source is empty.", fix=_FIX)
    if _git.is_remote(value):
        remote = _git.parse(value)
        if remote.url.endswith((*_archive.SUFFIXES, ".whl")):
            raise Failure(
                f"source is the URL of a file, {remote.url}; only Git repositories are fetched.",
                fix="Download it and check it, then give its path.",
            )
        return Source("git", value)
    if value.endswith(".whl"):
        return Source("wheel", value)
    path = _local(value)
    if value.endswith(_archive.SUFFIXES) and not os.path.isdir(path):
        return Source("archive", value)
    bare = os.path.isfile(os.path.join(path, "HEAD")) and os.path.isdir(os.path.join(path, "objects"))
    # In a checkout, too, the version names a commit: a work tree under some version's name would not be that version.
    if bare or os.path.exists(os.path.join(path, ".git")):
        return Source("git", value)
    return Source("directory", value)


def build(source: Source, version: str, options: Options, cache: Cache) -> Built:
    """Make the artefact, or find it in the cache."""
    without = f", without {', '.join(options.exclude)}" if options.exclude else ""
    if source.kind == "git":
        return _build_git(source, source.ref or version, options, cache, without)
    path = _existing(source)
    description = f"{source.kind} {path}{without}"
    if source.kind == "archive":
        with _archive.archive_snapshot(path, source.subdirectory, options.exclude, options.max_size, cache.scratch) as snapshot:
            return Built(cache.store(snapshot), description)
    reader = wheel_snapshot if source.kind == "wheel" else directory_snapshot
    return Built(cache.store(reader(path, options.exclude, options.max_size)), description)


def _build_git(source: Source, ref: str, options: Options, cache: Cache, without: str) -> Built:
    remote = _git.parse(source.location)

    def key(commit: str) -> t.List[object]:
        return [_INDEX_FORMAT, commit, source.subdirectory, sorted(options.exclude)]

    def built(artefact: Artefact, commit: str) -> Built:
        below = f", directory {source.subdirectory}" if source.subdirectory else ""
        named = "" if ref == commit else f", ref {ref}"
        return Built(artefact, f"Git repository {remote.url}{named}, commit {commit[:12]}{below}{without}", commit)

    if _git.is_full_sha(ref):
        # A commit is its content: what was made of it once, from wherever, is what would be made of it again.
        known = cache.find_indexed(key(ref))
        if known is not None:
            return built(known, ref)
    mirror = _git.Mirror(remote, cache, options.timeout)
    with mirror.lock():
        commit = mirror.resolve(ref)
        known = cache.find_indexed(key(commit))
        if known is None:
            with _git.git_snapshot(mirror, commit, source.subdirectory, options.exclude, options.max_size, cache.scratch) as snapshot:
                known = cache.store(snapshot)
            cache.index(key(commit), known)
    return built(known, commit)


def _local(value: str) -> str:
    return os.path.abspath(os.path.expanduser(value))


def _existing(source: Source) -> str:
    path = _local(source.location)
    wanted = os.path.isdir if source.kind == "directory" else os.path.isfile
    if wanted(path):
        if source.kind == "archive" and not path.endswith(_archive.SUFFIXES):
            raise Failure(f"{path} is not named like an archive: {', '.join(_archive.SUFFIXES)}.", fix="Rename or convert it.")
        return path
    if os.path.lexists(path):
        raise Failure(f"{path} is not {'a directory' if source.kind == 'directory' else 'a file'}.", fix=_FIX)
    parent, name = os.path.split(path)
    while not os.path.isdir(parent):
        parent, name = os.path.split(parent)
    raise Failure(
        f"There is no {source.kind} at {path} on the controller."
        f" The nearest names in {parent}: {shown(nearest(name, os.listdir(parent)))}.",
        fix="Correct the path; a relative one begins in the directory where ansible-playbook was started.",
    )


def release_id(version: str, digest: str, inputs: object) -> str:
    """The name of a release: same content and same inputs, same name."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", version).lstrip(".-")
    if not name or len(name) > _LONGEST_VERSION:
        raise Failure(
            f"version is {version!r}; a release is named after it, so it needs at least one letter or digit and at most"
            f" {_LONGEST_VERSION} characters.",
            fix="Choose another version.",
        )
    canonical = json.dumps(_plain(inputs), sort_keys=True, separators=(",", ":"))
    return f"{name}-{hashlib.sha256(f'{digest}{chr(10)}{canonical}'.encode()).hexdigest()[:12]}"


def _plain(value: object) -> object:
    """The JSON value behind the types in which Ansible wraps what it has templated or decrypted."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, t.Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def requirements(artefact: Artefact, chosen: t.Optional[str]) -> t.Dict[str, str]:
    """What a virtual environment for the artefact is built from.

    :param chosen: A file that is to be used whatever else there is.
    """
    if chosen is not None:
        if chosen not in artefact.paths:
            raise Failure(
                f"The artefact has no file {chosen!r}, which requirements names. The nearest: {shown(nearest(chosen, artefact.paths))}.",
                fix="Correct requirements, or see whether exclude leaves the file out.",
            )
        return {"kind": _kind(chosen), "file": chosen}
    if "uv.lock" in artefact.paths and "pyproject.toml" in artefact.paths:
        return {"kind": "uv", "file": "uv.lock"}
    if "requirements.txt" in artefact.paths:
        return {"kind": "requirements", "file": "requirements.txt"}
    if len(artefact.paths) == 1 and artefact.paths[0].endswith(".whl"):
        return {"kind": "wheel", "file": artefact.paths[0]}
    return {"kind": "none"}


def _kind(path: str) -> str:
    name = os.path.basename(path)
    if name == "uv.lock":
        return "uv"
    return "wheel" if name.endswith(".whl") else "requirements"
