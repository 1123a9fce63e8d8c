#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 1 of a deploy: everything about a host that can be known beforehand."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Tell everything about a host that can be known before a deploy
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Looks at the host, at the lock, at what is served and at what is there already, in one execution, and returns all that is wrong at once.
  - It does not fail. M(bulletproof.deploy.preflight_report) puts the findings of all hosts together and ends the run.
  - A query; changes nothing and takes no lock.
  - It also tells what need not be done again, so that deploying what is live is one look.
extends_documentation_fragment:
  - bulletproof.deploy.app
options:
  run:
    description: The id of the run, whose own lock is not in its way.
    type: str
    required: true
  release:
    description: The release that is to be deployed. Empty when only the host is of interest.
    type: str
    default: ""
  configuration:
    description: Digest of the declaration's part that roles configure.
    type: str
    default: ""
  lock_wait:
    description: Seconds that the run is ready to wait for another run's lock. With V(0), a lock that is held is a finding.
    type: int
    default: 0
  now:
    description: What time it is on the controller, in seconds since the epoch. A host whose clock is far from it is warned of.
    type: float
  python:
    description: The interpreter that virtual environments are made with.
    type: path
    default: /usr/bin/python3
  min_free_mb:
    description: Megabytes that have to be free where the app is.
    type: int
    default: 256
  nginx:
    description: Whether nginx is the app's proxy, so that its configuration has to be valid.
    type: bool
    default: true
  checks:
    description:
      - Checks that have to pass, of any type and with the options that M(bulletproof.deploy.health_check) documents. They run at the same time.
      - Each may also have C(severity) (C(error) or C(warning)), C(rule) (the name to waive it by; its own name unless set), C(fix) (what to do) and
        C(needs) (a path; left out as long as the host does not have it).
    type: raw
    default: "[]"
  environment:
    description:
      - What C(shared/.env) is to be, by all the options of M(bulletproof.deploy.env_file). Its rules are looked at, and checks get the keys that it will have.
      - Without C(path), the file is taken as it is. C(overrides) is what the release brings, and wins over it.
    type: raw
    default: "{}"
  waivers:
    description: What is let pass for a while, each with C(rule), C(reason) and C(until), a day such as C(2026-12-31) in UTC.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Look before anything is touched
  bulletproof.deploy.preflight:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab
    configuration: 89abcdef
"""

RETURN = r"""
configured:
  description: Whether the roles' work is up to date on this host.
  returned: success
  type: bool
staged:
  description: Whether the release is on this host, whole.
  returned: success
  type: bool
up_to_date:
  description: Whether the release is live, committed, whole and healthy, and the host configured, so that there is nothing to do.
  returned: success
  type: bool
live:
  description: The release that is live; empty when none is.
  returned: success
  type: str
notes:
  description: What is not wrong, and worth knowing.
  returned: success
  type: list
  elements: str
findings:
  description: All that is wrong, each with its severity, what was found, what was expected and what to do.
  returned: success
  type: list
  elements: dict
waived:
  description: What was let pass, each with its rule, until when, and why.
  returned: success
  type: list
  elements: str
machine:
  description: What tells this machine from another, so that one that is in the inventory under two names is found.
  returned: success
  type: str
ready:
  description: Whether none of it is an error.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import preflight


def main() -> None:
    preflight.run(AnsibleModule(argument_spec=preflight.SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
