# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A worker needs forty seconds before it serves."""

from __future__ import annotations

import time

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        time.sleep(40)
