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
  - It comes once. What it leaves on the host runs the phases that follow, without Ansible's library, which would have to be read and compiled each
    time. Where there is no pipelining, or with C(async), each phase comes as a module.
options:
  phase:
    description: The name of the module that documents the phase, without the collection's.
    type: str
    required: true
    choices:
      - app_host
      - host_files
      - permissions
      - preflight
      - release_commit
      - release_migrate
      - release_renew
      - release_revert
      - release_stage
      - release_switch
      - release_unmigrate
      - release_watch
  code:
    description:
      - The digest of the collection's code for hosts. Where it is given, the module leaves its code on the host under that name, in C(/run/bulletproof-deploy),
        and the phases that follow need not bring theirs along.
    type: str
    default: ""
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

from ansible.module_utils.basic import AnsibleModule, _load_params
from ansible_collections.bulletproof.deploy.plugins.module_utils import _host_code
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import launch
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases.by_name import NAMES, phase_of


def main() -> None:
    # The options depend on the phase, so that has to be known before they are read.
    phase = phase_of((_load_params() or {}).get("phase", ""))
    names = {"type": "str", "required": True, "choices": list(NAMES)}
    options = {**(phase.SPEC if phase else {}), "phase": names, "code": {"type": "str", "default": ""}}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    if module.params["code"] and not module.check_mode:
        _host_code.keep(module.params["code"], getattr(launch.__loader__, "archive", None))
    if phase:
        phase.run(module)


if __name__ == "__main__":
    main()
