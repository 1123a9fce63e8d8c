# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts in batches: how many move at a time, the canary first, and in which steps."""

from __future__ import annotations

import math
import re
import typing as t

ALLOWED = 'a list of numbers of hosts (1 or more) and percentages of them ("1%" to "100%"), such as [1, "25%", "100%"]'

Size = t.Union[int, str]


def is_size(size: t.Any) -> bool:
    if isinstance(size, bool):
        return False
    if isinstance(size, int):
        return size >= 1
    found = re.fullmatch(r"([0-9]{1,3})(%?)", size) if isinstance(size, str) else None
    return found is not None and int(found[1]) >= 1 and (not found[2] or int(found[1]) <= 100)


def allowed(sizes: t.Any) -> bool:
    return bool(sizes) and all(is_size(size) for size in sizes)


def too_large(sizes: t.Sequence[Size], hosts: int) -> t.List[Size]:
    """The numbers that no batch of so many hosts can have."""
    return [size for size in sizes if "%" not in str(size) and int(size) > hosts]


def split(hosts: t.Sequence[str], sizes: t.Sequence[Size]) -> t.List[t.List[str]]:
    """The hosts, in their order, in batches of these sizes; the last size serves for all that are left."""
    batches: t.List[t.List[str]] = []
    left = list(hosts)
    while left:
        size = str(sizes[min(len(batches), len(sizes) - 1)])
        # Rounded up: a quarter of three hosts is one, and not none.
        count = math.ceil(len(hosts) * int(size[:-1]) / 100) if size.endswith("%") else int(size)
        batches.append(left[:count])
        left = left[count:]
    return batches


Step = t.Dict[str, t.Any]


def steps(
    batches: t.Sequence[t.Sequence[str]], *, watch: float, batch_watch: float, balanced: bool, beside: bool, check: bool
) -> t.List[Step]:
    """The plan by which batches of hosts move.

    :param watch: Seconds to watch before the commit.
    :param batch_watch: Seconds to watch between two batches.
    :param balanced: There is a load balancer in front of the hosts.
    :param beside: A release can start beside what serves.
    :param check: Only what check mode can tell.
    :returns: What to ``do``, and the ``hosts`` that do it where it is not for all; of a watch, its ``window``; of a renewal, which
        hosts have ``moved`` before. After each step of some hosts follows a
        ``judge``, who says whether the others go on, but where a host is alone: there, the run ends with it.
    """
    # Ansible renders an element of its lists anew each time that it is looked at, and every host of a fleet makes the plan: each is looked at once.
    batches = [list(batch) for batch in batches]
    every = [host for batch in batches for host in batch]
    several = len(every) > 1
    plan: t.List[Step] = []

    def of(hosts: t.Sequence[str], do: str, **more: t.Any) -> Step:
        return {"do": do, "hosts": list(hosts), **more} if several else {"do": do, **more}

    def judged(*some: Step) -> None:
        if some:
            plan.extend([*some, {"do": "judge"}] if several else some)

    moved: t.List[str] = []
    for number, batch in enumerate(batches, 1):
        waiting = [host for other in (*batches[: number - 1], *batches[number:]) for host in other]
        ready = []
        if waiting and not check:
            ready.append(of(waiting, "renew", moved=moved))
        moved = [*moved, *batch]
        # None sends its users to the new release before it has answered on all of them.
        if len(batch) > 1 and beside and not check:
            ready.append(of(batch, "warm_up"))
        judged(*ready)
        judged(of(batch, "move_balanced" if balanced and not check else "move"))
        window = watch if number == len(batches) else batch_watch
        # Not only the batch: what moved before it is still on trial.
        if window > 0 and not check:
            judged(of(moved, "watch", window=window))
    if not check:
        plan.append(of(every, "commit_together" if several else "commit"))
    # Who has stayed behind would otherwise get requests when its host is well again.
    if several and balanced and not check:
        plan.append({"do": "hold"})
    return plan
