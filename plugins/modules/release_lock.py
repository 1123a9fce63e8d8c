#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Free the lock of an app, for the person who knows that its run is dead."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_lock
short_description: Free the lock of an app
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Frees the lock of the named run, and of no other. A run that is not committed then loses its host, which goes back within seconds.
  - Runs take and free their locks themselves; this is for the person who knows that one is dead and does not want to wait for its lease.
extends_documentation_fragment:
  - bulletproof.deploy.app
options:
  run:
    description: The run whose lock is to be freed. Leave it out to free a lock whose lease has ended.
    type: str
    default: ""
  who:
    description: The person who frees it, for the audit log.
    type: str
    default: unknown
"""

EXAMPLES = r"""
- name: Free the lock of a run that is dead
  bulletproof.deploy.release_lock:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
"""

RETURN = r"""
was:
  description: Whose lock it was, null when it was free.
  returned: success
  type: dict
"""

import time
import typing as t
from dataclasses import asdict
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _audit, _lock, _phase
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options, run


def read(options: Options) -> t.Optional[_lock.Lock]:
    return _lock.load(_phase.layout_of(options))


def plan(options: Options, held: t.Optional[_lock.Lock]) -> t.List[Change]:
    if held is None:
        return []
    if options["run"] and options["run"] != held.run:
        raise Failure(f"The lock is not that of run {options['run']}: it belongs to {held.describe(time.time())}.", lock=asdict(held))
    if not options["run"] and held.alive(time.time()):
        raise Failure(
            f"The lock belongs to {held.describe(time.time())}.",
            fix=f"If you know that this run is dead: -e app_unlock_run={held.run}. A host that it has switched then goes back by itself.",
            lock=asdict(held),
        )
    return [Change("lock", held.describe(held.acquired), None, partial(free, options, held))]


def free(options: Options, held: _lock.Lock) -> None:
    layout = _phase.layout_of(options)
    _lock.free(layout, held.run)
    _audit.append(layout, held.run, options["who"], "unlock", "ok", 0.0, owner=held.owner)


def report(options: Options, held: t.Optional[_lock.Lock]) -> t.Dict[str, t.Any]:
    return {"was": asdict(held) if held else None}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**_phase.APP, "run": {"type": "str", "default": ""}, "who": {"type": "str", "default": "unknown"}},
        supports_check_mode=True,
    )
    run(module, read, plan, report)


if __name__ == "__main__":
    main()
