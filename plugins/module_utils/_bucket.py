# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an app can do with its bucket what it needs, and no more: tried, and cleaned up behind.

A round trip is at most 12 requests. What does not work is a finding with its cause; after a cause that the rest would meet as well (a wrong key, no
connection) nothing more is tried.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import io
import os
import re
import secrets
import time
import typing as t
from dataclasses import asdict, dataclass, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket_url, _findings
from ansible_collections.bulletproof.deploy.plugins.module_utils._bucket_causes import CAUSES
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import (
    LEAST_PART,
    Location,
    Refused,
    Store,
    Stored,
    Upload,
    location_of,
)

# What an app would hardly use, and a person who finds it understands.
PREFIX = ".bulletproof-probe/"
HOUR = 3600
# What a finding is waived by begins with it.
RULE = "r2_"
SIZE = 1024
# Presigned URLs suffer before requests do, which may be a quarter of an hour off.
MOST_SKEW = 30
URL_SECONDS = 60
# A URL that was good for one second, so long ago that no rounding of clocks can make it good.
OVER = 10
# Causes that say something about one operation; any other would meet those that follow as well.
GO_ON = frozenset(
    {
        "no_read",
        "no_write",
        "no_list",
        "object_absent",
        "damaged",
        "checksum",
        "unsupported",
        "request",
        "presigned",
        "not_expired",
        "other_buckets",
    }
)
EXPECTED: t.Mapping[str, str] = {
    "list": "that its objects can be listed",
    "head": "that there is such a bucket",
    "uploads": "that uncompleted uploads can be listed",
    "leftovers": "that what a killed run has left can be removed",
    "put": "that an object can be written",
    "get": "that an object can be read, and is what was written",
    "multipart": "that an object can be written in parts",
    "presigned": "that a presigned URL can be fetched by whoever has it",
    "expired": "that a presigned URL is refused when its time is over",
    "delete": "that an object can be removed",
    "refuses put": "that the token may only read",
    "buckets": "that the token knows this bucket alone",
}
WRITING = ("put", "multipart", "delete")


@dataclass(frozen=True)
class Step:
    """What was tried.

    :param cause: Why it is not as it should be; empty when it is.
    """

    step: str
    ms: float
    cause: str


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    :param skew: Seconds by which the host's clock is ahead of the storage's; None when it was not told.
    :param not_tried: Steps that would have written.
    :param leftovers: Keys of what killed runs had left, removed.
    """

    shown: str
    findings: t.Sequence[Finding]
    steps: t.Sequence[Step] = ()
    requests: int = 0
    skew: t.Optional[float] = None
    not_tried: t.Sequence[str] = ()
    leftovers: t.Sequence[str] = ()

    @property
    def errors(self) -> t.List[Finding]:
        return [one for one in self.findings if one.severity == "error"]

    @property
    def warnings(self) -> t.List[Finding]:
        return [one for one in self.findings if one.severity != "error"]

    def facts(self) -> t.Dict[str, t.Any]:
        """For the result of a module."""
        return {
            "bucket": self.shown,
            "findings": _findings.as_data(self.findings),
            "steps": [asdict(one) for one in self.steps],
            "requests": self.requests,
            "clock_skew": self.skew,
            "not_tried": list(self.not_tried),
            "leftovers": list(self.leftovers),
        }


@dataclass(frozen=True)
class Trial:
    """How to try.

    :param access: ``read`` or ``read_write``: what must work, and what must not.
    :param write: Whether anything may be written, be it for a moment.
    :param seconds: For all of it together.
    :param read_timeout: Seconds for which the storage may be silent.
    :param leftovers_age: How old, in seconds, what a killed run has left must be; a younger one may be at work.
    """

    access: str = "read_write"
    write: bool = True
    seconds: float = 60
    read_timeout: float = 10
    attempts: int = 2
    checksums: str = "when_required"
    leftovers_age: float = HOUR


def check(options: t.Mapping[str, t.Any], trial: Trial) -> Outcome:
    """Try the bucket that a module's options mean (``_object_store.SPEC`` and ``environment_files``). Raises nothing that it expects."""
    shown = "object storage"
    try:
        location = location_of(options)
        shown = location.shown
        store = Store(location, trial.read_timeout, trial.attempts, trial.checksums)
    except Failure as failure:
        return Outcome(shown, [finding_of(failure, shown, "a bucket that can be asked")])
    return Probe(store, trial).run()


def finding_of(failure: Failure, subject: str, expected: str, severity: str = "error") -> Finding:
    """A refusal as a finding; waived by the name of its cause."""
    cause = str(failure.facts.get("cause", ""))
    because = getattr(failure, "because", None)
    found = because.found if because else failure.what.rstrip(".")
    return Finding(subject, found, expected, failure.fix, severity, rule_of(cause))


def rule_of(cause: str) -> str:
    return RULE + cause if cause else ""


class _Enough(Exception):
    """The rest would fail in the same way."""


class Probe:
    """One round trip."""

    def __init__(self, store: Store, trial: Trial) -> None:
        self.store = store
        self.trial = trial
        host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename)
        self.key = f"{PREFIX}{host}-{secrets.token_hex(8)}"
        self.findings: t.List[Finding] = []
        self.steps: t.List[Step] = []
        self.leftovers: t.List[str] = []
        self.requests = 0
        self.skew: t.Optional[float] = None
        self.end = time.monotonic() + trial.seconds
        # What can be read: the object, and what it must be (None: whatever it is, or nothing at all).
        self.readable = self.key
        self.content: t.Optional[bytes] = None
        self.written = False
        store.client.meta.events.register("before-send.s3", self._sending)
        store.client.meta.events.register("response-received.s3", self._answered)

    @property
    def location(self) -> Location:
        return self.store.location

    def run(self) -> Outcome:
        writes = self.trial.access == "read_write" and self.trial.write
        try:
            with contextlib.suppress(_Enough):
                if writes:
                    self._read_and_write()
                else:
                    self._read()
                if self.trial.access == "read" and self.trial.write:
                    self._try("refuses put", self._may_not_put)
                self._try("buckets", self._knows_no_others)
        finally:
            self._clean()
        self._judge_the_clock()
        not_tried = [] if self.trial.write else ["refuses put"] if self.trial.access == "read" else list(WRITING)
        return Outcome(self.location.shown, self.findings, self.steps, self.requests, self.skew, not_tried, self.leftovers)

    def _read_and_write(self) -> None:
        # First of all what is answered with a reason: the answer to HEAD has no body to say it in.
        listed = self._try("list", lambda: self._remove_leftovers(self.store.list(PREFIX)))
        if listed:
            # That the bucket is there is known by now; some storages have a permission of its own for this.
            self._try("head", self._head, "warning")
            self._try("uploads", lambda: self._abort_leftovers(self.store.uploads(PREFIX)), "warning")
        if self._try("put", self._put):
            got = self._try("get", self._get)
            self._try("multipart", self._put_in_parts)
        else:
            got = self._try("get", self._get)
        if got:
            self._try_urls()

    def _read(self) -> None:
        if self._try("list", self._choose):
            self._try("head", self._head, "warning")
        if self._try("get", self._get):
            self._try_urls()

    def _try_urls(self) -> None:
        if self._try("presigned", self._fetch):
            self._try("expired", self._fetch_too_late)

    def _try(self, step: str, action: t.Callable[[], t.Optional[Finding]], severity: str = "error") -> bool:
        """Whether it is as it should be. What is not becomes a finding.

        :param severity: Of a refusal; an app can do without what only this check needs.
        """
        began, cause = time.perf_counter(), ""
        try:
            if time.monotonic() > self.end:
                raise Refused(f"Trying for {self.trial.seconds:g} s", self.location, CAUSES["timeout"])
            finding = action()
        except Failure as failure:
            cause = str(failure.facts.get("cause", "unknown"))
            finding = finding_of(failure, self._subject(step), EXPECTED[step], severity if cause in GO_ON else "error")
        if finding is not None:
            cause = cause or finding.rule[len(RULE) :]
            self.findings.append(finding)
        self.steps.append(Step(step, round(1000 * (time.perf_counter() - began), 1), cause))
        if finding is not None and finding.severity == "error" and cause not in GO_ON:
            raise _Enough
        return not cause

    def _subject(self, step: str) -> str:
        return f"{self.location.shown}, {step}"

    def _head(self) -> None:
        with self.store.telling("Looking at the bucket"):
            self.store.client.head_bucket(Bucket=self.location.bucket)

    def _choose(self) -> None:
        """Something to read, since nothing can be written."""
        for one in self.store.list("", most=1):
            self.readable = one.key

    def _put(self) -> None:
        content = os.urandom(SIZE)
        self.written = True
        try:
            self.store.put(self.key, content)
        except Failure as failure:
            # Was it refused, or is only the answer lost?
            self.written = failure.facts.get("cause") not in ("no_write", "checksum", "unsupported", "request")
            raise
        self.content = content

    def _get(self) -> None:
        if self.content is not None:
            self._compare("Reading back what was written", self.store.get(self.readable))
            return
        with self.store.telling(f"Reading {self.readable}", tolerate=["object_absent"]):
            answer = self.store.client.get_object(Bucket=self.location.bucket, Key=self.readable)
            with contextlib.closing(answer["Body"]) as body:
                body.read(SIZE)

    def _compare(self, what: str, found: bytes) -> None:
        if found != self.content:
            raise Refused(what, self.location, CAUSES["damaged"])

    def _put_in_parts(self) -> None:
        """Over the probe object. One part is the last one, which may be as small as one likes."""
        content = os.urandom(SIZE)
        self.store.put_parts(self.key, io.BytesIO(content), LEAST_PART, hashlib.sha256(content).hexdigest())
        self.content = content

    def _fetch(self) -> None:
        """The keys alone were good enough, so a refusal is about the URL."""
        try:
            got = self._fetched(time.time(), URL_SECONDS, None if self.content is not None else SIZE)
        except Refused as failure:
            if failure.because.name == "object_absent" and self.content is None:
                return
            if failure.because.name not in ("no_read", "wrong_key", "wrong_secret", "clock", "expired", "request"):
                raise
            raise Refused("Fetching a presigned URL", self.location, CAUSES["presigned"]) from None
        if self.content is not None:
            self._compare("Fetching a presigned URL", got)

    def _fetch_too_late(self) -> None:
        """The same URL, but of a second that is over by the storage's clock."""
        try:
            self._fetched(time.time() - (self.skew or 0) - OVER, 1, SIZE)
        except Refused as failure:
            if failure.because.name not in ("no_read", "clock", "expired", "request"):
                raise
        else:
            raise Refused("Fetching a presigned URL too late", self.location, CAUSES["not_expired"])

    def _fetched(self, signed: float, expires: int, limit: t.Optional[int]) -> bytes:
        self.requests += 1
        url = _bucket_url.presigned(self.location, self.readable, signed, expires)
        return _bucket_url.fetch(self.location, url, self.trial.read_timeout, limit)

    def _may_not_put(self) -> t.Optional[Finding]:
        try:
            self._put()
        except Failure as failure:
            if failure.facts.get("cause") != "no_write":
                raise
            return None
        return self._excess("excess_write", "refuses put", "it may write", "Object Read only")

    def _knows_no_others(self) -> t.Optional[Finding]:
        try:
            with self.store.telling("Listing buckets"):
                found = self.store.client.list_buckets().get("Buckets", [])
        except Failure as failure:
            if failure.facts.get("cause") in GO_ON:
                return None
            raise
        others = [one for one in found if one.get("Name") != self.location.bucket]
        if not others:
            return None
        if len(others) == len(found) and self.findings:
            raise Refused("Listing buckets", self.location, CAUSES["other_buckets"])
        only = "Object Read only" if self.trial.access == "read" else "Object Read & Write"
        return self._excess(
            "excess_buckets", "buckets", f"it lists {len(others)} other bucket{'s' if len(others) > 1 else ''} as well", only
        )

    def _excess(self, cause: str, step: str, found: str, only: str) -> Finding:
        fix = f"Make a token with the permission {only}, applied to this bucket only, and let the app use it."
        return Finding(
            self._subject(step), f"a token that can do more than it needs: {found}", EXPECTED[step], fix, "warning", rule_of(cause)
        )

    def _remove_leftovers(self, found: t.Sequence[Stored]) -> None:
        for one in found:
            if self._old(one.modified):
                self._remove_leftover(one.key, lambda key=one.key: self.store.delete(key))  # type: ignore[misc]

    def _abort_leftovers(self, found: t.Sequence[Upload]) -> None:
        for one in found:
            if self._old(one.begun):
                self._remove_leftover(one.key, lambda upload=one: self.store.abort(upload))  # type: ignore[misc]

    def _remove_leftover(self, key: str, remove: t.Callable[[], None]) -> None:
        try:
            remove()
        except Failure as failure:
            self.findings.append(finding_of(failure, self._subject("leftovers"), EXPECTED["leftovers"], "warning"))
        else:
            self.leftovers.append(key)

    def _old(self, moment: float) -> bool:
        """By the storage's clock, because the moment is."""
        return 0 < moment <= time.time() - (self.skew or 0) - self.trial.leftovers_age

    def _clean(self) -> None:
        if not self.written:
            return
        self.end = time.monotonic() + self.trial.seconds
        had = len(self.findings)
        with contextlib.suppress(_Enough):
            self._try("delete", lambda: self.store.delete(self.key))
        for number in range(had, len(self.findings)):
            one = self.findings[number]
            self.findings[number] = replace(
                one,
                found=f"{one.found}; the probe object {self.key} may be left",
                fix=f"{one.fix} The next run removes it when it is an hour old.",
            )

    def _judge_the_clock(self) -> None:
        skew = self.skew
        if skew is None or abs(skew) <= MOST_SKEW:
            return
        found = f"the host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the storage's"
        for number, one in enumerate(self.findings):
            if one.rule == rule_of("clock"):
                self.findings[number] = replace(one, found=f"{one.found} ({found})")
                return
        expected = f"at most {MOST_SKEW} s, because presigned URLs end too early or too late otherwise"
        self.findings.append(Finding(self._subject("clock"), found, expected, CAUSES["clock"].fix, "warning", rule_of("clock_skew")))

    def _sending(self, **_event: object) -> None:
        self.requests += 1

    def _answered(self, response_dict: t.Optional[t.Mapping[str, t.Any]] = None, **_event: object) -> None:
        if self.skew is None and response_dict:
            self.skew = skew_of(response_dict["headers"].get("date"), time.time())


def skew_of(date: t.Optional[str], now: float) -> t.Optional[float]:
    """How many seconds ``now`` is ahead of a Date header, which is cut to whole seconds."""
    try:
        said = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, IndexError):
        return None
    # Anything within the second that it names is no skew at all.
    return round(max(0.0, now - said - 1) + min(0.0, now - said), 1)
