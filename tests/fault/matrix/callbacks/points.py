# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes a line for each task of a run at the moment when it begins."""

from __future__ import annotations

import json
import os
import time

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: points
type: aggregate
short_description: Write a line for each task when it begins
description: To the file that the environment variable names. How a test knows where a run is.
requirements:
  - the environment variable BULLETPROOF_POINTS
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "points"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._path = os.environ["BULLETPROOF_POINTS"]
        self._play = ""
        self._batches = {}

    def v2_playbook_on_play_start(self, play):
        self._play = play.get_name()
        # With `serial`, a play starts once for each batch.
        self._batches[self._play] = self._batches.get(self._play, 0) + 1

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._write(task)

    def v2_playbook_on_handler_task_start(self, task):
        self._write(task)

    def _write(self, task):
        line = {
            "event": "begun",
            "time": time.time(),
            "play": self._play,
            "batch": self._batches.get(self._play, 1),
            "task": task.get_name(),
            "path": task.get_path(),
        }
        # One write in append mode: the wrapper around ssh writes to the same file.
        with open(self._path, "a") as stream:
            stream.write(json.dumps(line) + "\n")
