#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install units that belong together, after systemd has read all of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Install systemd units that belong together
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Writes unit files, makes systemd read them, and enables those that start at boot.
  - Nothing is written before C(systemd-analyze verify) has read all the new files together; a directive that it does not know is refused.
  - Does not start, stop or restart anything.
options:
  units:
    description: The text of each unit file by the unit's name.
    type: dict
    required: true
  enabled:
    description: Which of the units are to be started at boot.
    type: list
    elements: str
    default: []
  directory:
    description: Where the unit files are.
    type: path
    default: /etc/systemd/system
attributes:
  check_mode:
    description: Can run in check mode; the units are verified, and nothing is changed.
    support: full
  diff_mode:
    description: Shows the unit files before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install a service and its socket
  bulletproof.deploy.systemd_units:
    units:
      shop@.service: "{{ lookup('ansible.builtin.template', 'service.j2') }}"
      shop@.socket: "{{ lookup('ansible.builtin.template', 'socket.j2') }}"
"""

RETURN = r"""
written:
  description: The unit files that were written.
  returned: success
  type: list
  elements: str
  sample:
    - shop@.service
"""

import os
import re
import tempfile
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must, run
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

RELOAD = ["systemctl", "daemon-reload"]


@dataclass(frozen=True)
class Observed:
    texts: t.Mapping[str, t.Optional[str]]
    enabled: t.Mapping[str, bool]
    stale: bool


def text_of(path: str) -> t.Optional[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def complaints(said: str, directory: str, units: t.Iterable[str]) -> t.List[str]:
    """What systemd says about these units, without what it says about others on the host."""
    ours = "|".join([re.escape(directory) + "/", *(re.escape(re.sub(r"@?\.\w+$", "", unit)) + r"[@.]" for unit in units)])
    return [line.replace(directory + "/", "") for line in said.splitlines() if re.match(rf"(Unit )?({ours})", line)]


def verify(units: t.Mapping[str, str]) -> None:
    """Raise Failure unless systemd understands every line of the units."""
    with tempfile.TemporaryDirectory(prefix="units-") as directory:
        for name, text in units.items():
            write_atomically(os.path.join(directory, name), text)
        said = run(["systemd-analyze", "verify", *(os.path.join(directory, name) for name in units)])
    found = complaints(said.stderr, directory, units)
    if found:
        raise Failure(
            "systemd does not accept the new units:\n" + "\n".join(found),
            fix="Correct the directive where it is set (systemd_gunicorn_hardening, systemd_gunicorn_service_extra). Nothing was changed.",
        )


def read(options: Options) -> Observed:
    texts = {name: text_of(os.path.join(options["directory"], name)) for name in options["units"]}
    if texts != options["units"]:
        verify(options["units"])
    return Observed(
        texts=texts,
        enabled={name: run(["systemctl", "is-enabled", "--quiet", name]).ok for name in options["enabled"]},
        stale=any(needs_reload(name) for name in options["units"] if texts[name] is not None),
    )


def needs_reload(unit: str) -> bool:
    """Whether the file is newer than what systemd has read, as after a run that ended between the two."""
    said = run(["systemctl", "show", "--property=NeedDaemonReload", unit.replace("@.", "@any.")])
    return said.stdout.strip() == "NeedDaemonReload=yes"


def plan(options: Options, observed: Observed) -> t.List[Change]:
    changes = [
        Change(name, observed.texts[name], text, partial(write_atomically, os.path.join(options["directory"], name), text))
        for name, text in options["units"].items()
        if observed.texts[name] != text
    ]
    if changes or observed.stale:
        changes.append(Change("systemd", "read before", "read again", partial(must, RELOAD, "systemd does not read its units again")))
    changes += [
        Change(f"{name} at boot", "disabled", "enabled", partial(must, ["systemctl", "enable", name], f"{name} cannot be enabled"))
        for name, enabled in observed.enabled.items()
        if not enabled
    ]
    return changes


def report(options: Options, observed: Observed) -> t.Dict[str, t.Any]:
    return {"written": [name for name, text in options["units"].items() if observed.texts[name] != text]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "dict", "required": True},
            "enabled": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "default": "/etc/systemd/system"},
        },
        supports_check_mode=True,
    )
    _runner.run(module, read, plan, report)


if __name__ == "__main__":
    main()
