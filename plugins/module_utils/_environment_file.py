# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files of environment variables, read as systemd reads them (systemd.exec(5), EnvironmentFile=)."""

from __future__ import annotations

import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def parse(text: str, where: str = "the text") -> t.Dict[str, str]:
    """The variables of a file, by name; the last of several assignments holds. Failure where systemd reads none of them.

    :param where: The file, as a person would name it.
    """
    try:
        return dialects.systemd(text)
    except dialects.Unreadable as error:
        raise Failure(f"{where}: systemd {error}.", fix="Correct that line. No service gets any variable of such a file.") from None


def read(paths: t.Iterable[str]) -> t.Dict[str, str]:
    """The variables of several files; a later file wins over an earlier one, and one that is not there has none."""
    found: t.Dict[str, str] = {}
    for path in paths:
        try:
            # Not as text: the ends of its lines are the file's own.
            with open(path, "rb") as stream:
                text = stream.read().decode("utf-8", errors="surrogateescape")
        except FileNotFoundError:
            continue
        found.update(parse(text, path))
    return found
