# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on the controller: the module documents it, the action plugin of the same name takes its options. They are the same."""

from __future__ import annotations

import importlib
import pathlib

import pytest
import yaml

PLUGINS = "ansible_collections.bulletproof.deploy.plugins"
HERE = pathlib.Path(__file__).parents[3] / "plugins" / "modules"
# A module that runs nowhere.
NAMES = sorted(path.stem for path in HERE.glob("*.py") if "def main" not in path.read_text())


def test_there_are_some():
    assert {"artefact", "begin_run", "declaration", "fleet_report", "notify", "preflight_report"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_options(name):
    documented = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)["options"]
    spec = importlib.import_module(f"{PLUGINS}.action.{name}").ARGUMENT_SPEC

    def told(option):
        return {key: option[key] for key in ("type", "elements", "required", "choices", "default") if option.get(key) not in (None, False)}

    assert {option: told(one) for option, one in spec.items()} == {option: told(one) for option, one in documented.items()}
