# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One worker crashes a second after its start, again and again; the others are well."""

from __future__ import annotations

import os
import sys
import threading
import time

from .hooks import Hooks
from .one_of_many import first_of_its_kind


class Behaviour(Hooks):
    def start(self) -> None:
        if first_of_its_kind():
            threading.Thread(target=crash, daemon=True).start()


def crash() -> None:
    time.sleep(1)
    print("one-worker-crashes: the share of this worker in the price list is corrupt", file=sys.stderr, flush=True)
    os._exit(1)
