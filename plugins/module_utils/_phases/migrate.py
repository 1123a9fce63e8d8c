# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Phases 3 and 4 of a deploy: protect the data, then migrate the database with the new release's code."""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible_collections.bulletproof.deploy.plugins.module_utils import _lock, _manifest, _phase, _schema, _state
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, migrations, schema, store
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Database
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options, as_failure

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **_phase.RUN,
    **migrations.SPEC,
    **{name: option for name, option in backups.SPEC.items() if name.startswith("keep_")},
    "backups": {"type": "path"},
    "release": {"type": "str"},
    "contracting": {"type": "str", "choices": ["refuse", "hold", "allow"], "default": "refuse"},
    "allow_contracting": {"type": "dict", "default": {}},
    "backup": {"type": "str", "choices": ["migrations", "always"], "default": "migrations"},
    "undo": {"type": "str", "choices": ["restore", "leave"], "default": "leave"},
    "schema": {"type": "dict", "default": {}},
    "free_lock": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class Observed:
    """:param status: None in check mode, for a release that is not staged: only its own code can tell."""

    release: str
    serves: str
    status: t.Optional[migrations.Status]


class Migrate:
    """One migration: it remembers the backup and how far it came, for the report and for the way back."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.held_open = contextlib.ExitStack()
        self.backup: t.Optional[backups.Backup] = None
        self.began = self.new = False
        self.ledger: t.List[_schema.Step] = []
        self.status: t.Optional[migrations.Status] = None
        self.applied: t.List[migrations.Applied] = []
        self.held: t.List[migrations.Pending] = []

    def read(self, options: Options) -> Observed:
        layout = _phase.layout_of(options)
        state = _state.load(layout)
        serves = state.live.release if state.live else ""
        release = options["release"] or serves
        if not release:
            raise Failure("This host serves nothing yet, so there is no code to migrate with.", fix="Deploy a release first.")
        if self.dry and _manifest.load(layout, release) is None:
            return Observed(release, serves, None)
        _manifest.need(layout, release)
        code = self._code(options, release)
        if not self.dry:
            # From the first look to the last: what was seen must be what is migrated.
            self.held_open.enter_context(code.alone())
        self.status = code.status(self.dry)
        return Observed(release, serves, self.status)

    def _code(self, options: Options, release: str) -> migrations.Migrations:
        return migrations.of_release(options, _phase.layout_of(options), release, serves=not options["release"])

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        status = observed.status
        if status is None:
            return []
        wanted, self.held = chosen(options, observed, status)
        database = self._code(options, observed.release).database
        changes = []
        if store.exists(database) and (wanted or status.stamp or options["backup"] == "always"):
            changes.append(Change(f"backup of {database.shown}", None, "verified", partial(self._protect, options, observed)))
        if status.stamp:
            code = self._code(options, observed.release)
            changes.append(Change(database.shown, "tables without a revision", f"stamped {status.stamp}", code.stamp))
        if wanted:
            after = wanted[-1].revision
            told = "\n".join([after, *(f"  {one.describe()}" for one in wanted), status.sql]).rstrip()
            changes.append(Change(database.shown, status.before or "no revision", told, partial(self._migrate, options, observed, after)))
        return changes

    def _protect(self, options: Options, observed: Observed) -> None:
        code = self._code(options, observed.release)
        revision = observed.status.before if observed.status else ""
        directory = options["backups"] or _phase.layout_of(options).backups
        about = {"revision": revision, "release": observed.serves}
        self.backup = store.backup(code.database, directory, backups.policy_of(options), about)

    def _migrate(self, options: Options, observed: Observed, to: str) -> None:
        code = self._code(options, observed.release)
        self.began, self.ledger, self.new = True, _schema.load(_phase.layout_of(options)), not store.exists(code.database)
        self.applied = code.upgrade(to)
        self._record(options, observed.release, self.applied)
        problems = schema.problems(code.database, options["schema"]) if options["schema"] else []
        if problems:
            raise Failure("The schema is not what it must be after the migration:\n" + "\n".join(f"- {one}" for one in problems))

    def _record(self, options: Options, release: str, applied: t.Sequence[migrations.Applied]) -> None:
        kinds = {one.revision: one.kind for one in self.status.pending} if self.status else {}
        now = time.time()
        steps = [
            _schema.Step(one.revision, one.before, kinds.get(one.revision, "unknown"), release, options["run"], now) for one in applied
        ]
        _schema.append(_phase.layout_of(options), steps)

    def rescue(self, options: Options, failure: Failure) -> Failure:
        """What is half migrated goes back to the backup, or stays, and then it is said what is in."""
        if not self.began:
            return Failure(f"{failure.what}\nThe database was not touched.", fix=failure.fix, **failure.facts)
        state = _state.load(_phase.layout_of(options))
        release = options["release"] or (state.live.release if state.live else "")
        code = self._code(options, release)
        kept = f"The backup from before it: {self.backup.name}." if self.backup else ""
        try:
            if options["undo"] == "restore" and (self.new or (self.backup is not None and left_something(failure))):
                return self._put_back(options, code.database, failure)
            revision = code.revision()
            # What is in is in, and a rollback has to know.
            told = t.cast("list[dict[str, t.Any]]", failure.facts.get("applied", []))
            applied = [migrations.Applied(one["revision"], str(one.get("down_revision") or ""), 0.0) for one in told]
            self._record(options, release, [one for one in applied if one not in self.applied])
        except Exception as error:
            return Failure(f"{failure.what}\nUndoing it failed as well: {as_failure(error).what}\n{kept}", fix=failure.fix, **failure.facts)
        return Failure(f"{failure.what}\nThe database is at revision {revision or '(none)'}. {kept}", fix=failure.fix, **failure.facts)

    def _put_back(self, options: Options, database: Database, failure: Failure) -> Failure:
        layout = _phase.layout_of(options)
        if self.backup is None:
            told = f"There was no database before, and there is none again; what it had become is kept as {store.set_aside(database)}."
        else:
            replaced = store.restore(database, options["backups"] or layout.backups, self.backup)
            told = (
                f"The database is again what it was before, from the backup {self.backup.name}; what it had become is kept as {replaced}."
            )
        _schema.save(layout, self.ledger)
        return Failure(f"{failure.what}\n{told}", fix=failure.fix, **{**failure.facts, "restored": True})

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        status = observed.status
        if status is None:
            return {
                "before": "",
                "after": "",
                "pending": [],
                "note": f"Only the code of {observed.release} can tell what is pending, and it is not staged yet.",
            }
        wanted, held = chosen(options, observed, status)
        return {
            "before": status.before,
            "after": self.applied[-1].revision if self.applied else status.before,
            "pending": [one.as_dict() for one in wanted],
            "held": [one.as_dict() for one in held],
            "applied": [one.as_dict() for one in self.applied],
            "backup": self.backup.name if self.backup else "",
        }


def left_something(failure: Failure) -> bool:
    """Whether a migration that failed has left anything in the database: a restore would cost what users wrote meanwhile. Yes, if that is not known."""
    facts = failure.facts
    return "applied" not in facts or bool(facts["applied"]) or bool(facts.get("kept"))


def chosen(
    options: Options, observed: Observed, status: migrations.Status
) -> t.Tuple[t.List[migrations.Pending], t.List[migrations.Pending]]:
    """What is to be applied, and what is held back. Failure when that must not be.

    On a host that serves nothing, or this very release, there is no older code to break.
    """
    pending = list(status.pending)
    breaking = [one for one in pending if one.kind != "expanding" and one.revision not in options["allow_contracting"]]
    if not breaking or options["contracting"] == "allow" or observed.serves in ("", observed.release):
        return pending, []
    if options["contracting"] == "hold":
        first = pending.index(breaking[0])
        return pending[:first], pending[first:]
    told = "\n".join(f"- {one.describe()}" for one in breaking)
    raise Failure(
        f"Release {observed.serves}, which serves now, cannot run on what these migrations of {observed.release} make; nothing was changed.\n{told}",
        fix="Split them: first a release that no longer needs what goes, then the migration. Or app_contracting=hold applies what comes before them, "
        "and migrate.yml the rest after the deploy. Or allow them by name: app_allow_contracting: {REVISION: reason}.",
    )


def run(module: AnsibleModule) -> None:
    migrate = Migrate(dry=module.check_mode)
    try:
        with migrate.held_open:
            _phase.run(module, "migrate", migrate.read, migrate.plan, migrate.report, migrate.rescue)
    finally:
        if module.params["free_lock"] and not module.check_mode:
            _lock.free(_phase.layout_of(module.params), module.params["run"])
