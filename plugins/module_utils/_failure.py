# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one exception that is meant for a person."""

from __future__ import annotations


class Failure(Exception):
    """What went wrong, and what to do about it.

    Raised anywhere below a module, caught once, by the runner (or by the agent on the host), and turned into
    the result that the person reads.

    :param what: One sentence that names the thing, what was found and, where it applies, what is allowed.
    :param fix: One sentence that says what to do next.
    :param facts: Structured evidence, returned beside the message (log lines, verdicts, paths).
    """

    def __init__(self, what: str, fix: str = "", **facts: object) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.facts = facts

    def message(self) -> str:
        """The text for a person: what happened, then what to do."""
        return f"{self.what}\nWhat to do: {self.fix}" if self.fix else self.what
