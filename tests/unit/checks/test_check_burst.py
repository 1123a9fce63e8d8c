# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type burst: requests at the same time, against real servers."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import asdict

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import burst, engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


class Backlog:
    """How many requests are answered at the same time, at the most."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, handler):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        handler.answer(200, {"status": "ok"})


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_as_many_as_asked_and_as_many_at_a_time(serve, check, tmp_path, over):
    backlog = Backlog()
    path = str(tmp_path / "s") if over == "unix" else None
    server = serve(backlog, path)
    where = {"unix_socket": path, "path": "/health?key=canary"} if path else {"url": f"{server.url}/health?key=canary"}
    verdict = check(type="burst", requests=40, concurrency=5, min_successes=40, p50=500, p95=1000, p99=2000, **where)
    assert verdict.verdict == "pass", verdict
    assert server.requests == ["GET /health?key=canary"] * 40 and 2 <= backlog.most <= 5
    assert verdict.found["successes"] == 40 and 20 <= verdict.found["p50"] <= verdict.found["p95"] <= verdict.found["p99"]
    assert "canary" not in json.dumps(asdict(verdict))


def test_some_may_fail(serve, check):
    numbers = itertools.count()
    url = serve(lambda handler: handler.answer(503 if next(numbers) % 10 == 0 else 200)).url
    asked = {"type": "burst", "url": url, "requests": 50, "concurrency": 4}
    verdict = check(**asked)
    assert verdict.verdict == "fail", "1 % may fail where nothing is said"
    assert "10.00 % failed, expected at most 1 %; what failed: 5 x status 503" in verdict.evidence
    assert check(**asked, max_error_percent=10).verdict == "pass"
    assert check(**asked, min_successes=45).verdict == "pass"
    verdict = check(**asked, min_successes=46, max_error_percent=5)
    assert "45 succeeded, expected at least 46; 10.00 % failed, expected at most 5 %" in verdict.evidence
    assert check(**asked, status=[200, 503]).verdict == "pass"


def test_slow_answers(serve, check):
    numbers = itertools.count()

    def sometimes_slow(handler):
        time.sleep(0.2 if next(numbers) % 10 == 0 else 0)
        handler.answer(200)

    url = serve(sometimes_slow).url
    verdict = check(type="burst", url=url, requests=40, concurrency=4, p50=150, p95=150, p99=10000)
    assert (
        verdict.verdict == "fail"
        and "p95 is 2" in verdict.evidence
        and "p50 is" not in verdict.evidence
        and "p99 is" not in verdict.evidence
    )


def test_nobody_answers(check):
    verdict = check(type="burst", url="http://127.0.0.1:1/", requests=20, p95=100)
    assert verdict.verdict == "fail" and "20 x the connection was refused" in verdict.evidence and "p95 is unknown" in verdict.evidence
    assert check(type="burst", url="http://nonesuch.invalid/", requests=20).verdict == "unknown"


def test_it_ends_in_time(check, serve_bytes):
    url = serve_bytes(lambda connection: time.sleep(5))
    began = time.monotonic()
    verdict = check(type="burst", url=url, requests=1000, concurrency=10, timeout=0.5)
    assert time.monotonic() - began < 1
    assert verdict.verdict == "fail" and "990 x not sent within the 0.5 s" in verdict.evidence and verdict.found["successes"] == 0


def test_percentiles():
    values = [float(number) for number in range(1, 101)]
    assert [burst.percentile(values, percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert [burst.percentile([7.0], percent) for percent in (50, 95, 99)] == [7, 7, 7]
    assert burst.percentile([1.0, 2.0], 50) == 1 and burst.percentile([1.0, 2.0], 51) == 2


@pytest.mark.parametrize(
    "options,said",
    [
        ({}, "url, unix_socket: found none"),
        ({"url": "http://x/", "requests": 0}, "from 1 to 10000"),
        ({"url": "http://x/", "concurrency": 101}, "from 1 to 100"),
        ({"url": "http://x/", "requests": 10, "min_successes": 11}, "as many as there are"),
        ({"url": "http://x/", "max_error_percent": 101}, "from 0 to 100"),
        ({"url": "http://x/", "method": "GET /"}, "method: found"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "burst", **options}])
    assert said in failure.value.message()
