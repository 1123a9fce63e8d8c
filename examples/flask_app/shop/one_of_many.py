# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How one worker out of several knows that it is the one: for work that must not be done by all of them."""

from __future__ import annotations

import fcntl

held = []


def first_of_its_kind() -> bool:
    """Whether this process is the only one with this answer among those that run this file; true until it ends."""
    lock = open(__file__, "rb")  # noqa: SIM115 - the lock is held for as long as the file is open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    held.append(lock)
    return True
