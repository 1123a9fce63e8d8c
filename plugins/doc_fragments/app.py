# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that several modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """C(app): which app. C(run): which run works on it."""

    DOCUMENTATION = r"""
options:
  app:
    description: The app's name; the prefix of its units.
    type: str
    required: true
  root:
    description: The app's directory on the host.
    type: path
    required: true
"""

    RUN = r"""
options:
  run:
    description: The id of the run that this is a phase of. The lock, the safety net and the audit log carry it.
    type: str
    required: true
  who:
    description: The person the run belongs to, for the lock and the audit log.
    type: str
    default: unknown
  reason:
    description: Why the run is made, for the lock.
    type: str
    default: deploy
  lease:
    description: Seconds that the run may be silent before the host takes it for dead and goes back.
    type: int
    default: 300
  lock_wait:
    description: Seconds to wait for another run's lock.
    type: int
    default: 0
"""
