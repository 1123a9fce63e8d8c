# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The agent on a balancer: puts members back when the lease of their drain is over, because whoever took them out may be dead.

A timer starts it every few seconds while a lease runs, and after a boot. It needs nothing but Python, and nearly always sees that no lease is over: all
that it takes to put a member back is loaded when one is.
"""

from __future__ import annotations

import sys
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent
from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers.absent import Absence
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def over(out: t.Mapping[str, Absence], now: float) -> t.List[str]:
    """The members whose lease is over."""
    return sorted(name for name, one in out.items() if one.until is not None and one.until <= now)


def renewal(held: t.Optional[Absence], state: str, lease: float, now: float) -> t.Optional[Absence]:
    """What a member's absence becomes when it is asked to be out; None when it is that already.

    Who is held is not made to come back by a drain. A lease is renewed when half of it is over: asking twice in a row changes nothing.
    """
    if state == "held" or (held is not None and held.state == "held"):
        wanted = Absence("held")
        as_wanted = held is not None and held.state == "held"
    else:
        wanted = Absence("drained", now + lease)
        as_wanted = held is not None and held.until is not None and held.until - now > lease / 2
    return None if as_wanted and held is not None and held.complete else wanted


def expire(app: str) -> t.List[str]:
    """Put back whose lease is over, unless a member does not answer: the next look asks it again. What was said of each."""
    out = absent.load(app)
    if any(one.until is not None for one in out.values()) and not over(out, time.time()):
        return []
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _systemd
    from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import contract, pool

    said = []
    with pool.alone():
        mine = pool.must_load(app)
        for name in over(absent.load(app), time.time()):
            member = mine.member(name)
            if member is None:
                absent.save(app, {one: value for one, value in absent.load(app).items() if one != name})
                continue
            wrong = contract.ask(member.address, member.port, mine)
            if wrong:
                said.append(f"{name}: the lease of its drain is over, but {wrong}; it stays out until it answers")
                continue
            pool.put_back_alone(mine, member)
            said.append(f"{name}: the lease of its drain is over; it gets requests again")
        if all(one.until is None for one in absent.load(app).values()):
            _systemd.stop([pool.timer(app)])
    return said


def main(arguments: t.Sequence[str]) -> int:
    try:
        for line in expire(arguments[0]):
            sys.stdout.write(line + "\n")
    except Failure as failure:
        sys.stderr.write(failure.message() + "\n")
        return 1
    return 0
