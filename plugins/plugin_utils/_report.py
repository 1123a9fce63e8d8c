# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The findings of many hosts, as one text: the worst first, and what all hosts have in common said once."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings

Finding = t.Mapping[str, t.Any]

SEVERITIES = ("error", "warning", "waived")


def findings_of(answers: t.Mapping[str, t.Any], beside: t.Sequence[Finding] = ()) -> t.List[t.Dict[str, t.Any]]:
    """What every host has found, each with its host, the worst first.

    :param answers: Host to what its preflight returned; a host that did not answer is itself a finding.
    :param beside: What was found on other machines, asked by the first host.
    """
    found: t.List[t.Dict[str, t.Any]] = []
    for host, answer in answers.items():
        if isinstance(answer, t.Mapping) and "findings" in answer:
            found += [{"host": host, **one} for one in answer["findings"]]
        else:
            found.append({"host": host, **_silent(answer)})
    found += _of_the_fleet(answers)
    found += [{"host": next(iter(answers)), **one} for one in beside]
    return sorted(found, key=lambda one: (SEVERITIES.index(one["severity"]), str(one["subject"]), list(answers).index(one["host"])))


def _silent(answer: t.Any) -> t.Dict[str, str]:
    why = str(answer.get("msg") or "it gave no answer") if isinstance(answer, t.Mapping) else "it gave no answer"
    fix = "Look at its address, at SSH and at sudo: ansible HOST -m ansible.builtin.ping --become"
    return asdict(_findings.Finding("the host itself", why.strip(), "an answer", fix))


def _of_the_fleet(answers: t.Mapping[str, t.Any]) -> t.Iterator[t.Dict[str, t.Any]]:
    """What only shows when the hosts are looked at together: one machine under several names would be deployed to several times at once."""
    names: t.Dict[str, t.List[str]] = {}
    for host, answer in answers.items():
        if isinstance(answer, t.Mapping) and answer.get("machine"):
            names.setdefault(str(answer["machine"]), []).append(host)
    for same in names.values():
        for host in same[1:]:
            fix = "Take one of the names out of the inventory, or correct its address."
            yield {"host": host, **asdict(_findings.Finding("the host itself", f"the same machine as {same[0]}", "a host of its own", fix))}


def text(app: str, hosts: int, findings: t.Sequence[Finding]) -> str:
    """What a person reads. Findings that differ in nothing but the host are one paragraph."""
    on = "1 host" if hosts == 1 else f"{hosts} hosts"
    counts = [(severity, sum(one["severity"] == severity for one in findings)) for severity in SEVERITIES]
    told = ", ".join(f"{count} {severity}{'s' if count > 1 and severity != 'waived' else ''}" for severity, count in counts if count)
    if not findings:
        return f"{app} on {on}: nothing is in the way."
    end = "Nothing was touched." if counts[0][1] else ""
    return "\n".join([f"{app} on {on}: {told}. {end}".rstrip(), *(_paragraph(one, names) for one, names in _together(findings))])


def _together(findings: t.Sequence[Finding]) -> t.List[t.Tuple[Finding, t.List[str]]]:
    groups: t.Dict[t.Tuple[str, ...], t.Tuple[Finding, t.List[str]]] = {}
    for one in findings:
        key = tuple(str(one.get(name, "")) for name in ("severity", "subject", "found", "expected", "fix", "rule", "until", "reason"))
        groups.setdefault(key, (one, []))[1].append(str(one["host"]))
    return list(groups.values())


def _paragraph(one: Finding, hosts: t.Sequence[str]) -> str:
    lines = [
        f"- {one['severity']} on {', '.join(hosts)}: {one['subject']}",
        f"    found:      {one['found']}",
        f"    expected:   {one['expected']}",
    ]
    if one["fix"] and one["severity"] != "waived":
        lines.append(f"    what to do: {one['fix']}")
    if one["severity"] == "waived":
        lines.append(f"    waived:     until {one['until']}: {one['reason']}")
    if one.get("rule") and one["severity"] == "error":
        lines.append(f"    its rule:   {one['rule']} (app_waivers can let it pass for a while, with a reason)")
    # What a program said may have lines of its own.
    return "\n".join(line.replace("\n", "\n" + " " * 16) for line in lines)
