# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the benchmark: a connection to a host that isn't there, so that what is measured is the controller."""

from __future__ import annotations

import json
import time

from ansible.plugins.connection import ConnectionBase
from ansible_collections.bulletproof.deploy.plugins.module_utils import _host_code
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import launch

DOCUMENTATION = r"""
name: stub
short_description: Answers what a host would answer, without one
description:
  - A phase gets the answer of a host on which all goes well. Any other module gets one with nothing changed.
extends_documentation_fragment: [connection_pipelining]
options:
  seconds:
    description: How long each phase takes on the host.
    type: float
    default: 0
    vars:
      - name: stub_seconds
  live:
    description: Answer as a host that has the release already.
    type: bool
    default: false
    vars:
      - name: stub_live
"""

LIVE = "0.9.0-000000000000"
# As a real host tells of the one check that every app has.
VERDICTS = [{"type": "version", "passed": True, "found": "1.0.0", "expected": "1.0.0", "subject": "/health", "seconds": 0.01}]


def answer(phase, options, live, host):
    """What a well host returns from a phase: all that the phase's module is documented to."""
    release = options.get("release") or LIVE
    if phase == "preflight":
        now = release if live else LIVE
        known = {"staged": live, "up_to_date": live, "live": now, "machine": host}
        return {"changed": False, "findings": [], "waived": [], "ready": True, "configured": True, "notes": [], **known}
    if phase == "permissions":
        return {"changed": False, "examined": 400, "left_alone": []}
    if phase == "release_stage":
        parts = ("unpack", "venv", "compile", "imports")
        return {"changed": True, "release": release, "venv": "stub", "seconds": dict.fromkeys(parts, 0.1)}
    if phase == "release_switch":
        parts = ("start", "verify", "flip", "proxy")
        where = {"release": release, "slot": "green", "before": LIVE, "flipped": 0.0 if options["warm_up"] else time.time()}
        return {"changed": True, **where, "verdicts": VERDICTS, "seconds": dict.fromkeys(parts, 0.1)}
    if phase == "release_watch":
        return {"changed": False, "release": release, "verdicts": VERDICTS}
    if phase == "release_commit":
        return {"changed": True, "release": release, "pruned": []}
    if phase == "release_revert":
        return {"changed": True, "serves": LIVE, "problem": "", "seconds": 0.1}
    if phase == "release_renew":
        return {"changed": False, "lease": options["lease"]}
    return {"changed": False}


class Connection(ConnectionBase):
    transport = "stub"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if _host_code.PLACE in cmd and in_data:
            request = json.loads(in_data)
            time.sleep(self.get_option("seconds"))
            told = answer(request["phase"], request["options"], self.get_option("live"), self._play_context.remote_addr)
            return 0, f"{launch.STARTED}\n{json.dumps(told)}\n".encode(), b""
        return 0, b'{"changed": false, "stat": {"exists": true}}\n', b""

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)

    def close(self):
        self._connected = False
