# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a rollback: take the database back to where the older release can run."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _manifest, _phase, _schema, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, migrations, store
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._phases import switch
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    **migrations.SPEC,
    **{name: option for name, option in backups.SPEC.items() if name.startswith("keep_")},
    "backups": {"type": "path"},
    "version": {"type": "str"},
    "method": {"type": "str", "choices": ["downgrade", "restore"], "required": True},
}


@dataclass(frozen=True)
class Observed:
    """:param revision: Where the database has to go; None when it can stay."""

    live: str
    target: _manifest.Manifest
    revision: t.Optional[str]
    steps: t.Sequence[_schema.Step]


class Unmigrate:
    def __init__(self) -> None:
        self.done = ""

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        state = _state.load(layout)
        target = switch.going_back(options["version"], state.live, _manifest.every(layout))
        steps = _schema.load(layout)
        return Observed(state.live.release if state.live else "", target, _schema.back_to(steps, target), steps)

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        if observed.revision is None:
            return []
        layout = _phase.layout_of(options)
        # The newer release's code: the older one does not know the migrations that are to be undone.
        code = migrations.of_release(options, layout, observed.live, serves=True)
        directory = options["backups"] or layout.backups
        wrong = _schema.in_the_way(observed.steps, observed.target)
        told = ", ".join(one.revision for one in wrong)
        if options["method"] == "restore":
            backup = backup_at(store.known(code.database, directory), observed.revision, wrong[0].at)
            move = Change(
                code.database.shown, told, f"restored from {backup.name}", partial(self._restore, options, code, directory, backup)
            )
        else:
            protect = partial(store.backup, code.database, directory, backups.policy_of(options), {"release": observed.live})
            protected = Change(f"backup of {code.database.shown}", None, "verified", protect)
            move = Change(
                code.database.shown,
                told,
                f"at {observed.revision or 'no revision'}",
                partial(self._downgrade, options, code, observed.revision),
            )
            return [protected, move, self._forget(options, observed)]
        return [move, self._forget(options, observed)]

    def _forget(self, options: Options, observed: Observed) -> Change:
        layout = _phase.layout_of(options)
        first = _schema.in_the_way(observed.steps, observed.target)[0]
        left = list(observed.steps[: observed.steps.index(first)])
        return Change("ledger of migrations", len(observed.steps), len(left), partial(_schema.save, layout, left))

    def _restore(self, options: Options, code: migrations.Migrations, directory: str, backup: backups.Backup) -> None:
        self.done = f"what it was is kept as {store.restore(code.database, directory, backup)}"

    def _downgrade(self, options: Options, code: migrations.Migrations, revision: str) -> None:
        with code.alone():
            undone = code.downgrade(revision)
        self.done = "undone: " + ", ".join(undone)

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        return {"target": observed.target.release, "revision": observed.revision, "done": self.done}


def backup_at(known: t.Sequence[backups.Backup], revision: str, before: float) -> backups.Backup:
    """The newest backup of a revision from before a moment."""
    fitting = [one for one in known if one.facts.get("revision", "") == revision and one.taken <= before]
    if not fitting:
        raise Failure(
            f"There is no backup of the database at revision {revision or '(none)'} any more.",
            fix="Choose app_rollback_schema=downgrade, or restore another backup with restore.yml and roll back with app_rollback_schema=allow.",
        )
    return max(fitting, key=lambda one: one.taken)


def run(module: AnsibleModule) -> None:
    unmigrate = Unmigrate()
    _phase.run(module, "unmigrate", unmigrate.read, unmigrate.plan, unmigrate.report)
