#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The beginning of a run: its id, and whose it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: begin_run
short_description: Name a run
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Gives a run its id, which everything that it writes carries, and tells whose it is.
  - Refuses a run that has no hosts, which would end well without having done anything.
  - Runs on the controller and touches no host.
options:
  hosts:
    description: The hosts of the run.
    type: list
    elements: str
    required: true
  pattern:
    description: How they were asked for, for the message when there are none.
    type: str
    default: app
"""

EXAMPLES = r"""
- name: Name the run
  bulletproof.deploy.begin_run:
    hosts: "{{ query('ansible.builtin.inventory_hostnames', 'app') }}"
  register: run
"""

RETURN = r"""
id:
  description: The run's id; sorts by time.
  returned: success
  type: str
  sample: 20260102T030405-1a2b3c
asked:
  description: Names of the variables that were given on the command line.
  returned: success
  type: list
  elements: str
  sample: [app_version]
who:
  description: The person, as account@machine of the controller.
  returned: success
  type: str
  sample: ada@laptop
"""
