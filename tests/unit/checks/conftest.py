# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers to be checked: real ones, well-behaved and not."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import typing as t

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine

Respond = t.Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands every request to the function that the test gave."""

    server: Server

    def handle_one_request(self) -> None:
        super().handle_one_request()
        self.close_connection = True

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: t.Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def received(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def respond(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.respond(self)

    do_GET = do_POST = do_PUT = do_HEAD = respond


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: t.Any, respond: Respond) -> None:
        self.respond = respond
        self.requests: t.List[str] = []
        super().__init__(address, Handler)

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        pass  # the client going away is part of the tests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class UnixServer(Server):
    address_family = socket.AF_UNIX


@pytest.fixture
def serve() -> t.Iterator[t.Callable[..., Server]]:
    """Start HTTP servers: serve(respond) over TCP, serve(respond, path) over a Unix socket."""
    servers: t.List[Server] = []

    def start(respond: Respond, path: t.Optional[str] = None) -> Server:
        server = UnixServer(path, respond) if path else Server(("127.0.0.1", 0), respond)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


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
