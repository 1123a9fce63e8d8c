# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``smoke``: a list of HTTP exchanges, one after another, in which a later one uses what an earlier one was answered."""

from __future__ import annotations

import re
import time
import typing as t
from dataclasses import replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    FLAG,
    MAPPING,
    MAPPING_LIST,
    PASS,
    TEXT,
    UNKNOWN,
    Answer,
    CannotTell,
    CheckType,
    Kind,
    Memory,
    Option,
    Options,
    one_line,
    pattern_mistakes,
    problem_of,
    redacted,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.exchange import BODY_LIMIT, Reply, url_mistakes
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.http import (
    ASKING,
    asking_mistakes,
    excerpt,
    exchanged,
    forms_of,
    look_up,
    request_mistakes,
    secrets_of,
    where,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.http import CHECK as HTTP

# What a step shares with all others; a step may have headers of its own besides.
SHARED = ("url", "unix_socket", "headers", "verify_tls", "ca_file", "follow_redirects")
PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
# A text that is another one at each attempt, for names and contents that must not be found from before.
UNIQUE = "unique"
# Of the time for an attempt, what the steps that clean up have for themselves at least.
CLEANING = 0.25
BODY = Kind("text, or a mapping or a list to send as JSON", lambda value: isinstance(value, (str, dict, list)), {"type": "raw"})
STEP: t.Dict[str, Option] = {
    "name": Option(TEXT, required=True),
    "url": Option(TEXT, required=True),
    **{name: HTTP.options[name] for name in ("method", "headers", "form", "status", "json", "pattern", "max_latency")},
    "body": Option(BODY, secret=True),
    "equals": Option(MAPPING, secret=True),
    "capture": Option(MAPPING),
    "always": Option(FLAG, default=False),
}


class _Missing(Exception):
    """A step needs a value that no step before it got. The text is its name."""


def _step(declared: t.Mapping[str, t.Any]) -> Options:
    """A step with all its options."""
    return {name: option.default if declared.get(name) is None else declared[name] for name, option in STEP.items()}


def _filled(value: t.Any, values: t.Mapping[str, t.Any]) -> t.Any:
    """A value with what was captured in the place of ``{name}``; a text that is nothing else becomes the value itself, a number for instance.

    :raises _Missing: nothing was captured under that name.
    """

    def one(match: t.Match[str]) -> str:
        if match[1] not in values:
            raise _Missing(match[1])
        return str(values[match[1]])

    if isinstance(value, str):
        whole = PLACEHOLDER.fullmatch(value)
        if whole and whole[1] in values:
            return values[whole[1]]
        return PLACEHOLDER.sub(one, value)
    if isinstance(value, dict):
        return {key: _filled(element, values) for key, element in value.items()}
    if isinstance(value, list):
        return [_filled(element, values) for element in value]
    return value


def _http_options(options: Options, step: Options, values: t.Mapping[str, t.Any]) -> Options:
    """The step as options of the type ``http``."""
    import json

    filled = {name: _filled(step[name], values) for name in ("url", "headers", "body", "form", "json")}
    address = str(filled["url"])
    outside = not address.startswith("/")
    headers = {} if outside else dict(options["headers"] or {})
    headers.update(filled["headers"] or {})
    body = filled["body"]
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        if "content-type" not in (name.lower() for name in headers):
            headers["Content-Type"] = "application/json"
    whole = {name: option.default for name, option in HTTP.options.items()}
    whole.update({name: options[name] for name in ("verify_tls", "ca_file", "follow_redirects")})
    whole.update({name: step[name] for name in ("method", "status", "pattern", "max_latency")})
    whole.update(headers=headers or None, body=None if body is None else str(body), form=filled["form"], json=filled["json"])
    if outside:
        problem = next(url_mistakes(address), None)
        if problem:
            raise CannotTell(f"The address of this step is none: {problem}.")
        whole["url"] = address
    elif options["unix_socket"] is not None:
        whole.update(unix_socket=options["unix_socket"], path=address)
    else:
        whole["url"] = options["url"].rstrip("/") + address
    return whole


class _Run:
    """One attempt."""

    def __init__(self, options: Options) -> None:
        import uuid

        self.options = options
        self.values: t.Dict[str, t.Any] = {UNIQUE: uuid.uuid4().hex}
        self.told: t.List[t.Dict[str, t.Any]] = []

    @property
    def secrets(self) -> t.List[str]:
        return forms_of(str(value) for name, value in self.values.items() if name != UNIQUE)

    def step(self, step: Options, seconds: float) -> Answer:
        """
        :raises _Missing: it needs what was never captured.
        """
        asked = _http_options(self.options, step, self.values)
        equal = _content(_filled(step["equals"], self.values)) if step["equals"] is not None else None
        try:
            if seconds <= 0:
                return Answer(FAIL, "no time was left for it")
            missing: t.List[str] = []

            def tell(reply: Reply, secrets: t.Sequence[str]) -> str:
                # Also from an answer that is not good: what was made has to be cleaned up, and must not be shown.
                missing.extend(self._capture(step, reply))
                if step["capture"] and reply.status < 400:
                    return "(not shown)"  # it may hold more of what is captured
                return excerpt(reply, [*secrets, *self.secrets])

            answer, reply = exchanged(asked, seconds, tell)
        except CannotTell as reason:
            return Answer(UNKNOWN, str(reason))
        if reply is not None:
            self.told.append({"step": step["name"], "status": reply.status, "seconds": round(reply.elapsed, 3)})
            if answer.good and missing:
                answer = Answer(FAIL, f"the answer has no {' and no '.join(missing)}")
            if answer.good and equal is not None:
                answer = _compared(reply, equal, answer)
        return replace(answer, found=None, expected=None)

    def _capture(self, step: Options, reply: Reply) -> t.List[str]:
        """Keep what is to be captured; the paths that are not there."""
        import json

        missing = []
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            value = None
        for name, path in (step["capture"] or {}).items():
            try:
                captured = look_up(value, path)
            except LookupError:
                captured = None
            if isinstance(captured, (str, int, float)) and captured != "":
                self.values[name] = captured
            else:
                missing.append(path)
        return missing


def _content(equals: t.Mapping[str, t.Any]) -> bytes:
    if "content" in equals:
        return str(equals["content"]).encode("utf-8")
    try:
        with open(equals["path"], "rb") as stream:
            return stream.read(BODY_LIMIT + 1)
    except OSError as error:
        raise CannotTell(f"The file {equals['path']} could not be read: {error.strerror}.") from None


def _compared(reply: Reply, expected: bytes, answer: Answer) -> Answer:
    if reply.partial or len(expected) > BODY_LIMIT:
        return Answer(UNKNOWN, f"the body is longer than the {BODY_LIMIT} bytes that are compared")
    if reply.body == expected:
        return answer
    size = min(len(reply.body), len(expected))
    at = next((place for place in range(size) if reply.body[place] != expected[place]), size)
    return Answer(FAIL, f"the body is another one: found {len(reply.body)} bytes, expected {len(expected)}, different from byte {at} on")


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    steps = [_step(declared) for declared in options["steps"]]
    run, began = _Run(options), time.monotonic()
    reserved = timeout * CLEANING if any(step["always"] for step in steps) else 0
    failure: t.Optional[t.Tuple[str, Answer]] = None
    passed: t.List[str] = []
    notes: t.List[str] = []
    for number, step in enumerate(steps, start=1):
        if failure and not step["always"]:
            continue
        left = timeout - (time.monotonic() - began) - (0 if step["always"] else reserved)
        try:
            answer = run.step(step, left)
        except _Missing as name:
            if failure:
                notes.append(f"{step['name']} had nothing to do, without {name}")
                continue
            answer = Answer(FAIL, f"it needs {{{name}}}, which no step before it captured")
        except CannotTell as reason:
            answer = Answer(UNKNOWN, str(reason))
        said = f"step {number} of {len(steps)}, {step['name']}: {answer.evidence}"
        if answer.good:
            passed.append(step["name"])
        elif failure is None:
            failure = (said, answer)
        else:
            notes.append(f"then {said}")
    found = {"steps": run.told}
    if failure is None:
        times = ", ".join(f"{one['step']} {1000 * one['seconds']:.0f} ms" for one in run.told)
        return Answer(PASS, f"{subject(options)}: {len(steps)} steps in {time.monotonic() - began:.2f} s: {times}.", found)
    said, answer = failure
    before = f"; passed: {', '.join(passed)}" if passed else ""
    evidence = f"{subject(options)}: {said}{before}{''.join(f'; {note}' for note in notes)}"
    return Answer(answer.verdict, redacted(evidence, run.secrets), found)


def subject(options: Options) -> str:
    return where({**options, "path": options.get("path")})


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    yield from asking_mistakes({**options, "path": None}, given)
    known = {UNIQUE}
    for number, declared in enumerate(options["steps"] or (), start=1):
        name = declared.get("name")
        label = f"step {number}" + (f" ({one_line(name, 60)})" if isinstance(name, str) else "")
        for mistake in _step_mistakes(declared, known):
            yield f"{label}: {mistake}"
        known |= set(declared.get("capture") or {}) if isinstance(declared.get("capture"), dict) else set()


def _step_mistakes(declared: t.Mapping[str, t.Any], known: t.AbstractSet[str]) -> t.Iterator[str]:
    unknown = sorted(str(key) for key in declared if key not in STEP)
    if unknown:
        yield f"found {', '.join(unknown)}, allowed: {', '.join(STEP)}"
    step = _step(declared)
    problems = [problem for problem in (problem_of(name, option, step[name]) for name, option in STEP.items()) if problem]
    yield from problems
    if problems:
        return
    if not step["url"].startswith(("/", "{", "http://", "https://")):
        yield wrong("url", step["url"].partition("?")[0], "a path that begins with /, a whole address, or {what was captured}")
    whole = {**{name: None for name in HTTP.options}, **step, "url": None, "path": "/", "unix_socket": "/-"}
    yield from asking_mistakes(whole, {"unix_socket", "path"})
    yield from request_mistakes(whole, {name for name in ("body", "form") if step[name] is not None})
    yield from pattern_mistakes(step)
    for name, path in (step["capture"] or {}).items():
        if not isinstance(name, str) or not PLACEHOLDER.fullmatch(f"{{{name}}}") or name == UNIQUE or not isinstance(path, str):
            yield wrong("capture", {name: path}, f"names of letters, digits and _, other than {UNIQUE}, with dotted paths")
    if step["equals"] is not None and set(step["equals"]) not in ({"content"}, {"path"}):
        yield "equals: it has to be a mapping with content or path"
    for name in sorted(_placeholders([step[part] for part in ("url", "headers", "body", "form", "json", "equals")]) - known):
        yield f"found {{{name}}}, which no step before it captures; captured: {', '.join(sorted(known))}"


def _placeholders(value: t.Any) -> t.Set[str]:
    if isinstance(value, str):
        return set(PLACEHOLDER.findall(value))
    elements = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for element in elements for name in _placeholders(element)}


def _secrets(options: Options) -> t.List[str]:
    """What was declared and may be secret; what is captured is kept out of the evidence by the attempt itself."""
    found = list(secrets_of({**options, "path": None}))
    for declared in options["steps"]:
        step = _step(declared)
        # The names of places in it are none.
        found += [one for one in secrets_of({**step, "path": None}) if not PLACEHOLDER.search(one)]
    return found


CHECK = CheckType(
    name="smoke",
    options={
        **{name: ASKING[name] for name in SHARED},
        "steps": Option(MAPPING_LIST, required=True, secret=True),
    },
    subject=subject,
    attempt=_attempt,
    mistakes=_mistakes,
    secrets=_secrets,
)
