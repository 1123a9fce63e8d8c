# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the hosts of a run have told, put together on the controller."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _fleet

Options = t.Mapping[str, t.Any]

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "of": {"type": "str", "required": True, "choices": ["batch", "failure", "partial", "status"]},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "reached": {"type": "list", "elements": "str", "default": []},
    "allow": {"type": "int", "default": 0},
    "title": {"type": "str", "default": ""},
    "version": {"type": "str", "default": ""},
    "configuration": {"type": "str", "default": ""},
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
        every = (task_vars or {})["hostvars"]
        known = {host: every[host] for host in options["hosts"]}
        return {**result, "changed": False, **REPORTS[options["of"]](known, options)}


def _batch(known: _fleet.Known, options: Options) -> t.Dict[str, t.Any]:
    return _fleet.judge(known, options["reached"], options["allow"])


def _failure(known: _fleet.Known, options: Options) -> t.Dict[str, t.Any]:
    return _end(known, _fleet.failures(known), options["title"])


def _partial(known: _fleet.Known, options: Options) -> t.Dict[str, t.Any]:
    return _end(known, _fleet.left_behind(known, options["reached"]), options["title"])


def _end(known: _fleet.Known, why: t.Mapping[str, str], title: str) -> t.Dict[str, t.Any]:
    first = next((f"{host}: {told}" for host, told in why.items()), "")
    more = "Whole messages are above. Read more with: ansible-playbook bulletproof.deploy.status"
    return {"failed": True, "msg": f"{title} {first}\n\n{_fleet.ended(known, why)}\n\n{more}"}


def _status(known: _fleet.Known, options: Options) -> t.Dict[str, t.Any]:
    table, wrong = _fleet.status(known, options["version"], options["configuration"])
    told = "\n".join([table, *([""] if wrong else []), *(f"- {one}" for one in wrong)])
    return {"failed": bool(wrong), "msg": told, "wrong": wrong, "_ansible_verbose_always": True}


REPORTS = {"batch": _batch, "failure": _failure, "partial": _partial, "status": _status}
