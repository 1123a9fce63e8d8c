#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remove releases and virtual environments that nobody needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
short_description: Remove releases and virtual environments that nobody needs
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Keeps what is live, what a rollback would go to, and the newest good releases. A bad release never takes a good one's place.
  - Reads manifests and never looks at modification times. M(bulletproof.deploy.release_commit) does the same at the end of every deploy.
  - It is a phase of a run, and the run holds the lock for O(lease) seconds more. By itself, free it afterwards (M(bulletproof.deploy.release_lock)).
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  keep:
    description: How many good releases to keep.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Keep three
  bulletproof.deploy.release_prune:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    keep: 3

- name: Let others deploy
  bulletproof.deploy.release_lock:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
"""

RETURN = r"""
pruned:
  description: What was removed, or would be.
  returned: success
  type: list
  elements: str
  sample: [/opt/shop/releases/1.3.0-ba9876543210]
"""

import typing as t
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _phase, _prune
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


def read(options: Options) -> t.List[str]:
    return _prune.doomed(_phase.layout_of(options), options["keep"])


def plan(options: Options, doomed: t.List[str]) -> t.List[Change]:
    layout = _phase.layout_of(options)
    return [Change(path, "present", None, partial(remove, layout, path)) for path in doomed]


def remove(layout: Layout, path: str) -> None:
    problem = _prune.remove(layout, path)
    if problem:
        raise Failure(problem)


def report(options: Options, doomed: t.List[str]) -> t.Dict[str, t.Any]:
    return {"pruned": doomed}


def main() -> None:
    module = AnsibleModule(argument_spec={**_phase.RUN, "keep": {"type": "int", "default": 5}}, supports_check_mode=True)
    _phase.run(module, "prune", read, plan, report)


if __name__ == "__main__":
    main()
