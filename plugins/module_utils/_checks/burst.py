# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``burst``: many requests, some at a time; how many succeed, and how long they take."""

from __future__ import annotations

import math
import threading
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    MAPPING,
    NUMBER,
    TEXT,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    judged,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import NoAnswer, ask
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.http import (
    ASKING,
    asking_mistakes,
    request_mistakes,
    request_of,
    secrets_of,
    where,
)

MOST_REQUESTS = 10000
MOST_AT_ONCE = 100
PERCENTILES = (50, 95, 99)
# Without any limit of its own, a burst has this one.
ERROR_PERCENT = 1.0
REASONS = 3
# What is left of the time for an attempt when the last request has to be over.
SLACK = 0.2


@dataclass
class _Tally:
    """What the requests came to. Many threads write it."""

    latencies: t.List[float] = field(default_factory=list)
    errors: t.Dict[str, int] = field(default_factory=dict)
    cannot: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def good(self, seconds: float) -> None:
        with self.lock:
            self.latencies.append(seconds)

    def bad(self, reason: str) -> None:
        with self.lock:
            self.errors[reason] = self.errors.get(reason, 0) + 1


def percentile(values: t.Sequence[float], percent: float) -> float:
    """The nearest rank: so many percent of the values are not greater.

    :param values: In ascending order, at least one.
    """
    return values[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def _burst(options: Options, timeout: float) -> t.Tuple[_Tally, int]:
    """All requests, or as many as the time is for, and how many were never sent."""
    request, tally = request_of(options), _Tally()
    end = time.monotonic() + timeout - min(SLACK, timeout / 10)
    waiting = iter(range(options["requests"]))
    sent = [0]

    def work() -> None:
        while not tally.cannot:
            with tally.lock:
                if time.monotonic() >= end or next(waiting, None) is None:
                    return
                sent[0] += 1
            try:
                reply = ask(request, max(end - time.monotonic(), 0.001), options["follow_redirects"])
            except NoAnswer as problem:
                tally.bad(str(problem))
            except CannotTell as problem:
                tally.cannot = str(problem)
            except Exception as error:
                tally.cannot = f"A request broke: {type(error).__name__}."
            else:
                tally.good(reply.elapsed) if reply.status in options["status"] else tally.bad(f"status {reply.status}")

    workers = [threading.Thread(target=work, daemon=True) for _number in range(min(options["concurrency"], options["requests"]))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return tally, options["requests"] - sent[0]


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    began = time.monotonic()
    tally, unsent = _burst(options, timeout)
    if tally.cannot:
        raise CannotTell(tally.cannot)
    took = time.monotonic() - began
    if unsent:
        tally.errors[f"not sent within the {timeout:g} s"] = unsent
    total, good = options["requests"], len(tally.latencies)
    errors = 100 * (total - good) / total
    times = {f"p{percent}": round(1000 * percentile(sorted(tally.latencies), percent), 1) for percent in PERCENTILES} if good else {}
    found = {"successes": good, "error_percent": round(errors, 3), "seconds": round(took, 3), "errors": dict(tally.errors), **times}
    expected = {name: options[name] for name in ("min_successes", "max_error_percent", "p50", "p95", "p99") if options[name] is not None}
    if not expected:
        expected["max_error_percent"] = ERROR_PERCENT

    problems = []
    if good < expected.get("min_successes", 0):
        problems.append(f"{good} succeeded, expected at least {options['min_successes']}")
    if errors > expected.get("max_error_percent", 100):
        problems.append(f"{errors:.2f} % failed, expected at most {expected['max_error_percent']:g} %")
    for name in ("p50", "p95", "p99"):
        if options[name] is not None and name not in times:
            problems.append(f"{name} is unknown, for want of a success")
        elif options[name] is not None and times[name] > options[name]:
            problems.append(f"{name} is {times[name]:g} ms, expected at most {options[name]:g} ms")
    said = f"{where(options, request_method(options))}, {total} requests, {options['concurrency']} at a time, in {took:.2f} s"
    if times:
        said += f" ({', '.join(f'{name} {value:g} ms' for name, value in times.items())})"
    reasons = sorted(tally.errors.items(), key=lambda one: -one[1])
    if problems and reasons:
        problems.append("what failed: " + ", ".join(f"{count} x {reason}" for reason, count in reasons[:REASONS]))
    return judged(problems, f"{said}: {good} succeeded.", said, found, expected)


def request_method(options: Options) -> str:
    return options["method"] or ("GET" if options["body"] is None and options["form"] is None else "POST")


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from asking_mistakes(options, given)
    yield from request_mistakes(options, given)
    if options["min_successes"] is not None and options["requests"] is not None and options["min_successes"] > options["requests"]:
        yield f"min_successes: found {options['min_successes']} of {options['requests']} requests, allowed: as many as there are, or fewer"


CHECK = CheckType(
    name="burst",
    options={
        **ASKING,
        "method": Option(TEXT),
        "body": Option(TEXT, secret=True),
        "form": Option(MAPPING, secret=True),
        "requests": Option(WHOLE, default=50, minimum=1, maximum=MOST_REQUESTS),
        "concurrency": Option(WHOLE, default=10, minimum=1, maximum=MOST_AT_ONCE),
        "min_successes": Option(WHOLE, minimum=1),
        "max_error_percent": Option(NUMBER, minimum=0, maximum=100),
        "p50": Option(NUMBER, minimum=0.001),
        "p95": Option(NUMBER, minimum=0.001),
        "p99": Option(NUMBER, minimum=0.001),
    },
    subject=where,
    attempt=_attempt,
    mistakes=_mistakes,
    secrets=secrets_of,
)
