# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Listens, and answers every request with 500."""

from __future__ import annotations

from .hooks import Hooks


class Behaviour(Hooks):
    def request(self) -> None:
        raise RuntimeError("always-500: there is no price list")
