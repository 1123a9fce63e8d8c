# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type env on real files."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def test_the_check_env(tmp_path):
    first, second = tmp_path / ".env", tmp_path / "environment"
    first.write_text("PRODUCTION=1\nDRIVER=canary-local\nKEY='x'\n")
    second.write_text("KEY=canary-key\n")
    rules = [{"when": {"PRODUCTION": "1"}, "equals": {"DRIVER": "r2"}}, {"pattern": {"KEY": "canary.*"}, "severity": "warning"}]

    def verdict(**options):
        return engine.run_checks([{"type": "env", "path": str(first), "rules": rules, **options}])[0]

    bad = verdict()
    assert bad.verdict == "fail" and bad.name == f"env {first}"
    assert bad.evidence == (
        f"{first} breaks its rules: DRIVER: found another value; expected r2 when PRODUCTION is 1. Set DRIVER to r2. "
        "warning: KEY: found another form; expected the whole of it to match canary.*. Correct KEY."
    )
    assert [one["rule"] for one in bad.found["findings"]] == ["DRIVER.equals", "KEY.pattern"]
    waived = verdict(waivers=[{"rule": "DRIVER.equals", "reason": "R2 is down", "until": "2999-01-01"}], environment_files=[str(second)])
    assert waived.verdict == "pass" and waived.evidence.startswith(f"{first} keeps its 2 rules. waived: DRIVER: found another value")
    assert waived.evidence.endswith("Waived until 2999-01-01 (DRIVER.equals): R2 is down")
    assert verdict(path=str(tmp_path / "none")).evidence.endswith("none does not exist.")
    assert "canary-local" not in str((bad, waived))

    second.write_bytes(b"KEY=\xff\n")
    assert verdict(environment_files=[str(second)]).verdict == "unknown"
    with pytest.raises(Failure) as error:
        engine.validate([{"type": "env", "path": ".env", "rules": [{"requires": ["A"]}], "waivers": [{"rule": 1}]}])
    said = error.value.message()
    assert (
        'path: found ".env", allowed: an absolute path' in said
        and "rules: rule 1: requires: unknown" in said
        and "waivers: waiver 1" in said
    )
