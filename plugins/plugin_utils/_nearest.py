# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a person may have meant by a word that does not exist."""

from __future__ import annotations

import difflib
import typing as t

# difflib compares with each; a mistyped word is not worth minutes.
_MOST_COMPARED = 20_000


def nearest(word: str, existing: t.Iterable[str], count: int = 3) -> str:
    """The words that come nearest, as a list for a sentence."""
    candidates = sorted(set(existing))[:_MOST_COMPARED]
    return ", ".join(difflib.get_close_matches(word, candidates, count, cutoff=0.0)) or "nothing"
