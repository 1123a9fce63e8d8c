# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks as a declaration has them: with words for what only the host knows, and without what goes without saying."""

from __future__ import annotations

import typing as t

Check = t.Dict[str, t.Any]

# Check types that ask over HTTP, and of a release on its own socket, unless they say where.
OVER_HTTP = ("burst", "http", "smoke", "version")

# Check types that look into the app's environment unless they say where else: for keys, or for what must not be shown.
READ_ENVIRONMENT = ("database", "import", "log", "r2")


def completed(check: t.Mapping[str, t.Any], words: t.Mapping[str, str], environment_files: t.Sequence[str], user: str = "") -> Check:
    """A check as the engine takes it.

    :param words: What stands for what in its texts, such as ``{socket}``.
    :param environment_files: Where the app's environment is; a later file wins.
    :param user: Whose account the app runs as, and so what is imported.
    """
    done = t.cast(Check, _filled(check, words))
    if done["type"] == "import":
        done.setdefault("python", words.get("{python}"))
        if user and {"modules", "entrypoint"} & set(done):
            done.setdefault("user", user)
            done.setdefault("directory", words.get("{release}"))
    if goes_to_the_release(check) and "{socket}" in words:
        done["unix_socket"] = words["{socket}"]
    reads = done["type"] in READ_ENVIRONMENT and (done["type"] != "import" or "user" in done)
    if reads and not {"environment_files", "access_key_id"} & set(done):
        done["environment_files"] = list(environment_files)
    if done["type"] == "env":
        done.setdefault("path", environment_files[0])
    return done


def goes_to_the_release(check: t.Mapping[str, t.Any]) -> bool:
    """Whether it asks over HTTP and does not say where."""
    return check["type"] in OVER_HTTP and not {"url", "unix_socket"} & set(check)


def _filled(value: t.Any, words: t.Mapping[str, str]) -> t.Any:
    """The same with each word replaced, in all texts, however deep."""
    if isinstance(value, t.Mapping):
        return {name: _filled(one, words) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, words) for one in value]
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
    return value
