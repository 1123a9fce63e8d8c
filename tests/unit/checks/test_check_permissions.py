# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type permissions: what has drifted is told, and nothing is changed."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import run_checks, validate
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

RULES = [{"path": "**", "mode": "go-w"}, {"path": ".env", "mode": "0600"}]


def test_drift_is_told_and_left_alone(tmp_path):
    for name, mode in ((".env", 0o600), ("code.py", 0o644)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    check = {"type": "permissions", "path": str(tmp_path), "rules": RULES}
    (good,) = run_checks([check])
    assert (good.verdict, good.found["drift_total"]) == ("pass", 0)
    (tmp_path / ".env").chmod(0o644)
    (tmp_path / "code.py").chmod(0o666)
    (bad,) = run_checks([check])
    assert bad.verdict == "fail" and f"{tmp_path}/.env: mode 0644, not 0600" in bad.evidence and "2 of 3 entries" in bad.evidence
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o644
    (excluded,) = run_checks([{**check, "exclude": ["code.py", ".env"]}])
    assert excluded.verdict == "pass"


def test_what_cannot_be_looked_at_is_a_fail(tmp_path):
    (absent,) = run_checks([{"type": "permissions", "path": str(tmp_path / "absent"), "rules": RULES}])
    assert absent.verdict == "fail"
    (stranger,) = run_checks([{"type": "permissions", "path": str(tmp_path), "rules": [{"path": "**", "owner": "no-such-account"}]}])
    assert stranger.verdict == "fail" and "this host has no user of that name" in stranger.evidence


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"mode": "0640"}, "rule 1: path: missing"),
        ({"path": "a", "mod": "0640"}, "rule 1: mod: there is no such attribute"),
        ({"path": "a", "mode": 0o640}, "rule 1: mode: found 416"),
    ],
)
def test_wrong_rules_are_mistakes(rule, said):
    with pytest.raises(Failure, match=said):
        validate([{"type": "permissions", "path": "/opt/shop", "rules": [rule]}])
