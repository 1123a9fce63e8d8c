# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is loaded before Ansible forks, in a Python that has loaded nothing yet."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLUGINS = "ansible_collections.bulletproof.deploy.plugins"
SCRIPT = f"""
import sys
import {PLUGINS}.action.{{action}}
from {PLUGINS}.module_utils._phases import by_name
from {PLUGINS}.plugin_utils import _code, _forks
missing = [name for name in _forks.{{phases}} if not any(module.endswith("_phases." + name.removeprefix("release_")) for module in sys.modules)]
assert not missing, missing
computed = _code.digest.cache_info().misses
_code.digest(_code.FOR_HOSTS), _code.digest(*_code.FOR_CONFIGURATION)
assert _code.digest.cache_info().misses == computed
{{more}}
"""
READ = f"""
from {PLUGINS}.plugin_utils import _declaration
assert _declaration.specification.cache_info().misses == 1
assert {PLUGINS}.action.declaration._role_defaults.cache_info().misses == 1
"""


@pytest.mark.parametrize("action, phases, more", [("declaration", "FIRST", READ), ("release_stage", "THEN", "")])
def test_an_action_that_is_loaded_before_the_fork_brings_along_what_the_next_need(action: str, phases: str, more: str) -> None:
    script = SCRIPT.format(action=action, phases=phases, more=more)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
