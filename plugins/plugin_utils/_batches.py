# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts in batches: how many move at a time, the canary first."""

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
