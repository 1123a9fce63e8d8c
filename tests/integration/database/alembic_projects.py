# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small projects with migrations, written onto a lab host as a release and its shared directory are."""

from __future__ import annotations

import io
import itertools
import tarfile
import typing as t

from lab.hosts import Host
from lab.modules import Module, Result
from lab.postgresql import Server

COUNT = itertools.count()
INI = "[alembic]\nscript_location = migrations\n"
# What `alembic init` writes, in short, with the URL from the environment.
ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, pool
print("env.py says what nobody asked for")
try:
    from models import metadata
except ImportError:
    metadata = None
engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
"""
# Dies at one of its statements and commits, and tells how many there are once something is changed.
KILLED_ENV = """
import os, signal
from alembic import context
from sqlalchemy import create_engine, event, pool
from sqlalchemy.engine import Engine
at, seen = int(os.environ.get("DIE_AT") or 0), 0
def count():
    global seen
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)
def on_statement(connection, cursor, statement, parameters, executed, many):
    if seen or statement.lstrip().startswith(("CREATE", "INSERT", "ALTER")):
        count()
def on_commit(connection):
    if seen:
        count()
event.listen(Engine, "before_cursor_execute", on_statement)
event.listen(Engine, "after_cursor_execute", on_statement)
event.listen(Engine, "commit", on_commit)
engine = create_engine(os.environ["DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=bool(os.environ.get("EACH")))
    with context.begin_transaction():
        context.run_migrations()
if seen:
    with open("../shared/events", "w") as stream:
        stream.write(str(seen))
"""
ASYNC_ENV = """
import asyncio
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import async_engine_from_config
def migrate(connection):
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
async def main():
    engine = async_engine_from_config(context.config.get_section(context.config.config_ini_section), prefix="sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()
asyncio.run(main())
"""
FLASK_ENV = """
from alembic import context
from flask import current_app
database = current_app.extensions["migrate"].db
with database.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=database.metadata)
    with context.begin_transaction():
        context.run_migrations()
"""
FLASK_APP = """
import os
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
def create_app(kind="production"):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    Migrate(app, SQLAlchemy(app))
    return app
"""
MODELS = """
import sqlalchemy as sa
metadata = sa.MetaData()
sa.Table("item", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(40)), sa.Column("price", sa.Integer))
"""
REVISION = '''"""make {revision}"""
import sqlalchemy as sa
from alembic import op
revision = {revision!r}
down_revision = {down!r}
def upgrade():
    {up}
def downgrade():
    {back}
'''
Revisions = t.Mapping[str, t.Tuple[t.Optional[str], str, str]]


class Project:
    """An app's release, its environment file and its database.

    :param server: None for SQLite.
    """

    def __init__(self, module: Module, host: Host, python: str, server: t.Optional[Server]) -> None:
        self.module, self.host, self.python, self.server = module, host, python, server
        self.name = f"al{next(COUNT)}"
        self.root = f"/srv/{self.name}"
        self.secret = "pa@:/?#%ss"
        host.run(["rm", "-rf", self.root])
        self.host.run(["sh", "-c", f"mkdir -p {self.root}/shared && chown app {self.root}/shared"])
        self.path = f"{self.root}/shared/app.db"
        self.url = f"sqlite:///{self.path}" if server is None else server.create(self.name, self.secret)
        self.set_url(self.url)

    def set_url(self, url: str) -> None:
        self.host.write(f"{self.root}/env", f'DATABASE_URL="{url}"\n', mode="0600")

    def write(self, revisions: Revisions, env: str = ENV, ini: str | None = INI, more: Revisions | None = None, **files: str) -> None:
        """The release, with just these revisions.

        :param more: Those of a second directory.
        """
        content = {name.replace("__", "."): text for name, text in files.items()}
        content["migrations/env.py"] = env
        if ini is not None:
            content["alembic.ini"] = ini
        placed = [("versions", revisions), ("more", more or {})]
        for directory, revision, (down, up, back) in [(directory, *one) for directory, some in placed for one in some.items()]:
            text = REVISION.format(revision=revision, down=down, up=up.replace("\n", "\n    "), back=back.replace("\n", "\n    "))
            content[f"migrations/{directory}/{revision}.py"] = text
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, text in content.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(text.encode()), 0o644
                tar.addfile(entry, io.BytesIO(text.encode()))
        release = f"{self.root}/release"
        self.host.run(["sh", "-c", f"rm -rf {release} && mkdir -p {release} && tar -x -C {release}"], stdin=archive.getvalue())

    def options(self, **options: t.Any) -> dict[str, t.Any]:
        usual = {"project": f"{self.root}/release", "python": self.python, "user": "app", "environment_files": [f"{self.root}/env"]}
        return {**usual, **options}

    def must(self, *flags: str, **options: t.Any) -> Result:
        return self.module.must("alembic_migrate", *flags, **self.options(**options))

    def refused(self, *said: str, **options: t.Any) -> Result:
        result = self.module.refused("alembic_migrate", *said, **self.options(**options))
        assert self.secret not in result["said"]
        return result

    def sql(self, statements: str) -> str:
        if self.server is not None:
            return self.server.sql(f'SET ROLE "{self.name}";\n{statements}', self.name)
        return self.host.run(["sqlite3", self.path], user="app", stdin=statements).stdout.strip()

    def tables(self) -> str:
        if self.server is not None:
            return self.server.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", self.name)
        return self.sql(".tables") if self.host.exists(self.path) else ""

    def database_exists_unless_server(self) -> bool:
        return self.server is None and self.host.exists(self.path)

    def owner(self) -> str:
        return "app" if self.server is not None else self.host.run(["stat", "-c", "%U", self.path]).stdout.strip()
