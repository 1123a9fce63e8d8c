# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the promises say of a fleet that was looked at: pure, so that it can be shown to see what is wrong."""

from __future__ import annotations

import time
import typing as t

from fault.matrix.world import ROOT, Seen


def breaches(seen: t.Sequence[Seen], allowed: t.Mapping[str, str], *, agree: bool = True, now: t.Optional[float] = None) -> t.List[str]:
    """:param allowed: Release to the version that it has to tell: what was served before, and what was deployed.
    :param agree: Whether all hosts have to serve the same.
    """
    now = time.time() if now is None else now
    wrong = [said for one in seen for said in of_host(one, allowed, now)]
    served = {one.host: one.release for one in seen}
    if agree and len(set(served.values())) > 1:
        wrong.append("P1 the fleet disagrees: " + ", ".join(f"{host} {release}" for host, release in served.items()))
    return wrong


def of_host(seen: Seen, allowed: t.Mapping[str, str], now: float) -> t.Iterator[str]:
    found, host = seen.found, seen.host
    state = found["state"]
    if not state or not state["live"]:
        yield f"P1 {host} knows of no release that it serves"
        return
    slot, release = state["live"]["slot"], seen.release
    if seen.armed:
        yield f"P1 {host} is still armed, by run {state['way_back']['run']}"
    if release not in allowed:
        yield f"P1 {host} serves {release}, which is neither the old release nor the new one"
    if found["live_socket"] != f"{slot}.sock":
        yield f"P1 {host}: the live socket leads to {found['live_socket']}, the state says {slot}"
    if found["current"] != f"releases/{release}":
        yield f"P1 {host}: current leads to {found['current']}, the state says {release}"
    unit = found["units"].get(slot) or {}
    if unit.get("cwd") != f"{ROOT}/releases/{release}":
        yield f"P1 {host}: slot {slot} runs from {unit.get('cwd')} ({unit.get('active')}/{unit.get('sub')}), the state says {release}"
    others = [name for name, one in found["units"].items() if name != slot and one["active"] not in ("inactive", "failed")]
    if others:
        yield f"P1 {host}: {', '.join(others)} runs beside {slot}"
    if seen.answer.status != 200:
        yield f"P1 {host} answers {seen.answer.status or 'nothing'}"
    elif release in allowed and seen.answer.version != allowed[release]:
        yield f"P3 {host} tells version {seen.answer.version}, the state says {release}"
    if found["manifests"].get(release) != "good":
        yield f"P1 {host}: the manifest of {release} says {found['manifests'].get(release)}"
    if found["leftovers"]:
        yield f"P1 {host} has what is half built or half removed: {', '.join(found['leftovers'])}"
    lock = found["lock"]
    if lock and lock["deadline"] > now:
        yield f"P8 {host} is locked by run {lock['run']} for {lock['deadline'] - now:.0f} s more"
