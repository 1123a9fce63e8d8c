# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 6 of a deploy: watch the release on trial for a while."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _evidence, _manifest, _phase, _runner, _state, _transition, _verify
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_json

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {**_phase.RUN, "window": {"type": "float", "required": True}}


def watch(options: _runner.Options) -> t.Dict[str, t.Any]:
    layout = _phase.layout_of(options)
    state = _state.load(layout)
    if state.live is None or not state.armed_by(options["run"]):
        raise Failure(f"Nothing of run {options['run']} is on trial on this host: it has gone back.", fix=f"Read {layout.audit_log}.")
    began, logs = time.time(), _evidence.cursor(layout)
    manifest = _manifest.need(layout, state.live.release)
    hold = {"hold": options["window"]}
    checks = [
        *_verify.watch_checks(layout, manifest, state.live.slots, options["window"]),
        *({**hold, **check} for check in _verify.declared(layout, manifest, state.live.slots[0], "watch", read_json(layout.cursors))),
    ]
    try:
        # Its users are on it: there is nothing to wait for once it is known to be bad.
        verdicts = _transition.verify(layout, state.live, checks, to_the_end=False)
    except Failure as failure:
        raise _transition.with_last_words(layout, failure, state.live, began, logs) from None
    return {"release": state.live.release, "verdicts": verdicts}


def run(module: AnsibleModule) -> None:
    _phase.query(module, "watch", watch)
