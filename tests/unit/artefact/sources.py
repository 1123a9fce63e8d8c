# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real sources: trees on disk, Git repositories, and a Git server that asks for a password."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
import typing as t
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True, env={**os.environ, **IDENTITY}
    ).stdout.strip()


def commit_all(directory: Path, message: str = "work") -> str:
    if not (directory / ".git").exists():
        git(directory, "init", "--quiet", "--initial-branch=main")
    git(directory, "add", "--all", "--force")
    git(directory, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(directory, "rev-parse", "HEAD")


def plant(directory: Path, files: t.Mapping[str, str]) -> Path:
    """Write files; a text that begins with "-> " is a link, a name that ends in * is executable."""
    for name, text in files.items():
        path = directory / name.rstrip("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
            path.chmod(0o755 if name.endswith("*") else 0o644)
    return directory


class GitServer:
    """git http-backend behind basic authentication; two more paths redirect, and repeat the password."""

    username = "deploy"
    password = "c4nary/T0ken@x"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests = 0
        self.seen_elsewhere: t.List[str] = []
        self.redirect_to = ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

            do_POST = do_GET

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def url(self, repository: str, userinfo: str = "", host: str = "127.0.0.1") -> str:
        return f"http://{userinfo}{host}:{self.port}/{repository}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        path, _question, query = request.path.partition("?")
        if path.startswith("/moved/"):
            request.send_response(302)
            request.send_header("Location", self.redirect_to + path[len("/moved") :] + (f"?{query}" if query else ""))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        given = request.headers.get("Authorization", "")
        if request.headers.get("Host", "").startswith("localhost"):
            self.seen_elsewhere.append(given)
        if given != "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode():
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        if path.startswith("/chatty/"):
            said = f"{self.password} is not allowed to do this\n".encode()
            request.send_response(403)
            request.send_header("Content-Type", "text/plain")
            request.send_header("Content-Length", str(len(said)))
            request.end_headers()
            request.wfile.write(said)
            return
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": self.username,
            "REQUEST_METHOD": request.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        }
        said = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment, check=False).stdout
        headers, _gap, content = said.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in headers.decode().splitlines())
        request.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
