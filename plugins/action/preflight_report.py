# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report on what all hosts have found before a deploy, on the controller."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _report

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "app": {"type": "str", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "findings": {"type": "list", "elements": "dict", "default": []},
    "register": {"type": "str", "default": "preflight_answer"},
}


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        known = (task_vars or {})["hostvars"]
        answers = {host: known[host].get(options["register"]) for host in options["hosts"]}
        findings = _report.findings_of(answers, options["findings"])
        text = _report.text(options["app"], len(answers), findings)
        failed = any(one["severity"] == "error" for one in findings)
        # A warning is no failure, and nobody would see it in a task that went well.
        up_to_date = not failed and all(answer.get("up_to_date") for answer in answers.values())
        environment = any((known[host].get("app_declaration") or {}).get("environment") for host in answers)
        prepare = environment or not all((answer or {}).get("configured") for answer in answers.values())
        return {
            **result,
            "changed": False,
            "failed": failed,
            "msg": text,
            "up_to_date": up_to_date,
            "prepare": prepare,
            "_ansible_verbose_always": bool(findings),
        }
