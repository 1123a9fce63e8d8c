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
    choices: [permissions, preflight, release_commit, release_migrate, release_revert, release_stage, release_switch, release_unmigrate, release_watch]
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

import typing as t

from ansible.module_utils.basic import AnsibleModule, _load_params

NAMES = (
    "permissions",
    "preflight",
    "release_commit",
    "release_migrate",
    "release_revert",
    "release_stage",
    "release_switch",
    "release_unmigrate",
    "release_watch",
)


def phase_of(name: str) -> t.Any:
    """What carries a phase out. Each is imported only when it is asked for: importing all would cost each the time of all."""
    if name == "permissions":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import permissions

        return permissions
    if name == "preflight":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import preflight

        return preflight
    if name == "release_commit":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import commit

        return commit
    if name == "release_revert":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import revert

        return revert
    if name == "release_stage":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import stage

        return stage
    if name == "release_switch":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import switch

        return switch
    if name == "release_watch":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import watch

        return watch
    if name == "release_migrate":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import migrate

        return migrate
    if name == "release_unmigrate":
        from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import unmigrate

        return unmigrate
    return None


def main() -> None:
    # The options depend on the phase, so that has to be known before they are read.
    phase = phase_of((_load_params() or {}).get("phase", ""))
    name = {"type": "str", "required": True, "choices": list(NAMES)}
    module = AnsibleModule(argument_spec={**(phase.SPEC if phase else {}), "phase": name}, supports_check_mode=True)
    if phase:
        phase.run(module)


if __name__ == "__main__":
    main()
