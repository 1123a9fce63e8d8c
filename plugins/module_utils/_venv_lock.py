# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a virtual environment is built from: lock files, what they pin, and what they have to do with each other."""

from __future__ import annotations

import hashlib
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

KINDS = ("requirements", "uv", "wheel", "none")

INCLUDE = re.compile(r"^(?:-r|-c|--requirements?|--constraints?)(?:\s+|=|(?<=^-[rc]))(?P<path>\S.*)$")
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)$", re.DOTALL)
PIN = re.compile(r"^\(?\s*===?\s*(?P<version>[^\s,;)\\]+)\s*\)?\s*(?P<marker>;.*)?$", re.DOTALL)
ARCHIVE = re.compile(r"\.(whl|zip|tar\.gz|tar\.bz2|tgz)$")
LOCKED_PACKAGE = re.compile(r'^\[\[package\]\]\nname = "(?P<name>[^"]+)"\nversion = "(?P<version>[^"]+)"', re.MULTILINE)
LOCKED_DIRECTORY = re.compile(r'^source = \{ (?:editable|directory|virtual) = "(?P<path>[^"]+)"', re.MULTILINE)
WHEEL_NAME = re.compile(r"^(?P<name>[^-]+)-(?P<version>[^-]+)(-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl$")


@dataclass(frozen=True)
class Spec:
    """What is asked for.

    :param kind: One of KINDS. ``uv`` is a ``uv.lock`` beside its ``pyproject.toml``; ``none`` is the extra requirements alone.
    :param directory: Where the lock files are: the tree of the release.
    :param file: The name of the requirements file or of the wheel in that directory.
    :param extra: Requirements besides the lock (``gunicorn==23.0.0``); where the lock pins the same package, the lock wins.
        ``-c FILE`` names a file of constraints in the directory.
    :param python: The interpreter to build for.
    """

    kind: str
    directory: str = ""
    file: str = ""
    extra: tuple[str, ...] = ()
    python: str = "/usr/bin/python3"


@dataclass
class Pins:
    """The versions that a lock allows for one package, and whether it has to be there (a marker may leave it out)."""

    versions: set[str] = field(default_factory=set)
    required: bool = False


@dataclass
class Lock:
    """What the files of a Spec say.

    :param parts: Name and content of everything that decides what is installed, in a fixed order.
    :param hashed: The requirements carry hashes, so all of them have to.
    """

    parts: list[tuple[str, bytes]] = field(default_factory=list)
    pins: dict[str, Pins] = field(default_factory=dict)
    hashed: bool = False
    extra: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)

    def pin(self, name: str, version: str, required: bool) -> None:
        pins = self.pins.setdefault(normal_name(name), Pins())
        pins.versions.add(version)
        pins.required = pins.required or required

    def digest(self, *more: str) -> str:
        whole = hashlib.sha256()
        for part in [*((name.encode(), content) for name, content in self.parts), *((b"", text.encode()) for text in more)]:
            for piece in part:
                whole.update(b"%d:" % len(piece) + piece)
        return whole.hexdigest()


def normal_name(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def normal_version(version: str) -> str:
    """The one spelling of a version, near enough to PEP 440 to tell equal from different without its library."""
    public, plus, local = version.strip().lower().lstrip("v").partition("+")
    for word, letter in (("alpha", "a"), ("beta", "b"), ("preview", "rc"), ("pre", "rc"), ("rev", "post")):
        public = re.sub(rf"(?<![a-z]){word}(?![a-z])", letter, public)
    public = re.sub(r"(?<![a-z])c(?=[-_.]?\d)", "rc", public)
    public = re.sub(r"[-_.]?(a|b|rc|post|dev)[-_.]?(\d*)", lambda found: f".{found[1]}{int(found[2] or 0)}", public)
    public = re.sub(r"(\.0+)+(?=$|\.[a-z])", "", public)
    return re.sub(r"(?<!\d)0+(?=\d)", "", public) + plus + re.sub(r"[-_.]", ".", local)


def allows(pinned: str, version: str) -> bool:
    """Whether an installed version is what ``==pinned`` asks for."""
    if pinned.endswith(".*"):
        return (normal_version(version) + ".").startswith(normal_version(pinned[:-2]) + ".")
    found = normal_version(version)
    return normal_version(pinned) in (found, found.partition("+")[0])


def contradictions(lock: Lock, installed: t.Mapping[str, str]) -> list[str]:
    """Where what is installed is not what is locked."""
    wrong = []
    for name, pins in sorted(lock.pins.items()):
        wanted = " or ".join(sorted(pins.versions))
        if name not in installed:
            if pins.required:
                wrong.append(f"{name} is locked at {wanted} and not installed")
        elif not any(allows(version, installed[name]) for version in pins.versions):
            wrong.append(f"{name} is locked at {wanted} and installed as {installed[name]}")
    return wrong


def read(spec: Spec) -> Lock:
    """Read everything a Spec refers to. Raises Failure for what cannot be keyed, and so cannot be shared between releases."""
    if spec.kind not in KINDS:
        raise Failure(f"The kind of lock is {spec.kind!r}; allowed are {', '.join(KINDS)}.")
    lock = Lock()
    {"requirements": _requirements, "uv": _uv, "wheel": _wheel, "none": lambda *_: None}[spec.kind](spec, lock)
    _extra(spec, lock)
    return lock


def _inside(spec: Spec, path: str, named_by: str) -> str:
    """The absolute path of a file in the release's tree; the tree is not trusted to name any other."""
    whole = os.path.realpath(os.path.join(spec.directory, path))
    root = os.path.realpath(spec.directory)
    if whole != root and not whole.startswith(root + os.sep):
        raise Failure(
            f"{named_by} refers to {path}, which is outside the release ({root}).",
            fix="Keep the files of a lock in the release.",
        )
    return whole


def _content(path: str, named_by: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, IsADirectoryError):
        raise Failure(
            f"{named_by} names {os.path.basename(path)}, and there is no such file in {os.path.dirname(path)}.",
            fix="Correct the name, or add the file to the source.",
        ) from None


def statements(text: str) -> t.Iterator[str]:
    """The logical lines of a requirements file: continued lines joined, comments and blanks gone."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        statement = re.sub(r"(^|\s)#.*$", "", line).strip()
        if statement:
            yield statement


def _requirements(spec: Spec, lock: Lock) -> None:
    _requirements_file(spec, lock, spec.file, f"The lock of the release in {spec.directory}", False, set())


def _requirements_file(spec: Spec, lock: Lock, name: str, named_by: str, constraint: bool, seen: set[str]) -> None:
    path = _inside(spec, name, named_by)
    if path in seen:
        return
    seen.add(path)
    content = _content(path, named_by)
    lock.parts.append((os.path.relpath(path, os.path.realpath(spec.directory)), content))
    for statement in statements(content.decode("utf-8-sig", errors="replace")):
        include = INCLUDE.match(statement)
        if include:
            target = include["path"].strip("\"'")
            if "://" in target:
                raise Failure(
                    f"{name} includes {redact(target)}: what an address holds can change, so it locks nothing.",
                    fix="Keep a copy of that file in the source and include the copy.",
                )
            nested = os.path.join(os.path.dirname(name), target)
            _requirements_file(spec, lock, nested, name, constraint or statement.lstrip("-").startswith("c"), seen)
        else:
            _requirement(spec, lock, statement, name, constraint)


def _requirement(spec: Spec, lock: Lock, statement: str, name: str, constraint: bool) -> None:
    if statement.startswith(("-e", "--editable")):
        raise Failure(
            f"{name} asks for an editable installation ({redact(statement)}): it would tie the shared environment to one release.",
            fix="Leave the line out: the release's own directory is importable without it.",
        )
    if statement.startswith("-"):
        return
    lock.hashed = lock.hashed or "--hash" in statement
    requirement = re.split(r"\s--?[a-z]", statement, maxsplit=1)[0].strip()
    local = _local_path(requirement)
    if local:
        _local(spec, lock, local, name)
        return
    _pin(lock, requirement, required=not constraint)


def _local_path(requirement: str) -> str:
    address = re.split(r"\s+@\s+|\s*;\s|\s+--", requirement)
    target = address[1] if " @ " in requirement else address[0]
    if target.startswith("file:"):
        return re.sub(r"^file:(//)?", "", target).partition("#")[0]
    if "://" in target:
        return ""
    return target if target.startswith((".", "/")) or ARCHIVE.search(target) else ""


def _local(spec: Spec, lock: Lock, target: str, name: str) -> None:
    path = _inside(spec, target, name)
    if os.path.isdir(path):
        raise Failure(
            f"{name} asks for the directory {target}: its content would be frozen into an environment that other releases share.",
            fix="Build a wheel from it and name the wheel, or leave the line out if it is the app itself.",
        )
    lock.parts.append((target, _content(path, name)))


def _pin(lock: Lock, requirement: str, required: bool) -> None:
    found = REQUIREMENT.match(requirement)
    pinned = PIN.match(found["rest"]) if found else None
    if found and pinned:
        lock.pin(found["name"], pinned["version"], required and not pinned["marker"])


def _uv(spec: Spec, lock: Lock) -> None:
    for name in ("uv.lock", "pyproject.toml"):
        lock.parts.append((name, _content(_inside(spec, name, "The lock"), "A uv project")))
    text = lock.parts[0][1].decode("utf-8", errors="replace").replace("\r\n", "\n")
    for found in LOCKED_PACKAGE.finditer(text):
        lock.pin(found["name"], found["version"], required=False)
    for found in LOCKED_DIRECTORY.finditer(text):
        if found["path"] != ".":
            raise Failure(
                f"uv.lock takes a package from the directory {found['path']}: it would tie the shared environment to one release.",
                fix="Build a wheel from it and make the wheel the source, or publish it to an index.",
            )


def _wheel(spec: Spec, lock: Lock) -> None:
    name = os.path.basename(spec.file)
    found = WHEEL_NAME.match(name)
    if not found:
        raise Failure(f"{spec.file} is not the name of a wheel (name-version-python-abi-platform.whl).")
    lock.parts.append((name, _content(_inside(spec, spec.file, "The source"), "The source")))
    lock.pin(found["name"], found["version"], required=True)


def _extra(spec: Spec, lock: Lock) -> None:
    for statement in spec.extra:
        include = INCLUDE.match(statement)
        if include and statement.lstrip("-").startswith("c"):
            lock.constraints.append(_inside(spec, include["path"], "An extra requirement"))
            nested = Lock()
            _requirements_file(spec, nested, include["path"], "An extra requirement", True, set())
            lock.parts += nested.parts
            continue
        found = REQUIREMENT.match(statement)
        if not found:
            raise Failure(
                f"The extra requirement {redact(statement)!r} is not a requirement.",
                fix="Write it as in name==version, or -c FILE for constraints.",
            )
        name = normal_name(found["name"])
        if name in lock.pins:
            statement = found["name"] + (found["extras"] or "")
        else:
            _pin(lock, statement, required=True)
        lock.extra.append(statement)
    lock.parts += [("extra", statement.encode()) for statement in spec.extra]


def redact(text: str) -> str:
    """Take the credentials out of every address."""
    return re.sub(r"(?<=://)[^/\s\"'<>]*@", "***@", text)
