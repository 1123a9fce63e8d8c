# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories and files as they were declared; no link is followed, and a text that its reader refuses replaces nothing."""

from __future__ import annotations

import grp
import os
import pwd
import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import host_files

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name


def entry(path: Path, mode: str = "0640", **more: t.Any) -> dict[str, t.Any]:
    return {"path": str(path), "kind": "file", "text": None, "owner": ME, "group": MINE, "mode": mode, "validate": [], **more}


def changed(*entries: dict[str, t.Any]) -> list[str]:
    """Carry it out, and tell what was changed."""
    options = {"entries": list(entries)}
    changes = host_files.plan(options, host_files.read(options))
    for change in changes:
        change.apply()
    return [change.target for change in changes]


def test_what_is_missing_is_made_once(tmp_path: Path) -> None:
    logs = tmp_path / "logs" / "shop"
    asked = [entry(logs, "0755", kind="directory"), entry(logs / "access.log"), entry(logs / "rotation", "0644", text="daily\n")]
    assert changed(*asked) == [str(logs), str(logs / "access.log"), str(logs / "rotation")]
    assert [path.stat().st_mode & 0o777 for path in (logs, logs / "access.log", logs / "rotation")] == [0o755, 0o640, 0o644]
    assert (logs / "rotation").read_text() == "daily\n"
    assert changed(*asked) == []


def test_a_file_without_a_text_keeps_its_content(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("GET /\n")
    log.chmod(0o666)
    assert changed(entry(log)) == [str(log)]
    assert (log.read_text(), log.stat().st_mode & 0o777) == ("GET /\n", 0o640)


def test_a_mode_that_has_drifted_is_put_right(tmp_path: Path) -> None:
    asked = entry(tmp_path / "rotation", "0644", text="daily\n")
    changed(asked)
    (tmp_path / "rotation").chmod(0o666)
    assert changed(asked) == [str(tmp_path / "rotation")]
    assert ((tmp_path / "rotation").read_text(), (tmp_path / "rotation").stat().st_mode & 0o777) == ("daily\n", 0o644)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_link_is_not_followed(tmp_path: Path, kind: str) -> None:
    """Fails without O_NOFOLLOW: what the link leads to gets the mode."""
    target = tmp_path / "target"
    target.mkdir(mode=0o700) if kind == "directory" else target.touch(0o600)
    (tmp_path / "link").symlink_to(target)
    before = target.stat().st_mode
    with pytest.raises(OSError):
        changed(entry(tmp_path / "link", "0755", kind=kind))
    assert target.stat().st_mode == before


def test_a_text_that_is_refused_replaces_nothing(tmp_path: Path) -> None:
    """Fails when the file is written before it is judged."""
    rotation = tmp_path / "rotation"
    rotation.write_text("daily\n")
    judge = ["sh", "-c", 'echo "line 1: $(cat "$1")" >&2; grep -q ly "$1"', "judge"]
    with pytest.raises(Failure, match=r"(?s)rotation.*line 1: nonsense"):
        changed(entry(rotation, text="nonsense\n", validate=judge))
    assert rotation.read_text() == "daily\n"
    assert changed(entry(rotation, text="weekly\n", validate=judge)) == [str(rotation)]


@pytest.mark.parametrize("mode", ["420", "u=rw", "644"])
def test_a_mode_that_could_be_misread_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(Failure, match="the mode is"):
        changed(entry(tmp_path / "file", mode))
