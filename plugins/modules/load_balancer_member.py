#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of an app, in or out of a load balancer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: load_balancer_member
short_description: Take a host of an app out of a load balancer, or put it back
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Runs on the load balancer, whose pool M(bulletproof.deploy.load_balancer_pool) has configured, and acts on one member of it.
  - A member that is out gets no new requests; then the requests that it has are waited for. None is lost.
  - Who is drained is put back by the load balancer itself when the lease is over, also after a restart of the load balancer, so that a controller that dies
    leaves nobody out.
  - The only member that answers is not taken out (O(leave_last)).
options:
  app:
    description: The app's name.
    type: str
    required: true
  member:
    description: The member's name in the pool.
    type: str
    required: true
  state:
    description:
      - V(drained) takes it out for the time of O(lease).
      - V(held) takes it out until it is put back with V(ready). A drain does not change that.
      - V(ready) asks it whether it is well, puts it back, and waits until the load balancer itself sends it requests.
    type: str
    choices: [drained, held, ready]
    required: true
  timeout:
    description:
      - Seconds to wait for the requests that the member has, or until it is well.
      - What has not ended by then is a warning and RV(in_flight), because a request may last for as long as a client wants it to. A member that is not well is
        a failure, and stays out.
    type: float
    default: 30
  lease:
    description: Seconds after which the load balancer puts a drained member back by itself, as soon as it answers its health check.
    type: float
    default: 300
  leave_last:
    description: Whether a member stays when nobody else would answer. Its requests would all be refused.
    type: bool
    default: true
attributes:
  check_mode:
    description: Tells what would be changed. Nothing is waited for.
    support: full
  diff_mode:
    description: Shows the member's state before and after.
    support: full
"""

EXAMPLES = r"""
- name: Take the host out of the load balancer
  bulletproof.deploy.load_balancer_member:
    app: shop
    member: "{{ inventory_hostname }}"
    state: drained
  delegate_to: lb1

- name: Put it back
  bulletproof.deploy.load_balancer_member:
    app: shop
    member: "{{ inventory_hostname }}"
    state: ready
  delegate_to: lb1
"""

RETURN = r"""
state:
  description: What the member is now. V(ready) also for one that had to stay, because nobody else would answer.
  returned: success
  type: str
  sample: drained
stayed:
  description: Whether it was left in because nobody else would answer.
  returned: success
  type: bool
  sample: false
in_flight:
  description: The requests that it still had when the time was over.
  returned: success
  type: int
  sample: 0
waited:
  description: Seconds for which its requests were waited for.
  returned: success
  type: float
  sample: 0.4
"""

import time
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract, leases, pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass(frozen=True)
class Observed:
    """The member, what it is now, and whether it would have to stay in."""

    mine: contract.Pool
    member: contract.Member
    absence: t.Optional[absent.Absence]
    last: bool
    now: float


class Turn:
    """Remembers whether the member had to stay, which is certain only when nobody else changes the pool."""

    def __init__(self) -> None:
        self.stayed = False

    def read(self, options: Options) -> Observed:
        mine = pool.must_load(options["app"])
        member = pool.must_have(mine, options["member"])
        out = absent.load(mine.app)
        last = options["state"] != "ready" and options["leave_last"] and member.name not in out and not pool.others_well(mine, out, member)
        self.stayed = last
        return Observed(mine, member, out.get(member.name), last, time.time())

    def take_out(self, options: Options, observed: Observed, absence: absent.Absence) -> None:
        self.stayed = not pool.take_out(observed.mine, observed.member, absence, options["leave_last"])

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        target, before = f"{observed.member.name} in the pool of {observed.mine.app}", shown(observed.absence)
        if options["state"] == "ready":
            if observed.absence is None:
                return []
            return [Change(target, before, "ready", partial(come_back, observed, options["timeout"]))]
        wanted = leases.renewal(observed.absence, options["state"], options["lease"], observed.now)
        if wanted is None or observed.last:
            return []
        return [Change(target, before, shown(wanted), partial(self.take_out, options, observed, wanted))]

    def report(self, module: AnsibleModule, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        name = observed.member.name
        state = "ready" if self.stayed else options["state"]
        result: t.Dict[str, t.Any] = {"state": state, "stayed": self.stayed, "in_flight": 0, "waited": 0.0}
        if self.stayed:
            module.warn(f"{name} stays in the pool of {observed.mine.app}: nobody else would answer.")
        if module.check_mode:
            return result
        if options["state"] == "ready":
            believe(observed, options["timeout"])
        elif not self.stayed:
            began = time.monotonic()
            result["in_flight"] = finish(observed, options["timeout"])
            result["waited"] = round(time.monotonic() - began, 3)
            if result["in_flight"]:
                module.warn(f"{name} gets no new requests, but {result['in_flight']} had not ended after {options['timeout']:g} s.")
        return result


def shown(absence: t.Optional[absent.Absence]) -> str:
    return "ready" if absence is None else absence.shown()


def come_back(observed: Observed, patience: float) -> None:
    """Put a member back that answers the balancer."""
    member = observed.member
    wrong = contract.until(lambda: contract.ask(member.address, member.port, observed.mine), patience)
    if wrong:
        raise Failure(
            f"{member.name} is not well, seen from the load balancer, and stays out: {wrong}.",
            fix="Look at the app there (systemctl status, its error.log), and whether a firewall lets the load balancer in.",
        )
    pool.put_back(observed.mine, member)


def believe(observed: Observed, patience: float) -> None:
    """Wait until the balancer itself sends the member requests."""
    doubt = contract.until(lambda: pool.BALANCERS[observed.mine.kind].doubt(observed.mine, observed.member), patience)
    if doubt:
        raise Failure(
            f"The load balancer does not send requests to {observed.member.name} after {patience:g} s: {doubt}.",
            fix="Ask the app from the load balancer: "
            f"curl -i -H 'Host: {observed.mine.host or observed.member.address}' http://{observed.member.place}{observed.mine.health.path}",
        )


def finish(observed: Observed, patience: float) -> int:
    """Wait for the requests that the member has; how many there still are."""
    balancer = pool.BALANCERS[observed.mine.kind]
    left = 0

    def busy() -> str:
        nonlocal left
        left, more = balancer.unfinished(observed.mine, observed.member)
        return "busy" if left or more else ""

    contract.until(busy, patience)
    return left


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "app": {"type": "str", "required": True},
            "member": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "held", "ready"], "required": True},
            "timeout": {"type": "float", "default": 30},
            "lease": {"type": "float", "default": 300},
            "leave_last": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    turn = Turn()
    _runner.run(module, turn.read, turn.plan, partial(turn.report, module))


if __name__ == "__main__":
    main()
