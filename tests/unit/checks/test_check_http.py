# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type http against real servers, well-behaved and not."""

from __future__ import annotations

import html
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from urllib.parse import unquote_plus

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import http
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def ok(handler):
    handler.answer(200, {"status": "ok", "parts": [{"name": "db", "up": True}], "a.b": 1.5})


def test_a_good_answer_passes_with_status_and_body_as_evidence(serve, check):
    verdict = check(type="http", url=serve(ok).url + "/health")
    assert verdict.verdict == "pass"
    assert "answered 200" in verdict.evidence and '"status": "ok"' in verdict.evidence
    assert verdict.found["status"] == 200 and verdict.attempts == 1


def test_over_a_unix_socket(serve, check, tmp_path):
    server = serve(ok, str(tmp_path / "app.sock"))
    verdict = check(type="http", unix_socket=str(tmp_path / "app.sock"), path="/health?full=1")
    assert verdict.verdict == "pass", verdict
    assert server.requests == ["GET /health?full=1"]


def test_over_a_link_to_a_unix_socket_as_the_live_socket_is(serve, check, tmp_path):
    serve(ok, str(tmp_path / "blue.sock"))
    (tmp_path / "live.sock").symlink_to("blue.sock")
    assert check(type="http", unix_socket=str(tmp_path / "live.sock")).verdict == "pass"


@pytest.mark.parametrize(
    "status,allowed,verdict",
    [(200, [200], "pass"), (500, [200], "fail"), (404, [404, 410], "pass"), (204, [200], "fail")],
)
def test_the_status_has_to_be_allowed(serve, check, status, allowed, verdict):
    found = check(type="http", url=serve(lambda handler: handler.answer(status)).url, status=allowed)
    assert found.verdict == verdict and str(status) in found.evidence


@pytest.mark.parametrize(
    "expected,verdict",
    [
        ({"status": "ok"}, "pass"),
        ({"parts.0.up": True, "parts.0.name": "db"}, "pass"),
        ({"parts.0.up": 1}, "fail"),
        ({"parts": [{"name": "db", "up": 1}]}, "fail"),
        ({r"a\.b": 1.5}, "pass"),
        ({"status": "bad"}, "fail"),
        ({"parts.1.up": True}, "fail"),
        ({"status.deeper": 1}, "fail"),
        ({"nothing": None}, "fail"),
    ],
)
def test_json_values_by_path(serve, check, expected, verdict):
    found = check(type="http", url=serve(ok).url, json=expected)
    assert found.verdict == verdict, found


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff\xfe", b"[" * 100000])
def test_what_is_not_json_fails(serve, check, body):
    verdict = check(type="http", url=serve(lambda handler: handler.answer(200, body)).url, json={"status": "ok"})
    assert verdict.verdict == "fail" and "not JSON" in verdict.evidence


def test_the_pattern_is_looked_for_in_the_body(serve, check):
    url = serve(lambda handler: handler.answer(200, "größe: 5".encode())).url
    assert check(type="http", url=url, pattern=r"größe: \d").verdict == "pass"
    assert check(type="http", url=url, pattern="nowhere").verdict == "fail"


def test_a_body_that_is_no_utf8_is_still_evidence_on_one_line(serve, check):
    verdict = check(type="http", url=serve(lambda handler: handler.answer(500, b"\xff\x1b[31m\r\nbad " + b"x" * 5000)).url)
    assert verdict.verdict == "fail" and "\n" not in verdict.evidence and "\x1b" not in verdict.evidence
    assert len(verdict.evidence) < 400


def test_the_latency_limit(serve, check):
    def slow(handler):
        time.sleep(0.2)
        handler.answer(200)

    url = serve(slow).url
    assert check(type="http", url=url, max_latency=0.1).verdict == "fail"
    assert check(type="http", url=url, max_latency=5).verdict == "pass"


def test_method_headers_and_body_are_sent(serve, check):
    got = {}

    def record(handler):
        got.update(method=handler.command, host=handler.headers["Host"], token=handler.headers["X-Token"], body=handler.received())
        handler.answer(201)

    verdict = check(
        type="http", url=serve(record).url, method="PUT", headers={"Host": "shop.example", "X-Token": 5}, body="grüße", status=[201]
    )
    assert verdict.verdict == "pass", verdict
    assert got == {"method": "PUT", "host": "shop.example", "token": "5", "body": "grüße".encode()}


def test_a_form_is_uploaded_as_multipart(serve, check, tmp_path):
    (tmp_path / "photo.bin").write_bytes(b"\x00\r\n--\xff")
    got = {}

    def record(handler):
        got.update(type=handler.headers["Content-Type"], body=handler.received(), method=handler.command)
        handler.answer(200)

    form = {"title": "ä", "photo": {"path": str(tmp_path / "photo.bin")}, "note": {"content": "hi", "filename": 'a"b.txt'}}
    assert check(type="http", url=serve(record).url, form=form).verdict == "pass"
    boundary = got["type"].partition("boundary=")[2].encode()
    parts = got["body"].split(b"--" + boundary)
    assert got["method"] == "POST" and parts[-1] == b"--\r\n"
    assert parts[1] == b'\r\nContent-Disposition: form-data; name="title"\r\n\r\n' + "ä".encode() + b"\r\n"
    assert b'name="photo"; filename="photo.bin"\r\n' in parts[2] and parts[2].endswith(b"\r\n\r\n\x00\r\n--\xff\r\n")
    assert b'filename="a%22b.txt"' in parts[3]


def test_a_form_file_that_cannot_be_read_is_unknown(serve, check):
    verdict = check(type="http", url=serve(ok).url, form={"file": {"path": "/nonesuch"}})
    assert verdict.verdict == "unknown" and "/nonesuch" in verdict.evidence


def test_redirects_are_followed_only_when_asked(serve, check):
    def redirect(handler):
        handler.answer(200) if handler.path == "/end" else handler.answer(302, Location="/end")

    server = serve(redirect)
    refused = check(type="http", url=server.url + "/start")
    assert refused.verdict == "fail" and "/end" in refused.evidence
    assert check(type="http", url=server.url + "/start", follow_redirects=True).verdict == "pass"


def test_redirects_that_never_end_fail(serve, check):
    server = serve(lambda handler: handler.answer(302, Location=handler.path + "x"))
    verdict = check(type="http", url=server.url, follow_redirects=True)
    assert verdict.verdict == "fail" and "redirected more than" in verdict.evidence
    assert len(server.requests) == 6


def test_credentials_do_not_follow_a_redirect_to_another_host(serve, check):
    got = []

    def other(handler):
        got.append(handler.headers["Authorization"])
        handler.answer(200)

    elsewhere = serve(other).url
    url = serve(lambda handler: handler.answer(307, Location=elsewhere)).url
    assert check(type="http", url=url, follow_redirects=True, headers={"Authorization": "Bearer 12345678"}).verdict == "pass"
    assert got == [None]


def test_nothing_listens(check, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused = check(type="http", url=f"http://127.0.0.1:{port}/")
    assert refused.verdict == "fail" and "refused" in refused.evidence
    missing = check(type="http", unix_socket=str(tmp_path / "none.sock"))
    assert missing.verdict == "fail" and "No such file" in missing.evidence
    (tmp_path / "file").write_text("")
    assert check(type="http", unix_socket=str(tmp_path / "file")).verdict == "fail"


def test_a_socket_whose_server_is_gone_is_a_fail(check, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "dead.sock"))
    assert check(type="http", unix_socket=str(tmp_path / "dead.sock")).verdict == "fail"


def test_a_name_that_does_not_resolve_is_unknown(check):
    verdict = check(type="http", url="http://nonesuch.invalid/")
    assert verdict.verdict == "unknown" and "nonesuch.invalid" in verdict.evidence


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(lambda connection: time.sleep(5), id="accepts and never answers"),
        pytest.param(lambda connection: drip(connection, b"HTTP/1.1 200 OK\r\nX: "), id="drips a header"),
        pytest.param(lambda connection: drip(connection, HEAD + b"Content-Length: 1000\r\n\r\n"), id="drips a body"),
        pytest.param(lambda connection: drip(connection, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"), id="drips the size of a chunk"),
    ],
)
def test_a_server_that_takes_too_long_fails_in_time(serve_bytes, check, talk):
    began = time.monotonic()
    verdict = check(type="http", url=serve_bytes(talk), timeout=0.4)
    assert verdict.verdict == "fail" and "no complete answer within 0.4 s" in verdict.evidence
    assert time.monotonic() - began < 1.5


def drip(connection, beginning):
    connection.sendall(beginning)
    for _byte in range(100):
        time.sleep(0.05)
        connection.sendall(b"1")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="closes at once"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="is no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a header"),
        pytest.param(HEAD + b"Content-Length: 1000\r\n\r\nabc", id="less than it announced"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", id="half a chunk"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab", id="a chunk of no size"),
        pytest.param(HEAD + b"X: y\r\n" * 200 + b"\r\n", id="too many headers"),
    ],
)
def test_half_an_answer_is_a_fail(serve_bytes, check, sent):
    def talk(connection):
        connection.recv(65536)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.1)

    verdict = check(type="http", url=serve_bytes(talk), timeout=5)
    assert verdict.verdict == "fail", verdict
    assert verdict.elapsed < 4


def test_an_answer_before_the_body_was_read_counts(check, tmp_path):
    """The rest of the body meets a broken pipe then."""

    def refuse():
        connection, _address = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_RD)
            # A sender that waits for room does not notice the shutdown; taking out what is queued wakes it, to a broken pipe.
            while connection.recv(65536):
                pass
            refused.wait(10)

    refused = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "app.sock"))
        listener.listen()
        thread = threading.Thread(target=refuse)
        thread.start()
        verdict = check(type="http", unix_socket=str(tmp_path / "app.sock"), body="x" * 5_000_000, status=[413])
        refused.set()
        thread.join()
    assert verdict.verdict == "pass", verdict


def test_of_a_huge_body_only_the_beginning_is_read(serve_bytes, check):
    sent = []

    def flood(connection):
        connection.recv(65536)
        connection.sendall(HEAD + b"\r\n")
        for _megabyte in range(200):
            connection.sendall(b"a" * 1024 * 1024)
            sent.append(1)

    url = serve_bytes(flood)
    assert check(type="http", url=url).verdict == "pass"
    assert check(type="http", url=url, pattern="aaa").verdict == "pass"
    assert check(type="http", url=url, pattern="b").verdict == "unknown"
    assert check(type="http", url=url, json={"a": 1}).verdict == "unknown"
    assert len(sent) < 4 * 20


CANARY = "s3cr3t canary/ä"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"X-Api-Key": "s3cr3tcanary"}},
        {"headers": {"Authorization": "Bearer s3cr3tcanary"}},
        {"headers": {"Cookie": "lang=de; session=s3cr3tcanary"}},
        {"body": f'{{"password": "{CANARY}"}}'},
        {"body": "user=me&password=s3cr3t+canary%2F%C3%A4"},
        {"form": {"password": CANARY}},
        {"form": {"file": {"content": CANARY}}},
    ],
)
def test_what_was_sent_is_never_evidence_even_if_the_server_sends_it_back(serve, check, options):
    def echo(handler):
        body = handler.received().decode()
        ways = [*map(str, handler.headers.values()), body, unquote_plus(body), json.dumps(unquote_plus(body)), html.escape(body)]
        handler.answer(500, " ".join(line for way in ways for line in way.splitlines() if "s3cr3t" in line).encode())

    verdict = check(type="http", url=serve(echo).url, **options)
    assert verdict.verdict == "fail" and "********" in verdict.evidence
    assert "s3cr3t" not in str(verdict) and "anary" not in str(verdict)


def test_the_cut_of_the_evidence_does_not_leave_half_a_secret(serve, check):
    verdict = check(
        type="http", url=serve(lambda handler: handler.answer(500, b"." * 190 + b"s3cr3tcanary")).url, headers={"X-Key": "s3cr3tcanary"}
    )
    assert "s3cr3t" not in str(verdict)


def test_the_query_is_not_shown(serve, check):
    server = serve(lambda handler: handler.answer(500, handler.path.encode()))
    verdict = check(type="http", url=server.url + "/health?token=s3cr3tcanary")
    assert server.requests == ["GET /health?token=s3cr3tcanary"]
    assert "s3cr3t" not in str(verdict) and "/health?…" in verdict.name


@pytest.mark.parametrize(
    "options,said",
    [
        ({}, "url, unix_socket: found none"),
        ({"url": "http://x/", "unix_socket": "/x"}, "url, unix_socket: found both"),
        ({"url": "ftp://x/"}, 'url: found "ftp://x/"'),
        ({"url": "http://x:99999/"}, "port"),
        ({"url": "http://x/", "path": "/y"}, "path: it goes with unix_socket"),
        ({"unix_socket": "/x", "path": "y"}, "path that begins with /"),
        ({"unix_socket": "/" + "x" * 200}, "at most 107 bytes"),
        ({"url": "http://x/", "body": "a", "form": {"a": "b"}}, "body, form: found both"),
        ({"url": "http://x/", "status": [20]}, "from 100 to 599"),
        ({"url": "http://x/", "status": 200}, "a list of whole numbers"),
        ({"url": "http://x/", "status": []}, "a list of whole numbers"),
        ({"url": "http://x/", "pattern": "("}, "regular expression"),
        ({"url": "http://x/", "method": "G T"}, "a method"),
        ({"url": "http://x/", "form": {"f": {"path": "/x", "content": "y"}}}, "both of path and content"),
        ({"url": "http://x/", "form": {"f": {"pth": "/x"}}}, "pth"),
        ({"url": "http://x/", "form": {"f": ["s3cr3t"]}}, "neither text nor a file"),
        ({"url": "http://x/", "headers": {"X": "s3cr3t\r\nY: z"}}, "X (not shown) is not one line"),
        ({"url": "http://x/", "headers": {"X Y": "s3cr3t"}}, '"X Y"'),
        ({"url": "http://x/", "headers": ["s3cr3t"]}, "headers: found another kind of value (not shown)"),
        ({"url": "http://me:s3cr3t@x/"}, "Authorization"),
        ({"url": "http://me:s3cr3t@x:y/"}, "Authorization"),
    ],
)
def test_mistakes_are_told_without_secrets(check, options, said):
    with pytest.raises(Failure) as failure:
        check(type="http", **options)
    assert said in failure.value.message() and "s3cr3t" not in failure.value.message()


@pytest.fixture
def tls(tmp_path, serve):
    """A TLS server for shop.example: its port and the file of its certificate."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    request += ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = serve(ok)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return server.url.replace("http:", "https:"), str(certificate)


def test_tls(tls, check):
    url, certificate = tls
    site = {"Host": "shop.example"}
    assert check(type="http", url=url, headers=site, ca_file=certificate).verdict == "pass"
    assert check(type="http", url=url, verify_tls=False).verdict == "pass"
    stranger = check(type="http", url=url, headers=site)
    assert stranger.verdict == "fail" and "TLS failed" in stranger.evidence
    other_name = check(type="http", url=url, headers={"Host": "other.example"}, ca_file=certificate)
    assert other_name.verdict == "fail" and "TLS failed" in other_name.evidence
    assert check(type="http", url=url, ca_file="/nonesuch").verdict == "unknown"


def test_https_to_a_server_without_tls_fails(serve, check):
    assert check(type="http", url=serve(ok).url.replace("http:", "https:"), timeout=2).verdict == "fail"


def test_multipart_quotes_names():
    body, content_type = http.multipart({'a"\r\nb': "c"})
    assert b'name="a%22%0D%0Ab"' in body and content_type.startswith("multipart/form-data; boundary=")
