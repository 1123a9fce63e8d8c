# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A worker answers well for five seconds, and with 500 from then on."""

from __future__ import annotations

import time

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        self.started = time.monotonic()

    def request(self) -> None:
        if time.monotonic() - self.started >= 5:
            raise RuntimeError("fails-after-5s: the price list has expired")
