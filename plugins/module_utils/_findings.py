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
    :param severity: ``error`` stops a deploy; ``warning`` does not.
    :param rule: The name by which a person can waive it; empty for what cannot be waived.
    """

    subject: str
    found: str
    expected: str
    fix: str
    severity: str = "error"
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.subject}: found {self.found}; expected {self.expected}. {self.fix}"


def failure_of(findings: t.Sequence[Finding], title: str, **facts: object) -> Failure:
    lines = "\n".join(f"- {one}" for one in findings)
    return Failure(
        f"{title}: {len(findings)} finding{'' if len(findings) == 1 else 's'}.\n{lines}", fix="", findings=as_data(findings), **facts
    )


def as_data(findings: t.Sequence[Finding]) -> t.List[t.Dict[str, str]]:
    return [asdict(one) for one in findings]
