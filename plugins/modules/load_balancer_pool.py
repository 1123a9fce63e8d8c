#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pool of an app on a load balancer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: load_balancer_pool
short_description: Configure the pool of an app on a load balancer
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Writes the file of an app's pool for nginx (C(/etc/nginx/conf.d/balancer_<app>.conf)) or HAProxy (C(/etc/haproxy/conf.d/<app>.cfg)), has the program judge
    its whole configuration first, and reloads it only when the file has changed. What it does not accept changes nothing.
  - A reload loses no request. Who is out of the pool (M(bulletproof.deploy.load_balancer_member)) stays out.
  - Installs what puts members back by itself when the lease of a drain is over, a timer and its agent.
options:
  listen:
    description:
      - Addresses and ports, as the program writes them after C(listen) or C(bind). A port alone listens everywhere, by IPv4 and IPv6.
      - The first one is asked when a member was put back.
    type: list
    elements: str
    default: ["80"]
  request_timeout:
    description: Seconds for which a member may be silent.
    type: int
    default: 60
  extra:
    description: More lines for nginx's server block or HAProxy's frontend, such as those for TLS.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - bulletproof.deploy.load_balancer
attributes:
  check_mode:
    description: Can run in check mode; the configuration is judged, and nothing is changed.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
"""

EXAMPLES = r"""
- name: Spread requests over two hosts
  bulletproof.deploy.load_balancer_pool:
    app: shop
    kind: haproxy
    members:
      - {name: web1, address: 192.0.2.11, port: 80}
      - {name: web2, address: 192.0.2.12, port: 80}
    server_names: [shop.example.com]
"""

RETURN = r"""
path:
  description: The file of the pool.
  returned: success
  type: str
  sample: /etc/haproxy/conf.d/shop.cfg
"""

import os
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent_package, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract, leases, pool, units
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must, run
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_text, write_atomically, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

UNITS = "/etc/systemd/system"


@dataclass(frozen=True)
class Observed:
    """The pool that there is, and what the one that is asked for would be written as."""

    there: t.Optional[contract.Pool]
    out: t.Mapping[str, absent.Absence]
    text: t.Optional[str]
    wanted_text: str
    running: bool
    agent: t.Optional[bytes]
    agent_wanted: bytes
    units: t.Mapping[str, t.Optional[str]]
    enabled: bool


class Site:
    """Remembers the file that was there, so that a change that fails midway leaves nothing behind."""

    def __init__(self) -> None:
        self.before: t.Optional[str] = None
        self.path = ""

    def read(self, options: Options) -> Observed:
        mine = pool.wanted(options)
        found = contract.mistakes(mine)
        if found:
            raise Failure("The pool cannot be right:\n" + "\n".join(found), fix="Correct the inventory or the variables (load_balancer_*).")
        there = pool.load(mine.app)
        if there is not None and there.kind != mine.kind:
            raise Failure(
                f"The pool of {mine.app} is {there.kind}'s on this host; asked for is {mine.kind}.",
                fix=f"Remove {pool.BALANCERS[there.kind].path(mine.app)} and {absent.directory(mine.app)}, reload {there.kind}, then run this again.",
            )
        balancer = pool.BALANCERS[mine.kind]
        out = absent.load(mine.app)
        text = balancer.render(mine, out)
        self.path = balancer.path(mine.app)
        self.before = read_text(self.path)
        if text != self.before:
            balancer.judge(mine.app, text)
        return Observed(
            there=there,
            out=out,
            text=self.before,
            wanted_text=text,
            running=balancer.running(),
            agent=_agent_package.installed(pool.AGENT),
            agent_wanted=_agent_package.build(leases.__name__),
            units={name: read_text(os.path.join(UNITS, name)) for name in units.UNITS},
            enabled=run(["systemctl", "is-enabled", "--quiet", pool.timer(mine.app)]).ok,
        )

    def rescue(self, options: Options, failure: Failure) -> Failure:
        if self.before is not None:
            write_atomically(self.path, self.before)
        elif os.path.exists(self.path):
            os.unlink(self.path)
        return Failure(failure.what, fix=f"{failure.fix} The file is as it was.", **failure.facts)


def plan(options: Options, observed: Observed) -> t.List[Change]:
    mine = pool.wanted(options)
    balancer = pool.BALANCERS[mine.kind]
    changes = []
    if observed.agent != observed.agent_wanted:
        before = None if observed.agent is None else "older"
        changes.append(Change(pool.AGENT, before, "this collection's", partial(install, mine.app, observed.agent_wanted)))
    elif observed.there is None:
        changes.append(Change(absent.directory(mine.app), None, "directory", partial(make, absent.directory(mine.app))))
    changed = [
        Change(name, observed.units[name], text, partial(write_atomically, os.path.join(UNITS, name), text))
        for name, text in units.UNITS.items()
        if observed.units[name] != text
    ]
    if changed:
        reread = partial(must, ["systemctl", "daemon-reload"], "systemd does not read its units again")
        changes += [*changed, Change("systemd", "read before", "read again", reread)]
    if not observed.enabled:
        enable = partial(must, ["systemctl", "enable", pool.timer(mine.app)], f"{pool.timer(mine.app)} cannot be enabled")
        changes.append(Change(f"{pool.timer(mine.app)} at boot", "disabled", "enabled", enable))
    if observed.text != observed.wanted_text or observed.there != mine:
        changes.append(Change(balancer.path(mine.app), observed.text, observed.wanted_text, partial(configure, mine, observed.running)))
    return changes


def make(path: str) -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)


def install(app: str, content: bytes) -> None:
    make(absent.directory(app))
    _agent_package.install(pool.AGENT, content)


def configure(mine: contract.Pool, running: bool) -> None:
    """Write the pool down, and have the program work with it. Who was taken out meanwhile is out of it, too."""
    balancer = pool.BALANCERS[mine.kind]
    make(absent.directory(mine.app))
    os.makedirs(os.path.dirname(balancer.path(mine.app)), exist_ok=True)
    with pool.alone():
        out = {name: one for name, one in absent.load(mine.app).items() if mine.member(name) is not None}
        before = read_text(balancer.path(mine.app))
        pool.write_file(mine, out)
        if running and read_text(balancer.path(mine.app)) != before:
            balancer.take_over()
        # Only now: what is written down is what works.
        write_json(pool.pool_file(mine.app), mine.data(), 0o600)
        absent.save(mine.app, out)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **pool.SPEC,
            "listen": {"type": "list", "elements": "str", "default": ["80"]},
            "request_timeout": {"type": "int", "default": 60},
            "extra": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    site = Site()
    _runner.run(module, site.read, plan, lambda options, observed: {"path": site.path}, site.rescue)


if __name__ == "__main__":
    main()
