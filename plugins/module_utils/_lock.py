# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of an app on a host: who deploys, since when, why, and until when it is believed.

The lock carries the run's lease. Every phase of the run renews it; when it has run out, the run is taken for dead: the
next one may take the lock over, and the safety net goes back.
"""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import asdict, dataclass, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, sync_directory, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive

# Lock files are written in microseconds; whoever waits longer than this looks at a machine in trouble.
PATIENCE = 10.0
POLL = 0.5


@dataclass(frozen=True)
class Lock:
    """:param lease: Seconds the run may be silent.
    :param deadline: When the lease ends, in seconds since the epoch.
    """

    run: str
    owner: str
    reason: str
    acquired: float
    lease: float
    deadline: float

    def alive(self, now: float) -> bool:
        return now < self.deadline

    def describe(self, now: float) -> str:
        """One sentence for the person who meets it."""
        left = self.deadline - now
        until = f"its lease ends in {left:.0f} s" if left > 0 else f"its lease ended {-left:.0f} s ago"
        return f"{self.owner} (run {self.run}: {self.reason}), for {max(0.0, now - self.acquired):.0f} s; {until}"


def load(layout: Layout) -> t.Optional[Lock]:
    try:
        value = read_json(layout.lock)
        return Lock(**value) if value else None
    except (ValueError, TypeError) as error:
        raise Failure(f"{layout.lock} cannot be read ({error}).", fix="Run unlock.yml if no deploy is under way.") from None


def _try(layout: Layout, wanted: Lock) -> t.Optional[Lock]:
    """Take or renew the lock; returns the lock that is in the way, or None."""
    with exclusive(layout.private, "lock", PATIENCE):
        held = load(layout)
        if held is not None and held.run != wanted.run and held.alive(time.time()):
            return held
        acquired = held.acquired if held is not None and held.run == wanted.run else wanted.acquired
        write_json(layout.lock, dict(asdict(wanted), acquired=acquired), mode=0o600)
        return None


def hold(layout: Layout, run: str, owner: str, reason: str, lease: float, wait: float = 0.0) -> None:
    """Take the lock for a run, or renew it.

    :param wait: Seconds to wait for somebody else's; Failure after that, which names the holder.
    """
    patience = time.monotonic() + wait
    while True:
        now = time.time()
        in_the_way = _try(layout, Lock(run, owner, reason, now, lease, now + lease))
        if in_the_way is None:
            return
        if time.monotonic() >= patience:
            raise Failure(
                f"{layout.app} is being deployed by {in_the_way.describe(time.time())}.",
                fix="Wait for it (-e app_lock_wait=SECONDS), or, if you know that it is dead: "
                f"ansible-playbook bulletproof.deploy.unlock -e app_unlock_run={in_the_way.run}",
                lock=asdict(in_the_way),
            )
        time.sleep(min(POLL, max(0.0, patience - time.monotonic())))


def renew(layout: Layout, run: str, lease: float) -> bool:
    """Let the lease of a run that lives begin anew; returns whether it was still this run's. One that has ended stays ended: the host has gone back."""
    with exclusive(layout.private, "lock", PATIENCE):
        held, now = load(layout), time.time()
        if held is None or held.run != run or not held.alive(now):
            return False
        write_json(layout.lock, asdict(replace(held, lease=lease, deadline=now + lease)), mode=0o600)
        return True


def free(layout: Layout, run: str) -> bool:
    """Free the lock if it is this run's; returns whether it was. Somebody else's is left alone."""
    with exclusive(layout.private, "lock", PATIENCE):
        held = load(layout)
        if held is None or held.run != run:
            return False
        os.unlink(layout.lock)
        sync_directory(layout.private)
        return True
