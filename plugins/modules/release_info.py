#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an app's host serves, has, and is in the middle of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: Tell what a host serves, has, and is in the middle of
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Reads what runs where, since when and by whom, the releases and what became of them, the lock, and the safety net. A query; changes nothing.
extends_documentation_fragment:
  - bulletproof.deploy.app
"""

EXAMPLES = r"""
- name: Look
  bulletproof.deploy.release_info:
    app: shop
    root: /opt/shop
  register: shop
"""

RETURN = r"""
live:
  description: The release that is served, its slot, since when (seconds since the epoch), by which run and whom. Null when nothing is.
  returned: success
  type: dict
serving:
  description: Whether that is really so. The live socket, C(current) and the unit's processes agree with it.
  returned: success
  type: bool
configuration:
  description: The digest of the declaration that the host is configured for; empty when it never was.
  returned: success
  type: str
processes:
  description: What is wrong with the processes beside the web server, one sentence each. One that should run and does not, or the reverse.
  returned: success
  type: list
  elements: str
safety_net:
  description: The way back that is armed, null when none is.
  returned: success
  type: dict
lock:
  description: Whose lock it is, null when it is free.
  returned: success
  type: dict
releases:
  description: All releases on the host, the oldest commit first, each with its state and why.
  returned: success
  type: list
  elements: dict
rollback:
  description: The release that a rollback would go to; empty when there is none.
  returned: success
  type: str
text:
  description: All of it as lines for a person.
  returned: success
  type: list
  elements: str
"""

import time
import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock, _manifest, _phase, _processes, _runner, _state, _transition
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json


def tell(
    app: str,
    state: _state.State,
    serving: bool,
    lock: t.Optional[_lock.Lock],
    releases: t.Sequence[_manifest.Manifest],
    back: str,
    processes: t.Sequence[str] = (),
) -> t.List[str]:
    """The host in words: first what it serves, then what is going on, then what it has."""
    live = state.live
    lines = [f"{app} has never been deployed to this host."]
    if live is not None:
        lines = [f"{app} serves {live.release} in slot {live.slot}, since {_state.when(live.since)}, by {live.who} (run {live.run})."]
        if not serving:
            lines.append("But its unit does not run from that release, or the live socket points elsewhere: it needs a look, or a deploy.")
    lines += [f"But {problem}: it needs a look, or a deploy." for problem in processes]
    if state.way_back is not None and state.way_back.good:
        lines.append(
            f"Run {state.way_back.run} calls it good and is not done; if nothing more is heard of it, the host does what the others do."
        )
    elif state.way_back is not None:
        to = state.way_back.position.release if state.way_back.position else "serving nothing"
        lines.append(f"Run {state.way_back.run} is not committed; the safety net is armed and goes back to {to}.")
    else:
        lines.append("The safety net is not armed.")
    lines.append(f"The lock is held by {lock.describe(time.time())}." if lock else "The lock is free.")
    lines.append(f"A rollback would go to {back}." if back else "A rollback has nowhere to go.")
    lines += [f"  {one.release}: {one.state}{f' ({one.why})' if one.why else ''}" for one in releases]
    return lines


def look(options: _runner.Options) -> t.Dict[str, t.Any]:
    layout = _phase.layout_of(options)
    state, lock, releases = _state.load(layout), _lock.load(layout), _manifest.every(layout)
    live = state.live
    back = _manifest.back_from(releases, live.release) if live else None
    serving = _transition.is_live(layout, live)
    rollback = back.release if back else ""
    processes = _processes.problems(layout, live)
    return {
        "live": asdict(live) if live else None,
        "serving": serving,
        "processes": processes,
        "configuration": (read_json(layout.configuration) or {}).get("digest", ""),
        "safety_net": asdict(state.way_back) if state.way_back else None,
        "lock": asdict(lock) if lock else None,
        "releases": [
            {
                "release": one.release,
                "version": one.version,
                "state": one.state,
                "why": one.why,
                "committed": one.committed,
                "source": one.source,
            }
            for one in releases
        ],
        "rollback": rollback,
        "text": tell(layout.app, state, serving, lock, releases, rollback, processes),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=_phase.APP, supports_check_mode=True)
    _runner.run(module, look, lambda options, observed: [], lambda options, observed: observed)


if __name__ == "__main__":
    main()
