# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of Alembic's migrations as read, plan and apply."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import alembic, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SPEC: t.Dict[str, t.Any] = {
    **url.SPEC,
    "command": {"type": "str", "choices": ["upgrade", "downgrade", "stamp", "current"], "default": "upgrade"},
    "revision": {"type": "str", "default": "head"},
    "python": {"type": "path", "required": True},
    "project": {"type": "path", "required": True},
    "config": {"type": "str", "default": ""},
    "layout": {"type": "str", "choices": ["auto", "alembic", "flask_migrate"], "default": "auto"},
    "entrypoint": {"type": "str", "default": ""},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "default": ""},
    "writable": {"type": "list", "elements": "path", "default": []},
    "lock_wait": {"type": "float", "default": 60},
    "lock_timeout": {"type": "float", "default": 5},
    "statement_timeout": {"type": "float", "default": 0},
    "retries": {"type": "int", "default": 3},
    "timeout": {"type": "int", "default": 3600},
    "check_models": {"type": "bool", "default": False},
    "untracked": {"type": "str", "choices": ["refuse", "stamp", "ignore"], "default": "refuse"},
    "untracked_revision": {"type": "str", "default": "head"},
    "contracting": {"type": "str", "choices": ["refuse", "allow", "hold"], "default": "refuse"},
    "allow_contracting": {"type": "dict", "default": {}},
}


def app_of(options: Options) -> alembic.App:
    """Who migrates what, from a module's options. Without a directory of its own, a relative SQLite path is the project's."""
    directory = options["directory"] if options["directory"] != "/" else options["project"]
    return alembic.App(
        database=url.database_of({**options, "directory": directory}),
        python=options["python"],
        project=options["project"],
        user=options["user"],
        group=options["group"],
        environment_files=tuple(options["environment_files"]),
        variable=options["url_variable"],
        given=options["url"] or "",
        layout=options["layout"],
        config=options["config"],
        entrypoint=options["entrypoint"],
        lock_timeout=options["lock_timeout"],
        statement_timeout=options["statement_timeout"],
        retries=options["retries"],
        seconds=options["timeout"],
        writable=tuple(options["writable"]),
    )


@contextlib.contextmanager
def alone(options: Options) -> t.Iterator[None]:
    with alembic.alone(app_of(options), options["lock_wait"]):
        yield


@dataclass
class Observed:
    app: alembic.App
    seen: alembic.Inspection


class Migration:
    """It remembers what it did, for the report."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.steps: t.Tuple[t.Mapping[str, t.Any], ...] = ()
        self.held: t.Tuple[t.Mapping[str, t.Any], ...] = ()
        self.outcome: t.Optional[alembic.Outcome] = None

    def read(self, options: Options) -> Observed:
        app = app_of(options)
        seen = alembic.inspect(
            app,
            options["command"],
            options["revision"],
            models=options["check_models"],
            prove=options["untracked_revision"] if options["command"] == "upgrade" and options["untracked"] == "stamp" else "",
            read_only=self.dry,
        )
        if isinstance(app.database, url.Postgres) and options["command"] == "upgrade":
            found = alembic.lint(seen.steps)
            judged = {name: {**one, **({"squawk": found[name]} if name in found else {})} for name, one in seen.classification.items()}
            seen = replace(seen, classification=judged)
        return Observed(app, seen)

    def plan(self, options: Options, observed: Observed) -> t.List[Change]:
        app, seen = observed.app, observed.seen
        command, revision = options["command"], options["revision"]
        if command == "current":
            return []
        if seen.unknown:
            raise alembic.unknown_revision(app, seen)
        changes: t.List[Change] = []
        shown, before = app.database.shown, alembic.told_revisions(seen.database)
        if command == "stamp":
            return [Change(shown, before, f"stamped {revision}", lambda: self._stamp(app, seen, revision))] if seen.steps else []
        if command == "upgrade" and seen.tables and options["untracked"] != "ignore":
            if options["untracked"] == "refuse":
                raise alembic.untracked(app, seen)
            problem = alembic.unproven(app, seen, options["untracked_revision"])
            if problem is not None:
                raise problem
            before = f"stamped {alembic.told_revisions(seen.stamped)}"
            changes.append(
                Change(shown, "tables without a revision", before, lambda: self._stamp(app, seen, options["untracked_revision"]))
            )
        if seen.differences:
            raise alembic.models_differ(app, seen, applied=False)
        self.steps = seen.steps
        if command == "upgrade":
            self.steps, self.held = alembic.permitted(app, seen, options["contracting"], options["allow_contracting"])
        if not self.steps:
            return changes
        after = alembic.told_revisions(alembic.after(seen.stamped or seen.database, self.steps, command))
        changes += [
            Change(
                f"revision {alembic.told_step(step)}",
                sql_of(step) if command == "downgrade" else None,
                sql_of(step) if command == "upgrade" else None,
                lambda: None,
            )
            for step in self.steps
        ]
        apply = self._upgrade if command == "upgrade" else self._downgrade
        return [*changes, Change(shown, before, after, lambda: apply(options, observed))]

    def _stamp(self, app: alembic.App, seen: alembic.Inspection, revision: str) -> None:
        self.outcome = alembic.stamp(app, seen, revision)

    def _upgrade(self, options: Options, observed: Observed) -> None:
        app = observed.app
        self.outcome = alembic.upgrade(app, observed.seen, self.steps, options["revision"])
        if options["check_models"] and not self.held:
            seen = alembic.inspect(app, dry=False, models=True)
            if seen.differences:
                raise alembic.models_differ(app, seen, applied=True)

    def _downgrade(self, options: Options, observed: Observed) -> None:
        self.outcome = alembic.downgrade(observed.app, observed.seen, options["revision"])

    def report(self, options: Options, observed: Observed) -> t.Dict[str, t.Any]:
        seen, command = observed.seen, options["command"]
        if self.outcome is not None:
            after: t.Sequence[str] = self.outcome.after
        elif command == "stamp":
            after = seen.stamped or seen.database
        else:
            after = alembic.after(seen.stamped or seen.database, self.steps, command)
        return {
            "before": list(seen.database),
            "after": list(after),
            "heads": list(seen.heads),
            "unknown": list(seen.unknown),
            "applied": self.outcome.applied if self.outcome else [],
            "pending": [alembic.brief(step) for step in seen.steps] if command in ("upgrade", "downgrade") else [],
            "sql": {step["revision"]: sql_of(step) for step in seen.steps} if command in ("upgrade", "downgrade") else {},
            "classification": {name: dict(found) for name, found in seen.classification.items()} if command == "upgrade" else {},
            "held": [alembic.brief(step) for step in self.held],
            "versions": dict(seen.versions),
        }


def sql_of(step: t.Mapping[str, t.Any]) -> str:
    """What a migration says to the database, and where that is not all, why."""
    incomplete = f"-- This is not all: {step['incomplete']}." if step.get("incomplete") else ""
    return "\n".join(part for part in (str(step.get("sql") or ""), incomplete) if part) or "-- nothing"


def run(module: AnsibleModule) -> None:
    migration = Migration(module.check_mode)
    guard = alone(module.params) if module.params["command"] != "current" else None
    _runner.run(module, migration.read, migration.plan, migration.report, guard=guard)
