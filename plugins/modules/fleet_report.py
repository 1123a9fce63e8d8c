#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of a run have told, put together."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_report
short_description: Put together what the hosts of a run have told
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Reads what the phases of a run have returned on each host, under the names that the playbooks register it by (C(preflight_answer), C(switch_done),
    C(switch_left), C(switch_failed), C(switch_alone), C(switch_revert), C(app_status)).
  - Runs on the controller, once, and touches no host.
options:
  of:
    description:
      - C(batch) tells who has stayed behind, and whether the others may go on. It never fails.
      - C(failure) is the end of a run that has gone back, as a table of the hosts. It fails.
      - C(partial) is the end of one that was committed without some hosts. It fails, too.
      - C(status) shows what the hosts serve, and fails when one does not answer, or does not serve what it should, or when they do not agree.
    type: str
    required: true
    choices: [batch, failure, partial, status]
  hosts:
    description: The hosts of the run.
    type: list
    elements: str
    required: true
  reached:
    description: Those of them that still take part; the others did not answer.
    type: list
    elements: str
    default: []
  allow:
    description: How many hosts may stay behind.
    type: int
    default: 0
  title:
    description: The first sentence of the report on the end of a run.
    type: str
    default: ""
  version:
    description: The version that is declared, for O(of=status); empty when none is.
    type: str
    default: ""
  configuration:
    description: The digest of what is declared, for O(of=status).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: See who has stayed behind
  bulletproof.deploy.fleet_report:
    of: batch
    hosts: "{{ ansible_play_hosts_all }}"
    reached: "{{ ansible_play_hosts }}"
    allow: 1
  run_once: true
  register: switch_fleet
"""

RETURN = r"""
left:
  description: The hosts that have stayed behind.
  returned: with O(of=batch)
  type: list
  elements: str
go_on:
  description: Whether the others may go on.
  returned: with O(of=batch)
  type: bool
why:
  description: Of each host that has stayed behind, why.
  returned: with O(of=batch)
  type: dict
why_all:
  description: Why all others do not go on; empty when they may.
  returned: with O(of=batch)
  type: str
spread:
  description: Seconds between the first host and the last that sent its users to the new release, by their own clocks.
  returned: with O(of=batch)
  type: float
peers:
  description: Of each host that has moved, the URL at which it tells its health, as the others reach it; none without a proxy of ours.
  returned: with O(of=batch)
  type: dict
  sample: {web1: http://192.0.2.11:80/health}
wrong:
  description: What is wrong with the fleet, a sentence each.
  returned: with O(of=status)
  type: list
  elements: str
msg:
  description: The report.
  returned: unless O(of=batch)
  type: str
"""
