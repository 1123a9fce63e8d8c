# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine of every check: validates a list of typed checks, runs them all at the same time, and gives a verdict on each.

A verdict is *pass*, *fail* or *unknown*: a check that could not be made is not a pass. Who needs only a yes has all checks end with the first
that does not pass; the others are then *unseen*. The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import registry
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    NUMBER,
    PASS,
    TEXT,
    UNKNOWN,
    UNSEEN,
    WHOLE,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    one_line,
    problem_of,
    redacted,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

Stop = t.Callable[[], t.Optional[str]]

# How much longer than allowed an attempt may take before it counts as hanging.
GRACE = 2.0
POLL = 0.25

COMMON: t.Dict[str, Option] = {
    "type": Option(TEXT, required=True),
    "name": Option(TEXT),
    "deadline": Option(NUMBER, default=0, minimum=0),
    "patience": Option(NUMBER, minimum=0),
    "timeout": Option(NUMBER, default=10, minimum=0.01),
    "interval": Option(NUMBER, default=0.5, minimum=0.01),
    "successes": Option(WHOLE, default=1, minimum=1),
    "hold": Option(NUMBER, default=0, minimum=0),
    "tolerate": Option(WHOLE, default=0, minimum=0),
}


@dataclass(frozen=True)
class Check:
    """A check without mistakes."""

    type: CheckType
    name: str
    deadline: float
    patience: t.Optional[float]
    timeout: float
    interval: float
    successes: int
    hold: float
    tolerate: int
    options: Options = field(repr=False)

    @property
    def secrets(self) -> t.List[str]:
        """The texts that must not be shown."""
        return list(self.type.secrets(self.options))

    @property
    def longest(self) -> float:
        """The time, in seconds, after which this check hangs, even if each of its attempts used all that it may."""
        step = self.timeout + self.interval
        return self.deadline + self.successes * step + self.hold + (self.tolerate + 1) * step + GRACE


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    :param verdict: "pass", "fail" or "unknown"; "unseen" only beside one that did not pass.
    :param evidence: One sentence for a person: what was found, what was expected.
    :param elapsed: Seconds from the beginning of the first attempt to the verdict.
    :param silent: Nobody answered, which is not the same as a wrong answer.
    """

    name: str
    type: str
    verdict: str
    evidence: str
    found: t.Any
    expected: t.Any
    elapsed: float
    attempts: int
    silent: bool

    def as_dict(self) -> t.Dict[str, t.Any]:
        return dataclasses.asdict(self)


def failed(verdicts: t.Iterable[Verdict]) -> t.List[Verdict]:
    """Those that did not pass: failed and unknown, and not what was only ended by them. Empty when all passed, and only then."""
    not_passed = [verdict for verdict in verdicts if verdict.verdict != PASS]
    return [verdict for verdict in not_passed if verdict.verdict != UNSEEN] or not_passed


def summary(verdicts: t.Sequence[Verdict]) -> str:
    """One line that counts, then one for each check that did not pass."""
    bad, passed = failed(verdicts), sum(verdict.verdict == PASS for verdict in verdicts)
    unseen = len(verdicts) - passed - len(bad)
    lines = [f"{passed} of {len(verdicts)} checks passed{f', {unseen} not seen to the end' if unseen else ''}."]
    lines += [f"- {verdict.name}: {verdict.verdict}: {verdict.evidence}" for verdict in bad]
    return "\n".join(lines)


def argument_spec() -> t.Dict[str, t.Any]:
    """One check as suboptions of an Ansible module: the options of all types.

    Only what all types share has its default here, because an option that has a value counts as given.
    """
    spec: t.Dict[str, t.Any] = {}
    for check_type in registry.every():
        for name, option in check_type.options.items():
            one = _spec_of(option)
            # The same name may mean a mapping to one type and a text to another; the engine then tells them apart.
            spec[name] = one if spec.get(name, one) == one else {"type": "raw"}
    for name, option in COMMON.items():
        spec[name] = {**_spec_of(option), **({} if option.default is None else {"default": option.default})}
    spec["type"] = {"type": "str", "required": True, "choices": sorted(registry.NAMES)}
    return spec


def _spec_of(option: Option) -> t.Dict[str, t.Any]:
    choices = {"choices": list(option.choices)} if option.choices else {}
    return {**option.kind.spec, **choices, **({"no_log": True} if option.secret else {})}


def validate(checks: t.Any) -> t.List[Check]:
    """Turn a declaration into checks.

    :raises Failure: names every mistake in every check at once.
    """
    mistakes: t.List[str] = []
    valid: t.List[Check] = []
    if not isinstance(checks, list):
        mistakes.append(f"checks: found {_kind_of(checks)}, allowed: a list of checks")
    elif not checks:
        mistakes.append("checks: the list is empty, and nothing is healthy because nobody looked; allowed: at least one check")
    else:
        for number, declared in enumerate(checks, start=1):
            found, check = _validated(declared)
            mistakes += [f"check {_labelled(number, declared)}: {mistake}" for mistake in found]
            valid += [check] if check else []
    if mistakes:
        count = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise Failure(
            f"The declaration of the checks has {count}:\n" + "\n".join(f"- {mistake}" for mistake in mistakes),
            fix="Correct the declaration; ansible-doc bulletproof.deploy.health_check describes every option.",
        )
    return valid


def _kind_of(value: t.Any) -> str:
    """What a value is, for a place where showing the value could show a secret in it."""
    words = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return words.get(type(value), type(value).__name__)


def _labelled(number: int, declared: t.Any) -> str:
    label = (declared.get("name") or declared.get("type")) if isinstance(declared, dict) else None
    return f"{number} ({one_line(str(label), 60)})" if label else str(number)


def _validated(declared: t.Any) -> t.Tuple[t.List[str], t.Optional[Check]]:
    if not isinstance(declared, dict):
        return [f"found {_kind_of(declared)}, allowed: a mapping of options"], None
    # Ansible hands an option that was not given over as None.
    given = {name: value for name, value in declared.items() if value is not None}
    kind = registry.type_of(given.get("type"))
    if kind is None:
        return [_wrong_type(given.get("type"))], None

    known = {**COMMON, **kind.options}
    mistakes = [_unknown(name, kind, known) for name in given if name not in known]
    values: Options = {}
    for name, option in known.items():
        value = given.get(name, option.default)
        problem = problem_of(name, option, value)
        mistakes += [problem] if problem else []
        values[name] = None if problem else value
    mistakes += kind.mistakes(values, given.keys())
    if mistakes:
        return mistakes, None

    common = {name: values[name] for name in COMMON if name not in ("type", "name")}
    options = {name: values[name] for name in kind.options}
    return [], Check(type=kind, name=values["name"] or f"{kind.name} {kind.subject(options)}", options=options, **common)


def _wrong_type(found: t.Any) -> str:
    allowed = f"one of {', '.join(sorted(registry.NAMES))}"
    if found is None:
        return f"type: it is missing, allowed: {allowed}"
    return wrong("type", found, allowed) + _suggestion(found, registry.NAMES)


def _unknown(name: t.Any, kind: CheckType, known: t.Iterable[str]) -> str:
    elsewhere = sorted(other.name for other in registry.every() if name in other.options)
    if elsewhere:
        return f"{name}: an option of {' and '.join(elsewhere)}, not of {kind.name}"
    return f"{name}: there is no such option for {kind.name}{_suggestion(name, known)}"


def _suggestion(found: t.Any, known: t.Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(str(found), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class _Pursuit:
    """One check on its way to a verdict. Its own thread writes it; the engine reads it when that thread hangs or is stopped."""

    def __init__(self, check: Check, halt: threading.Event) -> None:
        self.check = check
        self.halt = halt
        self.began = time.monotonic()
        self.attempts = 0
        self.memory: Memory = {}
        self.last: t.Optional[Answer] = None
        self.verdict: t.Optional[Verdict] = None
        # A daemon, so that a check that never comes back does not keep the process from ending.
        self.thread = threading.Thread(target=self._pursue, name=check.name, daemon=True)

    def start(self) -> None:
        try:
            self.thread.start()
        except RuntimeError as error:
            self._conclude(Answer(UNKNOWN, f"The check could not be started: {error}."))

    @property
    def lost(self) -> bool:
        """Whether it has failed for good."""
        return self.verdict is not None and self.verdict.verdict != PASS

    def outcome(self, reason: t.Optional[str], lost: t.Optional[_Pursuit]) -> Verdict:
        """The verdict; for a check without one, why there is none.

        :param lost: The check whose failure has ended all.
        """
        verdict = self.verdict
        if verdict is not None:
            return verdict
        last = self.last
        so_far = f" Before that: {last.evidence}" if last else ""
        if lost is not None:
            return self._verdict(Answer(UNSEEN, f"Not seen to the end: {lost.check.name} did not pass.{so_far}"))
        if reason is None:
            return self._verdict(Answer(UNKNOWN, f"The check hangs: it did not come back within {self.elapsed:.1f} s.{so_far}"))
        if last is not None and last.verdict == FAIL:
            return self._verdict(dataclasses.replace(last, evidence=f"{last.evidence} Stopped early: {reason}"))
        return self._verdict(Answer(UNKNOWN, f"Stopped before there was a verdict: {reason}{so_far}"))

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def _pursue(self) -> None:
        answer = self._become_good()
        if answer is not None and answer.good and self.check.hold:
            answer = self._stay_good(answer)
        if answer is not None:
            self._conclude(answer)

    def _become_good(self) -> t.Optional[Answer]:
        """The deciding answer, or None when stopped. A row of successes that began before the deadline may come to its end."""
        row, deadline = 0, self.check.deadline
        while True:
            answer = self._attempt()
            row = row + 1 if answer.good else 0
            if row == self.check.successes:
                return answer
            if answer.verdict == FAIL and not answer.silent and self.check.patience is not None:
                # The first of them counts: later ones come to a later moment.
                deadline = min(deadline, self.elapsed + self.check.patience)
            left = deadline - self.elapsed
            if not answer.good:
                if not self.check.type.remembers:
                    self.memory.clear()
                if left <= 0 or answer.final:
                    return dataclasses.replace(answer, evidence=answer.evidence + self._tries())
            if not self._pause(self.check.interval if answer.good else min(self.check.interval, left)):
                return None

    def _stay_good(self, answer: Answer) -> t.Optional[Answer]:
        """The deciding answer, or None when stopped. The last word is an attempt made when the time is over."""
        began, misses, forgiven = self.elapsed, 0, 0
        while True:
            left = self.check.hold - (self.elapsed - began)
            if not self._pause(min(self.check.interval, left) if left > 0 else self.check.interval):
                return None
            over = self.elapsed - began >= self.check.hold
            answer = self._attempt()
            misses = 0 if answer.good else misses + 1
            if misses > self.check.tolerate or answer.final:
                when = f"It became good, but {self.elapsed - began:.1f} s into the {self.check.hold:g} s that it has to stay good"
                return dataclasses.replace(answer, evidence=f"{when}: {answer.evidence}")
            forgiven += 1 if misses else 0
            if over and not misses:
                note = f" It stayed good for {self.check.hold:g} s" + (f", {forgiven} failed attempts forgiven." if forgiven else ".")
                return dataclasses.replace(answer, evidence=answer.evidence + note)

    def _attempt(self) -> Answer:
        self.attempts += 1
        try:
            answer = self.check.type.attempt(self.check.options, self.check.timeout, self.memory)
        except CannotTell as reason:
            answer = Answer(UNKNOWN, str(reason))
        except Failure as failure:
            answer = Answer(UNKNOWN, failure.what)
        except Exception as error:
            answer = Answer(UNKNOWN, f"The check itself broke: {type(error).__name__}: {one_line(str(error))}.")
        self.last = self._without_secrets(answer)
        return self.last

    def _without_secrets(self, answer: Answer) -> Answer:
        secrets = self.check.secrets
        if not secrets:
            return answer
        return dataclasses.replace(answer, evidence=redacted(answer.evidence, secrets), found=_scrubbed(answer.found, secrets))

    def _pause(self, seconds: float) -> bool:
        return not self.halt.wait(seconds)

    def _tries(self) -> str:
        return f" Tried {self.attempts} times in {self.elapsed:.1f} s." if self.attempts > 1 else ""

    def _conclude(self, answer: Answer) -> None:
        self.verdict = self._verdict(answer)

    def _verdict(self, answer: Answer) -> Verdict:
        return Verdict(
            name=self.check.name,
            type=self.check.type.name,
            verdict=answer.verdict,
            evidence=answer.evidence,
            found=answer.found,
            expected=answer.expected,
            elapsed=round(self.elapsed, 3),
            attempts=self.attempts,
            silent=answer.silent,
        )


def _scrubbed(value: t.Any, secrets: t.Sequence[str]) -> t.Any:
    if isinstance(value, str):
        return redacted(value, secrets)
    if isinstance(value, dict):
        return {key: _scrubbed(element, secrets) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(element, secrets) for element in value]
    return value


def run_checks(checks: t.List[t.Dict[str, t.Any]], stop: t.Optional[Stop] = None, to_the_end: bool = True) -> t.List[Verdict]:
    """Run all checks at the same time; the verdicts come in the order of the checks.

    :param stop: Asked again and again; a reason ends all checks at once. A check that failed last is then failed, any other unknown.
    :param to_the_end: Whether every check comes to its own verdict. Otherwise the first that does not pass ends all.
    :raises Failure: when the declaration has mistakes.
    """
    halt = threading.Event()
    pursuits = [_Pursuit(check, halt) for check in validate(checks)]

    def lost() -> t.Optional[_Pursuit]:
        return None if to_the_end else next((pursuit for pursuit in pursuits if pursuit.lost), None)

    try:
        for pursuit in pursuits:
            pursuit.start()
        reason = _wait(pursuits, stop, lost)
    finally:
        halt.set()
    ended_by = lost()
    return [pursuit.outcome(reason, ended_by) for pursuit in pursuits]


def _wait(pursuits: t.Sequence[_Pursuit], stop: t.Optional[Stop], lost: t.Callable[[], t.Optional[_Pursuit]]) -> t.Optional[str]:
    """Wait for every check, but for none longer than it may take, nor when one is lost. Returns the reason if it was stopped."""
    for pursuit in pursuits:
        while pursuit.thread.is_alive() and lost() is None:
            left = pursuit.check.longest - pursuit.elapsed
            if left <= 0:
                break
            reason = stop() if stop else None
            if reason:
                return reason
            pursuit.thread.join(min(left, POLL))
    return None
