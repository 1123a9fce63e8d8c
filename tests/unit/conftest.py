# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""HTTP servers for whoever has something to ask."""

from __future__ import annotations

import http.server
import json
import socket
import socketserver
import threading
import typing as t

import pytest

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

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond


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
