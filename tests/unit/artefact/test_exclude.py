# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What patterns mean, and that one which means nothing is an error."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._exclude import Exclusion
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built
from unit.artefact.sources import commit_all, plant


@pytest.mark.parametrize(
    ("pattern", "out", "kept"),
    [
        ("a.py", ["a.py", "lib/a.py"], ["ba.py", "a.pyx"]),
        ("/a.py", ["a.py"], ["lib/a.py"]),
        ("lib/a.py", ["lib/a.py", "lib/a.py/x"], ["x/lib/a.py", "lib/a.pyx"]),
        ("*.log", ["x.log", "d/.log"], ["x.logs"]),
        ("lib/*.py", ["lib/x.py"], ["lib/d/x.py"]),
        ("lib/*", ["lib/x", "lib/d/x"], ["lib", "x"]),
        ("lib/**", ["lib/x", "lib/d/x"], ["lib", "liberty/x"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["ax"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab"]),
        ("lib/", ["lib/x", "d/lib/x"], ["lib", "d/lib"]),
        ("?.py", ["a.py"], ["ab.py", ".py"]),
        ("a?b", ["axb"], ["a/b"]),
        ("[a].py", ["[a].py"], ["a.py"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_patterns(pattern: str, out: t.List[str], kept: t.List[str]) -> None:
    exclusion = Exclusion([pattern])
    assert [path for path in [*out, *kept] if exclusion.leaves_out(path)] == out


@pytest.mark.parametrize("pattern", ["!a", "", "/", "../a", "a//b", "./a"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(Failure, match="is not one"):
        Exclusion([pattern])


def test_excluding_makes_another_artefact(make: t.Callable[..., Built], app: Path) -> None:
    whole = make(str(app))
    less = make(str(app), exclude=["lib/deep/"])
    assert less.artefact.digest != whole.artefact.digest
    assert list(less.artefact.paths) == ["app.py", "current", "lib/a.py", "run"]
    assert "without lib/deep/" in less.description
    assert make(str(app)).artefact == whole.artefact


def test_a_pattern_that_matches_nothing_is_told_with_what_comes_near(make: t.Callable[..., Built], app: Path) -> None:
    commit = commit_all(app)
    for source in ({"directory": str(app)}, {"git": str(app), "ref": commit}):
        with pytest.raises(Failure, match=r"'lib/deep/c.py' matches nothing.*lib/deep/b.py"):
            make(source, exclude=["app.py", "lib/deep/c.py"])


def test_a_pattern_inside_of_what_another_one_leaves_out_is_no_mistake(make: t.Callable[..., Built], app: Path) -> None:
    commit = commit_all(app)
    for source in ({"directory": str(app)}, {"git": str(app), "ref": commit}):
        assert make(source, exclude=["lib/", "lib/deep/b.py", "__pycache__/", "*.pyc"]).artefact.paths[-1] == "run"


def test_what_is_never_part_of_a_directory(make: t.Callable[..., Built], app: Path) -> None:
    clean = make(str(app)).artefact.digest
    commit_all(app)
    plant(app, {"lib/__pycache__/a.pyc": "x", "old.pyc": "x", ".venv/bin/python": "-> /usr/bin/python3", "sub/.git/HEAD": "x"})
    assert make({"directory": str(app)}).artefact.digest == clean


def test_excluding_everything(make: t.Callable[..., Built], app: Path) -> None:
    with pytest.raises(Failure, match="holds no file"):
        make(str(app), exclude=["**"])


def test_reserved_name(make: t.Callable[..., Built], app: Path) -> None:
    plant(app, {"lib/.release/x": "fine there"})
    make(str(app))
    plant(app, {".release/x": "not here"})
    with pytest.raises(Failure, match=r"\.release in its root"):
        make(str(app))
    make(str(app), exclude=["/.release/"])
