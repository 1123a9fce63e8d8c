# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action plugin behind the module artefact: all of it happens on the controller."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Cache
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Options, build, parse_source, release_id, requirements

ARGUMENT_SPEC: t.Dict[str, t.Dict[str, t.Any]] = {
    "source": {"type": "raw", "required": True},
    "version": {"type": "str", "required": True},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "inputs": {"type": "raw"},
    "requirements": {"type": "str"},
    "cache": {"type": "path"},
    "max_size": {"type": "int", "default": 1 << 30},
    "timeout": {"type": "int", "default": 300},
}


class ActionModule(ActionBase):
    """Build the artefact and tell what it is."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(ARGUMENT_SPEC)
        try:
            if isinstance(self._task.args["version"], float):
                # 1.10 has become 1.1 before anybody here could see it.
                raise Failure(f"version is the number {arguments['version']}, not text.", fix="Write it in quotes.")
            result.update(_build(arguments), changed=False)
        except Failure as failure:
            result.update(failure.facts, failed=True, msg=failure.message())
        return result


def _build(arguments: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    source = parse_source(arguments["source"])
    version = str(arguments["version"])
    options = Options(arguments["exclude"], arguments["max_size"], arguments["timeout"])
    built = build(source, version, options, Cache(arguments["cache"]))
    artefact = built.artefact
    return {
        "path": artefact.path,
        "digest": artefact.digest,
        "size": artefact.size,
        "files": len(artefact.paths),
        "release": release_id(version, artefact.digest, arguments["inputs"]),
        "version": version,
        "description": built.description,
        "commit": built.commit,
        "requirements": requirements(artefact, arguments["requirements"]),
    }
