# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The process that sends notifications: work comes as JSON on standard input, and one line of JSON goes out for each URL that is done with.

Run as a file, by ``_notify.py`` alone. It imports nothing of the collection, and ends at its deadline even when nobody waits for it any more.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
import time
import typing as t
from urllib.parse import unquote

# What libraries say of an error, and what a person is told of it.
_CAUSES = (
    (r"error=(\d{3})", "it answered HTTP {}"),
    (r"\((\d{3}), b['\"]", "it answered SMTP {}"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its TLS certificate is not trusted"),
    (r"[Rr]efused", "the connection was refused"),
    (r"timed out|[Tt]imeout", "it did not answer in time"),
    (r"not known|resolve|resolution|No address associated", "its host name is not known here"),
    (r"unreachable|No route", "there is no way to its network"),
    (r"aborted|reset|unexpectedly closed|RemoteDisconnected|EOF", "it closed the connection"),
)
_KINDS = {"start": "info", "success": "success", "failure": "failure", "revert": "failure"}


class Said(logging.Handler):
    """What apprise logs, by the thread that sends: the only place where it tells why something failed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.by_thread: t.Dict[t.Optional[int], t.List[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        # Its other debug messages are payloads and headers.
        if record.levelno >= logging.WARNING or "Exception" in str(record.msg):
            self.by_thread.setdefault(record.thread, []).append(record.getMessage())


def scrub(text: str, url: str) -> str:
    """The text without any part of the URL, in one short line."""
    text = " ".join(text.split())
    pieces = {piece for form in (url, unquote(url)) for piece in [form, *re.split(r"[/:@?&=+,;\s]+", form)] if len(piece) > 2}
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, "***")
    return text[:200]


def cause(said: t.Sequence[str], url: str) -> str:
    """Why it failed, in words that have nothing of the URL."""
    for text in said:
        # An exception tells the address that was asked, and a path may look like anything.
        text = re.sub(r"(?:with url: |https?://)\S+", "", text)
        for pattern, words in _CAUSES:
            found = re.search(pattern, text)
            if found:
                return words.format(*found.groups())
    return scrub(said[-1], url) if said else "it was not accepted"


def service(apprise: t.Any, url: str) -> t.Any:
    """The service behind a URL; a web address that belongs to no service that is known gets JSON."""
    found = apprise.Apprise.instantiate(url)
    generic = re.sub(r"^http(s?)://", r"json\1://", url, flags=re.IGNORECASE)
    return found or (apprise.Apprise.instantiate(generic) if generic != url else None)


def deliver(apprise: t.Any, said: Said, url: str, work: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """One message to one URL."""
    found = service(apprise, url)
    if found is None:
        return {"sent": False, "why": "apprise does not understand its URL"}
    if work["pretend"]:
        return {"sent": True, "why": ""}
    heard: t.List[str] = []
    notify = found.notify

    def listen(*arguments: t.Any, **options: t.Any) -> t.Any:
        # apprise sends in a thread of its own choice.
        said.by_thread[threading.get_ident()] = heard
        return notify(*arguments, **options)

    found.notify = listen
    sender = apprise.Apprise()
    sender.add(found)
    sent = sender.notify(title=work["title"], body=work["body"], notify_type=_KINDS[work["event"]], body_format="text")
    return {"sent": bool(sent), "why": "" if sent else cause(heard, url)}


def main() -> None:
    work = json.load(sys.stdin)
    # Beside this file lie modules of the collection, which are none of the libraries' business.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    try:
        import apprise
    except ImportError:
        print(json.dumps({"missing": True}))
        return
    said = Said()
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(said)
    done: queue.Queue[t.Tuple[int, t.Dict[str, t.Any]]] = queue.Queue()

    def one(number: int, url: str) -> None:
        try:
            answer = deliver(apprise, said, url, work)
        except Exception as error:
            answer = {"sent": False, "why": cause([f"{type(error).__name__}: {error}"], url)}
        done.put((number, answer))

    for number, url in enumerate(work["urls"]):
        threading.Thread(target=one, args=(number, url), daemon=True).start()
    for _url in work["urls"]:
        try:
            number, answer = done.get(timeout=max(0.0, work["deadline"] - time.time()))
        except queue.Empty:
            break
        print(json.dumps({str(number): answer}), flush=True)
    # Threads that still wait for an answer are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
