# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``database``: the app's database answers, and is what the app needs; the same code as the modules schema_check and postgres_rls_check."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.contract import (
    FAIL,
    MAPPING,
    PASS,
    TEXT,
    TEXT_LIST,
    Answer,
    CheckType,
    Memory,
    Option,
    Options,
    one_line,
    wrong,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# What can be asked of a database that is not there yet, because migrations make it: nothing of what is in it.
OF_THE_SERVER = {"min_version", "max_version", "can_create_tables"}


def _mistakes(options: Options, given: t.AbstractSet[str]) -> t.Iterator[str]:
    for path in options["environment_files"] or []:
        if not os.path.isabs(path):
            yield wrong("environment_files", path, "absolute paths")
    if options["schema"]:
        from ansible_collections.bulletproof.deploy.plugins.module_utils._database import schema

        try:
            schema.wanted_of(options["schema"])
        except Failure as failure:
            yield from (f"schema: {line[2:]}" for line in failure.what.splitlines()[1:])
    if options["row_security"]:
        from ansible_collections.bulletproof.deploy.plugins.module_utils._database import separation

        try:
            separation.completed(options["row_security"])
        except Failure as failure:
            yield from (f"row_security: {line[2:]}" for line in failure.what.splitlines()[1:])


def _attempt(options: Options, timeout: float, memory: Memory) -> Answer:
    # Only who asks for it pays for it.
    from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings
    from ansible_collections.bulletproof.deploy.plugins.module_utils._database import schema, separation, store, url

    wanted = options["schema"] or {}
    try:
        where = {"environment_files": options["environment_files"], "directory": options["directory"] or "/"}
        database = url.database_of({"url": None, "url_variable": options["variable"], **where})
        if isinstance(database, url.Sqlite) and not store.exists(database) and not set(wanted) - OF_THE_SERVER:
            return Answer(PASS, f"{database.shown} is not there yet; migrations make it.", {"exists": False}, wanted)
        found = schema.problems(database, wanted)
        if options["row_security"]:
            found += separation.look(database, separation.completed(options["row_security"])).findings
    except Failure as failure:
        return Answer(FAIL, " ".join(one_line(part, 1000) for part in (failure.what, failure.fix) if part), None, wanted)
    if found:
        told = "; ".join(map(str, found))
        return Answer(FAIL, f"{database.shown} is not what is expected: {told}", {"findings": _findings.as_data(found)}, wanted)
    return Answer(PASS, f"{database.shown} answers, and is as expected.", {"exists": True}, wanted)


CHECK = CheckType(
    name="database",
    options={
        "environment_files": Option(TEXT_LIST, required=True),
        "variable": Option(TEXT, default="DATABASE_URL"),
        "directory": Option(TEXT),
        "schema": Option(MAPPING),
        "row_security": Option(MAPPING),
    },
    subject=lambda options: str(options["variable"]),
    attempt=_attempt,
    mistakes=_mistakes,
)
