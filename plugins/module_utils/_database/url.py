# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which database is meant: an SQLAlchemy URL, taken apart.

https://docs.sqlalchemy.org/en/20/core/engines.html#database-urls says how they are written. Nothing here ever puts a password into a message.
"""

from __future__ import annotations

import os
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environment_file
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

HELP = (
    "Write it as sqlite:////absolute/path.db or postgresql://user:password@host:5432/name, with @ : / ? # % of a password percent-encoded."
)


@dataclass(frozen=True)
class Sqlite:
    """An SQLite database: one file, and ``-wal`` and ``-shm`` beside it."""

    path: str
    kind: t.ClassVar[str] = "sqlite"

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def shown(self) -> str:
        """What a person may see."""
        return self.path


@dataclass(frozen=True)
class Postgres:
    """A database on a PostgreSQL server. An empty host is the server's Unix socket."""

    name: str
    host: str = ""
    port: int = 5432
    user: str = ""
    password: str = field(default="", repr=False)
    options: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    kind: t.ClassVar[str] = "postgresql"

    @property
    def shown(self) -> str:
        """What a person may see."""
        return f"{self.user or '(the account)'}@{self.host or '(socket)'}:{self.port}/{self.name}"

    def environment(self, name: t.Optional[str] = None) -> t.Dict[str, str]:
        """Variables by which libpq's programs find it (libpq-envars), so that no password is on a command line.

        :param name: Another database on the same server.
        """
        found = {"PGDATABASE": name or self.name, "PGPORT": str(self.port), "PGAPPNAME": "bulletproof.deploy", "PGCONNECT_TIMEOUT": "10"}
        given = {"PGHOST": self.host, "PGUSER": self.user, "PGPASSWORD": self.password}
        given.update(
            {f"PG{key.upper()}": self.options[key] for key in ("sslmode", "sslrootcert", "sslcert", "sslkey") if key in self.options}
        )
        return {**found, **{key: value for key, value in given.items() if value}}


Database = t.Union[Sqlite, Postgres]


def parse(text: str, directory: str = "/") -> Database:
    """A database from its URL.

    :param directory: What a relative SQLite path is relative to: the app's working directory.
    """
    scheme, separator, rest = text.strip().partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind not in ("sqlite", "postgresql", "postgres"):
        shown = scheme if separator and scheme.replace("+", "").isalnum() else "a value that is not shown"
        raise Failure(f"The database URL begins with {shown}; allowed are sqlite:// and postgresql://.", fix=HELP)
    if kind == "sqlite":
        path = urllib.parse.unquote(rest.partition("?")[0][1:])
        if not path or path == ":memory:":
            raise Failure("The database URL names an SQLite database in memory, which ends with its process.", fix=HELP)
        return Sqlite(os.path.normpath(os.path.join(directory, path)))
    # The last @ ends the user's part: who forgets to encode one in a password means it like that.
    location, _question, query = rest.partition("?") if "@" not in rest.partition("?")[2] else (rest, "", "")
    userinfo, _at, address = location.rpartition("@")
    hostport, _slash, name = address.partition("/")
    user, _colon, password = userinfo.partition(":")
    host, port = _host_and_port(hostport)
    options = dict(urllib.parse.parse_qsl(query))
    name = urllib.parse.unquote(name)
    if not name:
        raise Failure("The database URL names no database.", fix=HELP)
    return Postgres(
        name=name,
        host=options.pop("host", host),
        port=int(options.pop("port", port)),
        user=urllib.parse.unquote(user),
        password=urllib.parse.unquote(password),
        options=options,
    )


def _host_and_port(text: str) -> t.Tuple[str, str]:
    host, port = text, "5432"
    bracketed = text.startswith("[")
    if (bracketed and "]:" in text) or (not bracketed and ":" in text):
        host, _colon, port = text.rpartition(":")
    if not port.isdigit():
        raise Failure("The port in the database URL is not a number.", fix=HELP)
    return urllib.parse.unquote(host.strip("[]")), port


# Options that every module with a database has; documented by the fragment ``database``.
SPEC: t.Dict[str, t.Any] = {
    "url": {"type": "str", "no_log": True},
    "environment_files": {"type": "list", "elements": "path", "default": []},
    "url_variable": {"type": "str", "default": "DATABASE_URL"},
    "directory": {"type": "path", "default": "/"},
}


def database_of(options: t.Mapping[str, t.Any]) -> Database:
    """The database that a module's options mean: its URL, or the variable of that name in the app's own environment."""
    if options["url"]:
        return parse(options["url"], options["directory"])
    variable, files = options["url_variable"], options["environment_files"]
    found = _environment_file.read(files)
    if not found.get(variable):
        where = ", ".join(files) or "no file (environment_files is empty)"
        raise Failure(f"There is no {variable} in {where}.", fix=f"Set {variable} there, name another variable, or give the url.")
    return parse(found[variable], options["directory"])
