# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Well, unless a file on the host says otherwise: a version that is bad on one host only, from the moment the file is there."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time

from flask import current_app

from .hooks import Hooks

# Gunicorn takes this status of a worker for "failed to boot", and ends itself.
ENDS_THE_SERVER = 3


def trouble() -> str:
    """What the file says, which only this release looks at."""
    try:
        with open(os.environ.get("TROUBLE", ""), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


class Behaviour(Hooks):
    def __init__(self) -> None:
        self.requests = itertools.count(1)

    def start(self) -> None:
        if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/"):
            threading.Thread(target=crash, daemon=True).start()

    def request(self) -> None:
        said = trouble()
        if said == "old-version":
            current_app.config["VERSION"] = "1.0.0"
        if said == "third-500" and next(self.requests) >= 3:
            raise RuntimeError("trouble: the connections to the price list are used up")


def crash() -> None:
    while trouble() != "crash-loop":
        time.sleep(0.1)
    print("trouble: the price list is corrupt", file=sys.stderr, flush=True)
    os._exit(ENDS_THE_SERVER)
