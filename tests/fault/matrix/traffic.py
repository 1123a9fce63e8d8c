# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Users while a cell runs: a stream of requests to each front, and orders whose acknowledgements are kept."""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import signal
import threading
import time
import types
import typing as t
from dataclasses import dataclass

from lab import Host, load

RATE = 20.0
TIMEOUT = 20.0
# Users wait a moment between one order and the next.
PAUSE = 0.2

# Requests that hang open a connection each. Once they are answered, there are more connections than the users need: each is used again after seconds, and
# the balancer closes what has been idle for 5 s, now and then in the moment in which it is used.
AFTERMATH = 7.0
UNANSWERED = "connection closed after 0 bytes"


@dataclass(frozen=True)
class Window:
    """When a fault itself cut users off.

    :param front: From which front; empty for all.
    """

    begin: float
    end: float
    front: str = ""

    def excuses(self, front: str, due: float, ended: float, lost: str = "") -> bool:
        end = self.end + (AFTERMATH if lost.startswith(UNANSWERED) else 0)
        return self.front in ("", front) and due <= end and ended >= self.begin


class Stream(load.Running):
    """A load that gives out what became of every request."""

    def __init__(self, front: Host) -> None:
        super().__init__(f"http://{front.address}/", rate=RATE, host_header="shop.example.com", timeout=TIMEOUT, at_most=1800)
        self.front = front.name
        self.all: t.List[load.Outcome] = []

    def stop(self) -> t.Dict[str, t.Any]:
        if not self.report:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            text, _nothing = self._process.communicate(timeout=self.timeout + 30)
            self.report = json.loads(text)
            self.all = self.outcomes()
            self._directory.cleanup()
        return self.report


class Orders:
    """Somebody who places one order after the other, each with a name of its own, and knows which ones were acknowledged."""

    def __init__(self, fronts: t.Sequence[Host], name: str) -> None:
        self.fronts = list(fronts)
        self.name = name
        self.acknowledged: t.List[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._place, daemon=True)

    def __enter__(self) -> Orders:
        # Asking the engine for an address takes its time, and cannot be done while it is busy with a fault.
        self._addresses = [host.address for host in self.fronts]
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _place(self) -> None:
        number = 0
        while not self._over.wait(PAUSE):
            number += 1
            item = f"{self.name}-{number}"
            connection = http.client.HTTPConnection(self._addresses[number % len(self._addresses)], 80, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                body = json.dumps({"item": item, "quantity": 1})
                connection.request("POST", "/orders", body, {"Content-Type": "application/json", "Host": "shop.example.com"})
                if connection.getresponse().status == 201:
                    self.acknowledged.append(item)


class Users:
    """All of them, while the block runs."""

    def __init__(self, fronts: t.Sequence[Host], name: str) -> None:
        self.streams = [Stream(host) for host in fronts]
        self.orders = Orders(fronts, name)

    def __enter__(self) -> Users:
        self._stack = contextlib.ExitStack()
        for one in self.streams:
            self._stack.enter_context(one)
        self._stack.enter_context(self.orders)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        time.sleep(0.5)
        self._stack.close()

    @property
    def sent(self) -> int:
        return sum(len(stream.all) for stream in self.streams)

    def lost(self, windows: t.Sequence[Window]) -> t.Tuple[t.Dict[str, int], t.Dict[str, int], t.List[str]]:
        """Requests without a good answer, by kind: those for which the fault is no excuse, those for which it is, and a few of the first in words."""
        without, excused, samples = collections.Counter[str](), collections.Counter[str](), []
        for stream in self.streams:
            for one in stream.all:
                if one.good:
                    continue
                if any(window.excuses(stream.front, one.due, one.ended, one.lost) for window in windows):
                    excused[one.kind] += 1
                else:
                    without[one.kind] += 1
                    samples.append(f"{stream.front} {one.kind} due {one.due:.2f}, ended {one.ended:.2f}: {one.lost or one.status}")
        return dict(without), dict(excused), samples[:10]
