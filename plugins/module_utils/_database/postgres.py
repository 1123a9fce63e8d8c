# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PostgreSQL server: connecting to it, in words where that fails, and running its own client programs.

Two ways lead to a server. One is the role of the database's URL. The other, for what that role may not do, is an account of the host (``postgres``) over
the server's Unix socket, where the server asks the kernel who it is and no password exists.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import subprocess
import typing as t
from dataclasses import replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _tools
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Postgres
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

SOCKETS = ("/run/postgresql", "/tmp")
# Every server has it, and nobody renames or drops it: databases are made, renamed and dropped from there.
MAINTENANCE = "postgres"
LOOPBACK = ("", "localhost", "127.0.0.1", "::1")

# libpq gives no SQLSTATE for a connection that failed, so its words have to do. The first that matches holds.
REASONS: t.Sequence[t.Tuple[str, str, str, str]] = (
    (
        "wrong_password",
        r"password authentication failed|no password supplied|empty password returned",
        "PostgreSQL does not accept the password of {user}, or has no such role: it does not tell which.",
        "Compare the password in the URL with the role's (@ : / ? # % percent-encoded), and look for the role: \\du in psql.",
    ),
    (
        "tls",
        r"does not support SSL|certificate verify failed|SSL error|SSL connection|root certificate file|certificate file|private key file|"
        r"server certificate for|sslmode|SSL off|no encryption",
        "The connection to {shown} fails over its encryption.",
        "Compare sslmode, sslrootcert, sslcert and sslkey of the URL with what the server has and its pg_hba.conf asks for.",
    ),
    (
        "role_absent",
        r'role ".*" does not exist|role ".*" is not permitted to log in',
        "The server of {shown} has no role {user} that may log in.",
        "Create it (CREATE ROLE … LOGIN), or correct the user in the URL.",
    ),
    (
        "database_absent",
        r'database ".*" does not exist',
        "There is no database {name} on the server of {shown}.",
        "Create it (CREATE DATABASE … OWNER …), or correct the name in the URL.",
    ),
    (
        "not_allowed",
        r"no pg_hba\.conf entry|pg_hba\.conf rejects|[Pp]eer authentication failed|[Ii]dent authentication failed|permission denied for database|"
        r"not currently accepting connections",
        "The server does not let {shown} in.",
        "Look at its pg_hba.conf, at the database's CONNECT privilege, and at whether the URL should have a host and a password.",
    ),
    (
        "busy",
        r"too many (clients|connections)|remaining connection slots|starting up|shutting down|in recovery mode",
        "The server of {shown} is there, but takes no connection now.",
        "Wait for it, or raise max_connections.",
    ),
    (
        "unreachable",
        r"translate host name|Name or service not known|Connection refused|No such file or directory|timeout expired|timed out|No route to host|"
        r"Network is unreachable|Connection reset|closed the connection",
        "The PostgreSQL server of {shown} cannot be reached.",
        "Is it running (systemctl status postgresql), and does it listen there (listen_addresses, port, firewall)?",
    ),
)


def explain(said: str, database: Postgres, name: str) -> Failure:
    """Why a connection failed, from what libpq said. Never the password."""
    if database.password:
        said = said.replace(database.password, "***")
    words = {"shown": replace(database, name=name).shown, "user": database.user or "(the account)", "name": name}
    for reason, pattern, what, fix in REASONS:
        if re.search(pattern, said):
            return Failure(f"{what.format(**words)}\n{said.strip()}", fix=fix, reason=reason)
    return Failure(f"The connection to {words['shown']} fails.\n{said.strip()}", fix="Look into the server's log.", reason="unknown")


def over_socket(database: Postgres, account: str) -> Postgres:
    """The same server as an account of this host reaches it."""
    host = database.host if database.host.startswith("/") else ""
    return Postgres(name=database.name, host=host, port=database.port, user=account)


@contextlib.contextmanager
def _effective(account: str) -> t.Iterator[None]:
    """Be an account while connecting: the server asks the kernel for the credentials at the time of connect(2) (unix(7), SO_PEERCRED)."""
    mine = os.geteuid()
    other = uid_of(account) if account else mine
    if other == mine:
        yield
        return
    if mine != 0:
        raise Failure(
            f"Only root can connect as the account {account}; this runs as {pwd.getpwuid(mine).pw_name}.", fix="Use become: true."
        )
    os.seteuid(other)
    try:
        yield
    finally:
        os.seteuid(mine)


def arguments(database: Postgres, name: t.Optional[str] = None) -> t.Dict[str, t.Any]:
    """What libpq needs to know."""
    # Said outright: which directory is meant otherwise depends on who built the library.
    socket = next((place for place in SOCKETS if os.path.isdir(place)), SOCKETS[0])
    found = {
        "dbname": name or database.name,
        "host": database.host or socket,
        "port": database.port,
        "user": database.user,
        "password": database.password,
        "application_name": "bulletproof.deploy",
        "connect_timeout": 10,
    }
    found.update({key: database.options[key] for key in ("sslmode", "sslrootcert", "sslcert", "sslkey") if key in database.options})
    return {key: value for key, value in found.items() if value}


def driver() -> t.Any:
    return _tools.library("psycopg2", "psycopg2-binary>=2.9,<3")


def connect(database: Postgres, name: t.Optional[str] = None, account: str = "") -> t.Any:
    """An autocommit connection.

    :param name: Another database on the same server.
    :param account: Over the Unix socket, as this account of the host.
    """
    psycopg2 = driver()
    target = over_socket(database, account) if account else database
    try:
        with _effective(account):
            connection = psycopg2.connect(**arguments(target, name))
    except psycopg2.OperationalError as error:
        raise explain(str(error), target, name or target.name) from None
    connection.autocommit = True
    return connection


def rows(connection: t.Any, statement: str, values: t.Sequence[t.Any] = ()) -> t.List[t.Tuple[t.Any, ...]]:
    """Run a statement; its rows, if it has any. What the server refuses becomes a Failure in its words."""
    psycopg2 = driver()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) or None)
            return list(cursor.fetchall()) if cursor.description else []
    except psycopg2.Error as error:
        raise Failure(f"PostgreSQL refused: {str(error).strip()}", sqlstate=error.pgcode or "") from error


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    # E'' wherever there is a backslash: it means the same whatever standard_conforming_strings says.
    quoted = text.replace("'", "''")
    return f"'{quoted}'" if "\\" not in text else "E'" + quoted.replace("\\", "\\\\") + "'"


def major(connection: t.Any) -> int:
    return int(connection.server_version) // 10000


def programs(version: int) -> t.List[str]:
    """Where the client programs of a server's version are, or else newer ones: older ones refuse to work with it."""
    there = {int(os.path.basename(os.path.dirname(place))): place for place in glob.glob("/usr/lib/postgresql/[0-9]*/bin")}
    return [f"/usr/pgsql-{version}/bin", *(there[number] for number in sorted(there) if number >= version)]


def program(name: str, version: int) -> str:
    return _tools.program(name, f"postgresql-client-{version}", programs(version))


def command(argv: t.Sequence[str], account: str = "") -> t.List[str]:
    """A client program that ends when its caller does, so that nothing goes on writing behind a run that was killed.

    :param account: Whose credentials the server sees. The program may still read and write what root may: backups are nobody else's to read.
    """
    prefix = [_tools.program("setpriv", "util-linux"), "--pdeathsig=TERM"]
    if account and uid_of(account) != os.geteuid():
        # Without the secure bit, access(2) would answer by the account alone, and pg_restore asks it since version 16.
        capabilities = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
        prefix += [f"--reuid={account}", f"--regid={pwd.getpwnam(account).pw_gid}", "--init-groups", *capabilities]
    return [*prefix, "--", *argv]


class Program:
    """A client program while it runs; it does not outlive the block that it is used in."""

    def __init__(self, argv: t.Sequence[str], database: Postgres, name: t.Optional[str] = None, account: str = "") -> None:
        self.argv = tuple(argv)
        target = over_socket(database, account) if account else database
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self._process = subprocess.Popen(
            command(argv, account),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**inherited, "LC_ALL": "C.UTF-8", **target.environment(name)},
            encoding="utf-8",
            errors="replace",
            umask=0o077,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._process.poll() is None:
            # On SIGTERM it cancels what it asked of the server; on SIGKILL the server would go on with it.
            self._process.terminate()
            try:
                self._process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()

    def wait(self, timeout: float) -> _command.Finished:
        try:
            stdout, stderr = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            name = os.path.basename(self.argv[0])
            raise Failure(
                f"{name} did not finish within {timeout:g} s and was stopped.", fix="Raise timeout, or look what it waits for."
            ) from None
        return _command.Finished(self.argv, self._process.returncode, stdout, stderr)
