# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each worker serves for five seconds, crashes, and is started again: the service stays active all the time."""

from __future__ import annotations

import os
import sys
import threading
import time

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        threading.Thread(target=crash, daemon=True).start()


def crash() -> None:
    time.sleep(5)
    print("workers-crash-after-5s: the price list is corrupt", file=sys.stderr, flush=True)
    os._exit(1)
