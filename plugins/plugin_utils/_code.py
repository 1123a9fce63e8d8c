# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's own files, as this controller has them."""

from __future__ import annotations

import functools
import hashlib
import pathlib

COLLECTION = pathlib.Path(__file__).parents[2]
FOR_HOSTS = "plugins/module_utils/**/*.py"
# What a host is configured by.
FOR_CONFIGURATION = ("roles/**/*", FOR_HOSTS)


@functools.cache
def digest(pattern: str, *more: str) -> str:
    """A digest of all files that match one of the patterns, relative to the collection."""
    if more:
        # Of each by itself: that of the code for hosts is wanted alone, too.
        return hashlib.sha256("".join(map(digest, (pattern, *more))).encode()).hexdigest()
    whole = hashlib.sha256()
    for path in sorted(path for path in COLLECTION.glob(pattern) if path.is_file()):
        whole.update(str(path.relative_to(COLLECTION)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
