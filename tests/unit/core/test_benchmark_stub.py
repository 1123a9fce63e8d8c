# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of ``make bench-scale``, which are not there, tell what hosts tell: a deploy reads it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import yaml

STUB = Path(__file__).resolve().parents[3] / "benchmarks" / "stub" / "connection" / "stub.py"
MODULES = "ansible_collections.bulletproof.deploy.plugins.modules"


@pytest.fixture(scope="module")
def answer():
    spec = importlib.util.spec_from_file_location("stub", STUB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.answer


@pytest.mark.parametrize(
    "phase", ["preflight", "release_stage", "release_switch", "release_watch", "release_renew", "release_commit", "release_revert"]
)
def test_a_host_of_the_benchmark_tells_all_that_a_phase_is_documented_to(answer, phase):
    documented = yaml.safe_load(importlib.import_module(f"{MODULES}.{phase}").RETURN)
    told = answer(phase, {"warm_up": False, "lease": 300}, live=False, host="web1")
    assert {name for name, one in documented.items() if one["returned"] == "success"} <= told.keys()
