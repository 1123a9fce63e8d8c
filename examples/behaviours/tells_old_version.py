# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells an older version than the one that was deployed."""

from __future__ import annotations

from .hooks import Hooks

VERSION = "1.0.0"


class Behaviour(Hooks):
    def version(self, deployed: str) -> str:
        return VERSION
