# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A steady stream of mixed HTTP requests, and what became of each.

Requests start on schedule, whatever the server does (an open loop), and latency counts from the moment a request
was due: a server that stalls cannot hide it by stalling the client too. In a test::

    with lab.load.Running("http://192.0.2.7/", rate=100) as running:
        deploy()
    assert running.report["lost"] == 0

On the command line: ``PYTHONPATH=tests python3 -m lab.load --url http://192.0.2.7/ --seconds 10``.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
import typing as t
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

# Shares of the whole. Slow requests are few because each holds a worker's thread for half a second or more.
DEFAULT_KINDS: Mapping[str, float] = types.MappingProxyType({"keepalive": 60, "new": 20, "post": 15, "slow": 5})
DEFAULT_PATHS: Mapping[str, str] = types.MappingProxyType({"keepalive": "/", "new": "/", "slow": "/slow?seconds=0.5", "post": "/echo"})
GATEWAY_ERRORS = frozenset({502, 503, 504})
SLOW_BODY_PIECES = 5
SLOW_BODY_SECONDS = 1.0
SAMPLES = 20
TIMELINE_LIMIT = 100


class BrokenAnswer(Exception):
    """There was no complete HTTP answer, or not the one that this request must get."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, ready to send."""

    method: str
    path: str
    body: bytes = b""
    keep: bool = False
    trickle: bool = False

    def head(self, host: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", "Accept: application/json, */*"]
        if not self.keep:
            lines.append("Connection: close")
        if self.body:
            lines += ["Content-Type: application/octet-stream", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode()


@dataclasses.dataclass(frozen=True)
class Response:
    """One complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def version(self) -> str:
        """The version that the application told, in a header or as the JSON key `version`; empty if in neither."""
        told = self.headers.get("x-app-version", "")
        if told or "json" not in self.headers.get("content-type", ""):
            return told
        try:
            content = json.loads(self.body)
        except ValueError:
            return ""
        return str(content.get("version", "")) if isinstance(content, dict) else ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one request. Times are seconds since the epoch; ``lost`` says why there was no good answer."""

    kind: str
    due: float
    ended: float
    status: int = 0
    version: str = ""
    lost: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.due

    @property
    def good(self) -> bool:
        return not self.lost and self.status < 500


class Connection:
    """One TCP connection, used for one request after another while both sides keep it open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def usable(self) -> bool:
        """Whether the server has not closed it while it lay idle, which a server may do at any time."""
        return not self.reader.at_eof() and not self.writer.is_closing() and self.reader.exception() is None

    def close(self) -> None:
        self.writer.close()

    async def exchange(self, request: Request, host: str) -> tuple[Response, bool]:
        """Send a request and read its answer; also, whether the connection can serve another one."""
        try:
            await self._send(request, host)
            return await self._receive()
        except asyncio.IncompleteReadError as error:
            raise BrokenAnswer(f"connection closed after {len(error.partial)} bytes of an unfinished part of the answer") from error
        except asyncio.LimitOverrunError as error:
            raise BrokenAnswer(f"an endless line in the answer: {error}") from error
        except OSError as error:
            raise BrokenAnswer(f"connection broken: {error}") from error

    async def _send(self, request: Request, host: str) -> None:
        if not request.trickle:
            self.writer.write(request.head(host) + request.body)
            await self.writer.drain()
            return
        self.writer.write(request.head(host))
        size = -(-len(request.body) // SLOW_BODY_PIECES)
        for start in range(0, len(request.body), size):
            await asyncio.sleep(SLOW_BODY_SECONDS / SLOW_BODY_PIECES)
            self.writer.write(request.body[start : start + size])
            await self.writer.drain()

    async def _receive(self) -> tuple[Response, bool]:
        start, headers = await self._head()
        while start.split()[1] == "100":
            start, headers = await self._head()
        status = int(start.split()[1])
        keep = headers.get("connection", "").lower() != "close" and start.startswith("HTTP/1.1")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif status in (204, 304):
            body = b""
        else:
            body, keep = await self.reader.read(-1), False
        return Response(status, headers, body), keep

    async def _head(self) -> tuple[str, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.rstrip("\r\n").split("\r\n")
        if not start.startswith("HTTP/1.") or not start.split()[1:2] or not start.split()[1].isdigit():
            raise BrokenAnswer(f"not an HTTP answer: {start[:60]!r}")
        fields = (line.partition(":") for line in lines)
        return start, {name.strip().lower(): value.strip() for name, _colon, value in fields}

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body


class Load:
    """The stream of requests to one URL."""

    def __init__(
        self,
        url: str,
        *,
        host_header: str = "",
        rate: float = 100,
        kinds: Mapping[str, float] = DEFAULT_KINDS,
        paths: Mapping[str, str] | None = None,
        timeout: float = 30,
        records: t.TextIO | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"The URL is {url!r}; the load generator speaks http:// only.")
        unknown = sorted(set(kinds) - set(DEFAULT_KINDS))
        if unknown:
            raise ValueError(f"Unknown kind of request: {', '.join(unknown)}; there are {', '.join(DEFAULT_KINDS)}.")
        self.server = (parts.hostname, parts.port or 80)
        self.host = host_header or parts.netloc
        self.rate = rate
        self.kinds = kinds
        self.paths = {**DEFAULT_PATHS, **(paths or {})}
        self.timeout = timeout
        self.records = records
        self.outcomes: list[Outcome] = []
        self.lateness = 0.0
        self._idle: collections.deque[Connection] = collections.deque()
        self._numbers: dict[str, t.Iterator[int]] = collections.defaultdict(itertools.count)

    async def run(self, stop: asyncio.Event) -> dict[str, t.Any]:
        """Send until told to stop, wait for what is under way, and report."""
        began, epoch = time.monotonic(), time.time() - time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        for number, kind in enumerate(spread(self.kinds)):
            due = began + number / self.rate
            if due > time.monotonic():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), due - time.monotonic())
            if stop.is_set():
                break
            if number % 50 == 0:
                # A generator that is behind must still see answers and signals.
                await asyncio.sleep(0)
            self.lateness = max(self.lateness, time.monotonic() - due)
            task = asyncio.create_task(self._one(kind, epoch + due, epoch))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        stopped = time.monotonic()
        if under_way:
            await asyncio.wait(under_way)
        for connection in self._idle:
            connection.close()
        return {**summary(self.outcomes, epoch + began, epoch + stopped), "lateness": round(self.lateness, 4)}

    async def _one(self, kind: str, due: float, epoch: float) -> None:
        request = self._request(kind)
        status, version, lost = 0, "", ""
        try:
            response = await asyncio.wait_for(self._exchange(request), self.timeout)
            status, version = response.status, response.version
            if status in GATEWAY_ERRORS:
                lost = f"the proxy answered {status}"
            elif request.body and status < 400 and response.body != request.body:
                lost = f"sent {len(request.body)} bytes, the echo of {len(response.body)} bytes differs"
        except TimeoutError:
            lost = f"no answer within {self.timeout:g} s"
        except (BrokenAnswer, ValueError) as error:
            lost = str(error)
        except OSError as error:
            lost = f"no connection: {error}"
        outcome = Outcome(kind, due, epoch + time.monotonic(), status, version, lost)
        self.outcomes.append(outcome)
        if self.records:
            print(json.dumps(dataclasses.asdict(outcome)), file=self.records, flush=True)

    def _request(self, kind: str) -> Request:
        number, path = next(self._numbers[kind]), self.paths[kind]
        if kind == "post":
            return Request("POST", path, payload(number), keep=True)
        if kind == "slow" and number % 2:
            return Request("POST", self.paths["post"], payload(number), trickle=True)
        return Request("GET", path, keep=kind == "keepalive")

    async def _exchange(self, request: Request) -> Response:
        connection = await self._connection(request.keep)
        keep = False
        try:
            response, keep = await connection.exchange(request, self.host)
        finally:
            if keep and request.keep:
                self._idle.append(connection)
            else:
                connection.close()
        return response

    async def _connection(self, keep: bool) -> Connection:
        # The one that has been idle longest: so all of them stay in use, and old ones get tried.
        while keep and self._idle:
            connection = self._idle.popleft()
            if connection.usable:
                return connection
            connection.close()
        return Connection(*await asyncio.open_connection(*self.server))


def spread(kinds: Mapping[str, float]) -> t.Iterator[str]:
    """Kinds without end, each by its share and spread evenly; the same order every time."""
    credit = dict.fromkeys(kinds, 0.0)
    total = sum(kinds.values())
    while True:
        for kind, share in kinds.items():
            credit[kind] += share / total
        kind = max(credit, key=lambda name: credit[name])
        credit[kind] -= 1
        yield kind


def payload(number: int) -> bytes:
    """A body that no other request of the run has."""
    return f"{number:08d} ".encode() * 64


def summary(outcomes: Sequence[Outcome], began: float, stopped: float) -> dict[str, t.Any]:
    """The report on what became of the requests."""
    finished = sorted(outcomes, key=lambda outcome: outcome.ended)
    lost = [outcome for outcome in finished if outcome.lost]
    gap, gap_at = longest_gap(finished, began, stopped)
    return {
        "sent": len(finished),
        "good": sum(outcome.good for outcome in finished),
        "lost": len(lost),
        "seconds": round(stopped - began, 3),
        "rate": round(len(finished) / max(stopped - began, 0.001), 1),
        "statuses": statuses(finished),
        "longest_gap": round(gap, 4),
        "longest_gap_at": round(gap_at, 3),
        "latency": latency(finished),
        "kinds": {
            kind: {
                "sent": len(some),
                "lost": sum(bool(outcome.lost) for outcome in some),
                "statuses": statuses(some),
                "latency": latency(some),
            }
            for kind in sorted({outcome.kind for outcome in finished})
            for some in [[outcome for outcome in finished if outcome.kind == kind]]
        },
        "losses": [dataclasses.asdict(outcome) for outcome in lost[:SAMPLES]],
        "versions": versions(finished),
        "timeline": timeline(finished),
    }


def longest_gap(finished: Sequence[Outcome], began: float, stopped: float) -> tuple[float, float]:
    """The longest time without a good answer, and when it began.

    Once nothing new is sent, only the slow ones are still to come: the time between those says nothing of the server.
    """
    moments = [began, *(outcome.ended for outcome in finished if outcome.good and outcome.ended <= stopped), stopped]
    return max((after - before, before) for before, after in itertools.pairwise(moments))


def latency(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Percentiles of the seconds from due to answered, over the requests that were not lost."""
    seconds = sorted(outcome.seconds for outcome in outcomes if not outcome.lost)
    if not seconds:
        return {}
    marks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(seconds[min(int(len(seconds) * mark), len(seconds) - 1)], 4) for name, mark in marks.items()}


def statuses(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many answers there were of each status; `none` where there was no answer."""
    return dict(sorted(collections.Counter(str(outcome.status or "none") for outcome in outcomes).items()))


def versions(finished: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """For each version seen: how many answers, the first and the last moment."""
    seen: dict[str, dict[str, float]] = {}
    for outcome in finished:
        if outcome.version:
            entry = seen.setdefault(outcome.version, {"answers": 0, "first": outcome.ended, "last": outcome.ended})
            entry["answers"] += 1
            entry["last"] = outcome.ended
    return seen


def timeline(finished: Sequence[Outcome]) -> list[tuple[float, str]]:
    """The moments at which an answer came from another version than the answer before."""
    told = [(outcome.ended, outcome.version) for outcome in finished if outcome.version]
    changes = [now for before, now in itertools.pairwise([(0.0, ""), *told]) if before[1] != now[1]]
    return changes[:TIMELINE_LIMIT]


class Running:
    """A load that runs in a process of its own while the block runs; afterwards ``report`` has the result.

    The block begins when the first request has come to its end, so that nothing in it happens unobserved.
    """

    def __init__(
        self,
        url: str,
        *,
        host_header: str = "",
        rate: float = 100,
        kinds: Mapping[str, float] = DEFAULT_KINDS,
        paths: Mapping[str, str] | None = None,
        timeout: float = 30,
        at_most: float = 900,
    ) -> None:
        self.report: dict[str, t.Any] = {}
        self.timeout = timeout
        self._directory = tempfile.TemporaryDirectory()
        self._records = Path(self._directory.name) / "records"
        self._argv = [sys.executable, "-m", "lab.load", "--url", url, "--rate", str(rate), "--timeout", str(timeout)]
        self._argv += ["--host-header", host_header, "--seconds", str(at_most), "--records", str(self._records)]
        self._argv += ["--kinds", ",".join(f"{kind}={share}" for kind, share in kinds.items())]
        for kind, path in (paths or {}).items():
            self._argv += ["--path", f"{kind}={path}"]

    def __enter__(self) -> Running:
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            # Control-C is for the test, which then ends the load in order.
            start_new_session=True,
        )
        while self._process.poll() is None and not self.outcomes():
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.stop()

    def outcomes(self) -> list[Outcome]:
        """What became of the requests so far."""
        if not self._records.exists():
            return []
        lines = self._records.read_text().splitlines(keepends=True)
        return [Outcome(**json.loads(line)) for line in lines if line.endswith("\n")]

    def stop(self) -> dict[str, t.Any]:
        """End the load and read its report."""
        if not self.report:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            text, _nothing = self._process.communicate(timeout=self.timeout + 30)
            self.report = json.loads(text)
            self._directory.cleanup()
        return self.report


async def until_told(load: Load, seconds: float, until_file: str) -> dict[str, t.Any]:
    """Run a load until its time is over, a signal comes, or a file is there."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if seconds:
        loop.call_later(seconds, stop.set)

    async def watch() -> None:
        while not Path(until_file).exists():
            await asyncio.sleep(0.1)
        stop.set()

    watching = asyncio.create_task(watch()) if until_file else None
    report = await load.run(stop)
    if watching:
        watching.cancel()
    return report


def pair(text: str) -> tuple[str, str]:
    """A `kind=value` argument."""
    name, equals, value = text.partition("=")
    if not equals or name not in DEFAULT_KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND=VALUE with one of the kinds {', '.join(DEFAULT_KINDS)}")
    return name, value


def shares(text: str) -> dict[str, float]:
    """Kinds with or without a share: `keepalive,new` or `keepalive=60,slow=5`."""
    given = (item.partition("=") for item in text.split(","))
    return {name: float(share) if share else DEFAULT_KINDS.get(name, 1) for name, _equals, share in given}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report as JSON; exit status 1 if a request was lost."""
    parser = argparse.ArgumentParser(prog="lab.load", description="Send mixed HTTP requests at a steady rate and report what was lost.")
    parser.add_argument("--url", required=True, help="for instance http://192.0.2.7/")
    parser.add_argument("--host-header", default="", help="name to ask for (default: the URL's)")
    parser.add_argument("--rate", type=float, default=100, help="requests per second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0, help="how long (default: until SIGTERM, SIGINT or --until-file)")
    parser.add_argument("--until-file", default="", metavar="PATH", help="stop when this file is there")
    parser.add_argument("--kinds", type=shares, default=dict(DEFAULT_KINDS), help="for instance keepalive=60,new=20,post=15,slow=5")
    parser.add_argument("--path", type=pair, action="append", default=[], metavar="KIND=PATH", help="another path for a kind")
    parser.add_argument("--timeout", type=float, default=30, help="seconds after which a request is lost (default: %(default)s)")
    parser.add_argument("--records", default="", metavar="FILE", help="write one JSON line per request")
    options = parser.parse_args(arguments)
    with open(options.records, "w") if options.records else contextlib.nullcontext() as records:
        try:
            load = Load(
                options.url,
                host_header=options.host_header,
                rate=options.rate,
                kinds=options.kinds,
                paths=dict(options.path),
                timeout=options.timeout,
                records=records,
            )
        except ValueError as error:
            parser.error(str(error))
        report = asyncio.run(until_told(load, options.seconds, options.until_file))
    print(json.dumps(report, indent=2))
    return 1 if report["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
