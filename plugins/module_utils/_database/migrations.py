# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The migrations of a release, whatever they are written in: what is pending and of what kind, up, and down again.

A release's own code is asked, in its own environment, for the database that its own environment names.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import asdict, dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import alembic, classify, ledger, sql_files, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.migrating import sql_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout, reserved
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Options

# Options that every phase that migrates has.
SPEC: t.Dict[str, t.Any] = {
    "migrations": {"type": "str", "choices": ["alembic", "flask_migrate", "sql"], "required": True},
    "path": {"type": "str", "default": ""},
    "url_variable": {"type": "str", "default": "DATABASE_URL"},
    "entrypoint": {"type": "str", "required": True},
    "user": {"type": "str", "required": True},
    "group": {"type": "str", "required": True},
    "lock_timeout": {"type": "int", "default": 5},
    "statement_timeout": {"type": "int", "default": 0},
    "lock_retries": {"type": "int", "default": 5},
    "check_models": {"type": "bool", "default": False},
    "untracked": {"type": "str", "choices": ["refuse", "stamp", "ignore"], "default": "refuse"},
    "untracked_revision": {"type": "str", "default": "head"},
}

# Seconds to wait for somebody else who migrates the same database: another app's deploy, a person.
PATIENCE = 60.0


@dataclass(frozen=True)
class Pending:
    """:param kind: ``expanding``, ``contracting`` or ``unknown``.
    :param why: What makes it so, a line each.
    """

    revision: str
    kind: str
    why: t.Sequence[str] = ()

    def describe(self) -> str:
        return f"{self.revision}: {self.kind}" + (f" ({'; '.join(self.why)})" if self.why else "")

    def as_dict(self) -> t.Dict[str, t.Any]:
        return asdict(self)


@dataclass(frozen=True)
class Applied:
    """:param before: The revision below it; empty for the first."""

    revision: str
    before: str
    seconds: float

    def as_dict(self) -> t.Dict[str, t.Any]:
        return asdict(self)


@dataclass(frozen=True)
class Status:
    """:param before: The revision that the database is at; empty when it has none.
    :param sql: What is pending, as the database would be told.
    :param stamp: The revision that a database without one has been proven to have, and that is to be written down first.
    """

    before: str
    pending: t.Sequence[Pending] = field(default_factory=list)
    sql: str = ""
    stamp: str = ""


class Migrations:
    """One release's."""

    database: url.Database

    def alone(self) -> t.ContextManager[None]:
        """Be the only one who migrates this database while the block runs."""
        raise NotImplementedError

    def status(self, dry: bool = False) -> Status:
        """:param dry: Take care that nothing is written, not even a lock file."""
        raise NotImplementedError

    def revision(self) -> str:
        """The revision that the database is at; empty when it has none."""
        return self.status().before

    def stamp(self) -> None:
        """Write down the revision that a database without one has been proven to have."""
        raise NotImplementedError

    def upgrade(self, to: str) -> t.List[Applied]:
        """Apply what is pending up to a revision. A Failure has ``applied``: the revisions that are in."""
        raise NotImplementedError

    def downgrade(self, to: str) -> t.List[str]:
        """Undo everything above a revision; the revisions that are out, the newest first."""
        raise NotImplementedError


def of_release(options: Options, layout: Layout, release: str, serves: bool) -> Migrations:
    """:param serves: What serves has the ``.env`` that it was switched with; what is to serve gets it as it is now."""
    directory = layout.release(release)
    files = [layout.current_environment if serves else layout.dotenv, reserved(directory, "environment")]
    database = url.database_of({"url": None, "environment_files": files, "url_variable": options["url_variable"], "directory": directory})
    if options["migrations"] == "sql":
        return SqlFiles(database, f"{directory}/{options['path'] or 'sql'}", options)
    return Alembic(
        alembic.App(
            database=database,
            python=reserved(directory, "venv/bin/python"),
            project=directory,
            user=options["user"],
            group=options["group"],
            environment_files=tuple(files),
            variable=options["url_variable"],
            layout=options["migrations"],
            config=options["path"],
            entrypoint=options["entrypoint"],
            lock_timeout=options["lock_timeout"],
            statement_timeout=options["statement_timeout"],
            retries=options["lock_retries"],
            writable=(layout.shared,),
        ),
        options["check_models"],
        options["untracked"],
        options["untracked_revision"],
    )


@dataclass
class Alembic(Migrations):
    """Alembic and Flask-Migrate."""

    app: alembic.App
    check_models: bool
    untracked: str
    untracked_revision: str

    @property
    def database(self) -> url.Database:  # type: ignore[override]
        return self.app.database

    def alone(self) -> t.ContextManager[None]:
        return alembic.alone(self.app, PATIENCE)

    def status(self, dry: bool = False) -> Status:
        prove = self.untracked_revision if self.untracked == "stamp" else ""
        seen = alembic.inspect(self.app, command="upgrade", models=self.check_models, prove=prove, read_only=dry)
        if seen.unknown:
            raise alembic.unknown_revision(self.app, seen)
        if seen.tables and self.untracked == "refuse":
            raise alembic.untracked(self.app, seen)
        problem = alembic.unproven(self.app, seen, prove) if seen.tables and prove else None
        if problem is not None:
            raise problem
        if seen.differences:
            raise alembic.models_differ(self.app, seen, applied=False)
        found = alembic.lint(seen.steps) if isinstance(self.app.database, url.Postgres) else {}
        pending = []
        for step in seen.steps:
            judged = seen.classification[step["revision"]]
            pending.append(Pending(step["revision"], judged["kind"], [*judged["why"], *found.get(step["revision"], ())]))
        stamp = ",".join(seen.stamped) if seen.tables and prove else ""
        return Status(",".join(seen.database), pending, "\n".join(sql_of(step) for step in seen.steps), stamp)

    def stamp(self) -> None:
        seen = alembic.inspect(self.app, command="upgrade", prove=self.untracked_revision)
        alembic.stamp(self.app, seen, self.untracked_revision)

    def upgrade(self, to: str) -> t.List[Applied]:
        seen = alembic.inspect(self.app, command="upgrade")
        names = [step["revision"] for step in seen.steps]
        outcome = alembic.upgrade(self.app, seen, seen.steps[: names.index(to) + 1])
        return [Applied(one["revision"], _below(one["down_revision"]), one["seconds"]) for one in outcome.applied]

    def downgrade(self, to: str) -> t.List[str]:
        to = to or "base"
        outcome = alembic.downgrade(self.app, alembic.inspect(self.app, command="downgrade", revision=to), to)
        return [one["revision"] for one in outcome.applied]


def _below(revisions: t.Any) -> str:
    return revisions if isinstance(revisions, str) else ",".join(revisions or ())


class SqlFiles(Migrations):
    """A directory of numbered SQL files."""

    def __init__(self, database: url.Database, directory: str, options: Options) -> None:
        self.database = database
        self.directory = directory
        self.run = options["run"]
        self.retries = options["lock_retries"]
        self.store = sql_files.store_of(
            database, sql_files.LEDGER, sql_files.Limits(options["lock_timeout"], options["statement_timeout"], self.retries)
        )

    @contextlib.contextmanager
    def alone(self) -> t.Iterator[None]:
        with self.store.alone(PATIENCE):
            yield

    def _steps(self) -> t.Tuple[str, t.List[ledger.Step]]:
        entries = self.store.entries() or []
        newest = max(entries, key=lambda one: one.number).name if entries else ""
        return newest, ledger.steps(ledger.files_of(self.directory), entries, self.database.kind)

    def status(self, dry: bool = False) -> Status:
        before, steps = self._steps()
        made, pending = classify.Made(), []
        for step in steps:
            kind, why = classify.judge_sql(step.file.text, made)
            pending.append(Pending(step.file.name, kind, [why]))
        return Status(before, pending, "\n".join(step.file.text for step in steps))

    def upgrade(self, to: str) -> t.List[Applied]:
        before, steps = self._steps()
        applied: t.List[Applied] = []
        for step in steps:
            try:
                seconds = self.store.apply(step, self.run, self.retries)
            except Failure as failure:
                stands = ledger.where_it_stands(steps, [one.revision for one in applied], step.file.name)
                raise Failure(f"{failure.what}\n{stands}", fix=failure.fix, applied=[one.as_dict() for one in applied]) from failure
            applied.append(Applied(step.file.name, before, seconds))
            before = step.file.name
            if step.file.name == to:
                break
        return applied

    def downgrade(self, to: str) -> t.List[str]:
        raise Failure(
            "SQL files have no way back.", fix="Choose app_rollback_schema=restore, or write a new file that undoes what is in the way."
        )
