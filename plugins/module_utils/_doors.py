# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live sockets, which the proxy knows: links to the sockets of the slots that serve.

One, where an app runs once on its host, and otherwise one for each instance. Each always leads to a slot, also where fewer slots serve than there are
doors: the proxy follows them at every connect, and need not be told.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, read_link, replace_link, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout


def count(layout: Layout) -> int:
    return int((read_json(layout.doors) or {}).get("count", 1))


def every(layout: Layout) -> t.List[str]:
    return [layout.door(number) for number in range(1, count(layout) + 1)]


def record(layout: Layout, number: int) -> None:
    """Have so many from now on. One that is new leads to where the first one does, so that the proxy may know it at once."""
    target = read_link(layout.live_socket)
    for door in map(layout.door, range(1, number + 1)):
        if target is not None and read_link(door) is None:
            replace_link(door, target)
    # Last: whoever dies before this does it all again.
    write_json(layout.doors, {"count": number}, 0o600)


def lead(layout: Layout, slots: t.Sequence[str], only: str = "") -> None:
    """Send all new requests to these slots, each door to one of them, in turn: one rename for each.

    :param only: Move only the doors that are this slot's.
    """
    for door, slot in _shared_out(layout, slots):
        if only in ("", slot) and read_link(door) != f"{slot}.sock":
            replace_link(door, f"{slot}.sock")


def lead_to(layout: Layout, slots: t.Sequence[str]) -> bool:
    """Whether every door leads to its slot."""
    return all(read_link(door) == f"{slot}.sock" for door, slot in _shared_out(layout, slots))


def away(layout: Layout, slot: str, other: str) -> None:
    """Send the users of a slot to another one."""
    for door in every(layout):
        if read_link(door) == f"{slot}.sock":
            replace_link(door, f"{other}.sock")


def close(layout: Layout, keep: t.Collection[str] = ()) -> None:
    """Let nobody in any more, but through the doors that are kept."""
    for name in os.listdir(layout.runtime) if os.path.isdir(layout.runtime) else []:
        path = os.path.join(layout.runtime, name)
        if re.fullmatch(r"live(-[0-9]+)?\.sock", name) and path not in keep:
            os.unlink(path)


def _shared_out(layout: Layout, slots: t.Sequence[str]) -> t.List[t.Tuple[str, str]]:
    return [(door, slots[number % len(slots)]) for number, door in enumerate(every(layout))]
