#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phase 5 of a deploy: make a host serve a staged release, or leave it as it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_switch
short_description: Make a host serve a staged release, or leave it as it was
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Arms the safety net, starts the release in its slot, verifies it on the slot's own socket, points the live socket at it in one rename,
    and verifies it again through the proxy.
  - When anything of this fails, the module itself goes back before it returns. When the module, the connection or the controller dies, a
    systemd timer on the host goes back at the end of the lease.
  - The release is on trial until M(bulletproof.deploy.release_commit) commits it.
  - Doing it for what is live and committed already changes nothing, unless O(again=true).
extends_documentation_fragment:
  - bulletproof.deploy.app
  - bulletproof.deploy.app.run
attributes: {}
options:
  release:
    description:
      - The id of the release to serve.
      - Leave it out, with O(back=true), to go to where a rollback goes.
    type: str
  back:
    description:
      - Go to the release that served before the live one, past those that are bad.
      - With O(version), go to the newest good release of that version.
    type: bool
    default: false
  version:
    description: With O(back=true), the version (or release id) to go back to.
    type: str
  again:
    description: Switch even if the release is live already, because it is not healthy, or because its unit has changed.
    type: bool
    default: false
  slots:
    description:
      - The slots of the strategy. One slot, V([main]), is restarted in place behind its socket. Of two, V([blue, green]), the idle one is started.
    type: list
    elements: str
    default: [blue, green]
"""

EXAMPLES = r"""
- name: Switch to a release that is staged
  bulletproof.deploy.release_switch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    release: 1.4.2-0123456789ab

- name: Go back to what served before
  bulletproof.deploy.release_switch:
    app: shop
    root: /opt/shop
    run: 20260102T030405-1a2b3c
    back: true
"""

RETURN = r"""
release:
  description: The release that the host was switched to.
  returned: success
  type: str
  sample: 1.4.2-0123456789ab
slot:
  description: The slot that it runs in.
  returned: success
  type: str
  sample: green
before:
  description: What the host served before; empty when it served nothing.
  returned: success
  type: str
  sample: 1.4.1-ba9876543210
verdicts:
  description: What was verified, on the slot's socket and through the proxy.
  returned: changed
  type: list
  elements: dict
seconds:
  description: How long the parts took, in seconds. C(flip) is the moment in which new requests moved.
  returned: changed
  type: dict
  sample: {start: 0.6, verify: 0.3, flip: 0.001, proxy: 0.1}
"""

import time
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _evidence, _manifest, _phase, _state, _transition, _verify
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options, as_failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._state import Position, State


@dataclass(frozen=True)
class Observed:
    state: State
    settled: bool
    manifests: t.Tuple[_manifest.Manifest, ...]


class Switch:
    """One switch: it remembers what it did, for the report and for the way back."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.began = time.time()
        self.logs: _evidence.Cursor = {}
        self.target: t.Optional[Position] = None
        self.seconds: t.Dict[str, float] = {}
        self.verdicts: t.List[t.Dict[str, t.Any]] = []

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        state = _state.load(layout)
        self.logs = _evidence.cursor(layout)
        return Observed(
            state=state,
            settled=state.way_back is None and _transition.is_live(layout, state.live),
            manifests=tuple(_manifest.every(layout)),
        )

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        layout = _phase.layout_of(options)
        live = observed.state.live
        wanted = choose(options, observed, self.dry)
        if observed.settled and live is not None and live.release == wanted.release and not options["again"]:
            self.target = live
            return []
        target = Position(
            slot=idle_slot(options["slots"], live), release=wanted.release, since=self.began, run=options["run"], who=options["who"]
        )
        self.target = target
        was = f"slot {live.slot}: {live.release}" if live else "nothing"
        steps = [
            ("safety net", None, f"back to {was}", partial(_transition.arm, layout, options["run"], target, options["back"])),
            (layout.slot(target.slot), None, target.release, partial(self._timed, "start", _transition.run_slot, layout, target)),
            ("verify on its socket", None, target.release, partial(self._verify, "verify", layout, target, wanted)),
            (layout.live_socket, live.slot if live else None, target.slot, partial(self._flip, layout, target, options["run"])),
            ("verify through the proxy", None, target.release, partial(self._verify, "proxy", layout, target, wanted)),
        ]
        return [Change(*step) for step in steps]

    def _timed(self, name: str, step: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        began = time.monotonic()
        try:
            return step(*arguments)
        finally:
            self.seconds[name] = round(time.monotonic() - began, 4)

    def _flip(self, layout: Layout, target: Position, run: str) -> None:
        self._timed("flip", _transition.flip, layout, target)
        _manifest.mark(layout, target.release, "live", run, "serves, on trial")

    def _verify(self, name: str, layout: Layout, target: Position, manifest: _manifest.Manifest) -> None:
        checks = _verify.slot_checks(layout, manifest, target.slot) if name == "verify" else _verify.proxy_checks(manifest)
        try:
            self.verdicts += self._timed(name, _transition.verify, layout, target, checks)
        except Failure as failure:
            if not _verify.gave_no_answer(failure.facts.get("verdicts")):
                raise
            seconds = manifest.health["start_timeout"]
            fix = f"Mend the release and deploy it again. If it only needs longer to start: raise app_start_timeout, which is {seconds} s."
            raise Failure(failure.what, fix=fix, **failure.facts) from None

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        live = observed.state.live
        return {
            "release": self.target.release if self.target else "",
            "slot": self.target.slot if self.target else "",
            "before": live.release if live else "",
            "verdicts": self.verdicts,
            "seconds": self.seconds,
        }

    def rescue(self, options: Options, failure: Failure) -> Failure:
        """Go back at once. If even that fails, the timer goes on trying."""
        layout = _phase.layout_of(options)
        if self.target is not None:
            failure = _transition.with_last_words(layout, failure, self.target, self.began, self.logs)
        try:
            back = _transition.go_back(layout, failure.what.splitlines()[0], options["run"], blame=True)
        except Exception as error:
            return Failure(
                f"{failure.what}\nGoing back failed as well: {as_failure(error).what}",
                fix=f"The host tries again every few seconds; watch: journalctl -u {options['app']}-safety-net",
                **failure.facts,
            )
        served = f"It went back: this host serves {back.release} as before." if back else "Nothing was served before, and nothing is now."
        return Failure(
            f"{failure.what}\n{served}", fix=failure.fix or "Mend the release and deploy it again.", **{**failure.facts, "reverted": True}
        )


def idle_slot(slots: t.Sequence[str], live: t.Optional[Position]) -> str:
    """The strategy's first slot that does not serve; with a single slot, that one."""
    free = [slot for slot in slots if live is None or slot != live.slot]
    return free[0] if free else slots[0]


def choose(options: Options, observed: Observed, dry: bool) -> _manifest.Manifest:
    """The release that is wanted, by its id or by going back.

    :param dry: In check mode, the release was not staged either, and its name is enough to plan with.
    """
    known = {one.release: one for one in observed.manifests}
    if not options["back"]:
        wanted = known.get(options["release"])
        if wanted is None and dry:
            return _manifest.Manifest(options["release"], "", "", "", "", {})
        if wanted is None:
            raise Failure(f"Release {options['release']} is not staged on this host.", fix="Stage it first: deploy.yml does.")
        return wanted
    live = observed.state.live
    good = [one for one in observed.manifests if one.state == "good"]
    have = ", ".join(one.release for one in good) or "none"
    if live is None:
        raise Failure("This host serves nothing yet, so there is nothing to go back from.", fix="Deploy a release first.")
    if options["version"]:
        named = [one for one in good if options["version"] in (one.release, one.version)]
        if not named:
            bad = [one for one in observed.manifests if options["version"] in (one.release, one.version)]
            why = f" (it is {bad[-1].state}: {bad[-1].why})" if bad else ""
            raise Failure(
                f"No good release {options['version']} is on this host{why}; good ones: {have}.",
                fix="Choose one of them, or deploy it again.",
            )
        return named[-1]
    back = _manifest.back_from(observed.manifests, live.release)
    if back is None:
        raise Failure(f"No good release older than {live.release} is on this host; good ones: {have}.", fix="Deploy the version you want.")
    return back


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **_phase.RUN,
            "release": {"type": "str"},
            "back": {"type": "bool", "default": False},
            "version": {"type": "str"},
            "again": {"type": "bool", "default": False},
            "slots": {"type": "list", "elements": "str", "default": ["blue", "green"]},
        },
        required_if=[("back", False, ["release"])],
        supports_check_mode=True,
    )
    switch = Switch(dry=module.check_mode)
    _phase.run(module, "switch", switch.read, switch.plan, switch.report, switch.rescue)


if __name__ == "__main__":
    main()
