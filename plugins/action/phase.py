# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin behind the modules that are phases of a run.

A phase runs from the code that an earlier one left on the host (``_host_code``); where there is none yet, it comes as a module.
"""

from __future__ import annotations

import json
import shlex
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.module_utils import _host_code
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import launch
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases.by_name import phase_of
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _code, _early

PYTHON = "/usr/bin/python3"


def code_digest() -> str:
    """What tells the code for hosts, as this controller has it, from any other."""
    return _code.digest(_code.FOR_HOSTS)[:16]


def as_text(spec: t.Mapping[str, t.Mapping[str, t.Any]], options: t.Mapping[str, t.Any]) -> t.Dict[str, str]:
    """The options that may have secrets anywhere in them, each as JSON text.

    Ansible hides a text as a whole; of a list or a dictionary it would blot each value, be it ``1``, out of every result.
    """
    secret = [name for name, one in spec.items() if one["type"] == "raw" and one.get("no_log") and options.get(name) is not None]
    return {name: json.dumps(options[name], default=str) for name in secret if not isinstance(options[name], str)}


class ActionModule(ActionBase):
    """See the documentation of the module phase."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        options = self.phase_options()
        name = self._task.action.rpartition(".")[2]
        if name == "phase":
            name = options.pop("phase", "")
        phase = phase_of(name)
        if phase is not None:
            options.update(as_text(phase.SPEC, options))
        _early.wait(self._connection, (task_vars or {})["inventory_hostname"])
        done = self._run_kept(name, phase, options, task_vars or {})
        if done is None:
            options.update(phase=name, code=code_digest())
            done = self._execute_module(module_name="bulletproof.deploy.phase", module_args=options, task_vars=task_vars)
        result.update(done)
        return result

    def phase_options(self) -> t.Dict[str, t.Any]:
        """The task's arguments, as the module gets them."""
        return dict(self._task.args)

    def _run_kept(
        self, name: str, phase: t.Any, options: t.Mapping[str, t.Any], task_vars: t.Mapping[str, t.Any]
    ) -> t.Optional[t.Dict[str, t.Any]]:
        """Run the phase from the code on the host; None when it has not begun, for whatever reason: the module will tell it in Ansible's own words."""
        if phase is None or self._task.async_val or not self._is_pipelining_enabled("new"):
            return None
        checked = ArgumentSpecValidator(phase.SPEC).validate(options)
        if checked.error_messages:
            return None
        request = {"phase": name, "check": self._task.check_mode, "options": checked.validated_parameters}
        command = (
            f"{self._compute_environment_string()} {shlex.quote(self._python(task_vars))} -I {_host_code.place_of(code_digest())}".strip()
        )
        done = self._low_level_execute_command(command, in_data=json.dumps(request, default=str).encode())
        said = done["stdout"].splitlines()
        if launch.STARTED not in said:
            return None
        try:
            result = json.loads(said[-1])
        except ValueError:
            told = "\n".join([*said, *done["stderr"].splitlines()][-20:])
            return {"failed": True, "msg": f"The phase {name} ended with status {done['rc']} before it could say how it went.\n{told}"}
        return t.cast(t.Dict[str, t.Any], remove_values(result, checked._no_log_values))

    def _python(self, task_vars: t.Mapping[str, t.Any]) -> str:
        """The interpreter that modules run with, as far as it is known without asking the host; any other would do."""
        known = str(self._templar.template(task_vars.get("ansible_python_interpreter")) or "auto")
        if known.startswith("auto"):
            known = str((task_vars.get("ansible_facts") or {}).get("discovered_interpreter_python") or PYTHON)
        return known
