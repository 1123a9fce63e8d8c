# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin behind the modules that are phases of a run: all of them come to the host as one module."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the documentation of the module phase."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        options = self.phase_options()
        name = self._task.action.rpartition(".")[2]
        if name != "phase":
            options["phase"] = name
        result.update(self._execute_module(module_name="bulletproof.deploy.phase", module_args=options, task_vars=task_vars))
        return result

    def phase_options(self) -> t.Dict[str, t.Any]:
        """The task's arguments, as the module gets them."""
        return dict(self._task.args)
