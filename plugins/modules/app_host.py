#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The app's place on a host: its directories, and the agent that can go back without a controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: app_host
short_description: Make an app's place on a host
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Creates the app's directories, installs the agent that the safety net and the boot run, and records which declaration the host is configured for.
  - Says how many live sockets the proxy has. There is never one that the proxy knows and that leads nowhere while the app is served.
extends_documentation_fragment:
  - bulletproof.deploy.app
options:
  user:
    description: The account that the app runs as; owns C(shared/).
    type: str
    required: true
  group:
    description: The app's group.
    type: str
    required: true
  instances:
    description:
      - How many instances of the app serve on this host, each with a live socket of its own.
      - Fewer than before count only together with O(configuration), when the proxy does not know the others any more.
    type: int
    default: 1
  configuration:
    description: Digest of the declaration that the host is now configured for. Given last, when all roles have done their work.
    type: str
"""

EXAMPLES = r"""
- name: Make the app's place
  bulletproof.deploy.app_host:
    app: shop
    root: /opt/shop
    user: www-data
    group: www-data
"""

RETURN = r"""
agent:
  description: Path of the agent.
  returned: success
  type: str
  sample: /opt/shop/.deploy/agent.pyz
"""

import os
import stat
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _agent_package, _doors, _phase
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json, write_json
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options, run

Place = t.Tuple[int, int, int]


@dataclass(frozen=True)
class Observed:
    wanted: t.Dict[str, Place]
    places: t.Dict[str, t.Optional[Place]]
    agent: t.Optional[bytes]
    agent_wanted: bytes
    doors: int
    configuration: str


def place(path: str) -> t.Optional[Place]:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


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
        places={path: place(path) for path in wanted},
        agent=_agent_package.installed(layout.agent),
        agent_wanted=_agent_package.build(),
        doors=_doors.count(layout),
        configuration=(read_json(layout.configuration) or {}).get("digest", ""),
    )


def words(found: t.Optional[Place]) -> t.Optional[str]:
    return None if found is None else f"directory, owner {found[0]}, group {found[1]}, mode {found[2]:04o}"


def make(path: str, wanted: Place) -> None:
    os.makedirs(path, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(handle, *wanted[:2])
        os.fchmod(handle, wanted[2])
    finally:
        os.close(handle)


def plan(options: Options, observed: Observed) -> t.List[Change]:
    layout = _phase.layout_of(options)
    changes = [
        Change(path, words(observed.places[path]), words(wanted), partial(make, path, wanted))
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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_phase.APP,
            "user": {"type": "str", "required": True},
            "group": {"type": "str", "required": True},
            "instances": {"type": "int", "default": 1},
            "configuration": {"type": "str"},
        },
        supports_check_mode=True,
    )
    run(module, read, plan, report)


if __name__ == "__main__":
    main()
