# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Users, while something is done to the app."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
import typing as t
from collections.abc import Iterator, Mapping

from e2e.apps import App

from lab import load
from lab.hosts import Host

RATE = 100


class Traffic:
    """What became of the requests, once the block has ended."""

    def __init__(self) -> None:
        self.report: dict[str, t.Any] = {}
        self.outcomes: list[load.Outcome] = []

    @property
    def errors(self) -> int:
        """Answers that the app itself gave, and that say that it failed."""
        return sum(outcome.status >= 500 and not outcome.lost for outcome in self.outcomes)

    def versions(self) -> list[str]:
        """The versions that answered, in the order in which they were first seen."""
        return list(self.report["versions"])

    def returned(self, before: str, after: str) -> list[load.Outcome]:
        """Requests that were due after the first answer of one version and still got the version before it."""
        first = min(outcome.ended for outcome in self.outcomes if outcome.version == after)
        return [outcome for outcome in self.outcomes if outcome.version == before and outcome.due > first]


@contextlib.contextmanager
def under_load(
    app: App,
    what: str,
    *,
    host: Host | None = None,
    rate: float = RATE,
    kinds: Mapping[str, float] = load.DEFAULT_KINDS,
) -> Iterator[Traffic]:
    """Send requests of mixed kinds while the block runs and for a second more, and fail when one of them is lost.

    A playbook takes longer than a second before it touches anything: that is the load before.
    """
    traffic = Traffic()
    with load.Running(app.url(host), rate=rate, kinds=kinds) as running:
        yield traffic
        time.sleep(1)
        with_versions = running.outcomes()
    traffic.report, traffic.outcomes = running.report, with_versions
    report = traffic.report
    print(
        f"{what}: {report['sent']} requests at {report['rate']}/s, {report['lost']} lost, {traffic.errors} errors of the app, "
        f"longest gap {report['longest_gap'] * 1000:.0f} ms, slowest {report['latency'].get('max', 0):.2f} s, versions {traffic.versions()}"
    )
    assert report["sent"] > rate, report
    assert report["lost"] == 0, report["losses"]


@contextlib.contextmanager
def long_requests(app: App, *, seconds: float = 5, at_once: int = 2) -> Iterator[None]:
    """Have requests in flight at every moment of the block, so long that an app which is stopped has some to finish; fail when one is cut.

    They are POST requests, which the proxy does not repeat when the app breaks off.
    """
    over = threading.Event()
    ended: list[str] = []

    def one_after_the_other(wait: float) -> None:
        over.wait(wait)
        while not over.is_set():
            try:
                ended.append(str(app.ask(f"/slow?seconds={seconds}", method="POST", body={}).status))
            except (OSError, http.client.HTTPException) as error:
                ended.append(repr(error))

    threads = [threading.Thread(target=one_after_the_other, args=(seconds * number / at_once,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(seconds)
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    print(f"{len(ended)} requests of {seconds:g} s each: {ended}")
    assert set(ended) == {"200"}, ended
