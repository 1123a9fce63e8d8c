# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real deploy of the example shop to a fleet, under real load, in which one thing is broken at one point: every point, every fault.

``PYTHONPATH=tests python3 -m fault.matrix --help``. Which points there are is read from a run of the deploy itself (``callbacks/points.py``), so
that a new task is covered without a change here.
"""
