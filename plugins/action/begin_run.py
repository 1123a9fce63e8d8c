# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names a run, on the controller."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "hosts": {"type": "list", "elements": "str", "required": True},
    "pattern": {"type": "str", "default": "app"},
}


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        if not options["hosts"]:
            return {
                **result,
                "failed": True,
                "msg": f"No host in the inventory matches {options['pattern']!r}, so there is nothing to do.\n"
                "What to do: put the app's hosts into the group app, or name another with -e app_hosts=GROUP.",
            }
        return {
            **result,
            "changed": False,
            "id": time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3),
            "asked": sorted(load_extra_vars(self._loader)),
            "who": f"{getpass.getuser()}@{socket.gethostname()}",
        }
