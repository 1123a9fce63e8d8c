# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who of a pool is out, and until when: the file beside the pool that says so.

It is written before anybody is taken out, and after somebody is back, so that a death in between leaves nobody out for whom nothing comes. A module
of its own because the agent reads it every few seconds, and nearly always only this.
"""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json

PLACE = "/var/lib/bulletproof-balancer"


@dataclass(frozen=True)
class Absence:
    """Why a member gets no requests.

    :param until: When the balancer puts it back by itself (seconds since the epoch); None is never.
    :param complete: Whether the balancer has been told.
    """

    state: str
    until: t.Optional[float] = None
    complete: bool = False

    def shown(self) -> str:
        if self.until is None:
            return self.state
        return f"{self.state} until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.until))}"


def directory(app: str) -> str:
    return os.path.join(PLACE, app)


def out_file(app: str) -> str:
    return os.path.join(directory(app), "out.json")


def load(app: str) -> t.Dict[str, Absence]:
    return {name: Absence(**value) for name, value in (read_json(out_file(app)) or {}).items()}


def save(app: str, out: t.Mapping[str, Absence]) -> None:
    write_json(out_file(app), {name: asdict(value) for name, value in out.items()}, 0o600)
