# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``permissions``: owners, groups and modes in a tree are as rules say; the same code as the module permissions."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    MAPPING_LIST,
    PASS,
    TEXT,
    TEXT_LIST,
    Answer,
    CheckType,
    Memory,
    Option,
    Options,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

TOLD = 3


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions, _spec

    if not os.path.isabs(options["path"]):
        yield wrong("path", options["path"], "an absolute path")
    for number, rule in enumerate(options["rules"], 1):
        yield from _spec.mistakes(rule, _permissions.RULE, f"rules: rule {number}: ", "attribute")


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    # Only who asks for it pays for it.
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions

    expected = {"rules": len(options["rules"])}
    try:
        tree = _permissions.read({"exclude": [], "hard_links": False, **{name: one for name, one in options.items() if one is not None}})
    except Failure as failure:
        return Answer(FAIL, f"{failure.what} {failure.fix}".strip(), None, expected)
    report = _permissions.report(tree)
    if not report["drift_total"]:
        return Answer(PASS, f"{options['path']}: {report['seen']} entries are as the rules say.", report, expected)
    first = "; ".join(f"{one['path']}: {one['attribute']} {one['found']}, not {one['expected']}" for one in report["drift"][:TOLD])
    return Answer(
        FAIL, f"{options['path']}: {report['drift_total']} of {report['seen']} entries are not as the rules say: {first}", report, expected
    )


CHECK = CheckType(
    name="permissions",
    options={
        "path": Option(TEXT, required=True),
        "rules": Option(MAPPING_LIST, required=True),
        "exclude": Option(TEXT_LIST),
    },
    subject=lambda options: str(options["path"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
