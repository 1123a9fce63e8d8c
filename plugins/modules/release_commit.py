#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 7 of a deploy: declare the release good."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_commit
short_description: Declare the release on trial good
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Disarms the safety net, which is the commit and happens in one rename. Then the release is marked good, the slot that served before finishes its
    requests and ends, releases and virtual environments that nobody needs any more are removed, and the lock is freed.
  - Refuses when the host has gone back in the meantime.
  - With several hosts, first call it with O(revocable=true) on all of them, and then without it. So a host that cannot commit takes the others back.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  release:
    description: The release that the run switched to.
    type: str
    required: true
  keep:
    description: How many good releases to keep. The live one and the one that a rollback goes to are always kept.
    type: int
    default: 5
  revocable:
    description:
      - Only call the release good. M(bulletproof.deploy.release_revert) of the same run can still go back.
      - A host whose run falls silent from here on asks its O(peers) when the lease is over. It goes back with one that serves something else, ends the
        commit by itself when all serve the release, and asks again while one gives no answer, for at most an hour.
    type: bool
    default: false
  peers:
    description:
      - With O(revocable=true), the other hosts of the run, and the URL at which each tells its health, as this host reaches it.
      - Without any, and where the app does not tell its version, a host whose run falls silent stays with the release.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Commit
  bulletproof.deploy.release_commit:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab
    keep: 5
"""

RETURN = r"""
release:
  description: The release that is now good.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
pruned:
  description: What was removed.
  returned: success
  type: list
  elements: str
  sample: [/opt/shop/releases/1.3.0-ba9876543210]
warnings:
  description: What could not be removed, and why. That fails no deploy.
  returned: when there are any
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import commit


def main() -> None:
    commit.run(AnsibleModule(argument_spec=commit.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
