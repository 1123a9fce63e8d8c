# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and checks the declaration of an app, on the controller, without touching a host."""

from __future__ import annotations

import functools
import hashlib
import json
import typing as t

from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _batches, _code, _declaration, _early, _forks

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {"optional": {"type": "list", "elements": "str", "default": []}}

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
    "app_instances",
)


@functools.lru_cache(maxsize=1)
def _role_defaults() -> t.Dict[str, t.Any]:
    """The variables of the roles that configure a host, by name, as they are where nobody sets them."""
    files = (_code.COLLECTION / "roles" / role / "defaults" / "main.yml" for role in ROLES)
    return {name: value for file in files for name, value in yaml_load(file.read_text()).items()}


_forks.load(*_forks.FIRST)
_role_defaults()
_declaration.specification()


def home_of(found: t.Sequence[str], hosts: t.Sequence[str]) -> str:
    """The host that runs what must run only once: the first of all, also where ``--limit`` leaves it out of this play.

    :param found: The hosts of the pattern that the playbook is for, in the order of the inventory.
    :param hosts: The hosts of the play, for a playbook of one's own that is for others.
    """
    return [*(found if set(hosts) <= set(found) else []), *hosts][0]


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(ARGUMENT_SPEC)
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
            {name: template(name) for name in mine if not (missing and name == "app_root")}, options["optional"]
        )
        hosts = [str(host) for host in variables.get("ansible_play_hosts_all") or [variables["inventory_hostname"]]]
        # All that there are, also where --limit leaves some out.
        every = (variables.get("groups") or {}).get(str(variables.get("app_hosts", "app"))) or hosts
        mistakes = [one for one in mistakes if "app_name" not in missing or "app_name" not in one] + wrong
        mistakes += [] if mistakes else _declaration.fleet_mistakes(declared, len(every))
        if mistakes:
            told = "\n".join(f"- {mistake}" for mistake in mistakes)
            count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
            return {**result, "failed": True, "msg": f"The declaration has {count}; no host was touched.\n{told}", "mistakes": mistakes}
        _early.connect(self._connection, variables["inventory_hostname"])
        # What is set, wherever that was. A default that this play happens to see is none: another playbook must come to the same digest.
        roles = {name: template(name) for name, default in sorted(_role_defaults().items()) if variables.get(name, default) != default}
        processes = _declaration.processes(declared)
        # What the units know of processes, whose commands are in the release: how long the slowest may take to end.
        stops = {"processes_stop": max(one["stop_timeout"] for one in processes.values())} if processes else {}
        configured = {**roles, **{name: declared[name] for name in CONFIGURED}, **stops}
        code = _code.digest(*_code.FOR_CONFIGURATION)
        configuration = hashlib.sha256((json.dumps(configured, sort_keys=True, default=str) + code).encode()).hexdigest()
        return {
            **result,
            "changed": False,
            "configuration": configuration,
            "health": _declaration.health(declared, roles),
            # Whether shared/.env is the declaration's affair at all.
            "environment": any(declared[f"app_env{part}"] for part in ("", "_generate", "_remove", "_presets", "_rules")),
            "slots": _declaration.slots(declared),
            "processes": processes,
            "singletons": variables["inventory_hostname"] == home_of(self._inventory(variables), hosts),
            "batches": _batches.split(hosts, declared["app_batches"] if declared["app_strategy"] == "rolling" else ["100%"]),
        }

    def _inventory(self, variables: t.Mapping[str, t.Any]) -> t.List[str]:
        """All hosts that the collection's playbooks are for, whatever the limit."""
        pattern = self._templar.template(variables.get("app_hosts", "app"))
        lookup = lookup_loader.get("ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar)
        return [str(host) for host in lookup.run([pattern], variables=variables)]
