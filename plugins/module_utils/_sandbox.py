# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running the app's own code outside of its service: its account, its environment as systemd reads it, its directory, and little else to write to.

The environment goes from its files to the process through systemd alone, so no secret of it is ever in an argument.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import Finished
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# What systemd-run needs itself, beyond the time that its program is given.
SLACK = 15


def command(
    argv: t.Sequence[str],
    user: str,
    group: str,
    directory: str,
    environment_files: t.Sequence[str],
    writable: t.Sequence[str],
    seconds: int,
    properties: t.Optional[t.Mapping[str, str]] = None,
) -> t.List[str]:
    """The command line that runs a program as the app's service would.

    :param argv: Nothing secret, and no ``$``, which systemd takes for a variable.
    :param group: The account's own when it is empty.
    :param environment_files: As ``EnvironmentFile=`` takes them: with a leading ``-`` one may be missing.
    :param writable: The only paths that it may write to, besides a ``/tmp`` of its own.
    :param seconds: Then it is stopped.
    """
    given: t.Dict[str, t.Union[str, t.List[str]]] = {
        "User": user,
        **({"Group": group} if group else {}),
        "WorkingDirectory": directory,
        "EnvironmentFile": list(environment_files),
        "RuntimeMaxSec": str(seconds),
        "ProtectSystem": "strict",
        "ReadWritePaths": list(writable),
        "PrivateTmp": "yes",
        "NoNewPrivileges": "yes",
        **(properties or {}),
    }
    flags = []
    for name, values in given.items():
        for value in values if isinstance(values, list) else [values]:
            flags += ["--property", f"{name}={value}"]
    return ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *flags, *argv]


def ask(argv: t.Sequence[str], request: str, timeout: float) -> Finished:
    """Run a program that gets one line on its standard input, which then stays open for as long as this process lives.

    The program takes the end of its input for the end of this process: systemd keeps it when ``systemd-run`` is killed.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ, LC_ALL="C.UTF-8"),
        encoding="utf-8",
        errors="replace",
    )
    into, out, errors = (t.cast(t.IO[str], stream) for stream in (process.stdin, process.stdout, process.stderr))
    said: t.Dict[str, str] = {}

    def listen(name: str, stream: t.IO[str]) -> None:
        with stream:
            said[name] = stream.read()

    listeners = [
        threading.Thread(target=listen, args=("stdout", out), daemon=True),
        threading.Thread(target=listen, args=("stderr", errors), daemon=True),
    ]
    for listener in listeners:
        listener.start()
    try:
        # Where it has ended already, what it said tells why.
        with contextlib.suppress(BrokenPipeError):
            into.write(request + "\n")
            into.flush()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failure(f"{argv[0]} did not finish within {timeout:g} s and was stopped.") from None
    finally:
        with contextlib.suppress(BrokenPipeError):
            into.close()
    for listener in listeners:
        listener.join(SLACK)
    return Finished(tuple(argv), process.returncode, said.get("stdout", ""), said.get("stderr", ""))
