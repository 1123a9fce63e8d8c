# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may stand between an app and its storage: proxies that do one thing wrong each. Runs on a lab host, with its Python.

    gateway.py '{"8401": {"mode": "pass"}, "8402": {"mode": "slow", "certificate": "/etc/lab.pem"}}'

Without a storage behind them, they answer 502. Every request is a line in /run/lab-gateway.log: port, method, path.
"""

from __future__ import annotations

import http.client
import http.server
import json
import re
import socket
import ssl
import sys
import threading
import time

# What each of them does wrong.
PORTS = {
    "pass": 8401, "slow": 8402, "break": 8403, "damage": 8404, "no-checksums": 8405, "no-multipart": 8406, "no-presigned": 8407,
    "cache": 8408, "hang": 8409, "error:503-SlowDown": 8410, "error:500-InternalError": 8411, "error:403-ExpiredToken": 8412,
    "error:403-NotEntitled": 8413, "error:400-Whatever": 8414, "tls": 8421, "tls-other-name": 8422, "tls-nobodys": 8423, "tls-over": 8424,
    "stranger": 8425,
}  # fmt: skip
STORAGE = ("127.0.0.1", 8333)
LOG = "/run/lab-gateway.log"
ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'


class Gateway(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, mode: str, certificate: str | None = None) -> None:
        self.mode = mode
        self.context: ssl.SSLContext | None = None
        super().__init__(("0.0.0.0", port), Handler)
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
            if mode == "stranger":
                # A server that has nothing for this name; the storage of an account that does not exist does so.
                self.context.sni_callback = lambda *_given: ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # whoever is refused goes away


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str = "No.") -> None:
        body = ERROR.format(code, message).encode()
        headers = {
            "Date": self.date_time_string(),
            "Content-Type": "application/xml",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        self.answer(status, body, headers)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with open(LOG, "a") as log:
            log.write(f"{self.server.server_address[1]} {self.command} {self.path.partition('?')[0]}\n")
        mode, _colon, detail = self.server.mode.partition(":")
        of_object = self.path.count("/") > 1 and not self.path.partition("?")[0].endswith("/")
        if mode == "slow":
            time.sleep(5)
        if mode == "error":
            status, code = detail.split("-")
            return self.refuse(int(status), code)
        if mode == "no-checksums" and any(
            re.match(r"x-amz-(checksum-(?!mode)|trailer|sdk-checksum)", name.lower()) for name in self.headers
        ):
            return self.refuse(501, "NotImplemented", "Header 'x-amz-checksum-algorithm' with value 'CRC32' not implemented")
        if mode == "no-multipart" and self.command == "POST":
            return self.refuse(501, "NotImplemented", "Not implemented")
        if mode == "no-presigned" and "X-Amz-Signature" in self.path:
            return self.refuse(403, "AccessDenied")
        if mode == "hang" and self.command == "POST" and "uploadId=" in self.path:
            time.sleep(60)
        if mode == "cache" and "X-Amz-Signature" in self.path:
            # It keys by what comes before the question mark, as some do that are told to ignore the query.
            kept = KEPT.get(self.path.partition("?")[0])
            if kept:
                return self.answer(*kept)
        try:
            status, headers, content = self.forwarded(body)
        except ConnectionRefusedError:
            return self.refuse(502, "BadGateway", "There is no storage.")
        if mode == "cache" and status == 200 and "X-Amz-Signature" in self.path:
            KEPT[self.path.partition("?")[0]] = (status, content, headers)
        if mode == "damage" and self.command == "GET" and of_object:
            content = bytes([content[0] ^ 1]) + content[1:] if content else content
        if mode == "break" and self.command == "GET" and of_object:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.answer(status, content, headers)
        return None

    def forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        storage = http.client.HTTPConnection(*STORAGE, timeout=30)
        storage.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                storage.putheader(name, value)
        storage.endheaders(body)
        answer = storage.getresponse()
        content = answer.read()
        headers = {name: value for name, value in answer.getheaders() if name.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(content))
        storage.close()
        return answer.status, headers, content

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_request


KEPT: dict[str, tuple[int, bytes, dict[str, str]]] = {}


def main() -> None:
    gateways = [Gateway(int(port), **options) for port, options in json.loads(sys.argv[1]).items()]
    threads = [threading.Thread(target=one.serve_forever) for one in gateways]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


if __name__ == "__main__":
    main()
