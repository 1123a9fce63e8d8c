# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wrong, all of it at once."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it must be.

    :param subject: What was looked at, as a person would name it.
    :param found: Never a secret.
    :param fix: What to do.
    :param severity: ``error`` stops a deploy; ``warning`` does not, nor does ``waived``.
    :param rule: The name by which a person can waive it; empty for what cannot be waived.
    :param reason: Of one that is waived: why, in that person's words.
    :param until: Of one that is waived: the last day, YYYY-MM-DD.
    """

    subject: str
    found: str
    expected: str
    fix: str
    severity: str = "error"
    rule: str = ""
    reason: str = ""
    until: str = ""

    def __str__(self) -> str:
        waived = f" Waived until {self.until} ({self.rule}): {self.reason}" if self.until else ""
        return f"{self.subject}: found {self.found}; expected {self.expected}. {self.fix}{waived}"


def failure_of(findings: t.Sequence[Finding], title: str, **facts: object) -> Failure:
    lines = "\n".join(f"- {one}" for one in findings)
    return Failure(
        f"{title}: {len(findings)} finding{'' if len(findings) == 1 else 's'}.\n{lines}", fix="", findings=as_data(findings), **facts
    )


def as_data(findings: t.Sequence[Finding]) -> t.List[t.Dict[str, str]]:
    return [asdict(one) for one in findings]
