# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found wrong with row-level security, from what the catalog says."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import isolation, rls_helper, row_security
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.row_security import Clause, Policy, Role, Table, View
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

OWN = Clause("(owner_id = current_setting('app.current_user_id'::text, true))")
OPEN = Clause("true", looks=False)
GOOD = Table("public.orders", "owner", True, True, (Policy("own", using=OWN),))
ROLES = {
    "app": Role("app"),
    "owner": Role("owner"),
    "postgres": Role("postgres", superuser=True, bypass=True, first=True),
    "dump": Role("dump", bypass=True),
    "batch": Role("batch", superuser=True, login=False),
}


def found(
    *tables: Table, roles: t.Mapping[str, Role] | None = None, views: t.Sequence[View] = (), version: int = 15, **wanted: t.Any
) -> list[tuple[str, str]]:
    catalog = row_security.Catalog("app", version, tables, {**ROLES, **(roles or {})}, views)
    trusting = row_security.Wanted(**{"trusted": ["dump"], **wanted})
    return [(one.subject, one.found) for one in row_security.findings(trusting, catalog)]


def test_a_good_table_has_no_finding():
    assert found(GOOD) == []
    each = tuple(Policy(name, name, using=None if name == "a" else OWN, check=OWN if name in "aw" else None) for name in "rawd")
    assert found(replace(GOOD, policies=each)) == []


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (replace(GOOD, enabled=False), "no row-level security, and 1 policies that have no effect"),
        (replace(GOOD, forced=False), "does not hold for its owner owner"),
        (replace(GOOD, policies=()), "without a policy"),
    ],
)
def test_what_is_missing_from_a_table(table, said):
    ((subject, what),) = found(table)
    assert subject == "public.orders" and said in what


@pytest.mark.parametrize("missing", "rawd")
def test_each_command_needs_a_policy_that_holds_for_the_app(missing):
    each = [
        Policy(name, name, using=None if name == "a" else OWN, check=OWN if name in "aw" else None) for name in "rawd" if name != missing
    ]
    expected = [(f"public.orders {row_security.COMMANDS[missing]}", "no policy for app, so that it is refused")]
    assert found(replace(GOOD, policies=tuple(each))) == expected
    for other in (
        Policy("x", missing, using=OWN, check=OWN, roles=("somebody",)),
        Policy("x", missing, using=OWN, check=OWN, permissive=False),
    ):
        assert found(replace(GOOD, policies=(*each, other))) == expected


@pytest.mark.parametrize(
    ("text", "always"),
    [
        ("true", True),
        ("((true))", True),
        ("(1 = 1)", True),
        ("('a'::text = 'a'::text)", True),
        ("(owner_id = owner_id)", True),
        ("'t'::boolean", True),
        ("(NOT false)", True),
        ("((owner_id = current_user_id()) OR true)", True),
        ("((a = 1) OR ((b = 2) OR (3 = 3)))", True),
        ("(true AND (1 = 1))", True),
        ("(owner_id IS NOT NULL)", True),
        ("(owner_id = current_user_id())", False),
        ("(true AND (owner_id = current_user_id()))", False),
        ("(a = 'x OR true')", False),
        ("(a <= a)", False),
        ("(a <> a)", False),
        ("false", False),
        ("((a = 1) AND ((b = 2) OR true))", False),
        ("(owner_id = ANY (ARRAY[1, 2]))", False),
        ("((a = b) = (a = c))", False),
        ("((\"a)\" = 1) OR (b = 2))", False),
    ],
)  # fmt: skip
def test_what_lets_everybody_in_is_recognized_by_its_form(text, always):
    assert row_security.always(text) is always


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy("p", using=OPEN), "for SELECT, INSERT, UPDATE, DELETE: USING (true) lets everybody in"),
        (Policy("p", "r", using=OPEN), "for SELECT: USING (true)"),
        (Policy("p", "w", using=OWN, check=OPEN), "for UPDATE: WITH CHECK (true)"),
        (Policy("p", "a", check=OPEN), "for INSERT: WITH CHECK (true)"),
        (Policy("p", "d", using=Clause("(current_setting('app.x'::text, true) <> ''::text)", looks=False)), "without looking at the row"),
    ],
)
def test_policies_that_let_everybody_in(policy, said):
    table = replace(GOOD, policies=(*GOOD.policies, policy))
    findings = found(table)
    assert findings and all(subject == "public.orders policy p" for subject, _what in findings)
    assert said in findings[0][1]
    assert found(table, allow_open=["orders.p"]) == []
    # It is nobody's whom the policy does not hold for, and a restrictive one has to let in as well.
    assert found(replace(GOOD, policies=(*GOOD.policies, replace(policy, roles=("admin",))))) == []
    assert found(replace(GOOD, policies=(policy, *GOOD.policies, Policy("r", using=OWN, permissive=False)))) == []
    assert found(replace(GOOD, policies=(policy, *GOOD.policies, Policy("r", using=OPEN, permissive=False)))) == findings


def test_a_policy_that_lets_nobody_in_is_not_open():
    assert found(replace(GOOD, policies=(*GOOD.policies, Policy("no", using=Clause("false", looks=False))))) == []


@pytest.mark.parametrize(
    ("roles", "table", "said"),
    [
        ({"app": Role("app", superuser=True)}, GOOD, "it is a superuser"),
        ({"app": Role("app", bypass=True)}, GOOD, "it is BYPASSRLS"),
        ({}, replace(GOOD, owner="app", forced=False), "it is the owner of public.orders"),
        ({"app": Role("app", member_of=frozenset(["batch"]))}, GOOD, "it is a member of batch, which is a superuser"),
        ({"app": Role("app", member_of=frozenset(["owner"]))}, replace(GOOD, forced=False), "a member of owner, which is the owner"),
    ],
)
def test_an_app_that_goes_around(roles, table, said):
    findings = found(table, roles=roles, forced=False)
    assert [(subject, said in what) for subject, what in findings] == [("the app's role app", True)]


def test_an_owner_is_no_finding_where_it_is_forced():
    assert found(replace(GOOD, owner="app")) == []


def test_others_who_go_around_are_named_unless_they_are_trusted():
    assert found(GOOD, trusted=[]) == [("role dump", "it can log in and is BYPASSRLS")]


VIEW = View("public.v", "postgres", invoker=False, used=True, reads=("public.orders",))


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([VIEW], ["view public.v"]),
        ([replace(VIEW, invoker=True)], []),
        ([replace(VIEW, used=False)], []),
        # Forced, it holds for the owner as well.
        ([replace(VIEW, owner="owner")], []),
        ([replace(VIEW, materialized=True, owner="app")], ["materialized view public.v"]),
        # The outer one reads the inner one as its own reader; the inner one reads as its owner.
        ([replace(VIEW, used=False), View("public.w", "app", True, True, ("public.v",))], ["view public.w"]),
        ([replace(VIEW, used=False, invoker=True), View("public.w", "postgres", False, True, ("public.v",))], ["view public.w"]),
        ([replace(VIEW, used=False, invoker=True), View("public.w", "app", False, True, ("public.v",))], []),
    ],
)
def test_views_that_go_around(views, expected):
    assert [subject for subject, _what in found(GOOD, views=views)] == expected


def test_a_view_of_an_owner_who_is_not_forced_goes_around():
    view = replace(VIEW, owner="owner")
    assert [subject for subject, _what in found(replace(GOOD, forced=False), views=[view], forced=False)] == ["view public.v"]


def test_nothing_to_look_at_is_a_finding():
    assert found() == [("schema public", "no table")]
    assert found(GOOD, tables=["orders", "users"]) == [("table public.users", "none")]


def test_what_was_possible_or_could_not_be_tried_is_a_finding():
    outcomes = [
        isolation.Outcome("t", isolation.SELECT, verdict, "why") for verdict in (isolation.REFUSED, isolation.POSSIBLE, isolation.UNKNOWN)
    ]
    assert len(isolation.findings(outcomes)) == 2


@pytest.mark.parametrize("users", [[], ["a"], ["a", "a"], ["a", "b", "c"]])
def test_a_trial_needs_two_users(users):
    with pytest.raises(Failure, match="two different ones"):
        isolation.trial_of({"table": "t", "owner_column": "o", "users": users, "setting": "a.b", "row": {}}, "public")


def test_a_trial_is_in_the_schema_that_is_looked_at():
    given: dict[str, t.Any] = {"owner_column": "o", "users": [1, 2], "setting": "a.b", "row": {"o": 3, "x": 4}}
    trial = isolation.trial_of({"table": "t", **given}, "My schema")
    assert (trial.quoted, trial.users, trial.row) == ('"My schema"."t"', ("1", "2"), {"x": 4})
    assert isolation.trial_of({"table": "other.t", **given}, "public").table == "other.t"


HELPER = {"name": "current_user_id", "schema": "public", "setting": "app.current_user_id", "type": "text", "maintenance_user": ""}


def test_the_helper_is_planned_once_and_never_changes_its_type():
    wanted = rls_helper.wanted_of(HELPER)
    assert rls_helper.plan(HELPER, wanted) == []
    assert len(rls_helper.plan(HELPER, None)) == 1
    assert len(rls_helper.plan(HELPER, replace(wanted, definer=True))) == 1
    with pytest.raises(Failure, match="returns bigint, not text"):
        rls_helper.plan(HELPER, replace(wanted, type="bigint"))
    with pytest.raises(Failure, match="a name with a dot"):
        rls_helper.plan({**HELPER, "setting": "x', true)); DROP TABLE users; --"}, None)
