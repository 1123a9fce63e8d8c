# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An app's pool on a balancer: what it is, who is out of it, and the one way to change that."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.contract import Balancer, Health, Member, Pool
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.haproxy import HAProxy
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.nginx import Nginx
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive

AGENT = f"{absent.PLACE}/agent.pyz"
BALANCERS: t.Mapping[str, Balancer] = {one.kind: one for one in (Nginx(), HAProxy())}
# One at a time on a host: nginx and HAProxy have one configuration for all apps. The longest that one can take is a reload.
MUTEX_SECONDS = 120.0
SYSTEMCTL = 30.0


def timer(app: str) -> str:
    return f"bulletproof-balancer@{app}.timer"


def pool_file(app: str) -> str:
    return os.path.join(absent.directory(app), "pool.json")


def load(app: str) -> t.Optional[Pool]:
    data = read_json(pool_file(app))
    return None if data is None else contract.pool_of(data)


def must_load(app: str) -> Pool:
    pool = load(app)
    if pool is None:
        raise Failure(f"This load balancer has no pool for {app}.", fix="Run the playbook load_balancer, which gives it one.")
    return pool


def must_have(pool: Pool, name: str) -> Member:
    member = pool.member(name)
    if member is None:
        names = ", ".join(one.name for one in pool.members)
        raise Failure(
            f"The pool of {pool.app} on this load balancer does not list {name}. It lists {names}.", fix="Run the playbook load_balancer."
        )
    return member


# What a pool is made of, as far as its members and their health go.
SPEC: t.Mapping[str, t.Mapping[str, t.Any]] = {
    "app": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["nginx", "haproxy"], "required": True},
    "members": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
        },
    },
    "server_names": {"type": "list", "elements": "str", "default": ["_"]},
    "health_path": {"type": "str", "default": "/health"},
    "health_statuses": {"type": "list", "elements": "int", "default": [200]},
    "health_interval": {"type": "float", "default": 2},
    "health_timeout": {"type": "float", "default": 5},
}


def wanted(options: t.Mapping[str, t.Any]) -> Pool:
    """The pool that is asked for."""
    return Pool(
        app=options["app"],
        kind=options["kind"],
        listen=tuple(options.get("listen") or ("80",)),
        server_names=tuple(options["server_names"]),
        members=tuple(Member(**one) for one in options["members"]),
        health=Health(options["health_path"], tuple(options["health_statuses"]), options["health_interval"], options["health_timeout"]),
        request_timeout=options.get("request_timeout") or 60,
        extra=tuple(options.get("extra") or ()),
    )


@contextlib.contextmanager
def alone() -> t.Iterator[None]:
    """Nobody else on this host changes a pool meanwhile."""
    with exclusive(absent.PLACE, "pools", MUTEX_SECONDS):
        yield


def others_well(pool: Pool, out: t.Container[str], member: Member) -> bool:
    """Whether anybody would answer without this member."""
    return any(not contract.ask(one.address, one.port, pool) for one in pool.members if one != member and one.name not in out)


def write_file(pool: Pool, out: t.Container[str]) -> None:
    balancer = BALANCERS[pool.kind]
    write_atomically(balancer.path(pool.app), balancer.render(pool, out))


def take_out(pool: Pool, member: Member, absence: absent.Absence, leave_last: bool) -> bool:
    """Send a member no more requests.

    :param leave_last: Whether it stays when nobody else would answer.
    :return: Whether it is out.
    """
    with alone():
        out = absent.load(pool.app)
        if leave_last and member.name not in out and not others_well(pool, out, member):
            return False
        # Whoever is to put it back is there before it is gone.
        if absence.until is not None:
            _systemd.start([timer(pool.app)], timeout=SYSTEMCTL)
        told = member.name in out and out[member.name].complete
        out[member.name] = replace(absence, complete=told)
        absent.save(pool.app, out)
        if not told:
            write_file(pool, out)
            BALANCERS[pool.kind].shift(pool, member, out=True)
            absent.save(pool.app, {**out, member.name: replace(absence, complete=True)})
    return True


def put_back(pool: Pool, member: Member) -> None:
    """Send a member requests again."""
    with alone():
        put_back_alone(pool, member)


def put_back_alone(pool: Pool, member: Member) -> None:
    out = absent.load(pool.app)
    if out.get(member.name) is None:
        return
    del out[member.name]
    write_file(pool, out)
    BALANCERS[pool.kind].shift(pool, member, out=False)
    absent.save(pool.app, out)


def compare(pool: t.Optional[Pool], wanted: Pool, out: t.Mapping[str, absent.Absence], text: t.Optional[str]) -> t.List[Finding]:
    """What a balancer lists, held against what the inventory has. Pure.

    :param pool: What the balancer was configured for, if it was.
    :param text: The file of the pool there, as it is now.
    """
    again = "Run the playbook load_balancer."
    if pool is None or text is None:
        found = "no pool" if pool is None else f"no file {BALANCERS[pool.kind].path(pool.app)}"
        return [Finding(f"load balancer, {wanted.app}", found, f"a pool of {len(wanted.members)}", again)]
    balancer = BALANCERS[pool.kind]
    if pool.kind != wanted.kind:
        return [Finding(f"load balancer, {wanted.app}", f"a pool of {pool.kind}", f"one of {wanted.kind} (load_balancer_kind)", again)]
    listed = balancer.listed(text)
    places = {one.place: one for one in wanted.members}
    findings = []
    for one in listed.members:
        if one.place not in places:
            fix = f"{again} If it is to serve, put it into the inventory first."
            findings.append(
                Finding(
                    f"load balancer, {one.name}", f"{one.place}, which no host of the inventory has", "only hosts of the inventory", fix
                )
            )
    there = {one.place for one in listed.members}
    for one in wanted.members:
        if one.place not in there:
            findings.append(Finding(f"load balancer, {one.name}", f"{one.place} is not listed", "every host of the app", again))
    for where, members in (("load balancer", listed.members), ("inventory", wanted.members)):
        for place in sorted({one.place for one in members}):
            names = [one.name for one in members if one.place == place]
            if len(names) > 1:
                fix = "Give each host an address of its own (ansible_host, load_balancer_member_address)."
                findings.append(Finding(f"{where}, {', '.join(names)}", f"{place} {len(names)} times", "each address once", fix))
    expected = balancer.listed(balancer.render(wanted, ())).health
    if listed.health != expected:
        findings.append(
            Finding(f"load balancer, health check of {wanted.app}", "; ".join(listed.health) or "none", "; ".join(expected), again)
        )
    findings += [
        Finding(
            f"load balancer, {name}",
            "held out of the pool" if one.until is None else one.shown(),
            "that it gets requests",
            "When it is well, put it back: deploy to it again, or run the role's entry point undrain.",
            severity="warning",
        )
        for name, one in out.items()
        if one.state == "held"
    ]
    return findings
