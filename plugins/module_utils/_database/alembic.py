# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alembic's migrations: where a database and a release's code are, and the way from one to the other.

Alembic itself runs in the app's own environment, as the app's account (``alembic_driver``). Here is what can be said before and after that.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import stat
import tempfile
import time
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _evidence, _sandbox, _tools
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import alembic_driver, one_at_a_time, postgres, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.classify import EXPANDING, classify
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._module_source import source_of

# The driver's text comes with the request: nothing of it is an argument, where systemd would look for variables in it.
BOOTSTRAP = (
    "import json,sys; r=json.loads(sys.stdin.buffer.readline());"
    " exec(compile(r.pop('source'),'alembic_driver','exec'),{'__name__':'__driver__','request':r})"
)
LINES = 12
SQUAWK_SECONDS = 60
FLASK_ENV = re.compile(r"^\s*(?:from flask import .*\bcurrent_app\b|import flask\b)", re.MULTILINE)


@dataclass(frozen=True)
class App:
    """Whose migrations: the code, its environment, the database, and how it is run.

    :param given: The URL where it was given as an option, and is not in the app's own environment.
    :param config: ``alembic.ini``, or Flask-Migrate's directory, relative to the project; looked for when empty.
    :param lock_timeout: Seconds that a statement may wait for a lock; 0 is no limit.
    """

    database: url.Database
    python: str
    project: str
    user: str
    group: str = ""
    environment_files: t.Tuple[str, ...] = ()
    variable: str = "DATABASE_URL"
    given: str = field(default="", repr=False)
    layout: str = "auto"
    config: str = ""
    entrypoint: str = ""
    lock_timeout: float = 5
    statement_timeout: float = 0
    retries: int = 3
    seconds: int = 3600
    writable: t.Tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """Where database and code are.

    :param database: The revisions that the database has; several where branches are.
    :param unknown: Those of them that this code does not have: the database is newer than the code, or another app's.
    :param tables: What is in a database that has no revision.
    :param steps: What the command would run, in order, each with ``revision``, ``down_revision``, ``doc`` and, unless it was not asked for, ``sql``.
    :param differences: Where models and database differ; None when that was not asked.
    :param proof: Whether an untracked schema is what it is said to be.
    """

    database: t.Tuple[str, ...]
    heads: t.Tuple[str, ...]
    known: t.FrozenSet[str]
    unknown: t.Tuple[str, ...] = ()
    tables: t.Tuple[str, ...] = ()
    steps: t.Tuple[t.Mapping[str, t.Any], ...] = ()
    differences: t.Optional[t.Tuple[str, ...]] = None
    proof: t.Optional[t.Mapping[str, t.Any]] = None
    stamped: t.Tuple[str, ...] = ()
    classification: t.Mapping[str, t.Mapping[str, t.Any]] = field(default_factory=dict)
    versions: t.Mapping[str, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Nothing is in the database, so nothing can run on it yet."""
        return not self.database and not self.tables


class LockTimeout(Failure):
    """Somebody else's lock was in the way; the same may work a moment later."""


# What runs ----------------------------------------------------------------------------------------------------------------------------


def layout_of(app: App) -> t.Tuple[str, str]:
    """``alembic`` or ``flask_migrate``, and its configuration relative to the project."""
    if app.layout == "alembic" or (app.layout == "auto" and app.config.endswith((".ini", ".toml"))):
        return "alembic", app.config or "alembic.ini"
    if app.layout == "flask_migrate":
        return "flask_migrate", app.config or "migrations"
    if not app.config and any(os.path.exists(os.path.join(app.project, name)) for name in ("alembic.ini",)):
        return "alembic", "alembic.ini"
    directory = app.config or "migrations"
    try:
        with open(os.path.join(app.project, directory, "env.py"), encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        text = ""
    if FLASK_ENV.search(text):
        return "flask_migrate", directory
    if not app.config and _has_alembic_table(os.path.join(app.project, "pyproject.toml")):
        return "alembic", "alembic.ini"
    raise Failure(
        f"There are no migrations in {app.project}: no alembic.ini, no [tool.alembic] in pyproject.toml, no {directory}/env.py of Flask-Migrate.",
        fix="Name alembic.ini (or Flask-Migrate's directory) in config, relative to project, or set layout.",
    )


def _has_alembic_table(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return re.search(r"^\[tool\.alembic\]", stream.read(), re.MULTILINE) is not None
    except OSError:
        return False


def _command_line(app: App) -> t.List[str]:
    writable = [f"-{path}" for path in app.writable]
    if isinstance(app.database, url.Sqlite):
        writable.append(f"-{os.path.dirname(os.path.realpath(app.database.path))}")
    return _sandbox.command(
        [app.python, "-c", BOOTSTRAP],
        user=app.user,
        group=app.group,
        directory=app.project,
        environment_files=[f"-{path}" for path in app.environment_files],
        writable=writable,
        seconds=app.seconds,
        properties={"UMask": "0027"},
    )


def _secrets(app: App) -> t.Dict[str, str]:
    found = _evidence.secrets_in(app.environment_files)
    if isinstance(app.database, url.Postgres) and app.database.password:
        for form in (app.database.password, urllib.parse.quote(app.database.password, safe=""), urllib.parse.quote(app.database.password)):
            found[form] = "the database's password"
    return found


def _identity(database: url.Database) -> str:
    return os.path.realpath(database.path) if isinstance(database, url.Sqlite) else database.name


def _ask(app: App, **request: t.Any) -> t.Tuple[t.List[t.Dict[str, t.Any]], t.Dict[str, t.Any]]:
    """What the driver told on its way, and its answer, be it an error."""
    layout, config = layout_of(app)
    whole = {
        "source": source_of(alembic_driver.__name__),
        "layout": layout,
        "config": config,
        "entrypoint": app.entrypoint,
        "url": app.given,
        "url_variable": app.variable,
        "database": _identity(app.database),
        "lock_timeout": app.lock_timeout,
        "statement_timeout": app.statement_timeout,
        **request,
    }
    if layout == "flask_migrate" and not app.entrypoint:
        raise Failure(
            "The migrations are Flask-Migrate's, which need the Flask app, and entrypoint is not set.",
            fix="Set entrypoint, such as shop:app or shop:create_app().",
        )
    done = _sandbox.ask(_command_line(app), json.dumps(whole), app.seconds + _sandbox.SLACK)
    told = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            told.append(json.loads(line))
    if told and ("result" in told[-1] or "error" in told[-1]):
        secrets = _secrets(app)
        return told[:-1], json.loads(
            _evidence.redact(json.dumps(told[-1]), {json.dumps(value)[1:-1]: name for value, name in secrets.items()})
        )
    last = _evidence.redact(done.stderr.strip(), _secrets(app)).splitlines()[-LINES:]
    return told, {
        "error": {
            "kind": "died",
            "status": done.rc,
            "detail": "\n  ".join(last) or "it said nothing",
            "revision": next((one["begun"] for one in reversed(told) if "begun" in one), ""),
        }
    }


# Words --------------------------------------------------------------------------------------------------------------------------------


def explain(error: t.Mapping[str, t.Any], app: App) -> Failure:
    """The driver's error in words, each with what to do about it."""
    kind, detail = error["kind"], str(error.get("detail", ""))
    where = f" ({error['where']})" if error.get("where") else ""
    shown = app.database.shown
    if kind == "no_alembic":
        return Failure(
            f"There is no Alembic in the app's environment: {app.python} says {detail}.",
            fix="Add alembic to the app's requirements, or correct python.",
            kind=kind,
        )
    if kind == "several_heads":
        return Failure(
            f"The migrations have {len(error['heads'])} heads: {', '.join(error['heads'])}. Which one the database should get is not said.",
            fix="Merge them (alembic merge heads) and deploy that, or set revision: heads to upgrade all of them.",
            kind=kind,
            heads=error["heads"],
        )
    if kind == "broken_chain":
        return Failure(
            f"The migrations in {app.project} are no unbroken chain: {detail}{where}",
            fix="Bring the missing revision back, or correct down_revision; alembic history shows the chain.",
            kind=kind,
        )
    if kind == "no_such_revision":
        return Failure(
            f"The revision that was asked for cannot be reached: {detail}", fix="alembic history lists what there is.", kind=kind
        )
    if kind == "other_database":
        return Failure(
            f"The migrations' env.py works on {detail or 'another database'}, not on {shown}, which was named (and is what is locked and backed up).",
            fix=f"Let env.py read {app.variable} from the environment, or correct the URL; a relative SQLite path is relative to directory.",
            kind=kind,
        )
    if kind == "several_databases":
        return Failure(
            "The migrations' env.py works on several databases at once.",
            fix="Migrate each one with a configuration of its own: one lock and one backup belong to one database.",
            kind=kind,
        )
    if kind == "no_context":
        return Failure(
            "The migrations' env.py ran no migrations: it never called context.run_migrations().", fix="Correct env.py.", kind=kind
        )
    if kind == "no_models":
        return Failure(
            "check_models is set, and env.py names no models: its target_metadata is None.",
            fix="Set target_metadata in env.py, or take check_models away.",
            kind=kind,
        )
    if kind == "no_app":
        return Failure(
            f"The entry point {app.entrypoint} gives no Flask app for the migrations: {detail}{where}",
            fix="Correct entrypoint (module:app or module:create_app()), the environment or the code.",
            kind=kind,
        )
    if kind == "moved":
        return Failure(
            f"{shown} is at {told_revisions(error['found'])} now: somebody else has migrated it meanwhile, without the lock.",
            fix="Find out who (does the app migrate itself when it starts?), then run this again.",
            kind=kind,
        )
    if kind == "died":
        return Failure(f"The migration's process ended with status {error['status']} and gave no answer:\n  {detail}", kind=kind)
    if error.get("read_only"):
        return Failure(f"{shown} cannot be written to{where}:\n  {detail}", fix=_fix_read_only(app), kind="read_only")
    if error.get("canceled"):
        return canceled(app, f"The migrations failed{where}:\n  {detail}")
    # What a failing library says may be long; its end usually holds the reason.
    last = "\n  ".join(detail.splitlines()[-LINES:])
    make: t.Type[Failure] = LockTimeout if error.get("lock") else Failure
    return make(f"The migrations failed{where}:\n  {last}", fix="Correct the migration, or what it met in the database.", kind=kind)


def canceled(app: App, what: str) -> Failure:
    """A statement that the server gave up, which is the limit that was asked for unless somebody or something else had one."""
    limit = f"statement_timeout ({app.statement_timeout:g} s)" if app.statement_timeout else "the server's own statement_timeout"
    return Failure(
        f"{what}\nOne statement may take as long as {limit} says.",
        fix="Split the migration, so that no statement holds up the app for long: fill rows in batches, build indexes concurrently. Or set a higher"
        " statement_timeout (in a deploy: database_statement_timeout; 0 is no limit of ours).",
        kind="statement_timeout",
    )


def _fix_read_only(app: App) -> str:
    if isinstance(app.database, url.Sqlite):
        return f"The account {app.user} has to be able to write the database and its directory, where SQLite keeps its journal."
    return "In check mode nothing may write; let env.py leave that to the migrations. Otherwise look whether the server is a standby."


def told_revisions(revisions: t.Sequence[str]) -> str:
    return ", ".join(revisions) or "no revision"


def told_step(step: t.Mapping[str, t.Any]) -> str:
    return f"{step['revision']} ({step['doc']})" if step.get("doc") else str(step["revision"])


def unknown_revision(app: App, seen: Inspection) -> Failure:
    return Failure(
        f"{app.database.shown} is at {told_revisions(seen.unknown)}, which this code does not know"
        f" (its newest is {told_revisions(seen.heads)}): the database is newer than the code, or another app's.",
        fix="Deploy code that has that revision; or downgrade with the newer release's code; or restore the backup from before it.",
        kind="unknown_revision",
    )


def untracked(app: App, seen: Inspection) -> Failure:
    some = ", ".join(seen.tables[:8]) + (f" and {len(seen.tables) - 8} more" if len(seen.tables) > 8 else "")
    return Failure(
        f"{app.database.shown} has tables ({some}) and no revision: nobody can tell which migrations are in it.",
        fix="Set untracked: stamp and untracked_revision to the revision whose schema it has; that is proven before it is stamped. (In a deploy:"
        " database_untracked, database_untracked_revision.)",
        kind="untracked",
        tables=list(seen.tables),
    )


def unproven(app: App, seen: Inspection, revision: str) -> t.Optional[Failure]:
    proof = seen.proof or {"differences": [], "unprovable": ["nothing was compared"], "against": ""}
    if proof["unprovable"]:
        lines = "\n".join(f"- {line}" for line in proof["unprovable"])
        return Failure(
            f"Whether the schema of {app.database.shown} is that of revision {revision} cannot be proven. Nothing was changed.\n{lines}",
            fix="Compare it by hand with a database that was migrated to that revision, then set command: stamp.",
            kind="unproven",
        )
    if proof["differences"]:
        lines = "\n".join(f"- {line}" for line in proof["differences"])
        return Failure(
            f"The schema of {app.database.shown} is not that of revision {revision} (compared with {proof['against']}). Nothing was changed.\n{lines}",
            fix="Name the revision that it really has in untracked_revision, or bring the schema there by hand.",
            kind="unproven",
            differences=list(proof["differences"]),
        )
    return None


def models_differ(app: App, seen: Inspection, applied: bool) -> Failure:
    lines = "\n".join(f"- {line}" for line in seen.differences or ())
    state = "The migrations are in, and the schema they made differs from" if applied else "The schema differs from"
    return Failure(
        f"{state} the models of {app.project}, though {app.database.shown} is at the newest revision.\n{lines}",
        fix="Write the missing migration (alembic revision --autogenerate), or take check_models away.",
        kind="models_differ",
        differences=list(seen.differences or ()),
    )


def contracts(app: App, steps: t.Sequence[t.Mapping[str, t.Any]], classification: t.Mapping[str, t.Mapping[str, t.Any]]) -> Failure:
    lines = []
    for step in steps:
        found = classification[step["revision"]]
        lines += [f"- {told_step(step)}: {found['kind']}", *(f"    {why}" for why in found["why"])]
    return Failure(
        "The release that serves now cannot be relied on to run on what these migrations make. Nothing was changed.\n" + "\n".join(lines),
        fix="Deploy first what no longer needs what they take away, then these: contracting: hold leaves them for later; "
        "allow_contracting names the ones that may go now, each with a reason; contracting: allow lets all go.",
        kind="contracting",
        classification={step["revision"]: classification[step["revision"]] for step in steps},
    )


# Looking ------------------------------------------------------------------------------------------------------------------------------


def inspect(
    app: App,
    command: str = "current",
    revision: str = "head",
    dry: bool = True,
    models: bool = False,
    prove: str = "",
    read_only: bool = False,
    classified: t.Sequence[str] = (),
) -> Inspection:
    """Where the database and this code are, and what a command would run. Changes nothing.

    :param dry: Also the operations, SQL and classification of every step.
    :param models: Also compare the database with the models.
    :param prove: The revision whose schema a database without one is said to have.
    :param read_only: Take care that env.py writes nothing either.
    :param classified: Revisions of this code to classify, whether the database has them or not.
    """
    look_at_files(app)
    _told, answer = _ask(
        app,
        mode="inspect",
        command=command,
        revision=revision,
        dry=dry,
        models=models,
        prove=prove,
        read_only=read_only,
        classify=list(classified),
    )
    if "error" in answer:
        raise explain(answer["error"], app)
    found = answer["result"]
    steps = tuple(found["steps"])
    judged = tuple(found.get("classified", ()))
    return Inspection(
        database=tuple(found["database"]),
        heads=tuple(found["heads"]),
        known=frozenset(found["known"]),
        unknown=tuple(found["unknown"]),
        tables=tuple(found["tables"]),
        steps=steps,
        differences=None if found["differences"] is None else tuple(found["differences"]),
        proof=found["proof"],
        stamped=tuple(found.get("stamped", ())),
        classification=classify(judged or steps) if dry else {},
        versions={"alembic": found["alembic"], "sqlalchemy": found["sqlalchemy"]},
    )


def beyond(newer: App, older: App) -> t.Dict[str, t.Dict[str, t.Any]]:
    """What the database has that an older release's code does not know, by revision, classified with a newer release's code.

    Empty: the older code knows all. All of them expanding: it can run. Raises Failure when the newer code does not know the database either.
    """
    known = inspect(older, dry=False).known
    seen = inspect(newer, dry=False)
    if seen.unknown:
        raise unknown_revision(newer, seen)
    back = [
        step["revision"] for step in inspect(newer, command="downgrade", revision="base", dry=False).steps if step["revision"] not in known
    ]
    if not back:
        return {}
    return {name: dict(found) for name, found in inspect(newer, classified=back).classification.items()}


def look_at_files(app: App) -> None:
    """What would otherwise be a library's riddle: a directory that cannot be written, an interpreter that is not there."""
    if not os.path.isdir(app.project):
        raise Failure(f"There is no directory {app.project}.", fix="Correct project: the release's directory.")
    if not os.access(app.python, os.X_OK):
        raise Failure(
            f"There is no interpreter {app.python}.", fix="Correct python: bin/python of the app's environment.", kind="no_alembic"
        )
    uid = uid_of(app.user)
    if not isinstance(app.database, url.Sqlite):
        return
    path = os.path.realpath(app.database.path)
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise Failure(
            f"There is no directory {directory} for the database.", fix="Make it, owned by the app's account, or correct the URL."
        )
    groups = set(os.getgrouplist(app.user, pwd.getpwnam(app.user).pw_gid)) | ({gid_of(app.group)} if app.group else set())
    for one in (directory, path):
        if os.path.exists(one) and not _may_write(one, uid, groups):
            raise Failure(f"{one} cannot be written by the account {app.user}.", fix=_fix_read_only(app), kind="read_only")
    owner = os.stat(path if os.path.exists(path) else directory).st_uid
    if uid == 0 and owner != 0:
        raise Failure(
            f"{app.database.shown} belongs to {pwd.getpwuid(owner).pw_name}, and the migrations would run as root: the app could not write its database "
            "afterwards.",
            fix="Set user to the app's account.",
        )


def _may_write(path: str, uid: int, groups: t.Set[int]) -> bool:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    found = os.stat(path)
    if uid == 0:
        return True
    wanted = stat.S_IWUSR if found.st_uid == uid else stat.S_IWGRP if found.st_gid in groups else stat.S_IWOTH
    return bool(found.st_mode & wanted)


def lint(steps: t.Sequence[t.Mapping[str, t.Any]]) -> t.Dict[str, t.List[str]]:
    """What squawk says to the PostgreSQL of each revision; empty where it is not installed."""
    try:
        program = _tools.program("squawk", "squawk-cli")
    except Failure:
        return {}
    found: t.Dict[str, t.List[str]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for number, step in enumerate(steps):
            if step.get("sql"):
                with open(os.path.join(directory, f"{number}.sql"), "w", encoding="utf-8") as stream:
                    stream.write(step["sql"])
        files = sorted(os.listdir(directory))
        if not files:
            return {}
        # Alembic runs in a transaction where the server can.
        done = _command.run([program, "--reporter", "json", "--assume-in-transaction", *files], timeout=SQUAWK_SECONDS, cwd=directory)
    with contextlib.suppress(ValueError, KeyError):
        for one in json.loads(done.stdout or "[]"):
            revision = steps[int(os.path.basename(one["file"]).partition(".")[0])]["revision"]
            found.setdefault(revision, []).append(f"{one.get('rule_name', 'squawk')}: {one.get('message', '')}".strip())
    return found


# Doing --------------------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone(app: App, wait: float) -> t.Iterator[None]:
    """Be the only one who migrates this database while the block runs; the driver ends when this process does.

    On PostgreSQL the lock is that of a connection of our own, not of the app's: it is held from the first look to the last, over every process in between,
    with whatever driver the app has.
    """
    if isinstance(app.database, url.Sqlite):
        with one_at_a_time.of_file(app.database, wait):
            yield
        return
    connection = _connect(app)
    try:
        one_at_a_time.of_session(connection, app.database, wait)
        yield
    finally:
        connection.close()


def _connect(app: App) -> t.Any:
    """A session as the app would have it: over the server's socket, without a password, the account is who one is."""
    database = t.cast(url.Postgres, app.database)
    if database.password or not (database.host == "" or database.host.startswith("/")):
        return postgres.connect(database)
    return postgres.connect(database, account=app.user)


@dataclass
class Outcome:
    """What was done.

    :param applied: ``{revision, down_revision, doc, seconds}`` in order.
    """

    before: t.Tuple[str, ...]
    after: t.Tuple[str, ...]
    applied: t.List[t.Dict[str, t.Any]] = field(default_factory=list)


def _carry_out(app: App, mode: str, revision: str, before: t.Sequence[str], steps: t.Sequence[t.Mapping[str, t.Any]]) -> Outcome:
    """Run the steps in one go, again where a lock was in the way, and look afterwards what is in."""
    seconds: t.Dict[str, float] = {}
    at, left, attempts = list(before), list(steps), 0
    while True:
        attempts += 1
        told, answer = _ask(app, mode=mode, revision=revision, expected=at, **({} if mode == "stamp" else {"count": len(left)}))
        seconds.update({one["done"]: one["seconds"] for one in told if "done" in one})
        failure = explain(answer["error"], app) if "error" in answer else None
        seen, now = _look_again(app, mode, steps, failure)
        if failure is None and mode != "stamp" and len(now) < len(steps):
            failure = _not_committed(app)
        if failure is None:
            return Outcome(tuple(before), seen.database, [{**brief(step), "seconds": seconds.get(step["revision"], 0.0)} for step in steps])
        failing = str(answer.get("error", {}).get("revision", ""))
        kept = failing not in now and any(one.get("kept") == failing for one in told)
        if not isinstance(failure, LockTimeout) or attempts > app.retries or kept:
            raise _failed(app, mode, failure, failing, kept, before, seen, steps, now, attempts) from None
        left = [step for step in steps if step["revision"] not in now]
        at = sorted(seen.database)
        time.sleep(min(2.0**attempts, 10.0) / 2)


def _not_committed(app: App) -> Failure:
    return Failure(
        f"The migrations of {app.project} ran without an error, and the database does not have them: env.py does not commit.",
        fix="What env.py executes before context.configure() begins a transaction that is then its own to commit: commit it there, or execute it afterwards.",
        kind="not_committed",
    )


def brief(step: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    return {name: step[name] for name in ("revision", "down_revision", "doc")}


def _look_again(
    app: App, mode: str, steps: t.Sequence[t.Mapping[str, t.Any]], failure: t.Optional[Failure]
) -> t.Tuple[Inspection, t.Set[str]]:
    """What the database says now, and which of the steps are done by that."""
    try:
        if mode == "stamp":
            return inspect(app, dry=False), set()
        seen = inspect(app, command=mode, revision="base" if mode == "downgrade" else "heads", dry=False)
    except Failure as second:
        if failure is None:
            raise
        raise Failure(
            f"{failure.what}\nWhich revisions are in could not be read afterwards: {second.what}", fix=failure.fix, **failure.facts
        ) from None
    open_now = {step["revision"] for step in seen.steps}
    return seen, {step["revision"] for step in steps if step["revision"] not in open_now}


def _failed(
    app: App,
    mode: str,
    failure: Failure,
    revision: str,
    kept: bool,
    before: t.Sequence[str],
    seen: Inspection,
    steps: t.Sequence[t.Mapping[str, t.Any]],
    done: t.Set[str],
    attempts: int,
) -> Failure:
    """What a person has to know after a failure midway."""
    into = "taken back" if mode == "downgrade" else "in"
    inside = [step["revision"] for step in steps if step["revision"] in done]
    failing = next((told_step(step) for step in steps if step["revision"] == revision), "")
    lines = [
        f"Failed{f' at {failing}' if failing else ''}{f' after {attempts} attempts' if attempts > 1 else ''}. {failure.what}",
        f"{app.database.shown} was at {told_revisions(before)} and is at {told_revisions(seen.database)}, read again after the failure.",
        f"Of this run's {len(steps)} revisions {into}: {told_revisions(inside) if inside else 'none'}.",
    ]
    if kept:
        lines.append(
            "SQLite has kept a part of the failing one, which left its transaction: what it had changed by then is there, without its revision."
        )
    fix = failure.fix
    if isinstance(failure, LockTimeout):
        lines += holders(app)
        fix = "Let whoever holds the lock end first, or raise lock_timeout and retries."
    elif kept:
        fix += " Restore the backup from before it, or mend by hand what is half there."
    return Failure(
        "\n".join(lines),
        fix=fix,
        kind=str(failure.facts.get("kind", "failed")),
        kept=kept,
        before=list(before),
        after=list(seen.database),
        applied=[brief(step) for step in steps if step["revision"] in done],
        failing=revision,
    )


def holders(app: App) -> t.List[str]:
    """Who holds locks on tables of the database: other people's sessions do not show how long they have lasted, but these they do."""
    if not isinstance(app.database, url.Postgres):
        return []
    with contextlib.suppress(Failure):
        connection = _connect(app)
        try:
            found = postgres.rows(
                connection,
                "SELECT a.pid, a.usename, coalesce(nullif(a.application_name, ''), 'unnamed'), string_agg(DISTINCT l.mode || ' on ' || c.relname, ', ')"
                " FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid = l.relation"
                " WHERE l.granted AND l.locktype = 'relation' AND a.datname = current_database() AND l.pid <> pg_backend_pid()"
                " AND c.relkind IN ('r', 'p', 'm') AND c.relnamespace <> 'pg_catalog'::regnamespace GROUP BY 1, 2, 3 ORDER BY 1 LIMIT 5",
            )
        finally:
            connection.close()
        return [f"Process {pid} of the server ({user}, {name}) holds {locks}." for pid, user, name, locks in found]
    return []


def upgrade(app: App, seen: Inspection, steps: t.Sequence[t.Mapping[str, t.Any]], revision: str = "head") -> Outcome:
    """Apply steps of an inspection with ``command="upgrade"`` (all, or the first of them). Call it inside ``alone``."""
    return _carry_out(app, "upgrade", revision, seen.stamped or seen.database, steps)


def downgrade(app: App, seen: Inspection, revision: str) -> Outcome:
    """Take back the steps of an inspection with ``command="downgrade"``. Call it inside ``alone``."""
    return _carry_out(app, "downgrade", revision, seen.database, seen.steps)


def stamp(app: App, seen: Inspection, revision: str) -> Outcome:
    """Write down a revision and run nothing. Call it inside ``alone``."""
    return _carry_out(app, "stamp", revision, seen.database, ())


def after(before: t.Sequence[str], steps: t.Sequence[t.Mapping[str, t.Any]], command: str) -> t.List[str]:
    """Which revisions a database has when the steps are done."""
    there = set(before)
    for step in steps:
        down = step["down_revision"]
        downs = {down} if isinstance(down, str) else set(down or ())
        gone, come = (downs, {step["revision"]}) if command == "upgrade" else ({step["revision"]}, downs)
        there = (there - gone) | come
    return sorted(there)


# What may be done ---------------------------------------------------------------------------------------------------------------------


def permitted(
    app: App, seen: Inspection, contracting: str, allowed: t.Mapping[str, str]
) -> t.Tuple[t.Tuple[t.Mapping[str, t.Any], ...], t.Tuple[t.Mapping[str, t.Any], ...]]:
    """The steps to apply now, and those that are held back. A Failure where the policy refuses.

    A database without anything in it has no release that runs on it, so all may go.
    """
    for name, reason in allowed.items():
        if not str(reason or "").strip():
            raise Failure(f"allow_contracting: found no reason for {name}; allowed: revision: reason.")
    if contracting == "allow" or seen.empty:
        return seen.steps, ()
    bad = [step for step in seen.steps if seen.classification[step["revision"]]["kind"] != EXPANDING and step["revision"] not in allowed]
    if not bad:
        return seen.steps, ()
    if contracting == "refuse":
        raise contracts(app, bad, seen.classification)
    first = seen.steps.index(bad[0])
    return seen.steps[:first], seen.steps[first:]
