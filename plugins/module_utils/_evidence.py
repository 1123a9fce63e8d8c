# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's own last words, without its secrets."""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _logs, _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout, reserved

LINES = 25
LONGEST = 400
READ = 64 * 1024
RAW_LINES = 500
# Shorter values ("1", "true", "INFO") are no secrets, and blotting them out would make a log unreadable.
SECRET_AT_LEAST = 8

# Where a traceback goes through the server and Python's own library it says nothing about the app.
NOT_THE_APPS = re.compile(
    r'  File "(?:<frozen |.*/(?:lib/python3\.\d+/(?!site-packages/|dist-packages/)|bin/gunicorn|site-packages/(?:gunicorn|uvicorn)/))'
)
# An empty line, or what marks a place in the line above.
NO_WORDS = re.compile(r"[\s^~]*")

Cursor = _logs.Cursor
NOTHING = _logs.start(_logs.Sources())


def cursor(layout: Layout) -> Cursor:
    """Where the logs end now, so that later only what is new is shown."""
    return _logs.end(_logs.Sources(files=(os.path.join(layout.logs, "error.log"),)), strict=False)


def secrets_of(layout: Layout, release: str) -> t.Dict[str, str]:
    """Value to name, for everything in the environment of a release and in the shared ``.env``."""
    kept = (
        [os.path.join(layout.environments, name) for name in os.listdir(layout.environments)] if os.path.isdir(layout.environments) else []
    )
    return secrets_in([layout.dotenv, *kept, reserved(layout.release(release), "environment")])


def secrets_in(paths: t.Iterable[str]) -> t.Dict[str, str]:
    """Value to name, for everything in files of environment variables."""
    found: t.Dict[str, str] = {}
    for path in paths:
        try:
            with open(path, "rb") as stream:
                text = stream.read().decode("utf-8", errors="replace")
        except OSError:
            continue
        for name, value in dialects.forms(text):
            # And as Python and JSON print it; a log has each line of it for itself.
            for form in (value, *value.splitlines(), repr(value)[1:-1], json.dumps(value)[1:-1]):
                if len(form) >= SECRET_AT_LEAST and name not in ("APP_VERSION", "APP_RELEASE", "APP_NAME", "BULLETPROOF_ENVIRONMENT"):
                    found[form] = name
    return found


def redact(text: str, secrets: t.Mapping[str, str]) -> str:
    """Put the name of a variable where its value stood."""
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, f"<{secrets[value]}>")
    return text


def condense(lines: t.Iterable[str], room: int = LINES) -> t.List[str]:
    """The end of a log, without the frames of the server, and with a traceback that every worker wrote only once.

    The app's newest traceback is always in it: a server that gives up says so with tracebacks of its own, and would push
    the cause out.
    """
    entries: t.List[t.List[str]] = []
    block: t.List[str] = []
    causes: t.List[t.List[str]] = []
    seen: t.Set[t.Tuple[str, ...]] = set()
    servers = False

    def end() -> None:
        if tuple(block) not in seen:
            entries.append(block[-room:])
            if any(line.startswith('  File "') for line in block):
                causes.append(entries[-1])
        elif entries:
            # The line that announced it: a hundred of them would push the one traceback out of sight.
            entries.pop()
        seen.add(tuple(block))

    for line in lines:
        if line.startswith("Traceback "):
            block, servers = [line], False
        elif block and line.startswith(" "):
            if line.startswith('  File "'):
                servers = NOT_THE_APPS.match(line) is not None
            if not servers and not NO_WORDS.fullmatch(line):
                block.append(line)
        elif block:
            block.append(line)
            end()
            block = []
        elif not NO_WORDS.fullmatch(line):
            entries.append([line])
    if block:
        end()

    kept: t.List[t.List[str]] = []
    left = room
    while entries and len(entries[-1]) <= left:
        kept.append(entries.pop())
        left -= len(kept[-1])
    if causes and not any(entry is causes[-1] for entry in kept):
        kept += [["[...]"], causes[-1]]
    return [line for entry in reversed(kept) for line in entry]


def last_words(layout: Layout, slots: t.Sequence[str], release: str, since: float, before: Cursor) -> t.List[str]:
    """What the application in its slots said since a moment: its error log from the cursor on, and its units' journals."""
    lines = condense(_logs.tail(before, READ).splitlines())
    lines += condense([line for slot in slots for line in _systemd.journal(layout.service_unit(slot), since, RAW_LINES)])
    secrets = secrets_of(layout, release)
    return [redact(line, secrets)[:LONGEST] for line in lines]
