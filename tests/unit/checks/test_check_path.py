# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type path on real files."""

from __future__ import annotations

import os
import pathlib
import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "file").write_text("12345")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nonesuch")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(
    "name,options,verdict",
    [
        ("file", {}, "pass"),
        ("file", {"state": "file"}, "pass"),
        ("file", {"state": "directory"}, "fail"),
        ("file", {"state": "absent"}, "fail"),
        ("none", {}, "fail"),
        ("none", {"state": "file"}, "fail"),
        ("none", {"state": "absent"}, "pass"),
        ("file/below", {"state": "absent"}, "pass"),
        ("file/below", {}, "fail"),
        ("directory", {"state": "directory"}, "pass"),
        ("fifo", {"state": "file"}, "fail"),
        ("fifo", {}, "pass"),
        ("link", {"state": "link"}, "pass"),
        ("link", {"state": "file"}, "fail"),
        ("link", {"state": "file", "follow": True}, "pass"),
        ("dangling", {"state": "link"}, "pass"),
        ("dangling", {"follow": True}, "fail"),
        ("dangling", {"state": "absent"}, "fail"),
        ("file", {"mode": "0640"}, "pass"),
        ("file", {"mode": "640"}, "pass"),
        ("file", {"mode": "0600"}, "fail"),
        ("file", {"mode": "4640"}, "fail"),
        ("file", {"min_size": 5, "max_size": 5}, "pass"),
        ("file", {"min_size": 6}, "fail"),
        ("file", {"max_size": 4}, "fail"),
        ("file", {"max_age": 60}, "pass"),
        ("file", {"owner": str(os.geteuid()), "group": str(os.getegid())}, "pass"),
        ("file", {"owner": "65533"}, "fail"),
        ("file", {"group": "nonesuch"}, "fail"),
        ("link", {"target": "file"}, "pass"),
        ("link", {"target": "./file"}, "pass"),
        ("link", {"target": "other"}, "fail"),
        ("file", {"target": "file"}, "fail"),
    ],
)
def test_what_is_there(tree, check, name, options, verdict):
    found = check(type="path", path=str(tree / name), **options)
    assert found.verdict == verdict, found


def test_a_target_may_be_given_absolute(tree, check):
    assert check(type="path", path=str(tree / "link"), target=str(tree / "file")).verdict == "pass"


def test_the_age(tree, check):
    old, future = time.time() - 100, time.time() + 100
    os.utime(tree / "file", (old, old))
    assert check(type="path", path=str(tree / "file"), max_age=50).verdict == "fail"
    assert check(type="path", path=str(tree / "file"), max_age=200).verdict == "pass"
    os.utime(tree / "file", (future, future))
    assert check(type="path", path=str(tree / "file"), max_age=50).verdict == "fail"


def test_all_that_is_wrong_is_told_at_once(tree, check):
    verdict = check(type="path", path=str(tree / "file"), owner="nonesuch", mode="0600", min_size=100)
    for said in ("expected nonesuch", "its mode is 0640, expected 0600", "5 bytes, expected at least 100"):
        assert said in verdict.evidence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not look")
def test_what_may_not_be_looked_at_is_unknown(python):
    """Neither there nor absent: an account that cannot enter the directory cannot tell."""
    root = pathlib.Path("/root/bulletproof-check-path-test")
    code = (
        f"import os; from {engine.__name__} import run_checks; os.setgid(65534); os.setuid(65534);"
        f"print([v.verdict for v in run_checks([dict(type='path', path='{root}/x', state=s) for s in ('exists', 'absent')])])"
    )
    root.mkdir(mode=0o700)
    try:
        done = python(code)
    finally:
        root.rmdir()
    assert done.stdout == "['unknown', 'unknown']\n", done


@pytest.mark.parametrize(
    "options,said",
    [
        ({"path": "x"}, "absolute"),
        ({"path": "/x", "mode": 420}, "in quotes"),
        ({"path": "/x", "mode": "rw-"}, "octal"),
        ({"path": "/x", "mode": "0888"}, "octal"),
        ({"path": "/x", "state": "absent", "owner": "root"}, "state absent"),
        ({"path": "/x", "state": "file", "target": "y"}, "target: it goes with"),
        ({"path": "/x", "state": "link", "follow": True}, "follow:"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "path", **options}])
    assert said in failure.value.message()
