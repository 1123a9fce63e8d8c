# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is told what happens in a run, and whether it reached them.

A URL of a webhook or a mailbox is a password: whoever has it can write there. No message of this module contains one, or a part of one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

EVENTS = ("start", "success", "failure", "revert")
ALLOWED = f"a list of URLs (https://, slack://, mailto://, ...), each alone or as a dictionary of url and, if wanted, events ({', '.join(EVENTS)}) and name"
INSTALL = "install apprise on the controller, for the Python that runs Ansible: {python} -m pip install apprise"

_URL = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_SENDER = os.path.join(os.path.dirname(__file__), "_notify_sender.py")


@dataclass(frozen=True)
class Target:
    """One URL, the events it is told, and what it is called in messages."""

    url: str
    events: t.Collection[str]
    label: str

    def wants(self, event: str) -> bool:
        """Whether it is told of an event. A run that was reverted has failed: who asks for failures hears of it too."""
        return event in self.events or (event == "revert" and "failure" in self.events)


@dataclass(frozen=True)
class Verdict:
    """What became of one message."""

    to: str
    sent: bool
    why: str = ""


def _is_url(value: t.Any) -> bool:
    # A number or a dictionary has a text, too; a value from Ansible Vault is text only once it is asked for.
    return not isinstance(value, (int, float, list, dict, type(None))) and _URL.fullmatch(str(value)) is not None


def _is_target(value: t.Any) -> bool:
    if not isinstance(value, dict):
        return _is_url(value)
    events = value.get("events", [])
    return (
        set(value) <= {"url", "events", "name"}
        and _is_url(value.get("url"))
        and isinstance(events, list)
        and all(one in EVENTS for one in events)
        and isinstance(value.get("name", ""), str)
    )


def allowed(values: t.Sequence[t.Any]) -> bool:
    """Whether this is a list of URLs as :data:`ALLOWED` says."""
    return all(_is_target(value) for value in values)


def targets(values: t.Sequence[t.Any], events: t.Collection[str]) -> t.List[Target]:
    """The targets that a list names.

    :param events: The events for those that name none.
    :raises Failure: When one of them is not a URL; it says which, and not what it is.
    """
    found = []
    for number, value in enumerate(values, start=1):
        place = f"{number} of {len(values)}"
        if not _is_target(value):
            raise Failure(
                f"URL {place} for notifications is none (it is not shown); allowed: {ALLOWED}.",
                fix="Correct it in app_notify or notify_urls.",
            )
        options = value if isinstance(value, dict) else {"url": value}
        url = str(options["url"])
        name = options.get("name") or url.split("://", maxsplit=1)[0].lower()
        found.append(Target(url=url, events=options.get("events") or events, label=f"{name} ({place})"))
    return found


def send(to: t.Sequence[Target], event: str, title: str, body: str, *, timeout: float, pretend: bool = False) -> t.List[Verdict]:
    """Send one message to all targets at the same time; never longer than the time-out, and never an exception.

    A process of its own sends it: it can be ended whatever it waits for, and nothing that its libraries print is seen. The URLs go through its input.

    :param timeout: Seconds for all of them together, the start of that process included.
    :param pretend: Only look whether the URLs are understood.
    """
    if not to:
        return []
    deadline = time.time() + timeout
    work = {"urls": [one.url for one in to], "event": event, "title": title, "body": body, "deadline": deadline, "pretend": pretend}
    try:
        answers = _ask(json.dumps(work), deadline)
    except OSError as error:
        return [Verdict(one.label, False, f"a process for it could not be started ({error.strerror})") for one in to]
    if "missing" in answers:
        return [Verdict(one.label, False, INSTALL.format(python=sys.executable)) for one in to]
    late = {"sent": False, "why": f"no answer within {timeout:g} s"}
    told = [answers.get(str(number), late) for number in range(len(to))]
    return [Verdict(one.label, bool(answer["sent"]), str(answer["why"])) for one, answer in zip(to, told)]


def _ask(work: str, deadline: float) -> t.Dict[str, t.Any]:
    """What the sender said before the deadline, by the number of the URL."""
    process = subprocess.Popen(
        [sys.executable, _SENDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        output, _errors = process.communicate(work, timeout=max(0.1, deadline - time.time()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _errors = process.communicate()
    answers: t.Dict[str, t.Any] = {}
    for line in output.splitlines():
        try:
            answers.update(json.loads(line))
        except ValueError:
            # The line that was being written when the time was over.
            continue
    return answers
