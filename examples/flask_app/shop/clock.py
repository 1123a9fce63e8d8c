# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a worker or a scheduler of the shop would be: it says each second that it lives, and ends what it is at before it stops.

python -m shop.clock
"""

from __future__ import annotations

import os
import signal
import threading

from . import config


def main() -> None:
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    me = f"{os.environ.get('APP_PROCESS', 'clock')} {config.deployed_version()}"
    print(f"{me} begins", flush=True)
    while not stopping.wait(1):
        print(f"{me} ticks", flush=True)
    print(f"{me} has ended", flush=True)


if __name__ == "__main__":
    main()
