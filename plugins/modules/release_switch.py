#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 5 of a deploy: make a host serve a staged release, or leave it as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_switch
short_description: Make a host serve a staged release, or leave it as it was
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Arms the safety net, starts the release in its slot, verifies it on the slot's own socket, points the live socket at it in one rename,
    and verifies it again through the proxy.
  - When anything of this fails, the module itself goes back before it returns. When the module, the connection or the controller dies, a
    systemd timer on the host goes back at the end of the lease.
  - The release is on trial until M(bulletproof.deploy.release_commit) commits it.
  - Doing it for what is live and committed already changes nothing, unless O(again=true).
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
attributes: {}
options:
  release:
    description:
      - The id of the release to serve.
      - Leave it out, with O(back=true), to go to where a rollback goes.
    type: str
  back:
    description:
      - Go to the release that served before the live one, past those that are bad.
      - With O(version), go to the newest good release of that version.
    type: bool
    default: false
  version:
    description: With O(back=true), the version (or release id) to go back to.
    type: str
  again:
    description: Switch even if the release is live already, because it is not healthy, or because its unit has changed.
    type: bool
    default: false
  slots:
    description:
      - The slots of the strategy. One slot, V([main]), is restarted in place behind its socket. Of two, V([blue, green]), the idle one is started.
      - A row of slots, V([1..3]), is restarted one after the other. The users of each are in another one meanwhile.
    type: list
    elements: str
    default: [blue, green]
  warm_up:
    description:
      - Only start the release in its idle slot and verify it there. What serves goes on serving, and the safety net is armed.
      - A later call of the same run without it sends the users there. So many hosts can be made ready first, and then switch together.
      - A release that would run in a slot that serves cannot be started like this, and that is refused.
    type: bool
    default: false
  canary:
    description: In a row of slots, for how many seconds to watch the first that has moved, with its users, before the next one does; 0 for not at all.
    type: float
    default: 0
  schema:
    description:
      - With O(back=true), what to do when the database has been migrated further than the older release can run on, as this host's deploys have recorded it.
      - C(refuse) explains it and changes nothing.
    type: str
    choices: [refuse, allow]
    default: refuse
  environment:
    description:
      - With O(back=true), which version of C(shared/.env) the older release gets, that with which it was committed, or that of now.
      - A version that is not kept any more is replaced by that of now.
    type: str
    choices: [then, now]
    default: then
"""

EXAMPLES = r"""
- name: Switch to a release that is staged
  bulletproof.deploy.release_switch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab

- name: Go back to what served before
  bulletproof.deploy.release_switch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    back: true
"""

RETURN = r"""
release:
  description: The release that the host was switched to.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
slot:
  description: The slot that it runs in.
  returned: success
  type: str
  sample: green
before:
  description: What the host served before; empty when it served nothing.
  returned: success
  type: str
  sample: 1.4.1-ba9876543210
flipped:
  description: When new requests moved, in seconds since the epoch, by the host's own clock; 0 when they did not.
  returned: success
  type: float
verdicts:
  description: What was verified, on the slot's socket and through the proxy.
  returned: changed
  type: list
  elements: dict
seconds:
  description: How long the parts took, in seconds. C(flip) is the moment in which new requests moved.
  returned: changed
  type: dict
  sample: {start: 0.6, verify: 0.3, flip: 0.001, proxy: 0.1}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import switch


def main() -> None:
    switch.run(AnsibleModule(argument_spec=switch.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
