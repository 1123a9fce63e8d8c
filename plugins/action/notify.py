# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells people what happens in a run, from the controller."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _notify

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "urls": {"type": "list", "elements": "raw", "required": True, "no_log": True},
    "event": {"type": "str", "required": True, "choices": list(_notify.EVENTS)},
    "events": {"type": "list", "elements": "str", "choices": list(_notify.EVENTS), "default": list(_notify.EVENTS)},
    "title": {"type": "str"},
    "body": {"type": "str"},
    "timeout": {"type": "float", "default": 10},
}


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
        check_mode = bool(self._task.check_mode)
        # Nothing of a run depends on whether somebody heard of it. So whatever goes wrong from here is a warning.
        result.update(changed=False, verdicts=[])
        try:
            told = [one for one in _notify.targets(options["urls"], options["events"]) if one.wants(options["event"])]
            title, body = (options[part] or self._rendered(f"notify_{part}", task_vars or {}) for part in ("title", "body"))
            verdicts = _notify.send(told, options["event"], title, body, timeout=options["timeout"], pretend=check_mode)
        except Failure as failure:
            result["warnings"] = [f"No notification of {options['event']} was sent. {failure.message()}"]
            return result
        result["verdicts"] = [{"to": one.to, "sent": one.sent and not check_mode, "why": one.why} for one in verdicts]
        result["warnings"] = [
            f"The notification of {options['event']} {'would not reach' if check_mode else 'did not reach'} {one.to}: {one.why}."
            for one in verdicts
            if not one.sent
        ]
        if check_mode and told:
            result["msg"] = f"Would be sent to {', '.join(one.to for one in verdicts if one.sent) or 'nobody'}:\n{title}\n{body}"
            result["_ansible_verbose_always"] = True
        return result

    def _rendered(self, name: str, variables: t.Mapping[str, t.Any]) -> str:
        """A variable's text. Rendered here and not with the task's arguments, because a mistake in a user's own template would fail the task."""
        try:
            return str(self._templar.template(variables[name]))
        except Exception as error:
            raise Failure(f"{name} cannot be evaluated: {str(error).splitlines()[0]}", fix=f"Correct {name}.") from None
