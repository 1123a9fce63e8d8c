# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every check type there is. A new type is one new file and its line here.

The imports are explicit because Ansible sends to the host only those module utilities that are imported statically.
"""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import (
    burst,
    clock,
    database,
    disk,
    dns,
    env,
    http,
    imports,
    log,
    path,
    permissions,
    port,
    process_count,
    r2,
    smoke,
    systemd,
    tls,
    version,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import CheckType

TYPES: t.Dict[str, CheckType] = {
    check.name: check
    for check in (
        burst.CHECK,
        clock.CHECK,
        database.CHECK,
        disk.CHECK,
        dns.CHECK,
        env.CHECK,
        http.CHECK,
        imports.CHECK,
        log.CHECK,
        path.CHECK,
        permissions.CHECK,
        port.CHECK,
        process_count.CHECK,
        r2.CHECK,
        smoke.CHECK,
        systemd.CHECK,
        tls.CHECK,
        version.CHECK,
    )
}
