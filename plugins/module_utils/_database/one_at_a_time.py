# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One migration at a time for each database, whoever makes it. The lock ends with the process or the session that holds it."""

from __future__ import annotations

import hashlib
import os
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _mutex
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import postgres, url
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# Made by root, so that no other account can hold the lock of a database.
DIRECTORY = "/run/bulletproof-deploy"
# Advisory locks are each database's own; an app of the same database is not likely to have one of this number ("bulletpr").
KEY = int.from_bytes(b"bulletpr", "big")
POLL = 0.2


def of_file(database: url.Sqlite, wait: float) -> t.ContextManager[None]:
    """Hold an SQLite database's lock while the block runs.

    :param wait: Seconds to wait for another migration; Failure after that.
    """
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    name = hashlib.sha256(os.path.realpath(database.path).encode()).hexdigest()[:16]
    return _mutex.exclusive(DIRECTORY, f"migration-{name}", wait)


def of_session(connection: t.Any, database: url.Postgres, wait: float) -> None:
    """Take the lock of the database that a session is connected to, for as long as the session lasts.

    It belongs to the session that migrates: where the migrating process was killed, the server goes on with its last statement, and nobody
    else may begin before that has ended.

    :param wait: Seconds to wait for another migration; Failure after that.
    """
    deadline = time.monotonic() + wait
    while not postgres.rows(connection, "SELECT pg_try_advisory_lock(%s)", [KEY])[0][0]:
        if time.monotonic() >= deadline:
            raise _taken(connection, database, wait)
        time.sleep(POLL)


def _taken(connection: t.Any, database: url.Postgres, wait: float) -> Failure:
    holders = postgres.rows(
        connection,
        """
        SELECT l.pid, coalesce(host(a.client_addr), 'the server''s own host'), a.backend_start::text
        FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (l.classid::bigint << 32) | l.objid::bigint = %s
        """,
        [KEY],
    )
    who = "".join(f" (process {pid} of the server, from {address}, since {since})" for pid, address, since in holders[:1])
    return Failure(
        f"Another migration of {database.shown} has been under way for longer than {wait:g} s{who}.",
        fix="Wait until it has ended, then run this again. The lock ends with the session that holds it.",
    )
