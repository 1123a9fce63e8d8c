# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What one version of the application can do differently from another; ``behaviour.py`` chooses."""

from __future__ import annotations


class Hooks:
    greeting = "Welcome!"
    health_path = "/health"

    def version(self, deployed: str) -> str:
        """The version to tell, given the one that was deployed."""
        return deployed

    def start(self) -> None:
        """Called in every worker before it serves."""

    def request(self) -> None:
        """Called before every answer."""
