# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan by which batches of hosts move to a release."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _batches

DOCUMENTATION = r"""
name: switch_steps
short_description: The plan by which batches of hosts move to a release
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Says in which steps, one after the other, batches of hosts start a release, move to it, are watched, and commit.
  - It is what the role P(bulletproof.deploy.switch#role) carries out.
positional: _input
options:
  _input:
    description: The hosts, in the batches in which they move.
    type: list
    elements: list
    required: true
  watch:
    description: Seconds to watch before the commit.
    type: float
    default: 0
  batch_watch:
    description: Seconds to watch between two batches.
    type: float
    default: 0
  balanced:
    description: Each host is taken out of its load balancer while it moves.
    type: bool
    default: false
  beside:
    description: A release can start beside what serves, so the hosts of a batch wait for each other before any sends its users there.
    type: bool
    default: true
  check:
    description: Only the steps that check mode can tell something of.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show the plan
  ansible.builtin.debug:
    msg: "{{ [['web1'], ['web2', 'web3']] | bulletproof.deploy.switch_steps(watch=10) }}"
"""

RETURN = r"""
_value:
  description:
    - Steps, in order. Each has C(do), the name of a task file of the role; C(hosts) where it is a step of some hosts only; of a watch, its C(window), in
      seconds; of a renewal of leases, which hosts have C(moved) before.
  type: list
  elements: dict
"""


def switch_steps(
    batches: t.Any, *, watch: t.Any = 0, batch_watch: t.Any = 0, balanced: bool = False, beside: bool = True, check: bool = False
) -> t.List[_batches.Step]:
    """See DOCUMENTATION."""
    if not isinstance(batches, list) or not all(isinstance(batch, list) for batch in batches):
        raise AnsibleFilterError(f"switch_steps: found {batches!r}; allowed: a list of lists of hosts.")
    try:
        windows = {"watch": float(watch), "batch_watch": float(batch_watch)}
    except (TypeError, ValueError):
        raise AnsibleFilterError(f"switch_steps: found watch={watch!r} and batch_watch={batch_watch!r}; allowed: seconds.") from None
    return _batches.steps(batches, **windows, balanced=bool(balanced), beside=bool(beside), check=bool(check))


class FilterModule:
    """Gives Ansible the filter."""

    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"switch_steps": switch_steps}
