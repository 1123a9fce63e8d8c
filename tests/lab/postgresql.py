# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real PostgreSQL server on a lab host."""

from __future__ import annotations

import re
import time
import urllib.parse

from lab.hosts import Host


class Server:
    """PostgreSQL, as Debian sets it up, on a lab host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self) -> None:
        self.host.run(["systemctl", "start", "postgresql"])
        deadline = time.monotonic() + 30
        while self.host.run(["pg_isready", "--quiet"], check=False).returncode:
            assert time.monotonic() < deadline, "PostgreSQL does not accept connections."
            time.sleep(0.1)

    def stop(self) -> None:
        self.host.run(["systemctl", "stop", "postgresql"])

    @property
    def version(self) -> int:
        """The major version."""
        found = re.search(r"PostgreSQL\) (\d+)", self.host.run(["psql", "--version"]).stdout)
        assert found is not None
        return int(found[1])

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser; rows as unaligned text, one a line."""
        argv = ["psql", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname", database]
        return self.host.run(argv, user="postgres", stdin=statements).stdout.strip()

    def create(self, name: str, password: str = "pa@:/?#%ss") -> str:
        """A fresh database with an owner of the same name; the URL that the app would have, over TCP with the password."""
        self.drop(name)
        quoted = password.replace("'", "''")
        self.sql(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{quoted}'")
        self.sql(f'CREATE DATABASE "{name}" OWNER "{name}"')
        return f"postgresql://{name}:{urllib.parse.quote(password, safe='')}@127.0.0.1:5432/{name}"

    def drop(self, name: str) -> None:
        """The role and every database it owns: a restore keeps the one that it replaces."""
        owned = self.sql(f"SELECT datname FROM pg_database JOIN pg_roles ON pg_roles.oid = datdba WHERE rolname = '{name}'")
        for database in {name, *owned.splitlines()}:
            self.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.sql(f'DROP ROLE IF EXISTS "{name}"')
