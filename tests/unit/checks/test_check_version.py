# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type version against a real server."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def release(handler):
    handler.answer(200, b'{"app": {"version": "1.4.0", "build": 1.10, "number": 7, "list": []}}', X_Version=" 1.4.0 ")


@pytest.mark.parametrize(
    "place,expected,verdict",
    [
        ({"json": "app.version"}, ["1.4.0"], "pass"),
        ({"json": "app.version"}, ["1.3.9", "1.4.0"], "pass"),
        ({"json": "app.version"}, ["1.4"], "fail"),
        ({"json": "app.build"}, ["1.10"], "pass"),
        ({"json": "app.build"}, ["1.1"], "fail"),
        ({"json": "app.number"}, ["7"], "pass"),
        ({"json": "app.list"}, ["[]"], "fail"),
        ({"json": "version"}, ["1.4.0"], "fail"),
        ({"header": "x-version"}, ["1.4.0"], "pass"),
        ({"header": "X-Other"}, ["1.4.0"], "fail"),
        ({"pattern": r'"version": "([^"]+)"'}, ["1.4.0"], "pass"),
        ({"pattern": r"\d\.\d\.\d"}, ["1.4.0"], "pass"),
        ({"pattern": r"version (\d)"}, ["1.4.0"], "fail"),
    ],
)
def test_where_the_version_is(serve, check, place, expected, verdict):
    found = check(type="version", url=serve(release).url, expected=expected, **place)
    assert found.verdict == verdict, found


def test_an_old_release_that_answers_is_a_fail_that_says_so(serve, check, tmp_path):
    serve(lambda handler: handler.answer(200, {"version": "1.3.0"}), str(tmp_path / "live.sock"))
    verdict = check(type="version", unix_socket=str(tmp_path / "live.sock"), path="/health", json="version", expected=["1.4.0"])
    assert verdict.verdict == "fail" and '"1.3.0"' in verdict.evidence and "1.4.0" in verdict.evidence
    assert verdict.found == "1.3.0" and verdict.expected == ["1.4.0"]


def test_an_error_page_has_no_version(serve, check):
    url = serve(lambda handler: handler.answer(500, {"version": "1.4.0"})).url
    assert check(type="version", url=url, json="version", expected=["1.4.0"]).verdict == "fail"
    assert check(type="version", url=url, json="version", expected=["1.4.0"], status=[200, 500]).verdict == "pass"


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff"])
def test_what_tells_no_version_fails(serve, check, body):
    assert check(type="version", url=serve(lambda handler: handler.answer(200, body)).url, json="v", expected=["1"]).verdict == "fail"


def test_no_answer_fails_and_no_name_is_unknown(check):
    assert check(type="version", unix_socket="/nonesuch", json="v", expected=["1"]).verdict == "fail"
    assert check(type="version", url="http://nonesuch.invalid/", json="v", expected=["1"]).verdict == "unknown"


@pytest.mark.parametrize(
    "options,said",
    [
        ({"expected": ["1"]}, "json, header, pattern: found none"),
        ({"expected": ["1"], "json": "a", "header": "b"}, "json, header, pattern: found header and json"),
        ({"json": "v"}, "expected: it is missing"),
        ({"json": "v", "expected": [1.1]}, "in quotes"),
        ({"json": "v", "expected": []}, "a list of texts"),
        ({"json": {"v": 1}, "expected": ["1"]}, "json: found"),
        ({"header": "a b", "expected": ["1"]}, "header: found"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "version", "url": "http://x/", **options}])
    assert said in failure.value.message()
