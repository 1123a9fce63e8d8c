# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that say what a pool is made of."""

from __future__ import annotations


class ModuleDocFragment:
    """An app, its hosts and their health."""

    DOCUMENTATION = r"""
options:
  app:
    description: The app's name.
    type: str
    required: true
  kind:
    description: Which program it is. It has to be installed.
    type: str
    choices: [nginx, haproxy]
    required: true
  members:
    description: The app's hosts, all of them. One that is not named is taken out of the pool at once. Drain it first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, as M(bulletproof.deploy.load_balancer_member) is told it.
        type: str
        required: true
      address:
        description: Its address, as the load balancer reaches it.
        type: str
        required: true
      port:
        description: The port on which it takes requests.
        type: int
        required: true
  server_names:
    description: Names that the app answers to. For nginx. The first one is also asked for in health checks.
    type: list
    elements: str
    default: [_]
  health_path:
    description: The path that tells whether a member is well.
    type: str
    default: /health
  health_statuses:
    description: The statuses that mean that it is.
    type: list
    elements: int
    default: [200]
  health_interval:
    description: Seconds between two checks of a member. For HAProxy; nginx notices by the requests that fail.
    type: float
    default: 2
  health_timeout:
    description: Seconds that an answer may take.
    type: float
    default: 5
"""
