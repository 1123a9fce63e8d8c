# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repository of versions: complete, reproducible, and small changes only."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions

APPS = sorted(versions.APPS)


def git(repository: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", repository, *arguments], check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.strip()


def content(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(tree).parts
    }


@pytest.fixture(scope="module", params=APPS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("made") / "repository"
    versions.make_repository(path, request.param)
    return request.param, path


def test_every_version_is_a_tag(made: tuple[str, Path]) -> None:
    assert set(git(made[1], "tag").splitlines()) == {each.tag for each in versions.VERSIONS}


def test_every_behaviour_is_used_and_exists() -> None:
    assert {each.behaviour for each in versions.VERSIONS if each.behaviour} == {path.stem for path in versions.BEHAVIOURS.glob("*.py")}


def test_every_migration_is_used_and_exists() -> None:
    used = {name for each in versions.VERSIONS for name in each.migrations}
    assert used == {path.stem for path in versions.MIGRATIONS.glob("*.py")}


def test_the_main_branch_holds_the_good_versions_and_is_checked_out(made: tuple[str, Path]) -> None:
    _commits, repository = made
    assert git(repository, "tag", "--merged", "main").splitlines() == ["1.0.0", "1.1.0", "2.0.0"]
    assert git(repository, "status", "--porcelain", "--branch") == "## main"
    assert (repository / "VERSION").read_text() == "2.0.0\n"


def test_a_commit_changes_the_version_and_one_thing_more(made: tuple[str, Path]) -> None:
    app, repository = made
    example = versions.APPS[app]
    for each in versions.VERSIONS[1:]:
        changed = set(git(repository, "diff", "--name-only", f"{each.tag}^", each.tag).splitlines())
        expected = example.lock if each.lock_edit[0] else f"{example.package}/behaviour.py"
        new = {"1.1.0": ("customers",)}.get(each.tag, each.migrations[1:])
        files = {f"migrations/versions/{name}.py" for name in new}
        assert changed == {"VERSION", *files, *([] if each.migrations[1:] else [expected])}, each.tag
        assert git(repository, "show", f"{each.tag}:VERSION") == each.tag


def test_the_same_applications_make_the_same_commits(made: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, repository = made
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = Somebody\nemail = else@example.org\n[init]\ndefaultBranch = trunk\n[commit]\ngpgSign = true\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00Z")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    again = tmp_path / "again"
    versions.make_repository(again, app)
    monkeypatch.delenv("GIT_DIR")
    assert git(again, "show-ref") == git(repository, "show-ref")


def test_a_tree_is_what_the_repository_holds(made: tuple[str, Path], tmp_path: Path) -> None:
    app, repository = made
    for each in versions.VERSIONS:
        git(repository, "checkout", "--quiet", each.tag)
        versions.make_tree(tmp_path / each.tag, app, each.tag)
        assert content(tmp_path / each.tag) == content(repository), each.tag
    git(repository, "checkout", "--quiet", "main")


def test_what_running_an_application_leaves_behind_is_not_part_of_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = tmp_path / "example"
    versions.make_tree(example, "flask", "1.0.0")
    clean = content(example)
    for left in ("shop.db", "shop.db-wal", "shop/__pycache__/config.cpython-311.pyc", ".venv/bin/python"):
        (example / left).parent.mkdir(parents=True, exist_ok=True)
        (example / left).write_text("left")
    monkeypatch.setitem(versions.APPS, "flask", versions.App(example, "shop", "requirements.txt"))
    versions.make_tree(tmp_path / "tree", "flask", "1.0.0")
    assert content(tmp_path / "tree") == clean


def test_both_applications_have_the_same_hooks() -> None:
    flask, fastapi = (example.directory / example.package for example in (versions.APPS["flask"], versions.APPS["fastapi"]))
    for shared in ("hooks.py", "behaviour.py", "one_of_many.py"):
        assert (flask / shared).read_bytes() == (fastapi / shared).read_bytes()


def test_a_version_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no version 9\.9\.9; there are 1\.0\.0, 1\.1\.0"):
        versions.make_tree(tmp_path / "tree", "flask", "9.9.9")


@pytest.mark.parametrize("app", APPS)
def test_the_command_line(app: str, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, versions.__file__, *arguments],
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    assert [line.split()[0] for line in command("list").stdout.splitlines()] == [each.tag for each in versions.VERSIONS]
    tree, repository = str(tmp_path / "tree"), str(tmp_path / "repository")
    assert command("tree", tree, "1.1.0", "--app", app).returncode == 0
    assert command("repository", repository, "--app", app).returncode == 0
    assert git(tmp_path / "repository", "rev-parse", "--verify", "2.0.0^{commit}") == git(tmp_path / "repository", "rev-parse", "HEAD")
    refused = command("repository", repository)
    assert (refused.returncode, "exists already" in refused.stderr) == (1, True)


@pytest.mark.parametrize("app", APPS)
def test_every_package_of_the_lock_has_a_hash(app: str) -> None:
    example = versions.APPS[app]
    lock = (example.directory / example.lock).read_text()
    if example.lock == "requirements.txt":
        entries = [entry for entry in lock.replace("\\\n", " ").splitlines() if not entry.startswith("#")]
        assert len(entries) > 12
        assert all("==" in entry and "--hash=sha256:" in entry for entry in entries)
    else:
        entries = lock.split("[[package]]")[1:]
        assert all("sha256:" in entry for entry in entries if "virtual = " not in entry)
    assert "file://" not in lock
