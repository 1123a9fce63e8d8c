# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and checks the declaration of an app, on the controller, without touching a host."""

from __future__ import annotations

import functools
import hashlib
import json
import typing as t

import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _code, _declaration

# What roles configure, beside the app's own variables: a change in one of these, or in the collection itself, configures the hosts again.
ROLES = ("permissions", "proxy", "systemd_gunicorn", "tools")
CONFIGURED = (
    "app_name",
    "app_root",
    "app_user",
    "app_group",
    "app_python",
    "app_interface",
    "app_request_timeout",
    "app_start_timeout",
    "app_stop_timeout",
    "app_proxy",
    "app_server_names",
    "app_listen",
)


@functools.lru_cache(maxsize=1)
def _role_defaults() -> t.Dict[str, t.Any]:
    """The variables of the roles that configure a host, by name, as they are where nobody sets them."""
    files = (_code.COLLECTION / "roles" / role / "defaults" / "main.yml" for role in ROLES)
    return {name: value for file in files for name, value in yaml.safe_load(file.read_text()).items()}


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset({"optional"})
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        templar = self._templar
        mistakes: t.List[str] = []

        def template(name: str) -> t.Any:
            try:
                return templar.template(variables[name])
            except Exception as error:
                mistakes.append(f"{name}: cannot be evaluated ({str(error).splitlines()[0]}).")
                return None

        mine = [name for name in variables if name.startswith("app_") and name not in _declaration.PLAYBOOK_VARIABLES]
        missing = [name for name in ("app_name",) if name not in variables]
        declared, wrong = _declaration.check(
            {name: template(name) for name in mine if not (missing and name == "app_root")}, self._task.args.get("optional") or ()
        )
        mistakes = [one for one in mistakes if "app_name" not in missing or "app_name" not in one] + wrong
        if mistakes:
            told = "\n".join(f"- {mistake}" for mistake in mistakes)
            count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
            return {**result, "failed": True, "msg": f"The declaration has {count}; no host was touched.\n{told}", "mistakes": mistakes}
        # What is set, wherever that was. A default that this play happens to see is none: another playbook must come to the same digest.
        roles = {name: template(name) for name, default in sorted(_role_defaults().items()) if variables.get(name, default) != default}
        configured = {**roles, **{name: declared[name] for name in CONFIGURED}}
        code = _code.digest("roles/**/*", _code.FOR_HOSTS)
        configuration = hashlib.sha256((json.dumps(configured, sort_keys=True, default=str) + code).encode()).hexdigest()
        return {
            **result,
            "changed": False,
            "configuration": configuration,
            "health": _declaration.health(declared, roles),
            # Whether shared/.env is the declaration's affair at all.
            "environment": any(declared[f"app_env{part}"] for part in ("", "_generate", "_remove", "_presets", "_rules")),
            "slots": ["main"] if declared["app_strategy"] == "direct" else ["blue", "green"],
        }
