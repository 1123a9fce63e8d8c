# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Serves for five seconds, then the whole server ends."""

from __future__ import annotations

import os
import sys
import threading
import time

from .hooks import Hooks

# Gunicorn takes this status of a worker for "failed to boot", and ends itself (gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR).
ENDS_THE_SERVER = 3


class Behaviour(Hooks):
    def start(self) -> None:
        threading.Thread(target=crash, daemon=True).start()


def crash() -> None:
    time.sleep(5)
    print("crash-after-5s: the price list is corrupt", file=sys.stderr, flush=True)
    os._exit(ENDS_THE_SERVER)
