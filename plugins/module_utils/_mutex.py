# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Short mutual exclusion between processes of one host (flock(2)): it ends with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

POLL = 0.05


@contextlib.contextmanager
def exclusive(directory: str, name: str, timeout: float) -> t.Iterator[None]:
    """Hold ``<directory>/<name>.mutex`` while the block runs.

    :param timeout: Seconds to wait for another process; Failure after that.
    """
    path = os.path.join(directory, f"{name}.mutex")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise Failure(f"{directory} does not exist: this host was never provisioned for the app.", fix="Run provision.yml.") from None
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            if time.monotonic() >= deadline:
                raise Failure(
                    f"Another process on this host has been working on {name} ({path}) for longer than {timeout:g} s.",
                    fix="Look for it with: fuser -v " + path,
                )
            time.sleep(POLL)
        yield
    finally:
        os.close(handle)
