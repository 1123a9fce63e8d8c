# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``env``: that files of environment variables, as systemd reads them, are what rules say."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environment_file, _findings, _waivers
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    MAPPING_LIST,
    PASS,
    TEXT,
    TEXT_LIST,
    Answer,
    CannotTell,
    CheckType,
    Memory,
    Option,
    Options,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import rules


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    for path in [options["path"], *(options["environment_files"] or [])]:
        if path is not None and not os.path.isabs(path):
            yield wrong("path", path, "an absolute path")
    yield from (f"rules: {one}" for one in rules.mistakes(options["rules"] or []))
    yield from (f"waivers: {one}" for one in _waivers.mistakes(options["waivers"] or []))


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    path = options["path"]
    paths = [path, *(options["environment_files"] or [])]
    if not os.path.exists(path):
        return Answer(FAIL, f"{path} does not exist.", None, {"rules": len(options["rules"])})
    try:
        environment = _environment_file.read(paths)
    except OSError as error:
        raise CannotTell(f"{error.filename or path} could not be read: {error.strerror}.") from None
    every = rules.checked(options["rules"])
    findings = _waivers.apply(rules.check(every, environment), options["waivers"] or [], _waivers.today(), rules.names(every))
    errors = [one for one in findings if one.severity == "error"]
    others = [f"{one.severity}: {one}" for one in findings if one.severity != "error"]
    data = {"findings": _findings.as_data(findings)}
    expected = {"rules": len(every)}
    if errors:
        return Answer(FAIL, f"{path} breaks its rules: {' '.join([*map(str, errors), *others])}", data, expected)
    return Answer(PASS, " ".join([f"{path} keeps its {len(every)} rules.", *others]), data, expected)


CHECK = CheckType(
    name="env",
    options={
        "path": Option(TEXT, required=True),
        "environment_files": Option(TEXT_LIST),
        "rules": Option(MAPPING_LIST, required=True),
        "waivers": Option(MAPPING_LIST),
    },
    subject=lambda options: str(options["path"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
