# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``http``: asks over TCP or a Unix socket and judges the answer."""

from __future__ import annotations

import re
import typing as t

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
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import (
    BODY_LIMIT,
    OWN_HEADERS,
    NoAnswer,
    Reply,
    Request,
    ask,
    public_url,
    url_mistakes,
)

# sockaddr_un holds 108 bytes with the closing zero (unix(7)).
SOCKET_PATH_LIMIT = 107
# Shorter ones would blank half of the text and protect nothing.
SHORTEST_SECRET = 4
PUBLIC_HEADERS = ("accept", "accept-encoding", "accept-language", "cache-control", "connection", "content-type", "host", "user-agent")
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


def asking_mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    """What is wrong with where and how to ask."""
    if ("url" in given) == ("unix_socket" in given):
        yield f"url, unix_socket: found {'both' if 'url' in given else 'none'}, allowed: one of them"
    if "path" in given and "unix_socket" not in given:
        yield "path: it goes with unix_socket; the path of a url is part of the url"
    if options["path"] is not None and not options["path"].startswith("/"):
        yield wrong("path", public_url(options["path"]), "a path that begins with /")
    if options["url"] is not None:
        yield from url_mistakes(options["url"])
    yield from socket_mistakes(options)
    for name, value in (options["headers"] or {}).items():
        if not isinstance(name, str) or not HEADER_NAME.fullmatch(name):
            yield wrong("headers", name, "names of letters, digits and hyphens")
        elif not _is_header_value(value):
            yield f"headers: the value of {name} (not shown) is not one line of Latin-1 text"


def socket_mistakes(options: Options) -> t.Iterator[str]:
    """What is wrong with an option ``unix_socket``."""
    if options["unix_socket"] is not None and not 1 < len(options["unix_socket"].encode("utf-8", "surrogateescape")) <= SOCKET_PATH_LIMIT:
        yield wrong("unix_socket", options["unix_socket"], f"a path of at most {SOCKET_PATH_LIMIT} bytes")


def _is_header_value(value: t.Any) -> bool:
    if isinstance(value, (dict, list)) or value is None:
        return False
    try:
        return not re.search(rb"[\r\n\0]", str(value).encode("latin-1"))
    except UnicodeEncodeError:
        return False


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
    return f"{method} {public_url(place)}".lstrip()


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
    values = [str(value) for name, value in (options["headers"] or {}).items() if name.lower() not in PUBLIC_HEADERS]
    # "Bearer TOKEN", "Basic TOKEN", "session=TOKEN; other=TOKEN"
    values += [part for value in values for part in re.split(r"[\s;=,]+", value)]
    values += _texts_in(options.get("body")) + _texts_in(_contents(options.get("form") or {}))
    values += _texts_in((options["url"] or options["path"] or "").partition("?")[2])
    return forms_of(values)


def forms_of(values: t.Iterable[str]) -> t.List[str]:
    """Secrets in the ways in which a server could send them back."""
    import html
    import json
    from urllib.parse import quote, quote_plus

    forms: t.Set[str] = set()
    for value in values:
        forms |= {value, one_line(value, len(value)), quote(value), quote_plus(value), html.escape(value)}
        forms |= {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return [form for form in forms if len(form) >= SHORTEST_SECRET]


def _contents(form: t.Mapping[str, t.Any]) -> t.List[t.Any]:
    """The values of a form; of a file its content, but neither its path nor its name."""
    return [value.get("content") if isinstance(value, dict) else str(value) for value in form.values()]


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
    yield from request_mistakes(options, given)
    yield from pattern_mistakes(options)


def request_mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    """What is wrong with what is sent."""
    if {"body", "form"} <= given:
        yield "body, form: found both, allowed: one of them"
    if options["method"] is not None and not HEADER_NAME.fullmatch(options["method"]):
        yield wrong("method", options["method"], "a method such as GET or POST")
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
    return exchanged(options, timeout)[0]


Tell = t.Callable[[Reply, t.Sequence[str]], str]


def exchanged(options: Options, timeout: float, tell: Tell = excerpt) -> t.Tuple[Answer, t.Optional[Reply]]:
    """Ask and judge; the reply is None when there was none.

    :param tell: (reply, secrets that were sent) -> what of the body may be shown.
    """
    request = request_of(options)
    try:
        reply = ask(request, timeout, options["follow_redirects"])
    except NoAnswer as problem:
        return unanswered(options, problem, _expected(options)), None
    return _judged(options, request, reply, tell(reply, secrets_of(options))), reply


def _expected(options: Options) -> t.Dict[str, t.Any]:
    return {name: options[name] for name in ("status", "json", "pattern", "max_latency") if options[name] is not None}


def _judged(options: Options, request: Request, reply: Reply, said: str) -> Answer:
    expected = _expected(options)
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
    return Answer(FAIL, f"{asked}: {problem}; expected an answer with status {statuses}.", None, expected, silent=True)


def status_problems(options: Options, reply: Reply) -> t.List[str]:
    if reply.status in options["status"]:
        return []
    to = f" (a redirect to {public_url(one_line(reply.headers['location']))})" if "location" in reply.headers else ""
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
