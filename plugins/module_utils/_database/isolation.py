# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether one user of an app can reach another one's rows: tried, as the app's role, in a transaction that is rolled back.

Policies are only as good as what they do together, with grants, triggers and functions. So nothing is concluded here; everything is tried.
"""

from __future__ import annotations

import contextlib
import json
import re
import typing as t
from dataclasses import asdict, dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import postgres
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.schema import parts_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

SETTING = "app.current_user_id"
REFUSED = "refused"
POSSIBLE = "possible"
UNKNOWN = "unknown"
# insufficient_privilege: a policy that refuses a new row, and a privilege that is missing.
NOT_ALLOWED = "42501"
# The class of errors of constraints, which are looked at only after the policies have let a row in (nodeModifyTable.c, ExecInsert).
CONSTRAINT = "23"
PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


INSERT = "INSERT as somebody else"
SELECT = "SELECT of somebody else's row"
UPDATE = "UPDATE of somebody else's row"
DELETE = "DELETE of somebody else's row"
ANONYMOUS = "SELECT without a user"
NOBODY = "nobody"
OPERATIONS = (INSERT, SELECT, UPDATE, DELETE, ANONYMOUS)


@dataclass(frozen=True)
class Trial:
    """What is tried on one table.

    :param users: Two values of the owner's column.
    :param row: The other columns that a row needs.
    """

    table: str
    owner_column: str
    users: t.Tuple[str, str]
    setting: str
    row: t.Mapping[str, t.Any]

    @property
    def quoted(self) -> str:
        return ".".join(postgres.identifier(part) for part in parts_of(self.table))


@dataclass(frozen=True)
class Outcome:
    """What came of one operation.

    :param verdict: REFUSED, POSSIBLE or UNKNOWN.
    """

    table: str
    operation: str
    verdict: str
    evidence: str

    def as_data(self) -> t.Dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Tried:
    """How a statement ended.

    :param state: The SQLSTATE of the error, empty when there was none.
    """

    state: str
    said: str
    count: int
    rows: t.Sequence[t.Tuple[t.Any, ...]]


def trial_of(options: t.Mapping[str, t.Any], schema: str) -> Trial:
    users = [str(user) for user in options["users"]]
    if len(users) != 2 or users[0] == users[1]:
        raise Failure(f"isolation: found users {', '.join(users) or 'none'} for {options['table']}; allowed: two different ones.")
    try:
        parts = parts_of(options["table"])
    except ValueError as error:
        raise Failure(f"isolation: table: {error}.") from None
    row = {name: value for name, value in (options["row"] or {}).items() if name != options["owner_column"]}
    table = (
        options["table"] if len(parts) == 2 else f"{schema if PLAIN.fullmatch(schema) else postgres.identifier(schema)}.{options['table']}"
    )
    return Trial(table, options["owner_column"], (users[0], users[1]), options["setting"] or SETTING, row)


def literal(value: t.Any) -> t.Optional[str]:
    """A value as text, whose type the server finds out from the column."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def findings(outcomes: t.Sequence[Outcome]) -> t.List[Finding]:
    """A finding for each operation that is possible and must not be, and for each that could not be tried."""
    return [
        Finding(
            f"{one.table} {one.operation}",
            one.evidence,
            "that it is refused",
            "Correct the policies of the table; see the other findings."
            if one.verdict == POSSIBLE
            else "Correct the trial's row, users or privileges.",
        )
        for one in outcomes
        if one.verdict != REFUSED
    ]


class Session:
    """A transaction that is rolled back, in which statements are tried."""

    def __init__(self, connection: t.Any, role: str) -> None:
        self.connection = connection
        self.role = role
        self.psycopg2 = postgres.driver()

    def __enter__(self) -> Session:
        self.rows("BEGIN")
        for setting, value in (("statement_timeout", "30s"), ("lock_timeout", "5s"), ("row_security", "on")):
            self.rows("SELECT set_config(%s, %s, true)", setting, value)
        if self.role and self.rows("SELECT current_user")[0][0] != self.role:
            try:
                self.rows(f"SET LOCAL ROLE {postgres.identifier(self.role)}")
            except Failure as failure:
                self.__exit__()
                raise Failure(
                    f"The isolation test has to be made as {self.role}, and the role of the URL cannot become it. {failure.what}",
                    fix=f"Use the URL of {self.role}, or GRANT {self.role} to the role of the URL.",
                ) from None
        return self

    def __exit__(self, *_exception: object) -> None:
        self.rows("ROLLBACK")

    def rows(self, statement: str, *values: t.Any) -> t.List[t.Tuple[t.Any, ...]]:
        return postgres.rows(self.connection, statement, values)

    def become(self, setting: str, user: str) -> None:
        self.rows("SELECT set_config(%s, %s, true)", setting, user)

    @contextlib.contextmanager
    def undone(self, name: str) -> t.Iterator[None]:
        """What is done in the block is undone."""
        self.rows(f"SAVEPOINT {name}")
        try:
            yield
        finally:
            self.rows(f"ROLLBACK TO SAVEPOINT {name}")

    def attempt(self, statement: str, *values: t.Any) -> Tried:
        """Run a statement; an error ends nothing but itself."""
        self.rows("SAVEPOINT attempt")
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return Tried("", "", cursor.rowcount, cursor.fetchall() if cursor.description else [])
        except self.psycopg2.Error as error:
            self.rows("ROLLBACK TO SAVEPOINT attempt")
            return Tried(error.pgcode or "?", str(error.diag.message_primary or error).strip(), 0, [])


def insert(session: Session, trial: Trial, owner: str, returning: str = "", *more: str) -> Tried:
    row = {trial.owner_column: owner, **trial.row}
    columns = ", ".join(postgres.identifier(name) for name in row)
    marks = ", ".join(["%s"] * len(row))
    values = [*(literal(value) for value in row.values()), *more]
    return session.attempt(f"INSERT INTO {trial.quoted} ({columns}) VALUES ({marks}){returning}", *values)


def run(session: Session, trial: Trial) -> t.List[Outcome]:
    """Try everything on one table. What is made is undone at the end of the session's transaction."""
    mine, other = trial.users
    found: t.Dict[str, t.Tuple[str, str]] = {}
    returning = " RETURNING ctid::text, tableoid::bigint"
    session.become(trial.setting, mine)
    with session.undone("own"):
        made = insert(session, trial, mine, returning)
    if not made.state:
        session.become(trial.setting, other)
        found[INSERT] = _forge(session, trial)
        session.become(trial.setting, mine)
        made = insert(session, trial, mine, returning)
    nothing = f"{mine} cannot make a row to try it on: {made.said}"
    if not made.state:
        place = made.rows[0]
        own = _see(session, trial, place)
        nothing = f"{mine} does not see the row that {mine} has made, so nothing can be concluded: {own.said or 'no row'}"
        if own.count == 1:
            found.update(_reach(session, trial, place))
    return [Outcome(trial.table, operation, *found.get(operation, (UNKNOWN, nothing))) for operation in OPERATIONS]


def _see(session: Session, trial: Trial, place: t.Sequence[t.Any]) -> Tried:
    return session.attempt(f"SELECT 1 FROM {trial.quoted} WHERE ctid = %s::tid AND tableoid = %s::oid", *place)


def _reach(session: Session, trial: Trial, place: t.Sequence[t.Any]) -> t.Dict[str, t.Tuple[str, str]]:
    """What the second user can do to the first one's row."""
    mine, other = trial.users
    column = postgres.identifier(trial.owner_column)
    # To whom the row belongs afterwards: a policy may let through only the one or the other.
    updates = [_at_row(session, trial, place, f"UPDATE {trial.quoted} SET {column} = %s", owner) for owner in (other, mine)]
    delete = _at_row(session, trial, place, f"DELETE FROM {trial.quoted}")
    session.become(trial.setting, other)
    found = {
        SELECT: _of_reach(_see(session, trial, place), mine, other),
        UPDATE: max((_of_reach(one, mine, other) for one in updates), key=lambda one: (REFUSED, UNKNOWN, POSSIBLE).index(one[0])),
        DELETE: _of_reach(delete, mine, other),
    }
    session.become(trial.setting, "")
    return {**found, ANONYMOUS: _of_reach(_see(session, trial, place), mine, NOBODY)}


def _at_row(session: Session, trial: Trial, place: t.Sequence[t.Any], statement: str, *values: str) -> Tried:
    """Change the first user's row as the second one, without asking for it.

    A condition on a column would bring in the policies for SELECT, and these would hide that the ones for UPDATE or DELETE let it through:
    ``DELETE FROM orders`` has no condition. A cursor of the owner's stands on the one row, and no other is touched.
    """
    with session.undone("change"):
        session.become(trial.setting, trial.users[0])
        session.rows(f"DECLARE trial NO SCROLL CURSOR FOR SELECT * FROM {trial.quoted} WHERE ctid = %s::tid AND tableoid = %s::oid", *place)
        session.rows("FETCH trial")
        session.become(trial.setting, trial.users[1])
        return session.attempt(f"{statement} WHERE CURRENT OF trial", *values)


def _forge(session: Session, trial: Trial) -> t.Tuple[str, str]:
    """Make a row that belongs to the first user, as the second one."""
    mine, other = trial.users
    column = postgres.identifier(trial.owner_column)
    with session.undone("forged"):
        seen = insert(session, trial, mine, f" RETURNING {column}::text = %s::text", mine)
    with session.undone("forged"):
        blind = insert(session, trial, mine)
    if not seen.state and not seen.rows[0][0]:
        return REFUSED, f"the row belongs to {other}, whatever is written"
    if not blind.state:
        return POSSIBLE, f"{other} has made a row that belongs to {mine}"
    if blind.state == NOT_ALLOWED:
        return REFUSED, blind.said
    if blind.state.startswith(CONSTRAINT):
        return POSSIBLE, f"no policy has kept {other} from making a row that belongs to {mine}, only this has: {blind.said}"
    return UNKNOWN, f"it could not be tried: {blind.said}"


def _of_reach(tried: Tried, mine: str, other: str) -> t.Tuple[str, str]:
    if tried.count:
        return POSSIBLE, f"{other} has reached a row of {mine}"
    if tried.state in ("", NOT_ALLOWED) or other == NOBODY:
        return REFUSED, tried.said or "no row"
    if tried.state.startswith(CONSTRAINT):
        return POSSIBLE, f"no policy has kept {other} from a row of {mine}, only this has: {tried.said}"
    return UNKNOWN, f"it could not be tried: {tried.said}"
