# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of the example applications: good ones, and one for each way in which a new version can be bad.

Every version is a commit of its own, with a tag, in a Git repository that this makes; the same applications always
make the same commits. A version differs from its parent in ``VERSION`` and in the module ``behaviour.py``, its lock, or its migrations.

    python3 examples/versions.py list
    python3 examples/versions.py repository /tmp/shop
    python3 examples/versions.py tree /tmp/notes-1.1.0 1.1.0 --app fastapi
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEHAVIOURS = HERE / "behaviours"
MIGRATIONS = HERE / "migrations"
NOT_PART_OF_A_TREE = shutil.ignore_patterns("__pycache__", "attachments", ".venv", ".*_cache", "*.pyc", "*.db", "*.db-shm", "*.db-wal")

AUTHOR = {"NAME": "The shop", "EMAIL": "shop@example.com", "DATE": "2025-01-01T12:00:00+00:00"}


@dataclass(frozen=True)
class App:
    """Where an example application is, and what of it differs between versions."""

    directory: Path
    package: str
    lock: str


APPS = {
    "flask": App(HERE / "flask_app", package="shop", lock="requirements.txt"),
    "fastapi": App(HERE / "fastapi_app", package="notes", lock="uv.lock"),
}


@dataclass(frozen=True)
class Version:
    """One version: the tag, the file in ``behaviours/`` that is its code, and what a person should know of it."""

    tag: str
    behaviour: str
    description: str
    good: bool = False
    lock_edit: tuple[str, str] = ("", "")
    """A regular expression and what its matches become, in the lock file."""
    migrations: tuple[str, ...] = ("customers",)
    """The files in ``migrations/`` that come after the first one, which is in the application's directory."""


def bad(name: str, description: str) -> Version:
    return Version(f"1.2.0-{name}", name.replace("-", "_"), description)


def migrating(migration: str, description: str) -> Version:
    name = migration.replace("_", "-")
    return Version(f"1.2.0-{name}", SECOND.behaviour, description, migrations=("customers", migration))


FIRST = Version("1.0.0", "", "good: the application as it is in its directory", good=True, migrations=())
SECOND = Version("1.1.0", "new_greeting", "good, with another greeting and one more table", good=True)
THIRD = Version("2.0.0", "another_greeting", "good, with a third greeting", good=True)

VERSIONS: tuple[Version, ...] = (
    FIRST,
    SECOND,
    THIRD,
    Version("1.2.0-slow-start", "slow_start", "good, but a worker needs 3 s before it serves", good=True),
    Version("1.2.0-very-slow-start", "very_slow_start", "good, but a worker needs 40 s", good=True),
    bad("crash-on-import", "the package cannot be imported"),
    bad("crash-on-start", "the application cannot be created (Flask) or fails in its lifespan (FastAPI)"),
    bad("crash-on-boot", "fails in a worker of gunicorn only: an import check passes"),
    bad("crash-after-5s", "serves for 5 s, then the whole server ends"),
    bad("workers-crash-after-5s", "every worker crashes 5 s after its start and is started again; the service stays active"),
    bad("always-500", "listens, and answers every request with 500"),
    bad("fails-from-third-request", "every worker answers 500 from its third request on"),
    bad("fails-after-5s", "every worker answers 500 from 5 s after its start on"),
    bad("tells-old-version", "works, but tells the version 1.0.0"),
    bad("no-health-path", "works, but /health is 404"),
    bad("one-worker-crashes", "one worker crashes 1 s after its start, again and again; the others are well"),
    bad("one-worker-hangs", "one worker never answers; the others are well"),
    migrating("fails_midway", "its migration fails after its first statement"),
    migrating("drops_customers", "its migration drops a table, so that an older release cannot run beside it"),
    migrating("second_head", "its migrations have two heads"),
    Version(
        "1.2.0-damaged-lock",
        "new_greeting",
        "no environment can be built: the hashes in its lock are not those of the packages",
        lock_edit=(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64),
    ),
    Version(
        "1.2.0-unresolvable",
        "new_greeting",
        "no environment can be built: its lock names a release of gunicorn that does not exist",
        lock_edit=(r'(gunicorn(?:==|"\nversion = "))[0-9.]+', r"\g<1>99.99.99"),
    ),
)


def version(tag: str) -> Version:
    for candidate in VERSIONS:
        if candidate.tag == tag:
            return candidate
    raise ValueError(f"There is no version {tag}; there are {', '.join(each.tag for each in VERSIONS)}.")


def make_tree(path: str | Path, app: str, tag: str) -> None:
    """Make a directory that holds one version of an application, as a person would find it: no Git, nothing built.

    :param path: Must not exist.
    """
    chosen, target = version(tag), Path(path)
    shutil.copytree(APPS[app].directory, target, ignore=NOT_PART_OF_A_TREE)
    _become(target, APPS[app], chosen)


def make_repository(path: str | Path, app: str = "flask") -> None:
    """Make a Git repository with every version as a tag; ``main`` holds the good ones, and is checked out.

    :param path: Must not exist.
    """
    target = Path(path)
    make_tree(target, app, FIRST.tag)
    _git(target, "init", "--quiet", "--initial-branch=main")
    _commit(target, FIRST)
    for successor in (SECOND, THIRD):
        _become(target, APPS[app], successor)
        _commit(target, successor)
    for branch in VERSIONS:
        if branch not in (FIRST, SECOND, THIRD):
            _git(target, "checkout", "--quiet", "--detach", SECOND.tag)
            _become(target, APPS[app], branch)
            _commit(target, branch)
    _git(target, "checkout", "--quiet", "main")


def _become(tree: Path, app: App, chosen: Version) -> None:
    (tree / "VERSION").write_text(chosen.tag + "\n", encoding="utf-8")
    if chosen.behaviour:
        shutil.copyfile(BEHAVIOURS / f"{chosen.behaviour}.py", tree / app.package / "behaviour.py")
    for name in chosen.migrations:
        shutil.copyfile(MIGRATIONS / f"{name}.py", tree / "migrations" / "versions" / f"{name}.py")
    pattern, replacement = chosen.lock_edit
    if pattern:
        lock = tree / app.lock
        lock.write_text(re.sub(pattern, replacement, lock.read_text(encoding="utf-8")), encoding="utf-8")


def _commit(repository: Path, made: Version) -> None:
    _git(repository, "add", "--all")
    _git(repository, "commit", "--quiet", "--message", f"Version {made.tag}: {made.description}")
    _git(repository, "tag", "--annotate", "--message", made.description, made.tag)


def _git(repository: Path, *arguments: str) -> None:
    # Nothing of the person who runs this (signing, hooks, line endings, another date) may reach the commits.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.update({"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull})
    for who in ("AUTHOR", "COMMITTER"):
        environment.update({f"GIT_{who}_{name}": value for name, value in AUTHOR.items()})
    subprocess.run(["git", *arguments], cwd=repository, env=environment, check=True)


def main(arguments: t.Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make versions of the example applications, good and bad ones.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print all versions")
    repository = commands.add_parser("repository", help="make a Git repository with a tag for each version")
    tree = commands.add_parser("tree", help="make a directory with one version")
    for command in (repository, tree):
        command.add_argument("path", type=Path, help="where; must not exist")
        command.add_argument("--app", choices=sorted(APPS), default="flask")
    tree.add_argument("tag", choices=[each.tag for each in VERSIONS], metavar="tag")
    options = parser.parse_args(arguments)
    if options.command == "list":
        for each in VERSIONS:
            print(f"{each.tag:32} {each.description}")
    elif options.path.exists():
        sys.exit(f"{options.path} exists already: name a path that does not, or remove it.")
    elif options.command == "repository":
        make_repository(options.path, options.app)
    else:
        make_tree(options.path, options.app, options.tag)


if __name__ == "__main__":
    main()
