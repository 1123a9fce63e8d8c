# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real systemd hosts in Docker, reached over SSH: where demo, scenarios and tests deploy to.

On the command line ``PYTHONPATH=tests python3 -m lab up web1 web2``, then ``inventory``, ``ssh``, ``restart``, ``down``;
in a program ``lab.up(["web1"])`` and so on. ``fleet up`` starts a whole fleet (``lab.fleet``). ``lab.load`` sends the
requests that a deployment must not lose.
"""

from __future__ import annotations

from lab.hosts import Host, down, known, up
from lab.inventory import inventory
from lab.shell import LabError

__all__ = ["Host", "LabError", "down", "inventory", "known", "up"]
