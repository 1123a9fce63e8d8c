# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The code that a host keeps between phases: what comes in a module's archive runs from there, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _host_code
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import launch

MODULE_UTILS = Path(_host_code.__file__).parent
PACKAGE = "ansible_collections/bulletproof/deploy/plugins/module_utils"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Ansible sends: its own library, and ours."""
    monkeypatch.setattr(_host_code, "PLACE", str(tmp_path / "run" / "code"))
    path = tmp_path / "module.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("ansible/module_utils/basic.py", "raise SystemExit('not for us')")
        made.writestr("ansible_collections/__init__.py", "")
        made.writestr("../escaped.py", "")
        for source in MODULE_UTILS.glob("**/*.py"):
            made.write(source, f"{PACKAGE}/{source.relative_to(MODULE_UTILS)}")
    return path


def run(digest: str, request: t.Mapping[str, t.Any]) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", _host_code.place_of(digest)]
    return subprocess.run(argv, input=json.dumps(request), capture_output=True, encoding="utf-8", check=False)


def request(path: Path, check: bool) -> t.Dict[str, t.Any]:
    rule = {"path": "**", "owner": None, "group": None, "mode": "0600", "directory_mode": "0700", "keep_executable": False}
    return {
        "phase": "permissions",
        "check": check,
        "options": {"path": str(path), "rules": [rule], "exclude": [], "hard_links": False},
    }


def test_a_phase_runs_from_what_is_kept_and_says_what_it_did(archive: Path, tmp_path: Path) -> None:
    file = tmp_path / "tree" / "file"
    file.parent.mkdir(mode=0o700)
    file.touch(mode=0o644)
    _host_code.keep("abc", str(archive))
    assert oct(os.stat(_host_code.PLACE).st_mode & 0o777) == "0o700"
    for check, mode, changed in ((True, 0o644, True), (False, 0o600, True), (False, 0o600, False)):
        done = run("abc", request(file.parent, check))
        said = done.stdout.splitlines()
        assert (said[0], len(said), done.returncode) == (launch.STARTED, 2, 0), done.stderr
        assert json.loads(said[1])["changed"] is changed
        assert file.stat().st_mode & 0o777 == mode


def test_a_phase_that_fails_says_so(archive: Path, tmp_path: Path) -> None:
    _host_code.keep("abc", str(archive))
    done = run("abc", request(tmp_path / "missing", False))
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["failed"], done.returncode) == (True, 1)
    assert "missing" in result["msg"]


def test_where_nothing_is_kept_nothing_begins(archive: Path, tmp_path: Path) -> None:
    done = run("abc", request(tmp_path, False))
    assert launch.STARTED not in done.stdout
    _host_code.keep("abc", None)
    assert not os.path.exists(_host_code.place_of("abc"))


def test_only_our_own_code_is_kept(archive: Path, tmp_path: Path) -> None:
    _host_code.keep("abc", str(archive))
    found = {str(path.relative_to(_host_code.place_of("abc"))) for path in Path(_host_code.place_of("abc")).glob("**/*.py")}
    assert {path.split("/")[0] for path in found} == {"__main__.py", "ansible_collections"}
    assert f"{PACKAGE}/_phases/stage.py" in found
    assert not list(tmp_path.glob("**/escaped.py"))


def test_what_cannot_be_kept_is_nobodys_failure(archive: Path) -> None:
    """A full disk, say: here the archive is gone."""
    archive.unlink()
    _host_code.keep("abc", str(archive))
    assert os.listdir(_host_code.PLACE) == []


def test_the_oldest_of_many_go(archive: Path) -> None:
    for number in range(_host_code.KEPT + 2):
        _host_code.keep(f"d{number}", str(archive))
        os.utime(_host_code.place_of(f"d{number}"), (number, number))
    _host_code.keep("newest", str(archive))
    kept = set(os.listdir(_host_code.PLACE))
    assert len(kept) == _host_code.KEPT
    assert {"newest", f"d{_host_code.KEPT + 1}"} <= kept
