# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A webhook and a mail server that write down what comes."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import pathlib
import socketserver
import threading

import pytest


def command_lines():
    """What `ps` shows to everybody."""
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue


class Webhook(http.server.ThreadingHTTPServer):
    """Answers as the first part of a path says: ok, 500, hang, drip (a byte now and then, so that no time-out between bytes ends it)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.came, self.processes, self.end = [], [], threading.Event()

    def url(self, behaviour, secret="canary-token"):
        return f"json://canary-user:canary-password@127.0.0.1:{self.server_port}/{behaviour}/{secret}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        came = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.processes += command_lines()
        _empty, behaviour, secret = self.path.split("/")
        self.server.came.append((behaviour, secret, came))
        if behaviour == "hang":
            self.server.end.wait(30)
            return
        if behaviour == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):
                while not self.server.end.wait(0.3):
                    self.wfile.write(b"X-Wait: more\r\n")
            return
        self.send_response(500 if behaviour == "500" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


class Mailbox(socketserver.ThreadingTCPServer):
    """Takes every mail, except for nobody@."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.mails = []

    def url(self, to):
        return f"mailto://127.0.0.1:{self.server_address[1]}/?from=deploy@example.org&to={to}@example.org&mode=insecure"


class Conversation(socketserver.StreamRequestHandler):
    def handle(self):
        self.answer(220, "mail.example.org")
        for line in self.rfile:
            verb = line.split(maxsplit=1)[0].upper()
            if verb == b"DATA":
                self.answer(354, "go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(email.message_from_bytes(b"".join(lines), policy=email.policy.default))
                self.answer(250, "taken")
            elif verb == b"QUIT":
                self.answer(221, "bye")
                return
            else:
                self.answer(*((550, "no such mailbox") if b"nobody@" in line and verb == b"RCPT" else (250, "fine")))

    def answer(self, code, text):
        self.wfile.write(f"{code} {text}\r\n".encode())


def serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def webhook(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Webhook()
    yield from serving(server)
    server.end.set()


@pytest.fixture
def mailbox():
    yield from serving(Mailbox())
