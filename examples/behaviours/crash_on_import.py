# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The package cannot be imported."""

from __future__ import annotations

raise RuntimeError("crash-on-import: the price list is not where this module expects it")
