#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell a host that waits for others that its run lives."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_renew
short_description: Renew the lease of a run
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Every phase of a run renews its lease on the host. A host that waits while others are worked on is told by this that the run lives, so that it does
    not go back.
  - Fails when the lease has ended, or the lock belongs to somebody else. The host has gone back then, or is about to.
options:
  begin:
    description:
      - The run has done nothing on this host yet, so there is nothing that the host could have taken back. It takes the lock where that is free.
      - A deploy has the lock of all its hosts before the first one moves; a rollback comes to a host that waits with this.
    type: bool
    default: false
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
"""

EXAMPLES = r"""
- name: Tell the hosts that wait that the run lives
  bulletproof.deploy.release_renew:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
"""

RETURN = r"""
lease:
  description: Seconds for which the run is believed from now on.
  returned: success
  type: int
  sample: 300
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import renew


def main() -> None:
    renew.run(AnsibleModule(argument_spec=renew.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
