# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell a host that waits for others that its run lives."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock, _phase, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {**_phase.RUN, "begin": {"type": "bool", "default": False}}


def renew(options: _runner.Options) -> t.Dict[str, t.Any]:
    layout = _phase.layout_of(options)
    if options["begin"]:
        _phase.lock(options)
    elif not _lock.renew(layout, options["run"], options["lease"]):
        raise Failure(
            f"The lease of run {options['run']} has ended on this host, or its lock was taken away: what the run did here was taken back.",
            fix=f"Read {layout.audit_log}, then deploy again. If the run was slow for a good reason, raise app_lease ({options['lease']} s).",
        )
    return {"lease": options["lease"]}


def run(module: AnsibleModule) -> None:
    # Not a phase that holds the lock or writes to the audit log: it happens as often as hosts wait.
    _runner.run(module, renew, lambda options, observed: [], lambda options, observed: observed)
