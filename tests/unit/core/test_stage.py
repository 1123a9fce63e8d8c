# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What staging does about owners and modes, on a tree of its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions
from ansible_collections.bulletproof.deploy.plugins.module_utils._manifest import Manifest
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import stage

GOOD = Manifest("2-b", "2", "", "", "", {}, state="good")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """An app whose old release has a file that has drifted."""
    (tmp_path / "releases" / "1-a").mkdir(parents=True)
    have(tmp_path / "releases" / "1-a" / "app.py")
    rules = {"path": str(tmp_path), "rules": [{"path": "releases/**", "mode": "0600"}], "exclude": [], "hard_links": False}
    return {
        "app": "shop",
        "root": str(tmp_path),
        "run": "r",
        "release": "2-b",
        "prove": "import",
        "entrypoint": "a:b",
        "singletons": True,
        "permissions": rules,
    }


def have(path: Path) -> None:
    path.touch()
    path.chmod(0o644)


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_the_rules_are_for_the_new_release_too_before_it_is_proved(options: dict[str, Any], tmp_path: Path) -> None:
    """Fails when the tree is walked only before the release is built."""
    staging = stage.Stage()
    observed = stage.Observed(None, "", (), tree=_permissions.read(options["permissions"]))
    changes = staging.plan(options, observed)
    old, new = tmp_path / "releases" / "1-a" / "app.py", tmp_path / "releases" / "2-b" / "app.py"
    assert [one.target for one in changes] == [str(old), str(new.parent), "owners and modes of 2-b", "a:b", "manifest of 2-b"]

    changes[0].apply()
    new.parent.mkdir()
    have(new)
    changes[2].apply()
    assert (mode(old), mode(new)) == (0o600, 0o600)
    told = staging.report(options, observed)["permissions"]
    assert told["drift_total"] == 1 and told["drift"][0]["path"] == str(old), "what was just built has not drifted"


def test_what_is_staged_already_is_walked_once(options: dict[str, Any], tmp_path: Path) -> None:
    observed = stage.Observed(GOOD, "", (), tree=_permissions.read(options["permissions"]))
    changes = stage.Stage().plan(options, observed)
    assert [(one.target, one.before, one.after) for one in changes] == [
        (str(tmp_path / "releases" / "1-a" / "app.py"), "mode 0644", "mode 0600")
    ]


def test_what_cannot_be_put_right_is_a_warning(options: dict[str, Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "releases" / "1-a" / "pipe", 0o644)
    said: list[str] = []
    staging = stage.Stage(said.append)
    observed = stage.Observed(GOOD, "", (), tree=_permissions.read(options["permissions"]))
    for change in staging.plan(options, observed):
        change.apply()
    assert staging.report(options, observed)["permissions"]["left_alone_total"] == 1
    assert len(said) == 1 and "releases/1-a/pipe" in said[0]


def test_without_rules_nothing_is_walked(options: dict[str, Any]) -> None:
    staging = stage.Stage()
    observed = stage.Observed(GOOD, "", ())
    assert staging.plan(options, observed) == []
    assert "permissions" not in staging.report(options, observed)
