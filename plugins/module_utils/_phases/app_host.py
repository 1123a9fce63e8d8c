# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The app's place on a host: its directories, and the agent that can go back without a controller."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent_package, _doors, _phase, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._places import Place, found, make_directory, words
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.APP,
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "instances": {"type": "int", "default": 1},
    "configuration": {"type": "str"},
}


@dataclass(frozen=True)
class Observed:
    wanted: t.Dict[str, Place]
    places: t.Dict[str, t.Optional[Place]]
    agent: t.Optional[bytes]
    agent_wanted: bytes
    doors: int
    configuration: str


def read(options: Options) -> Observed:
    layout = _phase.layout_of(options)
    uid, gid = uid_of(options["user"]), gid_of(options["group"])
    wanted = {
        layout.root: (0, 0, 0o755),
        layout.private: (0, 0, 0o700),
        layout.releases: (0, gid, 0o750),
        layout.venvs: (0, 0, 0o755),
        layout.slots: (0, 0, 0o755),
        layout.backups: (0, 0, 0o700),
        layout.shared: (uid, gid, 0o770),
    }
    return Observed(
        wanted=wanted,
        places={path: found(path) for path in wanted},
        agent=_agent_package.installed(layout.agent),
        agent_wanted=_agent_package.build(),
        doors=_doors.count(layout),
        configuration=(read_json(layout.configuration) or {}).get("digest", ""),
    )


def plan(options: Options, observed: Observed) -> t.List[Change]:
    layout = _phase.layout_of(options)
    changes = [
        Change(path, words("directory", observed.places[path]), words("directory", wanted), partial(make_directory, path, wanted))
        for path, wanted in observed.wanted.items()
        if observed.places[path] != wanted
    ]
    if observed.agent != observed.agent_wanted:
        before = None if observed.agent is None else "older"
        changes.append(
            Change(layout.agent, before, "this collection's", partial(_agent_package.install, layout.agent, observed.agent_wanted))
        )
    digest, doors = options["configuration"], options["instances"]
    if doors > observed.doors or (digest and doors != observed.doors):
        changes.append(Change("live sockets", str(observed.doors), str(doors), partial(_doors.record, layout, doors)))
    if digest and digest != observed.configuration:
        record = partial(write_json, layout.configuration, {"digest": digest}, 0o600)
        changes.append(Change("configured for declaration", observed.configuration or None, digest, record))
    return changes


def report(options: Options, observed: Observed) -> t.Dict[str, t.Any]:
    return {"agent": _phase.layout_of(options).agent}


def run(module: AnsibleModule) -> None:
    _runner.run(module, read, plan, report)
