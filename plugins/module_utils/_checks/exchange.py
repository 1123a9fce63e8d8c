# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One HTTP exchange over TCP, TLS or a Unix socket, bounded in time and in size; for the check types that ask over HTTP.

No answer (refused, reset, timed out, not HTTP) means that the service does not serve. What keeps this side from asking
(name resolution, permissions, a missing CA file) says nothing about the service.
"""

from __future__ import annotations

import errno
import io
import socket
import time
import typing as t
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import CannotTell, one_line, wrong

if t.TYPE_CHECKING:
    import ssl

BODY_LIMIT = 1024 * 1024
REDIRECT_LIMIT = 5
REDIRECTS = (301, 302, 303, 307, 308)
OWN_HEADERS = {"User-Agent": "bulletproof-deploy-health-check", "Accept": "*/*", "Connection": "close"}


class NoAnswer(Exception):
    """The service did not answer. The text says how, for a person."""


@dataclass(frozen=True)
class Request:
    """What is asked.

    :param unix_socket: Asked there; the URL then gives only the Host header, the path and the query.
    """

    method: str
    url: str
    unix_socket: t.Optional[str]
    headers: t.Mapping[str, str]
    body: t.Optional[bytes]
    verify_tls: bool
    ca_file: t.Optional[str]

    def header(self, name: str) -> t.Optional[str]:
        return next((value for key, value in self.headers.items() if key.lower() == name), None)


@dataclass(frozen=True)
class Reply:
    """What was answered.

    :param partial: The body is longer than what was read of it.
    :param elapsed: Seconds from before the connection until the last byte of the body.
    """

    status: int
    headers: t.Mapping[str, str]
    body: bytes
    partial: bool
    elapsed: float

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")


class Budget:
    """The time left for one attempt, over all that it does."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        left = self.end - time.monotonic()
        if left <= 0:
            raise socket.timeout("timed out")
        return left


class _BoundedReader(io.RawIOBase):
    """A socket's timeout counts from every byte; this one counts for the whole answer, however slowly it drips."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget
        self.ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        self._sock.settimeout(self._budget.left())
        size = self._sock.recv_into(buffer)
        self.ended = size == 0
        return size


class _BoundedSocket:
    """As much of a socket as http.client needs. Who opened the real one closes it, after the answer was read."""

    def __init__(self, sock: socket.socket, budget: Budget) -> None:
        self._sock = sock
        self._budget = budget
        self.reader = _BoundedReader(sock, budget)

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._budget.left())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> t.BinaryIO:
        return t.cast(t.BinaryIO, io.BufferedReader(self.reader, 65536))

    def close(self) -> None:
        pass


def url_mistakes(url: str) -> t.Iterator[str]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        credentials = "@" in parts.netloc
    except ValueError:
        whole, credentials = False, "@" in url
    if credentials:
        yield "url: it holds a user or a password (not shown), allowed: a url without; send them in headers as Authorization"
    elif not whole:
        yield wrong("url", public_url(url), "http:// or https://, a host, and a port from 1 to 65535 if any")


def public_url(url: str) -> str:
    """The URL as it may be shown: a query can carry a token."""
    head, question, _query = url.partition("?")
    return f"{head}?…" if question else head


def ask(request: Request, timeout: float, follow_redirects: bool) -> Reply:
    """Ask, all within the timeout.

    :raises NoAnswer: the service did not answer.
    :raises CannotTell: it could not be asked.
    """
    budget = Budget(timeout)
    began = time.monotonic()
    for _turn in range(REDIRECT_LIMIT + 1):
        reply = _exchange(request, budget, timeout)
        if not follow_redirects or reply.status not in REDIRECTS or "location" not in reply.headers:
            return replace(reply, elapsed=time.monotonic() - began)
        request = _redirected(request, reply)
    raise NoAnswer(f"redirected more than {REDIRECT_LIMIT} times, at last to {public_url(request.url)}")


def _redirected(request: Request, reply: Reply) -> Request:
    from urllib.parse import urljoin, urlsplit

    url = urljoin(request.url, reply.headers["location"])
    if next(url_mistakes(url), None):
        raise NoAnswer(f"redirected with status {reply.status} to an address that is not HTTP")
    old, new = urlsplit(request.url), urlsplit(url)
    request = replace(request, url=url)
    if (old.scheme, old.netloc) != (new.scheme, new.netloc) and request.unix_socket is None:
        # Credentials are for the one they were given to.
        request = replace(request, headers=OWN_HEADERS)
    if reply.status in (307, 308) or request.method == "HEAD":
        return request
    headers = {name: value for name, value in request.headers.items() if name.lower() != "content-type"}
    return replace(request, method="GET", body=None, headers=headers)


def _exchange(request: Request, budget: Budget, timeout: float) -> Reply:
    import http.client
    from urllib.parse import urlsplit

    try:
        with closing(_connected(request, budget)) as sock:
            connection = http.client.HTTPConnection(urlsplit(request.url).netloc)
            connection.sock = bounded = _BoundedSocket(sock, budget)
            return _conversed(connection, bounded.reader, request)
    except (socket.timeout, TimeoutError):
        raise NoAnswer(f"no complete answer within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise NoAnswer("the connection was refused, nothing listens there") from None
    except ConnectionError:
        raise NoAnswer("the connection was closed without a complete answer") from None
    except http.client.HTTPException as error:
        raise NoAnswer(f"the answer is not complete HTTP ({type(error).__name__})") from None
    except OSError as error:
        if type(error).__module__ == "ssl":
            raise NoAnswer(f"TLS failed: {one_line(str(error))}") from None
        if error.errno in (errno.EHOSTUNREACH, errno.ENOENT, errno.ENOTDIR, errno.ENOTSOCK, errno.EPROTOTYPE):
            raise NoAnswer(f"it cannot be reached: {error.strerror}") from None
        raise CannotTell(f"It could not be asked: {error.strerror or one_line(str(error))}.") from None


def _conversed(connection: t.Any, reader: _BoundedReader, request: Request) -> Reply:
    from urllib.parse import quote, urlsplit

    parts = urlsplit(request.url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/?%:@!$&'()*+,;=~-._[]")
    # A server may answer (413, for instance) and close before it has read all; its answer tells more than the broken pipe.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(request.method, target, body=request.body, headers=dict(request.headers))
    response = connection.getresponse()
    if reader.ended:
        raise ConnectionResetError  # http.client takes the end of the connection for the end of the headers
    announced = response.length
    body = response.read(BODY_LIMIT)
    partial = len(body) == BODY_LIMIT and announced != BODY_LIMIT and bool(response.read(1))
    if announced is not None and len(body) < min(announced, BODY_LIMIT):
        raise ConnectionResetError
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body, partial, elapsed=0)


def _connected(request: Request, budget: Budget) -> socket.socket:
    if request.unix_socket is not None:
        return connected_to(socket.AF_UNIX, request.unix_socket, budget)
    from urllib.parse import urlsplit

    parts = urlsplit(request.url)
    sock = connected_by_name(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), budget)
    return sock if parts.scheme == "http" else _secured(sock, request, parts.hostname or "", budget)


def connected_by_name(host: str, port: int, budget: Budget) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotTell(f"The name {host} could not be resolved: {getattr(error, 'strerror', None) or error}.") from None
    problem: OSError = ConnectionRefusedError()
    for family, _type, _protocol, _name, address in addresses:
        try:
            return connected_to(family, address, budget)
        except OSError as error:
            problem = error
    raise problem


def connected_to(family: int, address: t.Any, budget: Budget) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(budget.left())
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _secured(sock: socket.socket, request: Request, host: str, budget: Budget) -> socket.socket:
    # A proxy that is asked by its address serves the certificate of the site that the Host header names.
    site = (request.header("host") or "").partition(":")[0]
    try:
        context = trusting(request.ca_file, request.verify_tls)
        sock.settimeout(budget.left())
        return context.wrap_socket(sock, server_hostname=site or host)
    except BaseException:
        sock.close()
        raise


def trusting(ca_file: t.Optional[str], verify: bool = True) -> ssl.SSLContext:
    """A TLS context that trusts whom this host trusts, or the authorities of a file alone.

    :raises CannotTell: the file could not be used.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise CannotTell(f"The CA file {ca_file} could not be used: {one_line(str(error))}.") from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
