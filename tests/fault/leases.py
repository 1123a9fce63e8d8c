# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lease of a run on a host: let what is left of it pass at once, and wait for what still works for a run."""

from __future__ import annotations

import sys
import time

from lab import Host
from lab.shell import docker, run

# In one rename: a phase, or the timer, may be reading it.
END = """
import json, os, sys, time
path = sys.argv[1]
try:
    with open(path) as stream:
        lock = json.load(stream)
except FileNotFoundError:
    sys.exit()
with open(path + ".ended", "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
    json.dump({**lock, "deadline": time.time() - 1}, stream)
os.replace(path + ".ended", path)
"""
# In brackets, so that it does not find itself.
AT_WORK = "pgrep --full '[B]ECOME-SUCCESS'"


def end_lease(host: Host, root: str) -> None:
    """The lock on this host belongs to a run that has been silent for too long. On a host that is paused, too: the clock does not stop there."""
    path = f"{root}/.deploy/lock.json"
    if host.state == "paused":
        pid = docker("inspect", "--format", "{{.State.Pid}}", host.container)
        run([sys.executable, "-c", END, f"/proc/{pid}/root{path}"])
    else:
        host.run(["python3", "-c", END, path])


def module_at_work(host: Host) -> bool:
    """Whether something that a controller began on the host has not ended, whether or not the controller lives."""
    return host.run(["sh", "-c", AT_WORK], check=False).returncode == 0


def wait_for_modules(host: Host, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while module_at_work(host):
        assert time.monotonic() < deadline, f"A module of the run still works on {host.name} after {timeout:g} s."
        time.sleep(0.1)
