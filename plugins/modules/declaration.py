#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The declaration of an app, read and checked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: declaration
short_description: Read and check the declaration of an app
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Checks every variable that begins with C(app_) against the argument spec of the role P(bulletproof.deploy.app#role) and against the rules between them.
  - Reports all mistakes in one message, each with the variable, what was found and what is allowed. An unknown C(app_) variable is a mistake.
  - Runs on the controller and touches no host.
options:
  optional:
    description: Required variables that the playbook can do without, for instance C(app_version) for one that only looks.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Read the declaration
  bulletproof.deploy.declaration:
  register: app_declaration
"""

RETURN = r"""
configuration:
  description: Digest of the part of the declaration that roles configure on the host.
  returned: success
  type: str
health:
  description: How to ask a release for its health.
  returned: success
  type: dict
slots:
  description: The slots of the strategy; V(1..3) stands for three, in each of which the release runs.
  returned: success
  type: list
  elements: str
  sample: [blue, green]
processes:
  description: What runs beside the web server, by name, each with all of its options.
  returned: success
  type: dict
  sample: {clock: {command: [python, -m, shop.clock], count: 1, singleton: true, stop_timeout: 30}}
singletons:
  description: Whether this host runs those that must run only once. It is the first of the inventory.
  returned: success
  type: bool
batches:
  description: The hosts of the play, in the batches in which they move.
  returned: success
  type: list
  elements: list
  sample: [[web1], [web2, web3]]
mistakes:
  description: All that is wrong with the declaration.
  returned: failure
  type: list
  elements: str
"""
