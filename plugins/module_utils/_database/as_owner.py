# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work on an SQLite database as the account that owns it.

SQLite makes files beside the database. One that root has made there locks the app out of its own database, so root never opens it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import sqlite3
import traceback
import typing as t
import urllib.parse

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

COMPANIONS = ("-wal", "-shm", "-journal")


def owner_of(path: str) -> t.Tuple[int, int]:
    """(uid, gid) of a database, or of the directory that it would be made in."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        try:
            found = os.stat(os.path.dirname(path))
        except FileNotFoundError:
            raise Failure(
                f"The directory of the database {path} does not exist.", fix="Correct the URL, or make the directory for the app."
            ) from None
    return found.st_uid, found.st_gid


def account_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def as_owner(path: str, work: t.Callable[[], t.Any]) -> t.Any:
    """What ``work`` returns (made of JSON's kinds) when the owner of the database at ``path`` does it, in a process of its own."""
    uid, gid = owner_of(path)
    directory = os.stat(os.path.dirname(path)).st_uid
    if uid == 0 and directory != 0:
        account = account_of(directory)
        raise Failure(
            f"The database {path} belongs to root and its directory to {account}: the app cannot write its own database.",
            fix=f"chown {account}: {path}*",
        )
    if uid == 0 or os.geteuid() != 0:
        return work()
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _serve(sending, uid, gid, work)
    os.close(sending)
    try:
        with os.fdopen(receiving, "rb") as stream:
            said = stream.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitpid(child, 0)[1]
    if not said:
        raise Failure(f"The process that worked on {path} as {account_of(uid)} ended without a word (status {status}).")
    answer = json.loads(said)
    if "what" in answer:
        raise Failure(answer["what"], fix=answer["fix"], **answer["facts"])
    return answer["result"]


def _serve(sending: int, uid: int, gid: int, work: t.Callable[[], t.Any]) -> t.NoReturn:
    """The child's whole life: nothing of the parent's may run in it when it ends."""
    try:
        try:
            name = account_of(uid)
            os.setgroups(os.getgrouplist(name, gid) if not name.isdigit() else [])
            os.setgid(gid)
            os.setuid(uid)
            os.umask(0o027)
            answer: t.Dict[str, t.Any] = {"result": work()}
        except Failure as failure:
            answer = {"what": failure.what, "fix": failure.fix, "facts": failure.facts}
        except Exception as error:
            answer = {"what": f"An unexpected {type(error).__name__}: {error}", "fix": "", "facts": {"exception": traceback.format_exc()}}
        with os.fdopen(sending, "wb") as stream:
            stream.write(json.dumps(answer, default=str).encode())
    finally:
        os._exit(0)


@contextlib.contextmanager
def reading(path: str, timeout: float = 5) -> t.Iterator[sqlite3.Connection]:
    """A connection to a database that is there, through which nothing can be changed.

    It is opened for writing all the same: only then does SQLite clear away the files that reading a WAL database makes beside it.
    """
    with _connected(path, "rw", timeout) as connection:
        connection.execute("PRAGMA query_only = ON")
        yield connection


@contextlib.contextmanager
def writing(path: str, timeout: float = 5) -> t.Iterator[sqlite3.Connection]:
    """A connection in which transactions are begun and ended by hand. The database is made where it is missing."""
    files = [path, *(path + end for end in COMPANIONS)]
    if not os.access(os.path.dirname(path), os.W_OK | os.X_OK) or any(os.path.exists(one) and not os.access(one, os.W_OK) for one in files):
        raise not_writable(path, "")
    with _connected(path, "rwc", timeout) as connection:
        yield connection


def not_writable(path: str, said: str) -> Failure:
    """What keeps this account from changing the database."""
    directory, account = os.path.dirname(path), account_of(os.geteuid())
    foreign = [path + end for end in COMPANIONS if os.path.exists(path + end) and os.stat(path + end).st_uid != os.geteuid()]
    culprit = " ".join(foreign) or path
    what = culprit
    if not os.access(directory, os.W_OK | os.X_OK):
        what, culprit = f"{directory} is the database's directory, where SQLite makes a file before every change, and", directory
    return Failure(
        f"{what} cannot be written by {account}, who owns the database{f' ({said})' if said else ''}.",
        fix=f"chown {account} {culprit}, and look for a file system that is mounted read-only.",
    )


@contextlib.contextmanager
def _connected(path: str, mode: str, timeout: float) -> t.Iterator[sqlite3.Connection]:
    try:
        connection = sqlite3.connect(f"file:{urllib.parse.quote(path)}?mode={mode}", uri=True, timeout=timeout, isolation_level=None)
    except sqlite3.Error as error:
        raise Failure(f"The database {path} cannot be opened by {account_of(os.geteuid())}: {error}.") from None
    try:
        # Opening reads nothing yet; a file that is no database is found here.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection
    except sqlite3.DatabaseError as error:
        if "readonly" in str(error) or "unable to open" in str(error):
            raise not_writable(path, str(error)) from None
        raise Failure(f"The database {path} cannot be used by {account_of(os.geteuid())}: {error}.") from None
    finally:
        connection.close()
