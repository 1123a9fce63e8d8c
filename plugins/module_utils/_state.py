# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host knows about itself: what it serves, and, while a run is not yet committed, the way back.

One small file, replaced in one rename. Writing ``way_back`` arms the safety net, and removing it is the commit: there is
no moment at which the host is half of either. With several hosts, a commit has two steps: all call the release good, and only then
does any of them give up the way back.
"""

from __future__ import annotations

import time
import typing as t
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout


def row(number: int) -> str:
    """The name of so many slots, in each of which a release runs."""
    return f"1..{number}"


@dataclass(frozen=True)
class Position:
    """A release in a slot: all that is needed to make the host serve it.

    :param slot: The name of the slot, or a ``row`` of them.
    :param environment: The version of ``shared/.env`` that it runs with (``_environments``); empty for none.
    """

    slot: str
    release: str
    since: float = 0.0
    run: str = ""
    who: str = ""
    environment: str = ""

    @property
    def slots(self) -> t.List[str]:
        """Their names: see ``row``."""
        first, dots, last = self.slot.partition("..")
        return [str(number) for number in range(int(first), int(last) + 1)] if dots else [self.slot]

    @property
    def places(self) -> t.List[Position]:
        """The same release in each slot by itself."""
        return [replace(self, slot=slot) for slot in self.slots]

    def without(self, other: t.Optional[Position]) -> t.List[Position]:
        """The places whose slots another position does not take."""
        return [place for place in self.places if other is None or place.slot not in other.slots]


@dataclass(frozen=True)
class WayBack:
    """The safety net of one run.

    :param run: The run that may commit.
    :param position: Where to go back to; None when the app served nothing before.
    :param armed: When, in seconds since the epoch.
    :param rollback: The run itself goes back to an older release, whose place in the history stays what it is.
    :param good: The run calls what is live good. As long as it lives it can still go back, because another host may not be able to say the same; if
        it falls silent, what the others serve decides.
    :param peers: The others: name to the URL at which each tells its health.
    """

    run: str
    position: t.Optional[Position]
    armed: float
    rollback: bool = False
    good: bool = False
    peers: t.Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """:param live: What the host serves, or is about to serve while ``way_back`` is set."""

    live: t.Optional[Position] = None
    way_back: t.Optional[WayBack] = None

    def armed_by(self, run: str) -> bool:
        return self.way_back is not None and self.way_back.run == run

    @property
    def committed(self) -> t.Optional[Position]:
        """What the host served when it was last sure of itself."""
        return self.way_back.position if self.way_back else self.live

    def arm(self, run: str, target: Position, now: float, rollback: bool = False) -> State:
        return State(live=target, way_back=WayBack(run, self.committed, now, rollback))

    def call_good(self, peers: t.Mapping[str, str]) -> State:
        return self if self.way_back is None else replace(self, way_back=replace(self.way_back, good=True, peers=dict(peers)))

    def commit(self) -> State:
        return replace(self, way_back=None)


def _position(value: t.Optional[t.Dict[str, t.Any]]) -> t.Optional[Position]:
    return None if value is None else Position(**value)


def load(layout: Layout) -> State:
    try:
        value = read_json(layout.state)
        if value is None:
            return State()
        back = value["way_back"]
        return State(
            live=_position(value["live"]),
            way_back=None if back is None else WayBack(**{**back, "position": _position(back["position"])}),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(
            f"{layout.state} cannot be read ({error}): this host no longer knows what it serves.",
            fix=f"Look at {layout.current} and at readlink {layout.live_socket}, repair the file by hand, then deploy again.",
        ) from None


def when(moment: float) -> str:
    """A moment in seconds since the epoch, for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def save(layout: Layout, state: State) -> None:
    write_json(layout.state, asdict(state), mode=0o600)
