# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What starts the agent on a balancer."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._balancers import absent, contract, pool

UNITS: t.Mapping[str, str] = {
    "bulletproof-balancer@.service": f"""{contract.HEADER}[Unit]
Description=%i: put members back whose drain was never ended
ConditionPathExists={pool.AGENT}
RequiresMountsFor={absent.PLACE}
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {pool.AGENT} %i
TimeoutStartSec={int(2 * pool.MUTEX_SECONDS)}
""",
    "bulletproof-balancer@.timer": f"""{contract.HEADER}[Unit]
Description=%i: look whether a drain was never ended

# A drain starts this timer before it takes a member out; the agent stops it when no lease runs.
[Timer]
OnCalendar=*:*:0/5
AccuracySec=500ms
Persistent=true

[Install]
WantedBy=timers.target
""",
}
