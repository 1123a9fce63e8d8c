# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections that are opened before they are needed.

To open a connection over SSH takes 0.2 s and more, in which neither side has anything to do. It is opened while the controller still reads the declaration
and builds the artefact, and is there for the first phase. That needs OpenSSH to keep it for whoever comes next (ssh_config(5), ControlPersist), as
Ansible has it by default. What goes wrong here goes wrong again where it is needed, and is told there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from ansible import constants
from ansible.errors import AnsibleError

# Seconds. A host that has not answered by then may not answer at all: whoever needs it finds that out alone, in its own time.
PATIENCE = 2.0
LOOK_AGAIN = 0.01


def _lock_of(host: str) -> str:
    # A directory of this ansible-playbook alone, which all its processes know.
    return os.path.join(str(constants.DEFAULT_LOCAL_TMP), "connecting-" + host.replace("/", "_"))


def connect(connection: t.Any, host: str) -> None:
    """Begin to connect to a host, and do not wait for it."""
    if connection.transport != "ssh" or "ControlPersist" not in str(connection.get_option("ssh_args")):
        return
    lock = os.open(_lock_of(host), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # It belongs to all that have this handle: it is free when the child has ended, however that was.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fork() == 0:
            try:
                # Out of the way of signals for the run, without a terminal to ask for a password at; and who reads the run's output does not wait for this.
                os.setsid()
                nowhere = os.open(os.devnull, os.O_RDWR)
                for standard in (0, 1, 2):
                    os.dup2(nowhere, standard)
                connection.exec_command("true", sudoable=False)
            finally:
                os._exit(0)
    except OSError:
        return
    finally:
        os.close(lock)


def wait(connection: t.Any, host: str) -> None:
    """Wait for a connection that was begun, so that it is not opened twice; ``PATIENCE`` at most.

    One that does not answer by then may be of an earlier run, kept by OpenSSH, and lead through a network that was cut since: TCP then waits for a minute
    and more before it tries again. Nobody is to take it any more; who has it keeps it (ssh(1), ``-O stop``).
    """
    try:
        lock = os.open(_lock_of(host), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            time.sleep(LOOK_AGAIN)
        # Once for a run: what it opens now is its own.
        os.unlink(_lock_of(host))
        with contextlib.suppress(AnsibleError):
            connection.reset()
    finally:
        os.close(lock)
