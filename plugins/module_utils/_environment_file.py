# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of environment variables, read as systemd reads them (systemd.exec(5), EnvironmentFile=)."""

from __future__ import annotations

import re
import typing as t

# What is in quotes may have several lines, and a line that ends with a backslash goes on in the next.
ASSIGNMENT = re.compile(
    r"""^[ \t]*([A-Za-z_]\w*)[ \t]*=[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|(?:\\\n|[^\n])*?)[ \t]*$""", re.MULTILINE | re.DOTALL
)


def parse(text: str) -> t.Dict[str, str]:
    """The variables of a file, by name; the last of several assignments holds."""
    found: t.Dict[str, str] = {}
    for name, raw in ASSIGNMENT.findall(text):
        if raw[:1] == '"' and raw[-1:] == '"' and len(raw) >= 2:
            found[name] = re.sub(r'\\(["\\$`])', r"\1", re.sub(r"\\\n", "", raw[1:-1]))
        elif raw[:1] == "'" and raw[-1:] == "'" and len(raw) >= 2:
            found[name] = raw[1:-1]
        else:
            found[name] = re.sub(r"\\(.)", lambda match: "" if match[1] == "\n" else match[1], raw, flags=re.DOTALL)
    return found


def read(paths: t.Iterable[str]) -> t.Dict[str, str]:
    """The variables of several files; a later file wins over an earlier one, and one that is not there has none."""
    found: t.Dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                found.update(parse(stream.read()))
        except FileNotFoundError:
            continue
    return found
