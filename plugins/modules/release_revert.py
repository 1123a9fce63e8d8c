#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Undo a run on a host: go back, free its lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_revert
short_description: Undo a run on a host
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Goes back to what the host served before the run, if the run has switched it and not committed, and frees the run's lock.
  - The same code as the safety net's timer and a rollback.
  - On a host that the run did not switch, or that has gone back already, it frees the lock and changes nothing else.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  why:
    description: What went wrong, for the audit log and the release's manifest.
    type: str
    default: the run failed
  blame:
    description: Whether the release itself failed on this host, and is to be marked bad.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Go back
  bulletproof.deploy.release_revert:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    why: the health check failed on another host
"""

RETURN = r"""
serves:
  description: The release that the host serves now; empty when it serves nothing.
  returned: success
  type: str
  sample: 1.4.1-ba9876543210
problem:
  description: Why what the host went back to does not answer as it should, although it is served as before; empty when it does.
  returned: success
  type: str
seconds:
  description: From the decision to the old release serving.
  returned: success
  type: float
  sample: 0.04
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import revert


def main() -> None:
    revert.run(AnsibleModule(argument_spec=revert.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
