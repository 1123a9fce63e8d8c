# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A fleet in words: who may go on, how a run ended on each host, and whether the hosts agree.

What is known of a host is what its phases have returned, under the names that the playbooks register it by.
"""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

from ansible_collections.bulletproof.deploy.plugins.module_utils import _state

Known = t.Mapping[str, t.Mapping[str, t.Any]]

# What the proxy's own host reaches it by, unless it listens on one address alone.
LOOPBACK = "127.0.0.1"

UNREACHABLE = "it did not answer"
NOT_BACK = "it was not told to go back: it did not answer"
NOT_THE_HOSTS = "nothing failed there: the controller could not go on, and what it said is above"
BY_ITSELF = "It does so by itself when its lease ends, or with the next run that reaches it."


def first_line(text: t.Any) -> str:
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


def failure(failed: t.Mapping[str, t.Any]) -> str:
    """What a host remembers of the task that failed, in one line."""
    return f'"{failed["task"]}": {first_line(failed["why"])}'


def left_behind(known: Known, reached: t.Collection[str]) -> t.Dict[str, str]:
    """Host to why, for those that failed or were lost in this run."""
    found = {}
    for host, facts in known.items():
        if facts.get("switch_left"):
            found[host] = failure(facts["switch_left"])
        elif host not in reached:
            found[host] = UNREACHABLE
    return found


def disagreement(known: Known) -> str:
    """Hosts that moved to different releases in one run: a rollback of hosts that have served different ones before."""
    to: t.Dict[str, t.List[str]] = {}
    for host, facts in known.items():
        done = facts.get("switch_done") or {}
        if done.get("release") and not facts.get("switch_left"):
            to.setdefault(str(done["release"]), []).append(host)
    if len(to) < 2:
        return ""
    told = "; ".join(f"{', '.join(hosts)} to {release}" for release, hosts in to.items())
    return f"The hosts would not agree: {told}. Name the version (-e app_version=VERSION)."


def spread(known: Known) -> float:
    """Seconds between the first host and the last that sent its users to the new release, by their own clocks."""
    moments = [facts["switch_done"]["flipped"] for facts in known.values() if (facts.get("switch_done") or {}).get("flipped")]
    return round(max(moments) - min(moments), 3) if moments else 0.0


def judge(known: Known, reached: t.Collection[str], allow: int) -> t.Dict[str, t.Any]:
    """Whether a run may go on without those that stayed behind; if not, why, for each host."""
    left = left_behind(known, reached)
    apart = disagreement(known)
    go_on = len(left) <= allow and len(left) < len(known) and not apart
    others = apart or f"It goes back with {', '.join(left)}." if left or apart else ""
    peers = {host: health_url(host, facts) for host, facts in known.items() if host not in left and facts.get("switch_done")}
    return {
        "left": list(left),
        "go_on": go_on,
        "why": left,
        "why_all": others,
        "spread": spread(known),
        "peers": {host: url for host, url in peers.items() if url},
    }


def health_url(host: str, facts: t.Mapping[str, t.Any]) -> str:
    """Where a host tells its health, as the others reach it: its load balancers have the same way. Empty without a proxy of ours."""
    own = urlsplit(((facts.get("app_declaration") or {}).get("health") or {}).get("url") or "")
    if own.hostname != LOOPBACK:
        return own.geturl()
    address = str(facts.get("load_balancer_member_address") or facts.get("ansible_host") or host)
    return own._replace(netloc=f"{f'[{address}]' if ':' in address else address}:{own.port}").geturl()


def table(rows: t.Sequence[t.Sequence[str]]) -> str:
    """Columns that line up, the first row for the head; the last column may be as long as it likes."""
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _answers(facts: t.Mapping[str, t.Any]) -> t.List[t.Mapping[str, t.Any]]:
    """What a host's ways back have told, the last one first: that of the whole run, and the one that it went alone before."""
    every = [facts.get(name) or {} for name in ("switch_revert", "switch_alone")]
    return [one for one in every if "serves" in one]


def ended(known: Known, why: t.Mapping[str, str]) -> str:
    """How a run ended on each host: host, before, now, why."""
    rows = [("host", "before", "now", "why")]
    for host, facts in known.items():
        answers, done = _answers(facts), facts.get("switch_done") or {}
        serves = answers[0]["serves"] if answers else ""
        now = str(serves or "nothing") if answers else "unknown" if host in why else str(done.get("release") or "nothing")
        before = (facts.get("preflight_answer") or {}).get("live") or done.get("before") or serves or "nothing"
        problem = next((first_line(one["problem"]) for one in (facts.get("switch_revert") or {}, *answers) if one.get("problem")), "")
        told = [why.get(host, ""), f"Look at it: {problem}" if problem else ""]
        rows.append((host, str(before), now, " ".join(one for one in told if one)))
    return table(rows)


def failures(known: Known) -> t.Dict[str, str]:
    """Host to what went wrong there, at the end of a run that has gone back. Never nothing: where no host has anything to tell, the controller failed."""
    found = left_behind(known, known)
    if not found:
        found = {host: failure(facts["switch_failed"]) for host, facts in known.items() if facts.get("switch_failed")}
    for host, facts in known.items():
        if not facts.get("switch_left") and not _answers(facts):
            reverted = facts.get("switch_revert") or {}
            stuck = f"{'it could not go back' if reverted.get('problem') else NOT_BACK}. {BY_ITSELF}"
            found[host] = f"{found[host]} And {stuck}" if host in found else stuck
    return found or dict.fromkeys(known, NOT_THE_HOSTS)


def drift(status: t.Mapping[str, t.Any], version: str, configuration: str) -> str:
    """How a host differs from what is declared now."""
    live = status.get("live") or {}
    told = []
    if version and live and not str(live["release"]).startswith(f"{version}-"):
        told.append(f"declared is {version}")
    if status.get("configuration") != configuration:
        told.append("configured for another declaration")
    return ", ".join(told) or "none"


def condition(status: t.Mapping[str, t.Any]) -> str:
    """One word or two for what a host is in the middle of."""
    if not status.get("live"):
        return "never deployed"
    net = status.get("safety_net")
    if net:
        return "being committed" if net.get("good") else "on trial"
    return "serves" if status.get("serving") else "does not serve it"


def status(known: Known, version: str, configuration: str) -> t.Tuple[str, t.List[str]]:
    """The fleet as a table, and what is wrong with it: hosts that do not answer, do not serve what they should, or do not agree."""
    rows = [("host", "live release", "since", "state", "drift")]
    wrong: t.List[str] = []
    serving: t.Dict[str, t.List[str]] = {}
    for host, facts in known.items():
        found = facts.get("app_status") or {}
        if "live" not in found:
            rows.append((host, "unknown", "", "no answer", ""))
            wrong.append(f"{host} did not answer: {first_line(found.get('msg') or 'see above')}")
            continue
        live = found["live"]
        serving.setdefault(str(live["release"]) if live else "nothing", []).append(host)
        rows.append(
            (
                host,
                str(live["release"]) if live else "nothing",
                _state.when(live["since"]) if live else "",
                condition(found),
                drift(found, version, configuration),
            )
        )
        if live and not found.get("serving"):
            wrong.append(
                f"{host} does not serve what it should: its unit does not run from {live['release']}, or the live socket points elsewhere."
            )
        wrong += [f"{host}: {one}." for one in found.get("processes") or []]
    if len(serving) > 1:
        told = "; ".join(f"{', '.join(hosts)}: {release}" for release, hosts in serving.items())
        wrong.append(f"The hosts do not agree. {told}. Deploy the version that all are to serve.")
    return table(rows), wrong
