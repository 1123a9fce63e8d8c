# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens inside the app's own environment: Alembic, used as a library.

The text of this file is sent to the environment's interpreter, so it stands alone: the standard library, and Alembic 1.7 or newer with SQLAlchemy 1.4 or
newer, which it imports when it runs. One request comes in; lines of JSON go out on a descriptor of their own, because migrations print.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect as introspection
import io
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import typing as t
import warnings

Request = t.Dict[str, t.Any]
# What a statement in op.execute needs to be for the schema to stay what the other operations say.
NO_DDL = re.compile(r"\s*(INSERT|UPDATE|DELETE|SELECT|COMMENT|SET|ANALYZE|VACUUM|GRANT|PRAGMA)\b", re.IGNORECASE)
LOCK_STATES = ("55P03", "40P01")
CANCELED = "57014"
# What SQLite statements are, by their first word. These change nothing.
READS = ("SELECT", "PRAGMA", "EXPLAIN", "VALUES")
# Before these Python's sqlite3 begins a transaction itself.
ROWS = ("INSERT", "UPDATE", "DELETE", "REPLACE")
# These make or end a transaction, or cannot be in one: SQLite refuses them there, or does nothing and does not say so.
TRANSACTION = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE")
OUTSIDE = re.compile(
    r"BEGIN|ATTACH|DETACH|VACUUM|PRAGMA\s+(?:\w+\.)?(?:auto_vacuum|foreign_keys|journal_mode|locking_mode|page_size|synchronous|wal_checkpoint)\b",
    re.IGNORECASE,
)
COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
# A server that finds that nobody waits for its answer any more undoes what it does. Version 14 is the first that looks.
NOTICE_DEATH = (
    "SELECT set_config('client_connection_check_interval', '2000', false) WHERE current_setting('server_version_num')::integer >= 140000"
)
BATCH = "an SQLite batch operation copies a table that only a live database can show"


class Stop(Exception):
    """An end that has a name, which the caller turns into words."""

    def __init__(self, kind: str, **facts: t.Any) -> None:
        super().__init__(kind)
        self.kind = kind
        self.facts = facts


class Driver:
    """One request, from the project's configuration to the answer."""

    def __init__(self, request: Request, tell: t.Callable[[t.Dict[str, t.Any]], None]) -> None:
        self.request = request
        self.tell = tell
        self.connected: t.Optional[str] = None
        self.current_step = ""
        # The connection that migrates, as the driver of the database has it, and whether the transaction that it is in was begun here.
        self.migrating: t.Any = None
        self.ours = False
        self.read_only = bool(request.get("read_only"))
        # Before the project's directory is on the path: many have a directory called alembic.
        self.alembic = self._library("alembic")
        self.config_class = self._library("alembic.config").Config
        self.script_module = self._library("alembic.script")
        self.environment_class = self._library("alembic.runtime.environment").EnvironmentContext
        self.migration = self._library("alembic.runtime.migration")
        self.operations = self._library("alembic.operations")
        self.autogenerate = self._library("alembic.autogenerate")
        self.sqlalchemy = self._library("sqlalchemy")
        sys.path.insert(0, os.getcwd())
        url = request.get("url")
        if url:
            os.environ[request["url_variable"]] = url
        self._watch_connections()

    @staticmethod
    def _library(name: str) -> t.Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise Stop("no_alembic", detail=str(error)) from None

    # Connections ---------------------------------------------------------------------------------------------------------------

    def _watch_connections(self) -> None:
        """Every connection of every engine, whoever makes it and be it asynchronous, gets its limits when it is opened."""
        event = self._library("sqlalchemy.event")
        engine = self._library("sqlalchemy.engine").Engine
        event.listen(engine, "do_connect", self._before_connect)
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "before_cursor_execute", self._before_statement)

    def _before_connect(self, dialect: t.Any, _record: t.Any, cargs: t.List[t.Any], _cparams: t.Any) -> None:
        if dialect.name != "sqlite" or not cargs or self.request["mode"] != "inspect":
            return
        path = str(cargs[0])
        if path and ":memory:" not in path and not path.startswith("file:") and not os.path.exists(path):
            # To ask about a database that is not there must not make it.
            self.connected = os.path.realpath(path)
            cargs[0] = ":memory:"

    def _on_connect(self, connection: t.Any, _record: t.Any) -> None:
        kind = type(connection).__module__ + type(connection).__name__
        statements = []
        if "sqlite" in kind:
            if self.request.get("lock_timeout"):
                statements.append(f"PRAGMA busy_timeout = {int(self.request['lock_timeout'] * 1000)}")
            if self.read_only:
                statements.append("PRAGMA query_only = ON")
        elif any(name in kind for name in ("psycopg", "asyncpg", "pg8000")):
            for name in ("lock_timeout", "statement_timeout"):
                if self.request.get(name):
                    statements.append(f"SET {name} = {int(self.request[name] * 1000)}")
            if self.read_only:
                statements.append("SET default_transaction_read_only = on")
            elif self.request["mode"] != "inspect":
                statements.append(NOTICE_DEATH)
        cursor = connection.cursor()
        try:
            for statement in statements:
                cursor.execute(statement)
        finally:
            cursor.close()
        # SQLAlchemy rolls back what it finds open, and a SET with it.
        connection.commit()

    def _before_statement(self, connection: t.Any, _cursor: t.Any, statement: str, *_more: t.Any) -> None:
        """Change the schema of an SQLite database in a transaction, so that a migration and its revision are in together or not at all.

        SQLite can do that, but Python's sqlite3 begins a transaction only before a change of rows, and what comes first is committed statement by
        statement. As it would be there by then anyway, the transaction that is begun here can be committed early where something would not
        work inside it: a statement that must be outside of one, or another connection that has to see what was made, or to write.
        """
        if self.migrating is None or connection.dialect.name != "sqlite":
            return
        used = connection.connection.dbapi_connection
        if used is not self.migrating:
            self._commit_early()
            return
        bare = COMMENTS.sub("", statement, count=1)
        word = re.split(r"\W", bare, maxsplit=1)[0].upper()
        if OUTSIDE.match(bare):
            self._commit_early()
        if word in ROWS:
            self.ours = False
        elif word not in READS:
            real = connection.connection.driver_connection
            # Python's sqlite3 when nobody has told it to leave transactions to them; other libraries have their own ways.
            usual = getattr(real, "isolation_level", None) is not None and getattr(real, "autocommit", -1) == -1
            if getattr(real, "in_transaction", False):
                self._kept(word in ("COMMIT", "END"))
            elif word not in TRANSACTION and usual:
                cursor = used.cursor()
                # Not DEFERRED: a lock that is wanted halfway is refused at once, however long one would wait.
                cursor.execute("BEGIN IMMEDIATE")
                cursor.close()
                self.ours = True
            else:
                self._kept(word not in TRANSACTION)

    def _commit_early(self) -> None:
        if self.ours:
            self.ours = False
            self.migrating.commit()
            self._kept(True)

    def _kept(self, yes: bool) -> None:
        """Of the revision under way something stays whatever comes next."""
        if yes and self.current_step:
            self.tell({"kept": self.current_step})

    def _where(self, connection: t.Any) -> str:
        """Which database a connection really leads to."""
        text = self.sqlalchemy.text
        if connection.dialect.name == "sqlite":
            rows = connection.execute(text("PRAGMA database_list")).fetchall()
            path = next((row[2] for row in rows if row[1] == "main"), "")
            return os.path.realpath(path) if path else (self.connected or "")
        if connection.dialect.name == "postgresql":
            return str(connection.execute(text("SELECT current_database()")).scalar())
        raise Stop("other_database", detail=connection.dialect.name)

    # The project ---------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def project(self) -> t.Iterator[t.Tuple[t.Any, t.Any]]:
        """Configuration and scripts, inside the app's context where the layout has one."""
        with contextlib.ExitStack() as stack:
            if self.request["layout"] == "flask_migrate":
                app = self._flask_app()
                stack.enter_context(app.app_context())
                config = self._flask_config(app)
            else:
                config = self._plain_config()
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                try:
                    script = self.script_module.ScriptDirectory.from_config(config)
                    list(script.walk_revisions())
                except Exception as error:
                    said = [str(one.message) for one in heard if "Revision " in str(one.message)]
                    raise Stop("broken_chain", detail=". ".join([*said, last_line(error)]), where=frame_of(error)) from error
            said = [
                str(one.message) for one in heard if re.search(r"Revision .* (is not present|is present more than once)", str(one.message))
            ]
            if said:
                raise Stop("broken_chain", detail=". ".join(said), where="")
            yield config, script

    def _plain_config(self) -> t.Any:
        path = self.request["config"]
        takes = introspection.signature(self.config_class.__init__).parameters
        given: t.Dict[str, t.Any] = {"file_": path}
        if "toml_file" in takes and os.path.exists("pyproject.toml"):
            given["toml_file"] = "pyproject.toml"
        config = self.config_class(**given)
        url = self.request.get("url") or os.environ.get(self.request["url_variable"])
        if url:
            if url.startswith("postgres://"):
                url = "postgresql" + url[len("postgres") :]
            scheme, _separator, rest = url.partition("://")
            written = (config.get_main_option("sqlalchemy.url") or "").partition("://")[0]
            # env.py may be written for a driver that the app's own URL does not name.
            if "+" not in scheme and written.partition("+")[0] == scheme:
                url = f"{written}://{rest}"
            config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        return config

    def _flask_app(self) -> t.Any:
        module, _colon, expression = self.request["entrypoint"].partition(":")
        try:
            found = importlib.import_module(module)
            node: t.Any = ast.parse(expression or "app", mode="eval").body
            arguments: t.List[t.Any] = []
            keywords: t.Dict[str, t.Any] = {}
            called = isinstance(node, ast.Call)
            if called:
                arguments = [ast.literal_eval(one) for one in node.args]
                keywords = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
                node = node.func
            for name in ast.unparse(node).split("."):
                found = getattr(found, name)
            app: t.Any = found
            if called or (callable(app) and not hasattr(app, "app_context")):
                app = app(*arguments, **keywords)
        except Exception as error:
            raise Stop("no_app", detail=last_line(error), where=frame_of(error)) from error
        if not hasattr(app, "app_context"):
            raise Stop("no_app", detail=f"it is a {type(app).__name__}, not a Flask app", where="")
        return app

    def _flask_config(self, app: t.Any) -> t.Any:
        extension = app.extensions.get("migrate")
        if extension is None:
            raise Stop("no_app", detail="Flask-Migrate is not set up on it (there is no app.extensions['migrate'])", where="")
        return extension.migrate.get_config(self.request["config"])

    def run(self, config: t.Any, script: t.Any, work: t.Callable[[t.Tuple[str, ...], t.Any], t.Any], **options: t.Any) -> None:
        """Run env.py once, with ``work`` in the place where migrations are chosen."""
        calls: t.List[int] = []

        def once(heads: t.Any, context: t.Any) -> t.Any:
            calls.append(1)
            if len(calls) > 1:
                raise Stop("several_databases")
            where = self._where(context.connection)
            expected = self.request["database"]
            if where != expected:
                raise Stop("other_database", detail=where)
            return work(tuple(sorted(heads)) if isinstance(heads, (tuple, list)) else heads, context)

        with self.environment_class(config, script, fn=once, **options):
            script.run_env()
        if not calls:
            raise Stop("no_context")

    # Looking -------------------------------------------------------------------------------------------------------------------

    def look(self) -> t.Dict[str, t.Any]:
        """Where the database and the code are, and what would be done."""
        request = self.request
        with self.project() as (config, script):
            seen: t.Dict[str, t.Any] = {}

            def work(heads: t.Tuple[str, ...], context: t.Any) -> t.Any:
                version = context.version_table
                if not heads:
                    tables = self.sqlalchemy.inspect(context.connection).get_table_names()
                    seen["tables"] = sorted(name for name in tables if name != version and not name.startswith("spatial_ref_sys"))
                seen.update(heads=heads, opts=dict(context.opts), dialect=context.dialect.name)
                seen["transactional"] = bool(context.impl.transactional_ddl)
                # Before that they differ by what is pending.
                if request.get("models") and set(heads) == set(script.get_heads()):
                    seen["differences"] = self._against_models(context)
                return []

            self.run(config, script, work, dont_mutate=True)
            if request.get("prove") and seen.get("tables"):
                seen["proof"] = self._prove(config, script, seen, request["prove"])
            known = {one.revision for one in script.walk_revisions()}
            answer: t.Dict[str, t.Any] = {
                "alembic": str(self.alembic.__version__),
                "sqlalchemy": str(self.sqlalchemy.__version__),
                "database": list(seen["heads"]),
                "heads": sorted(script.get_heads()),
                "unknown": sorted(set(seen["heads"]) - known),
                "known": sorted(known),
                "tables": seen.get("tables", []),
                "transactional": seen["transactional"],
                "differences": seen.get("differences"),
                "proof": seen.get("proof"),
                "steps": [],
            }
            if answer["unknown"]:
                return answer
            start = tuple(seen["heads"])
            if request.get("prove") and answer["tables"]:
                start = tuple(one.revision for one in script.get_revisions(request["prove"]))
                answer["stamped"] = list(start)
            # From here on nothing needs a database, and a migration that opens one of its own gets one that it cannot write to.
            self.read_only = True
            steps = self._steps(script, request["command"], request["revision"], start)
            answer["steps"] = [self._dry(config, script, seen, step) if request.get("dry") else facts_of(step) for step in steps]
            beyond = [one for one in script.walk_revisions() if one.revision in request.get("classify", [])]
            answer["classified"] = [
                self._dry(config, script, seen, self.migration.RevisionStep(script.revision_map, one, True)) for one in reversed(beyond)
            ]
            return answer

    def _steps(self, script: t.Any, command: str, revision: str, start: t.Tuple[str, ...]) -> t.List[t.Any]:
        if command == "current":
            return []
        if command in ("upgrade", "stamp") and revision == "head" and len(script.get_heads()) > 1:
            raise Stop("several_heads", heads=[f"{one.revision} ({doc_of(one)})" for one in script.get_revisions("heads")])
        try:
            if command == "upgrade":
                return list(script._upgrade_revs(revision, start))
            if command == "downgrade":
                return list(script._downgrade_revs(revision, start))
            return list(script._stamp_revs(revision, start))
        except self._library("alembic.util").CommandError as error:
            raise Stop("no_such_revision", detail=str(error)) from error

    def _dry(
        self, config: t.Any, script: t.Any, seen: t.Dict[str, t.Any], step: t.Any, keep: t.Optional[t.List[t.Any]] = None
    ) -> t.Dict[str, t.Any]:
        """One step without a database: its operations, its SQL, and why either is incomplete."""
        facts = facts_of(step)
        if not hasattr(step, "revision") or step.migration_fn is None or type(step).__name__ == "StampStep":
            return {**facts, "operations": [], "sql": "", "incomplete": ""}
        buffer = io.StringIO()
        recorded: t.List[t.Dict[str, t.Any]] = []
        incomplete: t.List[str] = []
        url = self._library("sqlalchemy.engine.url").make_url(f"{seen['dialect']}://")
        dialect = url.get_dialect()(paramstyle="named")
        kept = ("target_metadata", "version_table", "version_table_schema", "render_as_batch", "include_schemas", "user_module_prefix")
        opts = {name: seen["opts"][name] for name in kept if name in seen["opts"]}
        context = self.migration.MigrationContext.configure(
            dialect=dialect, opts={**opts, "as_sql": True, "output_buffer": buffer, "literal_binds": True}
        )
        base = next(one for one in self.operations.Operations.__mro__ if "invoke" in vars(one))
        batch = self._library("alembic.operations.batch").BatchOperationsImpl
        invoke, flush = base.invoke, batch.flush

        def record(operations: t.Any, operation: t.Any) -> t.Any:
            if keep is not None:
                keep.append(operation)
            recorded.append(describe(operation, dialect))
            return invoke(operations, operation)

        def offline_flush(implementation: t.Any) -> None:
            if implementation.copy_from is None and implementation._should_recreate():
                incomplete.append(BATCH)
                return
            flush(implementation)

        base.invoke, batch.flush = record, offline_flush
        failed = ""
        try:
            with self.environment_class(config, script, as_sql=True) as environment:
                environment._migration_context = context
                with self.operations.Operations.context(context):
                    step.migration_fn()
        except Exception as error:
            # What follows was not seen, so nothing can be said about the whole.
            failed = f"it cannot run without a database: {last_line(error)}"
        finally:
            base.invoke, batch.flush = invoke, flush
        return {
            **facts,
            "operations": recorded,
            "sql": buffer.getvalue().strip(),
            "incomplete": failed or "; ".join(incomplete),
            "unseen": failed,
        }

    # Comparing -----------------------------------------------------------------------------------------------------------------

    def _against_models(self, context: t.Any) -> t.List[str]:
        metadata = context.opts.get("target_metadata")
        if metadata is None:
            raise Stop("no_models")
        return self._differences(context, metadata)

    def _differences(self, context: t.Any, metadata: t.Any) -> t.List[str]:
        # Alembic before 1.12 compares no types unless told to.
        if context._user_compare_type is False:
            context._user_compare_type = True
        produced = self.autogenerate.produce_migrations(context, metadata)
        return [line for one in produced.upgrade_ops.as_diffs() for line in tell_difference(one)]

    def _prove(self, config: t.Any, script: t.Any, seen: t.Dict[str, t.Any], revision: str) -> t.Dict[str, t.Any]:
        """Whether the schema is what the migrations up to a revision make: of the newest one the models know more than can be followed here."""
        try:
            wanted = {one.revision for one in script.get_revisions(revision)}
        except Exception as error:
            raise Stop("no_such_revision", detail=last_line(error)) from error
        metadata, against = seen["opts"].get("target_metadata"), "the models"
        schema = Schema(self.sqlalchemy)
        if wanted != set(script.get_heads()) or metadata is None:
            against = "the migrations"
            for step in self._steps(script, "upgrade", revision, ()):
                operations: t.List[t.Any] = []
                dry = self._dry(config, script, seen, step, operations)
                if dry.get("unseen"):
                    schema.unprovable.append(f"{dry['revision']}: {dry['unseen']}")
                for operation in operations:
                    try:
                        schema.take(operation, dry["revision"])
                    except Exception as error:
                        schema.unprovable.append(f"{dry['revision']}: {told(operation)} could not be followed ({last_line(error)})")
            if schema.unprovable:
                return {"differences": [], "unprovable": schema.unprovable, "against": against}
            metadata = schema.metadata()
        differences: t.List[str] = []

        def compare(_heads: t.Any, context: t.Any) -> t.Any:
            differences.extend(self._differences(context, metadata))
            return []

        self.run(config, script, compare, dont_mutate=True)
        return {"differences": differences, "unprovable": [], "against": against}

    # Doing ---------------------------------------------------------------------------------------------------------------------

    def apply(self) -> t.Dict[str, t.Any]:
        request = self.request

        def work(heads: t.Tuple[str, ...], context: t.Any) -> t.Any:
            self.migrating = context.connection.connection.dbapi_connection
            if list(heads) != sorted(request["expected"]):
                raise Stop("moved", found=list(heads))
            if request["mode"] == "stamp":
                return script._stamp_revs(request["revision"], heads)
            chosen = self._steps(script, request["mode"], request["revision"], heads)
            if "count" in request:
                chosen = chosen[: request["count"]]
            return self._timed(chosen)

        with self.project() as (config, script):
            self.run(config, script, work)
        return {}

    def _timed(self, steps: t.Sequence[t.Any]) -> t.Iterator[t.Any]:
        for step in steps:
            revision = step.revision.revision
            self.current_step, self.ours = revision, False
            self.tell({"begun": revision})
            began = time.monotonic()
            yield step
            # Alembic asks for the next one when this one's row is written.
            self.tell({"done": revision, "seconds": round(time.monotonic() - began, 3)})
        self.current_step = ""


class Schema:
    """What the operations of migrations make, followed without a database."""

    def __init__(self, sqlalchemy: t.Any) -> None:
        self.sa = sqlalchemy
        self.tables: t.Dict[str, t.Dict[str, t.Any]] = {}
        self.unprovable: t.List[str] = []

    def take(self, operation: t.Any, revision: str) -> None:
        name = type(operation).__name__
        handler = getattr(self, f"_{name}", None)
        if name in ("BulkInsertOp", "CreateTableCommentOp", "DropTableCommentOp", "CreateCheckConstraintOp"):
            return
        if name == "ExecuteSQLOp" and NO_DDL.match(str(operation.sqltext)):
            return
        if handler is None or getattr(operation, "schema", None):
            self.unprovable.append(f"{revision}: what {told(operation)} makes cannot be followed")
            return
        handler(operation)

    def _table(self, name: str) -> t.Dict[str, t.Any]:
        return self.tables[str(name)]

    def _CreateTableOp(self, operation: t.Any) -> None:
        table = operation.to_table()
        self.tables[str(table.name)] = {
            "columns": {column.name: column._copy() for column in table.columns},
            "constraints": [one for one in table.constraints if type(one).__name__ != "CheckConstraint"],
            "indexes": {},
        }
        for index in table.indexes:
            self.tables[str(table.name)]["indexes"][index.name] = ([column.name for column in index.columns], index.unique)
        for column in self.tables[str(table.name)]["columns"].values():
            column.index = column.unique = None
            column.foreign_keys.clear()
        self.tables[str(table.name)]["constraints"] = [constraint_facts(one) for one in self.tables[str(table.name)]["constraints"]]

    def _DropTableOp(self, operation: t.Any) -> None:
        del self.tables[str(operation.table_name)]

    def _RenameTableOp(self, operation: t.Any) -> None:
        self.tables[str(operation.new_table_name)] = self.tables.pop(str(operation.table_name))

    def _AddColumnOp(self, operation: t.Any) -> None:
        column = operation.column._copy()
        if column.foreign_keys:
            for key in column.foreign_keys:
                self._table(operation.table_name)["constraints"].append(("foreign key", key.name, [column.name], [key._get_colspec()]))
            column.foreign_keys.clear()
        if column.unique or column.index:
            raise ValueError("the column is unique or indexed")
        self._table(operation.table_name)["columns"][column.name] = column

    def _DropColumnOp(self, operation: t.Any) -> None:
        table = self._table(operation.table_name)
        del table["columns"][str(operation.column_name)]
        table["constraints"] = [one for one in table["constraints"] if str(operation.column_name) not in one[2]]
        table["indexes"] = {name: one for name, one in table["indexes"].items() if str(operation.column_name) not in one[0]}

    def _AlterColumnOp(self, operation: t.Any) -> None:
        columns = self._table(operation.table_name)["columns"]
        column = columns[str(operation.column_name)]
        if operation.modify_nullable is not None:
            column.nullable = operation.modify_nullable
        if operation.modify_type is not None:
            column.type = self.sa.types.to_instance(operation.modify_type)
        if operation.modify_name is not None:
            raise ValueError("a column is renamed")

    def _CreateIndexOp(self, operation: t.Any) -> None:
        index = operation.to_index()
        self._table(operation.table_name)["indexes"][index.name] = ([column.name for column in index.columns], index.unique)

    def _DropIndexOp(self, operation: t.Any) -> None:
        for table in self.tables.values():
            table["indexes"].pop(operation.index_name, None)

    def _CreateUniqueConstraintOp(self, operation: t.Any) -> None:
        self._table(operation.table_name)["constraints"].append(constraint_facts(operation.to_constraint()))

    def _CreateForeignKeyOp(self, operation: t.Any) -> None:
        self._table(operation.source_table)["constraints"].append(constraint_facts(operation.to_constraint()))

    def _DropConstraintOp(self, operation: t.Any) -> None:
        table = self._table(operation.table_name)
        left = [one for one in table["constraints"] if one[1] != operation.constraint_name]
        if len(left) == len(table["constraints"]) and operation.constraint_type != "check":
            raise ValueError(f"there is no constraint {operation.constraint_name}")
        table["constraints"] = left

    def metadata(self) -> t.Any:
        made = self.sa.MetaData()
        for name, facts in self.tables.items():
            table = self.sa.Table(name, made, *facts["columns"].values())
            for kind, constraint, columns, targets in facts["constraints"]:
                if kind == "primary key":
                    table.append_constraint(self.sa.PrimaryKeyConstraint(*columns, name=constraint))
                elif kind == "unique":
                    table.append_constraint(self.sa.UniqueConstraint(*columns, name=constraint))
                else:
                    table.append_constraint(self.sa.ForeignKeyConstraint(columns, targets, name=constraint))
            for index, (columns, unique) in facts["indexes"].items():
                self.sa.Index(index, *[table.c[column] for column in columns], unique=unique)
        return made


def constraint_facts(constraint: t.Any) -> t.Tuple[str, t.Any, t.List[str], t.List[str]]:
    kind = {"PrimaryKeyConstraint": "primary key", "UniqueConstraint": "unique", "ForeignKeyConstraint": "foreign key"}[
        type(constraint).__name__
    ]
    if kind == "foreign key":
        return kind, constraint.name, list(constraint.column_keys), [element._get_colspec() for element in constraint.elements]
    return kind, constraint.name, [column.name for column in constraint.columns], []


# Words -----------------------------------------------------------------------------------------------------------------------------


def doc_of(revision: t.Any) -> str:
    return str(revision.doc or "").splitlines()[0] if revision.doc else ""


def facts_of(step: t.Any) -> t.Dict[str, t.Any]:
    one = getattr(step, "revision", None)
    if one is None:
        return {"revision": str(getattr(step, "to_", "")), "down_revision": None, "doc": "stamp"}
    down = one.down_revision
    return {"revision": one.revision, "down_revision": list(down) if isinstance(down, (tuple, list)) else down, "doc": doc_of(one)}


def type_facts(value: t.Any, dialect: t.Any) -> t.Optional[t.Dict[str, t.Any]]:
    if value is None:
        return None
    instance = value() if isinstance(value, type) else value
    try:
        written = str(instance.compile(dialect=dialect))
    except Exception:
        written = repr(instance)
    return {"sql": written, "family": type(instance).__visit_name__, "length": getattr(instance, "length", None)}


def describe(operation: t.Any, dialect: t.Any) -> t.Dict[str, t.Any]:
    """An operation as plain data: what the classification needs of it."""
    found: t.Dict[str, t.Any] = {"op": type(operation).__name__}
    for name in ("table_name", "new_table_name", "source_table", "column_name", "index_name", "constraint_name", "constraint_type"):
        value = getattr(operation, name, None)
        if value is not None:
            found[name] = str(value)
    if found["op"] in ("CreateIndexOp", "DropIndexOp"):
        unique = getattr(operation, "unique", None)
        found["unique"] = (getattr(operation, "kw", None) or {}).get("unique") if unique is None else unique
    if found["op"] == "AddColumnOp":
        column = operation.column
        found["column_name"] = column.name
        found["nullable"] = bool(column.nullable)
        given = (column.server_default, getattr(column, "computed", None), getattr(column, "identity", None))
        found["default"] = any(one is not None for one in given) or column.type.__class__.__name__ in ("SERIAL", "BIGSERIAL")
        found["unique"] = bool(column.unique)
    if found["op"] == "AlterColumnOp":
        found["nullable"] = operation.modify_nullable
        default = operation.modify_server_default
        found["default"] = "kept" if default is False else "removed" if default is None else "set"
        found["name"] = str(operation.modify_name) if operation.modify_name is not None else None
        found["type"] = type_facts(operation.modify_type, dialect)
        found["existing_type"] = type_facts(operation.existing_type, dialect)
    if found["op"] == "ExecuteSQLOp":
        statement = operation.sqltext
        try:
            found["sql"] = str(statement if isinstance(statement, str) else statement.compile(dialect=dialect))
        except Exception:
            found["sql"] = str(statement)
    if found["op"] == "BulkInsertOp":
        found["table_name"] = str(operation.table.name)
    return found


def told(operation: t.Any) -> str:
    if type(operation).__name__ == "ExecuteSQLOp":
        return "op.execute(" + " ".join(str(operation.sqltext).split())[:60] + ")"
    return type(operation).__name__


def tell_difference(difference: t.Any) -> t.List[str]:
    """One of Alembic's differences in words, seen from the database: what would have to be done to it."""
    if isinstance(difference, list):
        return [line for one in difference for line in tell_difference(one)]
    kind = difference[0]
    if kind.startswith("modify_"):
        _kind, _schema, table, column, _existing, old, new = difference
        return [f"{kind} {table}.{column}: {old!r} in the database, {new!r} expected"]
    subject = difference[-1]
    if kind.endswith("_column"):
        return [f"{kind} {difference[2]}.{subject.name}"]
    table = getattr(getattr(subject, "table", None), "name", None)
    name = getattr(subject, "name", None)
    if kind.endswith(("_index", "_constraint", "_fk")):
        columns = ", ".join(str(getattr(one, "name", one)) for one in getattr(subject, "columns", []) or [])
        return [f"{kind} {name or '(unnamed)'} on {table}({columns})"]
    return [f"{kind} {name or subject}"]


def last_line(error: BaseException) -> str:
    """What happened, in one line or few, without the values that a statement was given: they may be anybody's data."""
    original = getattr(error, "orig", None)
    if original is not None:
        statement = " ".join(str(getattr(error, "statement", "") or "").split())
        return f"{type(original).__name__}: {str(original).strip()}" + (f" [SQL: {statement[:300]}]" if statement else "")
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def frame_of(error: t.Optional[BaseException]) -> str:
    """The place in the app's own files where it happened."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__ if error else None):
        if "site-packages" not in frame.filename and not frame.filename.startswith(("<", sys.base_prefix + "/lib", "alembic_driver")):
            found = f"{os.path.relpath(frame.filename)} line {frame.lineno}: {frame.line}"
    return found


def has_state(error: t.Optional[BaseException], *states: str) -> bool:
    """Whether PostgreSQL gave one of these states for it, or for what led to it."""
    while error is not None:
        original = getattr(error, "orig", None) or error
        if any(getattr(original, name, None) in states for name in ("pgcode", "sqlstate")):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_lock_timeout(error: t.Optional[BaseException]) -> bool:
    """Whether somebody else's lock was in the way, so that trying again may help."""
    if has_state(error, *LOCK_STATES):
        return True
    while error is not None:
        original = getattr(error, "orig", None) or error
        if "database is locked" in str(original) or "canceling statement due to lock timeout" in str(original):
            return True
        error = error.__cause__ or error.__context__
    return False


def die_with_the_caller(descriptor: int) -> None:
    """The lock that lets this migration run is the caller's: when the caller is gone, so is the right to go on."""

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(request: Request) -> None:
    sys.dont_write_bytecode = True
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    caller = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    die_with_the_caller(caller)
    sys.path[:] = [path for path in sys.path if path]

    def tell(value: t.Dict[str, t.Any]) -> None:
        output.write(json.dumps(value, default=str) + "\n")
        output.flush()

    driver = None
    try:
        driver = Driver(request, tell)
        tell({"result": driver.look() if request["mode"] == "inspect" else driver.apply()})
    except Stop as stop:
        tell({"error": {"kind": stop.kind, **stop.facts}})
    except BaseException as error:
        # Also SystemExit, which env.py may raise.
        tell(
            {
                "error": {
                    "kind": "failed",
                    "revision": driver.current_step if driver else "",
                    "detail": last_line(error),
                    "where": frame_of(error),
                    "lock": is_lock_timeout(error),
                    "canceled": has_state(error, CANCELED),
                    "read_only": "read-only" in str(error) or "readonly" in str(error),
                }
            }
        )


if __name__ == "__driver__":
    main(globals()["request"])
