# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every action needs, loaded once.

Ansible forks a process for each task on each host. What an action imports or computes there is lost with it, and is done again for the next host. But
Ansible loads the action's class before it forks, so what is there by then is there in each of them.
"""

from __future__ import annotations

import functools

from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import by_name
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _code


@functools.cache
def prepare() -> None:
    """Load the phases, and take the digests of the collection's code."""
    for name in by_name.NAMES:
        by_name.phase_of(name)
    _code.digest(_code.FOR_HOSTS)
    _code.digest(*_code.FOR_CONFIGURATION)
