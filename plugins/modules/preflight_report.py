#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report on what all hosts have found before a deploy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_report
short_description: Report what all hosts have found before a deploy
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Puts together what M(bulletproof.deploy.preflight) has found on each host, the worst first, each with the hosts, what was found, what was expected and
    what to do, and fails when one of it is an error.
  - A host that gave no answer is an error itself.
  - Runs on the controller, once, and touches no host.
options:
  app:
    description: The name of the app.
    type: str
    required: true
  hosts:
    description: The hosts that were asked.
    type: list
    elements: str
    required: true
  findings:
    description: Further findings, such as those of M(bulletproof.deploy.load_balancer_check). They are told as those of the first host.
    type: list
    elements: dict
    default: []
  register:
    description: The variable that each host's answer was registered in.
    type: str
    default: preflight_answer
"""

EXAMPLES = r"""
- name: Tell what is in the way, of all hosts at once
  bulletproof.deploy.preflight_report:
    app: shop
    hosts: "{{ ansible_play_hosts_all }}"
  run_once: true
"""

RETURN = r"""
up_to_date:
  description: Whether there is nothing to do on any host.
  returned: success
  type: bool
prepare:
  description: Whether a host has to be configured or to have its environment before the release is staged. Where none has, nobody need be asked to.
  returned: always
  type: bool
msg:
  description: The report.
  returned: always
  type: str
"""
