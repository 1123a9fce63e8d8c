#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Any phase of a run, by its name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: phase
short_description: Any phase of a run, by its name
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Carries out what another module of this collection documents. Call that module, not this one.
  - All phases come to the host as this one module, so that a run packs and compresses the code for the hosts once instead of once a phase.
    That is most of what a module costs on the controller.
options:
  phase:
    description: The name of the module that documents the phase, without the collection's.
    type: str
    required: true
    choices: [permissions, preflight, release_commit, release_revert, release_stage, release_switch, release_watch]
"""

EXAMPLES = r"""
# Written as bulletproof.deploy.preflight with the same options.
- name: Look before anything is touched
  bulletproof.deploy.phase:
    phase: preflight
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab
    configuration: 4f1b
"""

RETURN = r"""# What the module of that name returns."""

import importlib

from ansible.module_utils.basic import AnsibleModule, _load_params

PACKAGE = "ansible_collections.bulletproof.deploy.plugins.module_utils._phases"
PHASES = {
    "permissions": "permissions",
    "preflight": "preflight",
    "release_commit": "commit",
    "release_revert": "revert",
    "release_stage": "stage",
    "release_switch": "switch",
    "release_watch": "watch",
}

if PHASES is None:
    # Never carried out: this is how Ansible knows what to send along. Importing all of them would cost each phase the time of all.
    from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import (  # noqa: F401
        commit,
        permissions,
        preflight,
        revert,
        stage,
        switch,
        watch,
    )


def main() -> None:
    # The options depend on the phase, so that has to be known before they are read.
    name = (_load_params() or {}).get("phase", "")
    phase = importlib.import_module(f"{PACKAGE}.{PHASES[name]}") if name in PHASES else None
    options = phase.SPEC if phase else {}
    choice = {"type": "str", "required": True, "choices": sorted(PHASES)}
    module = AnsibleModule(argument_spec={**options, "phase": choice}, supports_check_mode=True)
    if phase:
        phase.run(module)


if __name__ == "__main__":
    main()
