# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The load generator, against a real server that breaks its answers on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import typing as t
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lab import load


class Server:
    """A tiny HTTP server. ``behaviour`` says what to do with the n-th request (from 0)."""

    def __init__(self, behaviour: t.Callable[[int], str]) -> None:
        self.behaviour = behaviour
        self.requests = itertools.count()
        self.connections = 0
        self.port = 0
        self._clients: set[asyncio.Task[None] | None] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
        for client in self._clients:
            if client:
                client.cancel()
        # The loop closes the sockets one step later.
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._clients.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        do = self.behaviour(next(self.requests))
        content = body or json.dumps({"version": "1.4.2"}).encode()
        status, length, keep = 200, len(content), "keep-alive"
        if do == "reset":
            writer.transport.abort()
            return False
        if do == "half":
            length += 10
        elif do == "gateway":
            status = 503
        elif do == "error":
            status = 500
        elif do == "wrong":
            content = bytes(length)
        elif do == "hang":
            await asyncio.sleep(5)
        elif do == "last":
            keep = "close"
        kind = "text/plain" if body else "application/json"
        answer = f"HTTP/1.1 {status} OK\r\nContent-Type: {kind}\r\nConnection: {keep}\r\n"
        if do == "chunked":
            answer += "Transfer-Encoding: chunked\r\n\r\n"
            content = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (content[:3], content[3:])) + b"0\r\n\r\n"
        else:
            answer += f"Content-Length: {length}\r\n\r\n"
        writer.write(answer.encode() + content)
        await writer.drain()
        # "idle": the answer promised to keep the connection, and then the server closes it, as servers may.
        return do not in ("half", "last", "idle") and fields.get("connection") != "close"


def observe(
    behaviour: t.Callable[[int], str], kinds: dict[str, float], requests: int = 40, rate: float = 200, timeout: float = 30
) -> tuple[dict[str, t.Any], Server]:
    """What the load reports about a server."""

    async def session() -> tuple[dict[str, t.Any], Server]:
        async with Server(behaviour).serving() as server:
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later((requests - 0.5) / rate, stop.set)
            generator = load.Load(f"http://127.0.0.1:{server.port}/", rate=rate, kinds=kinds, timeout=timeout)
            return await generator.run(stop), server

    return asyncio.run(session())


def at(number: int, do: str) -> t.Callable[[int], str]:
    return lambda n: do if n == number else "good"


ALL = dict.fromkeys(load.DEFAULT_KINDS, 1.0)


def test_a_good_server_loses_nothing() -> None:
    report, _server = observe(lambda n: "good", ALL)
    assert report["lost"] == 0
    assert report["sent"] == report["good"] == pytest.approx(40, abs=3)
    assert set(report["kinds"]) == set(load.DEFAULT_KINDS)
    assert report["statuses"] == {"200": report["sent"]}
    assert list(report["versions"]) == ["1.4.2"]
    assert [version for _moment, version in report["timeline"]] == ["1.4.2"]


@pytest.mark.parametrize("kind", ["keepalive", "new", "post"])
@pytest.mark.parametrize("do", ["reset", "half", "gateway"])
def test_a_broken_answer_is_a_loss(kind: str, do: str) -> None:
    report, _server = observe(at(5, do), {kind: 1})
    assert report["lost"] == 1
    assert report["kinds"][kind]["lost"] == 1
    assert report["losses"][0]["kind"] == kind
    assert report["losses"][0]["lost"]


def test_a_slow_body_that_is_cut_off_is_a_loss() -> None:
    report, _server = observe(lambda n: "reset" if n % 2 else "good", {"slow": 1}, requests=8)
    # A busy machine sends one fewer. Bodies come last, so the third that is reset is one.
    assert report["lost"] == report["sent"] // 2 >= 3


def test_an_echo_that_differs_is_a_loss() -> None:
    report, _server = observe(at(3, "wrong"), {"post": 1})
    assert report["lost"] == 1
    assert "differs" in report["losses"][0]["lost"]


def test_silence_is_a_loss() -> None:
    report, _server = observe(at(3, "hang"), {"new": 1}, timeout=0.3)
    assert report["lost"] == 1
    assert "no answer within 0.3 s" in report["losses"][0]["lost"]


def test_no_server_is_a_loss() -> None:
    async def session() -> dict[str, t.Any]:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)
        return await load.Load("http://127.0.0.1:1/", kinds={"new": 1}).run(stop)

    report = asyncio.run(session())
    assert report["lost"] == report["sent"] > 5
    assert report["longest_gap"] == pytest.approx(0.1, abs=0.05)


# Requests a second, so few that none is due while the last one waits for its answer, even on a busy machine: it would open a connection of its own.
UNHURRIED = 10


@pytest.mark.parametrize("do", ["last", "idle"])
def test_a_connection_closed_between_requests_is_no_loss(do: str) -> None:
    report, server = observe(lambda n: do if n % 4 == 3 else "good", {"keepalive": 1}, rate=UNHURRIED)
    assert report["lost"] == 0
    assert server.connections == pytest.approx(report["sent"] / 4, abs=1)


def test_keepalive_keeps_and_new_does_not() -> None:
    report, server = observe(lambda n: "good", {"keepalive": 1}, rate=UNHURRIED, requests=20)
    assert server.connections == 1
    report, server = observe(lambda n: "good", {"new": 1}, rate=UNHURRIED, requests=20)
    assert server.connections == report["sent"]


def test_chunked_answers_are_read_to_their_end() -> None:
    report, server = observe(lambda n: "chunked", {"keepalive": 1, "post": 1}, rate=UNHURRIED, requests=20)
    assert (report["lost"], server.connections) == (0, 1)


def test_an_error_of_the_application_is_no_loss_but_not_good_either() -> None:
    report, _server = observe(at(0, "error"), {"new": 1})
    assert report["lost"] == 0
    assert report["good"] == report["sent"] - 1
    assert report["statuses"]["500"] == 1


def test_requests_start_on_schedule_while_the_server_stalls() -> None:
    report, server = observe(lambda n: "hang", {"keepalive": 1}, requests=100, rate=200, timeout=1)
    assert server.connections == pytest.approx(100, abs=5)
    assert report["longest_gap"] >= 0.45


def test_latency_counts_from_when_the_request_was_due() -> None:
    outcomes = [load.Outcome("new", due=10.0, ended=10.5, status=200), load.Outcome("new", due=11.0, ended=11.1, status=200)]
    report = load.summary(outcomes, 10.0, 12.0)
    assert report["latency"]["max"] == 0.5
    assert (report["longest_gap"], report["longest_gap_at"]) == (0.9, 11.1)


def test_what_comes_after_the_last_request_was_sent_makes_no_gap() -> None:
    outcomes = [load.Outcome("new", due=10.0, ended=10.1, status=200), load.Outcome("slow", due=10.0, ended=10.9, status=200)]
    report = load.summary(outcomes, 10.0, 10.2)
    assert report["longest_gap"] == pytest.approx(0.1)


def test_the_timeline_shows_every_change_of_version() -> None:
    told = ["1", "1", "2", "1", "2", "2"]
    outcomes = [load.Outcome("new", due=n, ended=n, status=200, version=version) for n, version in enumerate(told)]
    report = load.summary(outcomes, 0, 6)
    assert report["timeline"] == [(0, "1"), (2, "2"), (3, "1"), (4, "2")]
    assert report["versions"]["1"] == {"answers": 3, "first": 0, "last": 3}


def test_shares_are_kept_and_spread() -> None:
    kinds = list(itertools.islice(load.spread({"keepalive": 60, "new": 20, "post": 15, "slow": 5}), 100))
    assert [kinds.count(kind) for kind in ("keepalive", "new", "post", "slow")] == [60, 20, 15, 5]
    assert kinds[:20].count("slow") == 1


@pytest.fixture
def server() -> Iterator[Server]:
    """A good server in a thread, for loads that run in a process of their own."""
    server, ready, done = Server(lambda n: "good"), threading.Event(), threading.Event()

    async def serve() -> None:
        async with server.serving():
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    ready.wait()
    yield server
    done.set()
    thread.join()


def test_a_load_runs_beside_the_test(server: Server) -> None:
    with load.Running(f"http://127.0.0.1:{server.port}/", rate=50, kinds={"keepalive": 3, "new": 1}) as running:
        assert running.outcomes()
    assert running.report["lost"] == 0
    assert running.report["sent"] >= 1
    assert set(running.report["kinds"]) <= {"keepalive", "new"}


def test_a_file_ends_the_load_and_losses_are_the_exit_status(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stop").touch()
    url = f"http://127.0.0.1:{server.port}/"
    assert load.main(["--url", url, "--until-file", str(tmp_path / "stop"), "--kinds", "new"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == 0
    assert load.main(["--url", "http://127.0.0.1:1/", "--seconds", "0.1", "--kinds", "new"]) == 1


def test_a_wrong_kind_is_named() -> None:
    with pytest.raises(ValueError, match="Unknown kind of request: fast"):
        load.Load("http://127.0.0.1/", kinds={"fast": 1})
