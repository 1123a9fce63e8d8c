# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A worker answers two requests well and every later one with 500."""

from __future__ import annotations

import itertools

from .hooks import Hooks


class Behaviour(Hooks):
    def __init__(self) -> None:
        self.requests = itertools.count(1)

    def request(self) -> None:
        if next(self.requests) >= 3:
            raise RuntimeError("fails-from-third-request: the connections to the price list are used up")
