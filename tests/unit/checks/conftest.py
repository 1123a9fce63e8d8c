# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers to be checked: real ones, well-behaved and not."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine


@pytest.fixture
def serve_bytes() -> t.Iterator[t.Callable[[t.Callable[[socket.socket], None]], str]]:
    """Start a server that is not bound to speak HTTP; returns its URL."""
    listeners: t.List[socket.socket] = []

    def start(talk: t.Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _address = listener.accept()
                except OSError:
                    return
                threading.Thread(target=converse, args=(connection,), daemon=True).start()

        def converse(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                talk(connection)

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def python() -> t.Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a Python of its own, which finds the collection where this one does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(code: str, *arguments: str, under: t.Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        command = [*under, sys.executable, "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


@pytest.fixture
def check() -> t.Callable[..., engine.Verdict]:
    """Run one check."""
    return lambda **declared: engine.run_checks([declared])[0]
