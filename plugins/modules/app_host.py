#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The app's place on a host: its directories, and the agent that can go back without a controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_host
short_description: Make an app's place on a host
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Creates the app's directories, installs the agent that the safety net and the boot run, and records which declaration the host is configured for.
  - Says how many live sockets the proxy has. There is never one that the proxy knows and that leads nowhere while the app is served.
extends_documentation_fragment:
  - bulletproof.deploy.app
options:
  user:
    description: The account that the app runs as; owns C(shared/).
    type: str
    required: true
  group:
    description: The app's group.
    type: str
    required: true
  instances:
    description:
      - How many instances of the app serve on this host, each with a live socket of its own.
      - Fewer than before count only together with O(configuration), when the proxy does not know the others any more.
    type: int
    default: 1
  configuration:
    description: Digest of the declaration that the host is now configured for. Given last, when all roles have done their work.
    type: str
"""

EXAMPLES = r"""
- name: Make the app's place
  bulletproof.deploy.app_host:
    app: shop
    root: /opt/shop
    user: www-data
    group: www-data
"""

RETURN = r"""
agent:
  description: Path of the agent.
  returned: success
  type: str
  sample: /opt/shop/.deploy/agent.pyz
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import app_host


def main() -> None:
    app_host.run(AnsibleModule(argument_spec=app_host.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
