# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""For the benchmark: how long each task took over all hosts, first start to last end; one JSON line each, to the file that TASK_SPANS names."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: spans
type: notification
short_description: Write down how long tasks took over all hosts
description: Keeps everything in memory until the end, so that a thousand hosts cost as little as possible.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "spans"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.tasks = {}

    def v2_runner_on_start(self, host, task):
        now = time.time()
        one = self.tasks.setdefault(task._uuid, {"task": task.get_name(), "action": task.action, "first": now})
        one.setdefault("starts", {})[host.name] = now

    def _ended(self, how, result):
        one = self.tasks.get(result._task._uuid)
        if one is None:
            return
        one["last"] = time.time()
        one[how] = one.get(how, 0) + 1
        own = one["last"] - one["starts"].get(result._host.name, one["last"])
        one["longest"] = max(own, one.get("longest", 0.0))
        one["sum"] = one.get("sum", 0.0) + own

    def v2_runner_on_ok(self, result):
        self._ended("ok", result)

    def v2_runner_on_skipped(self, result):
        self._ended("skipped", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._ended("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._ended("unreachable", result)

    # A deploy that is ended before its end has told of what came before.
    def v2_playbook_on_task_start(self, task, is_conditional):
        self._write()

    def v2_playbook_on_stats(self, stats):
        self._write()

    def _write(self):
        with open(os.environ["TASK_SPANS"], "w", encoding="utf-8") as stream:
            for one in self.tasks.values():
                print(json.dumps({name: value for name, value in one.items() if name != "starts"}), file=stream)
