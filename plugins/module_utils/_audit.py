# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The audit log: one JSON line for each phase of each run.

Root appends to a directory whose files the service can write, so the log is opened without following links.
"""

from __future__ import annotations

import datetime
import json
import os
import socket
import stat
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout


def append(layout: Layout, run: str, who: str, phase: str, result: str, seconds: float, **more: t.Any) -> None:
    """Write one line: run, who, host, phase, what happened, how long (seconds).

    A log that cannot be written must not turn a good deploy into a failed one, nor stop a revert: it is let go.
    """
    line = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        "run": run,
        "who": who,
        "host": socket.gethostname(),
        "app": layout.app,
        "phase": phase,
        "result": result,
        "seconds": round(seconds, 3),
        **more,
    }
    try:
        handle = os.open(layout.audit_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError:
        return
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.write(handle, (json.dumps(line, sort_keys=False) + "\n").encode())
    except OSError:
        return
    finally:
        os.close(handle)
