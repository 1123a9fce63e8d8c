# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health path has moved: the one that is known answers 404."""

from __future__ import annotations

from .hooks import Hooks


class Behaviour(Hooks):
    health_path = "/healthz"
