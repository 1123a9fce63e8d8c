# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a lock says: keys, pins, and what is refused because it locks nothing."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _venv_lock
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._venv import Spec, key


def tree(directory: Path, files: t.Mapping[str, str]) -> str:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return str(directory)


def requirements(directory: Path, text: str, **more: t.Any) -> Spec:
    return Spec("requirements", tree(directory, {"requirements.txt": text}), "requirements.txt", **more)


def test_same_lock_in_two_releases_is_one_key(tmp_path: Path) -> None:
    assert key(requirements(tmp_path / "a", "alpha==1.0\n")) == key(requirements(tmp_path / "b", "alpha==1.0\n"))


def test_everything_that_decides_is_in_the_key(tmp_path: Path) -> None:
    nested = {"requirements.txt": "-r more/base.txt\nalpha==1.0\n", "more/base.txt": "-c pins.txt\nbeta\n", "more/pins.txt": "beta==1.0\n"}
    vendored = {"requirements.txt": "./a-1-py3-none-any.whl\n", "a-1-py3-none-any.whl": "one"}
    older = tmp_path / "older-python"
    older.write_text("#!/bin/sh\nprintf 'cpython\\n3.9.0.final.0\\n.so\\nlinux\\n64\\n/usr\\n/usr\\n'\n")
    older.chmod(0o755)
    keys = [
        key(requirements(tmp_path / "0", "alpha==1.0\n")),
        key(requirements(tmp_path / "1", "alpha==2.0\n")),
        key(requirements(tmp_path / "2", "alpha==1.0\n", extra=("gunicorn==23.0.0",))),
        key(requirements(tmp_path / "3", "alpha==1.0\n", python=str(older))),
        key(Spec("requirements", tree(tmp_path / "4", nested), "requirements.txt")),
        key(Spec("requirements", tree(tmp_path / "5", {**nested, "more/base.txt": "-c pins.txt\nbeta<2\n"}), "requirements.txt")),
        key(Spec("requirements", tree(tmp_path / "6", {**nested, "more/pins.txt": "beta==1.1\n"}), "requirements.txt")),
        key(Spec("uv", tree(tmp_path / "7", {"uv.lock": "version = 1\n", "pyproject.toml": "[project]\n"}))),
        key(Spec("uv", tree(tmp_path / "8", {"uv.lock": "version = 1\n", "pyproject.toml": "[project]\n\n"}))),
        key(Spec("uv", tree(tmp_path / "9", {"uv.lock": "version = 2\n", "pyproject.toml": "[project]\n"}))),
        key(Spec("wheel", tree(tmp_path / "10", {"a-1-py3-none-any.whl": "one"}), "a-1-py3-none-any.whl")),
        key(Spec("wheel", tree(tmp_path / "11", {"a-1-py3-none-any.whl": "two"}), "a-1-py3-none-any.whl")),
        key(Spec("none", extra=("-c pins.txt", "alpha"), directory=tree(tmp_path / "12", {"pins.txt": "alpha==1.0"}))),
        key(Spec("none", extra=("-c pins.txt", "alpha"), directory=tree(tmp_path / "13", {"pins.txt": "alpha==2.0"}))),
        key(Spec("requirements", tree(tmp_path / "14", vendored), "requirements.txt")),
        key(Spec("requirements", tree(tmp_path / "15", {**vendored, "a-1-py3-none-any.whl": "two"}), "requirements.txt")),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(one) == 16 for one in keys)


@pytest.mark.parametrize("line", ["-r ../secret.txt", "-r/etc/passwd", "--requirement=link.txt", "-c ../secret.txt", "../secret.whl"])
def test_nothing_outside_of_the_release_is_read(tmp_path: Path, line: str) -> None:
    tree(tmp_path, {"secret.txt": "alpha", "secret.whl": "x"})
    spec = requirements(tmp_path / "release", line)
    os.symlink("../secret.txt", tmp_path / "release" / "link.txt")
    with pytest.raises(Failure, match="outside the release"):
        key(spec)


def test_a_lock_that_is_itself_a_link_out_is_not_read(tmp_path: Path) -> None:
    tree(tmp_path, {"secret.txt": "alpha", "release/other": ""})
    os.symlink("../secret.txt", tmp_path / "release" / "requirements.txt")
    with pytest.raises(Failure, match="outside the release"):
        key(Spec("requirements", str(tmp_path / "release"), "requirements.txt"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-e .", "editable"),
        ("--editable=./library", "editable"),
        ("./library", "directory"),
        (".", "directory"),
        ("library @ file:./library", "directory"),
        ("-r https://user:hunter2@example.com/r.txt", "locks nothing"),
        ("-r absent.txt", "no such file"),
    ],
)
def test_what_locks_nothing_is_refused(tmp_path: Path, line: str, why: str) -> None:
    tree(tmp_path, {"library/setup.py": ""})
    with pytest.raises(Failure, match=why) as caught:
        key(requirements(tmp_path, f"{line}\n"))
    assert caught.value.fix
    assert "hunter2" not in caught.value.message()


def test_a_uv_lock_with_a_directory_of_the_release_is_refused(tmp_path: Path) -> None:
    itself = '[[package]]\nname = "app"\nversion = "1"\nsource = { virtual = "." }\n\n'
    lock = itself + '[[package]]\nname = "x"\nversion = "1"\nsource = { %s }\n'
    accepted = tree(tmp_path / "a", {"uv.lock": lock % 'registry = "https://example.com"', "pyproject.toml": ""})
    assert key(Spec("uv", accepted))
    refused = tree(tmp_path / "b", {"uv.lock": lock % 'editable = "libraries/x"', "pyproject.toml": ""})
    with pytest.raises(Failure, match="libraries/x"):
        key(Spec("uv", refused))


WRONG = [Spec("pipenv"), Spec("wheel", "/", "shop.zip"), Spec("none", extra=("--index-url=x",)), Spec("uv", "/proc")]


@pytest.mark.parametrize("spec", WRONG)
def test_a_wrong_spec_is_refused(spec: Spec) -> None:
    with pytest.raises(Failure):
        key(spec)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="/absent/python"):
        key(Spec("none", python="/absent/python"))


TEXT = """
# a comment
alpha[fast,small]==1.0.0 \\
    --hash=sha256:00  # another
beta == 2.0 ; python_version < "3"
beta==3.0; python_version >= "3"
Gamma_Delta===1!4.0+local
epsilon>=1
zeta @ https://example.com/zeta-1.0.tar.gz#egg=zeta
"""


def test_pins(tmp_path: Path) -> None:
    lock = _venv_lock.read(requirements(tmp_path, TEXT))
    assert lock.hashed
    assert {name: (pins.versions, pins.required) for name, pins in lock.pins.items()} == {
        "alpha": ({"1.0.0"}, True),
        "beta": ({"2.0", "3.0"}, False),
        "gamma-delta": ({"1!4.0+local"}, True),
    }


@pytest.mark.parametrize(
    ("pinned", "version", "same"),
    [
        ("1.0", "1.0.0", True),
        ("1", "1.0", True),
        ("1.0", "1.0.1", False),
        ("1.10", "1.1", False),
        ("10", "1", False),
        ("100.0", "100", True),
        ("2.0rc1", "2.0.0rc1", True),
        ("2.0-RC.1", "2.0rc1", True),
        ("1.0.alpha1", "1.0a1", True),
        ("1.0c2", "1.0rc2", True),
        ("1.0.post1", "1.0-post1", True),
        ("1.0rc1", "1.0", False),
        ("1.0a1", "1.0a10", False),
        ("2024.01.05", "2024.1.5", True),
        ("v1.2", "1.2", True),
        ("1.4.*", "1.4.7", True),
        ("1.4.*", "1.40", False),
        ("2.1", "2.1+cpu", True),
        ("2.1+cpu", "2.1", False),
        ("2.1+cpu", "2.1+cpu", True),
        ("2.1+ubuntu-1", "2.1+ubuntu.1", True),
    ],
)
def test_versions(pinned: str, version: str, same: bool) -> None:
    assert _venv_lock.allows(pinned, version) is same


def test_contradictions(tmp_path: Path) -> None:
    lock = _venv_lock.read(requirements(tmp_path, TEXT))
    found = _venv_lock.contradictions(lock, {"alpha": "1.0", "beta": "2.5", "other": "1"})
    assert found == [
        "beta is locked at 2.0 or 3.0 and installed as 2.5",
        "gamma-delta is locked at 1!4.0+local and not installed",
    ]


def test_redact() -> None:
    assert _venv_lock.redact("see https://me:pa@ss@host/x and git+ssh://token@host") == "see https://***@host/x and git+ssh://***@host"
