# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the actions of a run need, loaded once.

Ansible forks a process for each task on each host. What an action imports or computes there is lost with it, and is done again for the next host. But
the class of an action that goes by its module's own name is loaded before Ansible forks, and what is there by then is there in each of them. So the
actions that go by their own names load what follows them. ``action.phase`` does not: most modules get it by a redirection, which Ansible follows in the fork.
"""

from __future__ import annotations

from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import by_name
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _code

# What every deploy looks at first, and where one that has nothing to do ends. It brings along most of what all phases share.
FIRST = ("preflight",)
# They bring along all there is for databases, which takes longer than the rest together, and many runs have none of them.
RARE = ("app_host", "host_files", "release_migrate", "release_unmigrate")
THEN = tuple(name for name in by_name.NAMES if name not in FIRST + RARE)


def load(*phases: str) -> None:
    """Load phases, and take the digests of the collection's code."""
    for name in phases:
        by_name.phase_of(name)
    _code.digest(_code.FOR_HOSTS)
    _code.digest(*_code.FOR_CONFIGURATION)
