#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 6 of a deploy: watch the release on trial for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_watch
short_description: Watch the release on trial for a while
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Asks the release that was switched to, through the proxy, again and again for the length of the window, and holds its processes still
    against each other. The main process must stay the same, nothing may restart, no worker may be missing.
  - One probe of many that fails by chance is forgiven; two in a row are not.
  - A query. Going back is the next step's decision (M(bulletproof.deploy.release_revert)), because other hosts take part in it.
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
options:
  window:
    description: Seconds to watch.
    type: float
    required: true
"""

EXAMPLES = r"""
- name: Watch for ten seconds
  bulletproof.deploy.release_watch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    window: 10
"""

RETURN = r"""
release:
  description: The release that was watched.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
verdicts:
  description: What was verified.
  returned: success
  type: list
  elements: dict
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _evidence, _manifest, _phase, _runner, _state, _transition, _verify
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def watch(options: _runner.Options) -> t.Dict[str, t.Any]:
    layout = _phase.layout_of(options)
    state = _state.load(layout)
    if state.live is None or not state.armed_by(options["run"]):
        raise Failure(f"Nothing of run {options['run']} is on trial on this host: it has gone back.", fix=f"Read {layout.audit_log}.")
    began, logs = time.time(), _evidence.cursor(layout)
    checks = _verify.watch_checks(layout, _manifest.need(layout, state.live.release), state.live.slot, options["window"])
    try:
        verdicts = _transition.verify(layout, state.live, checks)
    except Failure as failure:
        raise _transition.with_last_words(layout, failure, state.live, began, logs) from None
    return {"release": state.live.release, "verdicts": verdicts}


def main() -> None:
    module = AnsibleModule(argument_spec={**_phase.RUN, "window": {"type": "float", "required": True}}, supports_check_mode=True)
    _phase.query(module, "watch", watch)


if __name__ == "__main__":
    main()
