# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the benchmark: writes one JSON line for each finished task, to the file that TASK_SECONDS names."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_seconds
type: notification
short_description: Write down how long tasks took, and what modules say of their own time
description: One JSON line for each task and host.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "task_seconds"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.began = {}

    def v2_runner_on_start(self, host, task):
        self.began[(host.name, task._uuid)] = time.time()

    def v2_runner_on_ok(self, result):
        task, host = result._task, result._host
        began = self.began.get((host.name, task._uuid), time.time())
        line = {
            "host": host.name,
            "task": task.get_name(),
            "action": task.action,
            "began": began,
            "seconds": time.time() - began,
            "own": result._result.get("seconds"),
            "changed": result._result.get("changed"),
        }
        with open(os.environ["TASK_SECONDS"], "a", encoding="utf-8") as stream:
            print(json.dumps(line, default=str), file=stream)
