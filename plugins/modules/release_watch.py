#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 6 of a deploy: watch the release on trial for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_watch
short_description: Watch the release on trial for a while
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Asks the release that was switched to, through the proxy, again and again for the length of the window, and holds its processes still
    against each other. The main process must stay the same, nothing may restart, no worker may be missing.
  - One probe of many that fails by chance is forgiven; two in a row are not.
  - The first check that fails for good ends the watch at once, and the failure names that check alone.
  - A query. Going back is the next step's decision (M(bulletproof.deploy.release_revert)), because other hosts take part in it.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  window:
    description: Seconds to watch.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Watch for ten seconds
  bulletproof.deploy.release_watch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    window: 10
"""

RETURN = r"""
release:
  description: The release that was watched.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
verdicts:
  description: What was verified.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import watch


def main() -> None:
    watch.run(AnsibleModule(argument_spec=watch.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
