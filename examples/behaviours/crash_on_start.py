# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules can be imported; the application cannot be created."""

from __future__ import annotations

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        raise RuntimeError("crash-on-start: the price list could not be read")
