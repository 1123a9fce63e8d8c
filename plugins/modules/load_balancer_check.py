#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a load balancer and the inventory speak of the same hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: load_balancer_check
short_description: Compare the pool of an app on a load balancer with the inventory
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Reads the program's own file of the pool, also if somebody has edited it, and holds it against the hosts that the inventory has.
  - A host that only one of the two has, an address that is there twice, a health check that is not the app's, and members that are held out are findings.
  - Never fails because of a finding.
extends_documentation_fragment:
  - bulletproof.deploy.load_balancer
attributes:
  check_mode:
    description: Does the same in check mode; it changes nothing in any case.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: The load balancer has the inventory's hosts
  bulletproof.deploy.load_balancer_check:
    app: shop
    kind: haproxy
    members:
      - {name: web1, address: 192.0.2.11, port: 80}
      - {name: web2, address: 192.0.2.12, port: 80}
"""

RETURN = r"""
findings:
  description: All that differs, each with C(subject), C(found), C(expected), C(fix) and C(severity).
  returned: success
  type: list
  elements: dict
  sample:
    - subject: load balancer, web3
      found: 192.0.2.13:80, which no host of the inventory has
      expected: only hosts of the inventory
      fix: Run the playbook load_balancer. If it is to serve, put it into the inventory first.
      severity: error
out:
  description: Who gets no requests now, and why.
  returned: success
  type: dict
  sample: {}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_text


def look(options: _runner.Options) -> t.Dict[str, t.Any]:
    wanted = pool.wanted(options)
    there = pool.load(wanted.app)
    out = absent.load(wanted.app)
    text = None if there is None else read_text(pool.BALANCERS[there.kind].path(wanted.app))
    findings = pool.compare(there, wanted, out, text)
    return {"findings": _findings.as_data(findings), "out": {name: one.shown() for name, one in out.items()}}


def main() -> None:
    module = AnsibleModule(argument_spec={**pool.SPEC}, supports_check_mode=True)
    _runner.run(module, look, lambda options, observed: [], lambda options, observed: observed)


if __name__ == "__main__":
    main()
