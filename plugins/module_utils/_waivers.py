# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings that a person lets pass: by the name of their rule, for a reason, until a day. It ends by itself."""

from __future__ import annotations

import datetime
import re
import typing as t
from dataclasses import replace

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

WAIVED = "waived"
KEYS = ("rule", "reason", "until")
Waiver = t.Mapping[str, t.Any]


def today() -> datetime.date:
    """In UTC, so that a waiver ends at one moment everywhere."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def _day(value: object) -> t.Optional[datetime.date]:
    # YAML makes a date of 2026-12-01 without quotes.
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return None
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        return None


def mistakes(waivers: t.Any) -> t.List[str]:
    """What is wrong with the waivers themselves, all of it."""
    if not isinstance(waivers, list):
        return ["allowed is a list of mappings of rule, reason and until."]
    said: t.List[str] = []
    seen: t.Set[str] = set()
    for number, waiver in enumerate(waivers, 1):
        if not isinstance(waiver, dict):
            said.append(f"waiver {number}: allowed is a mapping of rule, reason and until.")
            continue
        rule = waiver.get("rule")
        named = isinstance(rule, str) and bool(rule.strip())
        which = f"waiver {number} ({rule})" if named else f"waiver {number}"
        unknown = [str(key) for key in waiver if key not in KEYS]
        if unknown:
            said.append(f"{which}: {', '.join(unknown)}: unknown; allowed: {', '.join(KEYS)}.")
        if not named:
            said.append(f"{which}: rule: allowed is the name of a rule, as a finding shows it.")
        elif rule in seen:
            said.append(f"{which}: there is one before it for the same rule; allowed: one.")
        seen.add(str(rule))
        if not isinstance(waiver.get("reason"), str) or not waiver["reason"].strip():
            said.append(f"{which}: reason: allowed is text that says why.")
        if _day(waiver.get("until")) is None:
            said.append(f"{which}: until: found {waiver.get('until', 'nothing')}; allowed: a day, YYYY-MM-DD.")
    return said


def checked(waivers: t.Any) -> t.List[Waiver]:
    """The waivers. Failure with all mistakes in them."""
    said = mistakes(waivers)
    if said:
        raise Failure(f"app_waivers has {len(said)} mistake{'' if len(said) == 1 else 's'}:\n" + "\n".join(f"- {one}" for one in said))
    return list(waivers)


def apply(
    findings: t.Iterable[Finding], waivers: t.Iterable[Waiver], today: datetime.date, known: t.Optional[t.Collection[str]] = None
) -> t.List[Finding]:
    """The findings, those that are waived with the severity ``waived``, then what is to be said of the waivers themselves.

    A waiver holds up to and with its last day. Only errors and warnings are waived; what has no rule's name cannot be.

    :param today: In UTC.
    :param known: The names of the rules that were looked at; waivers of others are not spoken of. None for all rules there are.
    """
    result = list(findings)
    notes: t.List[Finding] = []
    for waiver in waivers:
        rule, until = waiver["rule"], _day(waiver["until"])
        if until is None or (known is not None and rule not in known):
            continue
        matching = [index for index, one in enumerate(result) if one.rule == rule]
        if today > until:
            found = f"that it ended with {until}: {waiver['reason']}"
            fix = "Correct what it let pass, or give it another day." if matching else "Remove it; what it let pass is in order."
            notes.append(Finding(f"waiver of {rule}", found, "a waiver that has not ended, or none", fix, "warning"))
        elif not matching:
            notes.append(
                Finding(
                    f"waiver of {rule}", "nothing that it lets pass", "a finding of that name", "Remove it, or correct its name.", "warning"
                )
            )
        else:
            for index in matching:
                result[index] = replace(result[index], severity=WAIVED, reason=waiver["reason"], until=str(until))
    return result + notes
