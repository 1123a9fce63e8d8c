# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``http``: asks over TCP or a Unix socket and judges the answer.

No answer (refused, reset, timed out, not HTTP) is a fail: the service does not serve. What keeps this side from asking
(name resolution, permissions, a missing CA file) is unknown.
"""

from __future__ import annotations

import errno
import io
import re
import socket
import time
import typing as t
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    FLAG,
    MAPPING,
    NUMBER,
    PASS,
    TEXT,
    UNKNOWN,
    WHOLE_LIST,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    one_line,
    pattern_mistakes,
    redacted,
    shown,
    wrong,
)

BODY_LIMIT = 1024 * 1024
REDIRECT_LIMIT = 5
REDIRECTS = (301, 302, 303, 307, 308)
# sockaddr_un holds 108 bytes with the closing zero (unix(7)).
SOCKET_PATH_LIMIT = 107
# Shorter ones would blank half of the text and protect nothing.
SHORTEST_SECRET = 4
PUBLIC_HEADERS = ("accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-type", "host", "user-agent")
OWN_HEADERS = {"User-Agent": "bulletproof-deploy-health-check", "Accept": "*/*", "Connection": "close"}
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")

# What every type that asks over HTTP understands.
ASKING: t.Dict[str, Option] = {
    "url": Option(TEXT),
    "unix_socket": Option(TEXT),
    "path": Option(TEXT),
    "headers": Option(MAPPING, secret=True),
    "status": Option(WHOLE_LIST, default=[200], minimum=100, maximum=599),
    "verify_tls": Option(FLAG, default=True),
    "ca_file": Option(TEXT),
    "follow_redirects": Option(FLAG, default=False),
}


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


class _Budget:
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

    def __init__(self, sock: socket.socket, budget: _Budget) -> None:
        self._sock = sock
        self._budget = budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int:
        self._sock.settimeout(self._budget.left())
        return self._sock.recv_into(buffer)


class _BoundedSocket:
    """As much of a socket as http.client needs. Who opened the real one closes it, after the answer was read."""

    def __init__(self, sock: socket.socket, budget: _Budget) -> None:
        self._sock = sock
        self._budget = budget

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._budget.left())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> t.BinaryIO:
        return t.cast(t.BinaryIO, io.BufferedReader(_BoundedReader(self._sock, self._budget), 65536))

    def close(self) -> None:
        pass


def asking_mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    """What is wrong with where and how to ask."""
    if ("url" in given) == ("unix_socket" in given):
        yield f"url, unix_socket: found {'both' if 'url' in given else 'none'}, allowed: one of them"
    if "path" in given and "unix_socket" not in given:
        yield "path: it goes with unix_socket; the path of a url is part of the url"
    if options["path"] is not None and not options["path"].startswith("/"):
        yield wrong("path", _public_url(options["path"]), "a path that begins with /")
    if options["url"] is not None:
        yield from _url_mistakes(options["url"])
    if options["unix_socket"] is not None and not 1 < len(options["unix_socket"].encode("utf-8", "surrogateescape")) <= SOCKET_PATH_LIMIT:
        yield wrong("unix_socket", options["unix_socket"], f"a path of at most {SOCKET_PATH_LIMIT} bytes")
    for name, value in (options["headers"] or {}).items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            yield wrong("headers", name, "names of letters, digits and hyphens")
        elif not _is_header_value(value):
            yield f"headers: the value of {name} (not shown) is not one line of Latin-1 text"


def _is_header_value(value: t.Any) -> bool:
    if isinstance(value, (dict, list)) or value is None:
        return False
    try:
        return not re.search(rb"[\r\n\0]", str(value).encode("latin-1"))
    except UnicodeEncodeError:
        return False


def _url_mistakes(url: str) -> t.Iterator[str]:
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
        yield wrong("url", _public_url(url), "http:// or https://, a host, and a port from 1 to 65535 if any")


def _public_url(url: str) -> str:
    """The URL as it may be shown: a query can carry a token."""
    head, question, _query = url.partition("?")
    return f"{head}?…" if question else head


def request_of(options: Options) -> Request:
    """The request that the options describe. Reads the files of a form."""
    headers = {name: str(value) for name, value in (options["headers"] or {}).items()}
    body = _body(options, headers)
    return Request(
        method=options.get("method") or ("GET" if body is None else "POST"),
        url=options["url"] or f"http://localhost{options['path'] or '/'}",
        unix_socket=options["unix_socket"],
        headers={**OWN_HEADERS, **headers},
        body=body,
        verify_tls=options["verify_tls"],
        ca_file=options["ca_file"],
    )


def _body(options: Options, headers: t.Dict[str, str]) -> t.Optional[bytes]:
    if options.get("form") is not None:
        body, headers["Content-Type"] = multipart(options["form"])
        return body
    return options["body"].encode("utf-8") if options.get("body") is not None else None


def multipart(form: t.Mapping[str, t.Any]) -> t.Tuple[bytes, str]:
    """A form as multipart/form-data (RFC 7578): its bytes and its content type."""
    import uuid

    boundary = uuid.uuid4().hex
    parts = []
    for name, value in form.items():
        head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
        content = str(value).encode("utf-8")
        if isinstance(value, dict):
            filename = value.get("filename") or (value.get("path") or name).rpartition("/")[2]
            head += f'; filename="{_quoted(filename)}"\r\nContent-Type: {value.get("content_type") or "application/octet-stream"}'
            content = value["content"].encode("utf-8") if "content" in value else _file_content(value["path"])
        parts.append(f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode("ascii"), f"multipart/form-data; boundary={boundary}"


def _quoted(name: str) -> str:
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _file_content(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise CannotTell(f"The file {path} of the form could not be read: {error.strerror}.") from None


def where(options: Options, method: str = "") -> str:
    """What is asked, as a person would name it."""
    place = options["url"] or f"{options['unix_socket']}:{options['path'] or '/'}"
    return f"{method} {_public_url(place)}".lstrip()


def ask(options: Options, timeout: float) -> t.Tuple[Request, Reply]:
    """Ask, and follow redirects if that is wanted, all within the timeout.

    :raises NoAnswer: the service did not answer.
    :raises CannotTell: it could not be asked.
    """
    budget = _Budget(timeout)
    began = time.monotonic()
    request = request_of(options)
    for _turn in range(REDIRECT_LIMIT + 1):
        reply = _exchange(request, budget, timeout)
        if not options["follow_redirects"] or reply.status not in REDIRECTS or "location" not in reply.headers:
            return request, replace(reply, elapsed=time.monotonic() - began)
        request = _redirected(request, reply)
    raise NoAnswer(f"redirected more than {REDIRECT_LIMIT} times, at last to {_public_url(request.url)}")


def _redirected(request: Request, reply: Reply) -> Request:
    from urllib.parse import urljoin, urlsplit

    url = urljoin(request.url, reply.headers["location"])
    if next(_url_mistakes(url), None):
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


def _exchange(request: Request, budget: _Budget, timeout: float) -> Reply:
    import http.client
    from urllib.parse import urlsplit

    try:
        with closing(_connected(request, budget)) as sock:
            connection = http.client.HTTPConnection(urlsplit(request.url).netloc)
            connection.sock = _BoundedSocket(sock, budget)
            return _conversed(connection, request)
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


def _conversed(connection: t.Any, request: Request) -> Reply:
    from urllib.parse import quote, urlsplit

    parts = urlsplit(request.url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/?%:@!$&'()*+,;=~-._[]")
    # A server may answer (413, for instance) and close before it has read all; its answer tells more than the broken pipe.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(request.method, target, body=request.body, headers=dict(request.headers))
    response = connection.getresponse()
    announced = response.length
    body = response.read(BODY_LIMIT)
    partial = len(body) == BODY_LIMIT and announced != BODY_LIMIT and bool(response.read(1))
    if announced is not None and len(body) < min(announced, BODY_LIMIT):
        raise ConnectionResetError
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body, partial, elapsed=0)


def _connected(request: Request, budget: _Budget) -> socket.socket:
    if request.unix_socket is not None:
        return _connected_to(socket.AF_UNIX, request.unix_socket, budget)
    from urllib.parse import urlsplit

    parts = urlsplit(request.url)
    sock = _connected_by_name(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80), budget)
    return sock if parts.scheme == "http" else _secured(sock, request, parts.hostname or "", budget)


def _connected_by_name(host: str, port: int, budget: _Budget) -> socket.socket:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise CannotTell(f"The name {host} could not be resolved: {getattr(error, 'strerror', None) or error}.") from None
    problem: OSError = ConnectionRefusedError()
    for family, _type, _protocol, _name, address in addresses:
        try:
            return _connected_to(family, address, budget)
        except OSError as error:
            problem = error
    raise problem


def _connected_to(family: int, address: t.Any, budget: _Budget) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(budget.left())
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _secured(sock: socket.socket, request: Request, host: str, budget: _Budget) -> socket.socket:
    import ssl

    try:
        context = ssl.create_default_context(cafile=request.ca_file)
    except (OSError, ssl.SSLError) as error:
        sock.close()
        raise CannotTell(f"The CA file {request.ca_file} could not be used: {one_line(str(error))}.") from None
    if not request.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # A proxy that is asked by its address serves the certificate of the site that the Host header names.
    site = (request.header("host") or "").partition(":")[0]
    try:
        sock.settimeout(budget.left())
        return context.wrap_socket(sock, server_hostname=site or host)
    except BaseException:
        sock.close()
        raise


def look_up(value: t.Any, path: str) -> t.Any:
    """The value at a dotted path; a number is a place in a list, a dot in a key is written with a backslash before it.

    :raises LookupError: there is nothing at the path.
    """
    for step in re.split(r"(?<!\\)\.", path):
        key = step.replace("\\.", ".")
        if isinstance(value, list) and key.isdigit():
            value = value[int(key)]
        elif isinstance(value, dict):
            value = value[key]
        else:
            raise LookupError(path)
    return value


def excerpt(reply: Reply, secrets: t.Iterable[str]) -> str:
    """The beginning of the body for a sentence. Secrets go before the cut, which could leave half of one."""
    return one_line(redacted(reply.text[:4000], secrets)) or "(empty body)"


def secrets_of(options: Options) -> t.List[str]:
    """What was sent and may be secret, in the ways in which a server could send it back."""
    from urllib.parse import quote, quote_plus

    values = [str(value) for name, value in (options["headers"] or {}).items() if name.lower() not in PUBLIC_HEADERS]
    # "Bearer TOKEN", "Basic TOKEN", "session=TOKEN; other=TOKEN"
    values += [part for value in values for part in re.split(r"[\s;=,]+", value)]
    values += _texts_in(options.get("body")) + _texts_in(options.get("form"))
    values += (options["url"] or options["path"] or "").partition("?")[2:]
    forms = {form for value in values for form in (value, shown(value, len(value) * 6 + 2)[1:-1], quote(value), quote_plus(value))}
    return [form for form in forms if len(form) >= SHORTEST_SECRET]


def _texts_in(value: t.Any) -> t.List[str]:
    import json
    from urllib.parse import parse_qsl

    if isinstance(value, dict):
        return [text for element in value.values() for text in _texts_in(element)]
    if isinstance(value, list):
        return [text for element in value for text in _texts_in(element)]
    if not isinstance(value, str):
        return []
    try:
        inner = json.loads(value)
    except ValueError:
        inner = dict(parse_qsl(value))
    return [value, *(_texts_in(inner) if isinstance(inner, (dict, list)) else [])]


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from asking_mistakes(options, given)
    if {"body", "form"} <= given:
        yield "body, form: found both, allowed: one of them"
    if options["method"] is not None and not HEADER_NAME.fullmatch(options["method"]):
        yield wrong("method", options["method"], "a method such as GET or POST")
    yield from pattern_mistakes(options)
    for name, value in (options["form"] or {}).items():
        yield from _field_mistakes(name, value)


def _field_mistakes(name: t.Any, value: t.Any) -> t.Iterator[str]:
    if not isinstance(name, str):
        yield wrong("form", name, "names that are text")
    elif isinstance(value, dict):
        unknown = sorted(map(str, value.keys() - {"path", "content", "filename", "content_type"}))
        if unknown:
            yield f"form: the file {name} has {', '.join(unknown)}, allowed: path or content, filename, content_type"
        if ("path" in value) == ("content" in value):
            yield f"form: the file {name} has {'both' if 'path' in value else 'none'} of path and content, allowed: one of them"
        if not all(isinstance(element, str) and (key == "content" or _is_header_value(element)) for key, element in value.items()):
            yield f"form: the file {name} has values (not shown) that are not text"
    elif isinstance(value, list) or value is None:
        yield f"form: the value of {name} (not shown) is neither text nor a file (a mapping with path or content)"


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    expected = {name: options[name] for name in ("status", "json", "pattern", "max_latency") if options[name] is not None}
    try:
        request, reply = ask(options, timeout)
    except NoAnswer as problem:
        return unanswered(options, problem, expected)
    said = excerpt(reply, secrets_of(options))
    found: t.Dict[str, t.Any] = {"status": reply.status, "latency": round(reply.elapsed, 3)}
    asked = f"{where(options, options['method'] or request.method)} answered {reply.status} in {reply.elapsed:.3f} s"
    problems = status_problems(options, reply)
    if options["max_latency"] is not None and reply.elapsed > options["max_latency"]:
        problems.append(f"it took {reply.elapsed:.3f} s, expected at most {options['max_latency']:g} s")
    unread: t.List[str] = []
    for judge in (_pattern_problems, _json_problems):
        (unread if reply.partial else problems).extend(judge(options, reply, found))
    if unread and not problems:
        return Answer(UNKNOWN, f"{asked}, with more than the {BODY_LIMIT} bytes that are read: {'; '.join(unread)}.", found, expected)
    if problems:
        return Answer(FAIL, f"{asked}: {'; '.join(problems)}; it said: {said}", found, expected)
    return Answer(PASS, f"{asked}: {said}", found, expected)


def unanswered(options: Options, problem: NoAnswer, expected: t.Any) -> Answer:
    statuses = " or ".join(map(str, options["status"]))
    asked = where(options, options.get("method") or "")
    return Answer(FAIL, f"{asked}: {problem}; expected an answer with status {statuses}.", None, expected)


def status_problems(options: Options, reply: Reply) -> t.List[str]:
    if reply.status in options["status"]:
        return []
    to = f" (a redirect to {_public_url(one_line(reply.headers['location']))})" if "location" in reply.headers else ""
    return [f"found status {reply.status}{to}, expected {' or '.join(map(str, options['status']))}"]


def _pattern_problems(options: Options, reply: Reply, found: t.Dict[str, t.Any]) -> t.List[str]:
    if options["pattern"] is None or re.search(options["pattern"], reply.text):
        return []
    return [f"the body does not match {shown(options['pattern'])}"]


def _json_problems(options: Options, reply: Reply, found: t.Dict[str, t.Any]) -> t.List[str]:
    import json

    if options["json"] is None:
        return []
    try:
        value = json.loads(reply.body)
    except (ValueError, RecursionError):
        return ["the body is not JSON"]
    problems = []
    found["json"] = {}
    for path, expected in options["json"].items():
        try:
            actual = look_up(value, path)
        except LookupError:
            problems.append(f"{path} is missing, expected {shown(expected)}")
            continue
        found["json"][path] = shown(actual) if isinstance(actual, (dict, list, str)) and len(str(actual)) > 200 else actual
        if not _same(actual, expected):
            problems.append(f"{path} is {shown(actual)}, expected {shown(expected)}")
    return problems


def _same(actual: t.Any, expected: t.Any) -> bool:
    """Equal as JSON is: to Python, true is also 1."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        return actual.keys() == expected.keys() and all(_same(actual[key], expected[key]) for key in actual)
    if isinstance(actual, list) and isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_same, actual, expected))
    return isinstance(actual, bool) == isinstance(expected, bool) and bool(actual == expected)


CHECK = CheckType(
    name="http",
    options={
        **ASKING,
        "method": Option(TEXT),
        "body": Option(TEXT, secret=True),
        "form": Option(MAPPING, secret=True),
        "json": Option(MAPPING),
        "pattern": Option(TEXT),
        "max_latency": Option(NUMBER, minimum=0.001),
    },
    subject=where,
    attempt=_attempt,
    mistakes=_mistakes,
    secrets=secrets_of,
)
