# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is left out of an artefact: the patterns of ``exclude`` and what never belongs in one.

The patterns are the simple ones of gitignore: ``*`` and ``?`` stay within a name, ``**`` crosses directories, a slash at
the end means directories only, a slash elsewhere ties the pattern to the root. What is in a left-out directory is left out.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import BYTECODE, shown
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._nearest import nearest

# Never part of an artefact, whatever the source.
NEVER = (".git", BYTECODE)
# A directory that someone works in has these beside the code.
NEVER_FROM_DIRECTORY = (*NEVER, ".venv", "*.pyc")


class Pattern:
    """One pattern, ready to be tried on paths."""

    def __init__(self, text: str) -> None:
        body = text.rstrip("/")
        if not body.strip("/") or text.startswith("!") or "//" in text or any(part in (".", "..") for part in body.split("/")):
            raise Failure(
                f"The exclude pattern {text!r} is not one: a path relative to the root with *, ** and ? is allowed;"
                " a leading ! and the parts . and .. are not.",
                fix="Correct or remove it.",
            )
        self.text = text
        self._directories_only = text.endswith("/")
        anchored = "/" in body
        self._regex = re.compile(("" if anchored else "(?:.*/)?") + _translate(body.lstrip("/").split("/")), re.DOTALL)

    def matches(self, path: str, is_directory: bool) -> bool:
        return (is_directory or not self._directories_only) and self._regex.fullmatch(path) is not None


def _translate(parts: t.Sequence[str]) -> str:
    regex = ""
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if part == "**":
            regex += ".+" if last else "(?:[^/]+/)*"
        else:
            regex += "".join(_TRANSLATIONS.get(token, re.escape(token)) for token in _TOKENS.findall(part)) + ("" if last else "/")
    return regex


_TOKENS = re.compile(r"\*+|\?|[^*?]+", re.DOTALL)
_TRANSLATIONS = {"*": "[^/]*", "**": "[^/]*", "?": "[^/]"}


class Exclusion:
    """Says which paths are left out, and remembers which patterns have proved to mean something."""

    def __init__(self, patterns: t.Sequence[str], never: t.Sequence[str] = NEVER) -> None:
        self._never = [Pattern(text) for text in never]
        self._patterns = [Pattern(text) for text in patterns]
        # Who excludes what is left out anyway has made no mistake, even where there is none of it.
        self._unmatched = {text for text in patterns if text.strip("/") not in NEVER_FROM_DIRECTORY}
        self._directories: t.Dict[str, bool] = {"": False}
        self._seen: t.List[str] = []

    def leaves_out(self, path: str, is_directory: bool = False) -> bool:
        """Whether a path is left out, by itself or with a directory above it."""
        parent = path.rpartition("/")[0]
        if parent not in self._directories:
            self.leaves_out(parent, True)
        out = self._directories[parent]
        if self._is_never(path, is_directory):
            out = True
        else:
            self._seen.append(path)
            matching = [pattern.text for pattern in self._patterns if pattern.matches(path, is_directory)]
            self._unmatched.difference_update(matching)
            out = out or bool(matching)
        if is_directory:
            self._directories[path] = out
        return out

    def skip(self, path: str, is_directory: bool) -> bool:
        """The same for a walk: a left-out directory is entered only to look for what another pattern may mean there."""
        out = self.leaves_out(path, is_directory)
        return out and not (is_directory and self._unmatched and not self._is_never(path, is_directory))

    def verify(self) -> None:
        """Raise a Failure for a pattern that has matched nothing: it was meant to keep something out."""
        for text in sorted(self._unmatched):
            body = text.strip("/")
            raise Failure(
                f"The exclude pattern {text!r} matches nothing in the source. The nearest paths are: {shown(nearest(body, self._seen))}.",
                fix="Correct the pattern, or remove it.",
            )

    def _is_never(self, path: str, is_directory: bool) -> bool:
        return any(pattern.matches(path, is_directory) for pattern in self._never)
