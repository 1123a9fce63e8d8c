# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``r2``: whether an app can do with its bucket what it needs; what the module ``r2_bucket_check`` tries."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    MAPPING,
    PASS,
    TEXT,
    TEXT_LIST,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    one_line,
    wrong,
)

# Whose values these options or variables hold; what the variables are called unless `variables` says so.
VARIABLES = {
    "endpoint": "R2_ENDPOINT",
    "bucket": "R2_BUCKET_NAME",
    "account_id": "R2_ACCOUNT_ID",
    "access_key_id": "R2_ACCESS_KEY_ID",
    "secret_access_key": "R2_SECRET_ACCESS_KEY",
}
SECRET = ("access_key_id", "secret_access_key")


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    for name, variable in (options["variables"] or {}).items():
        if name not in VARIABLES:
            yield wrong("variables", name, f"one of {', '.join(VARIABLES)}")
        elif not isinstance(variable, str) or not variable:
            yield wrong(f"variables: {name}", variable, "the name of a variable")
    if not options["environment_files"] and not {"bucket", *SECRET} <= given:
        yield "environment_files: it is missing, allowed: files from which bucket and keys are read; or bucket, access_key_id and secret_access_key"


def _described(options: Options) -> Options:
    """The options as the module has them."""
    named = {**VARIABLES, **(options["variables"] or {})}
    asked = {name: options[name] for name in (*VARIABLES, "jurisdiction")}
    return {**asked, "environment_files": options["environment_files"] or [], **{f"{name}_variable": named[name] for name in VARIABLES}}


def _secrets(options: Options) -> t.List[str]:
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _environment_file

    described = _described(options)
    try:
        found = _environment_file.read(described["environment_files"])
    except OSError:
        found = {}
    values = [options[name] or found.get(described[f"{name}_variable"], "").strip() for name in SECRET]
    return [value for value in values if value]


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    # Only who asks for it pays for it: what it imports takes longer than most checks.
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket

    # At the worst, the last step begins when half of the time is over and gets no answer, and neither does the cleaning up.
    trial = _bucket.Trial(
        access=options["access"],
        seconds=timeout / 2,
        read_timeout=timeout / 4,
        attempts=1,
        checksums=options["checksums"] or "when_required",
    )
    try:
        outcome = _bucket.check(_described(options), trial)
    except OSError as error:
        raise CannotTell(f"The environment could not be read: {error.strerror} ({error.filename}).") from None
    causes = [one.rule.partition("_")[2] for one in outcome.findings]
    took = sum(one.ms for one in outcome.steps)
    found = {
        "causes": causes,
        "findings": outcome.facts()["findings"],
        "requests": outcome.requests,
        "clock_skew": outcome.skew,
        "ms": {one.step: one.ms for one in outcome.steps},
    }
    expected = {"access": options["access"]}
    if outcome.errors:
        return Answer(FAIL, "; ".join(one_line(str(one), 1000) for one in outcome.errors), found, expected)
    said = "".join(f" Warning: {one_line(str(one), 1000)}" for one in outcome.warnings)
    return Answer(PASS, f"{outcome.shown} works ({options['access']}, {outcome.requests} requests, {took:.0f} ms).{said}", found, expected)


CHECK = CheckType(
    name="r2",
    options={
        "environment_files": Option(TEXT_LIST),
        "variables": Option(MAPPING),
        "endpoint": Option(TEXT),
        "bucket": Option(TEXT),
        "account_id": Option(TEXT),
        "access_key_id": Option(TEXT, secret=True),
        "secret_access_key": Option(TEXT, secret=True),
        "jurisdiction": Option(TEXT, choices=("eu", "fedramp")),
        "access": Option(TEXT, default="read_write", choices=("read", "read_write")),
        "checksums": Option(TEXT, choices=("when_required", "when_supported")),
    },
    subject=lambda options: str(options["bucket"] or ", ".join(options["environment_files"] or [])),
    attempt=_attempt,
    mistakes=_mistakes,
    secrets=_secrets,
)
