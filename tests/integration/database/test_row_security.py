# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Row-level security on a real PostgreSQL server: what the catalog says, and what one user of an app can do to another one."""

from __future__ import annotations

import pytest

APP = "kept_apart"
MINE = "owner_id = current_user_id()"
TABLE = "CREATE TABLE {name} (id serial PRIMARY KEY, owner_id text NOT NULL, title text NOT NULL);"
SECURED = TABLE + "ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; ALTER TABLE {name} FORCE ROW LEVEL SECURITY;"
POLICIES = {
    "select": f"FOR SELECT USING ({MINE})",
    "insert": f"FOR INSERT WITH CHECK ({MINE})",
    "update": f"FOR UPDATE USING ({MINE})",
    "delete": f"FOR DELETE USING ({MINE})",
}
OPERATIONS = {
    "insert": "INSERT as somebody else",
    "select": "SELECT of somebody else's row",
    "update": "UPDATE of somebody else's row",
    "delete": "DELETE of somebody else's row",
}
# What lets a user through, where the form of the policy does not tell: the row is looked at, and compared with nobody.
LEAKS = {
    "select": "FOR SELECT USING (title <> '')",
    "insert": "FOR INSERT WITH CHECK (title <> '')",
    "update": "FOR UPDATE USING (title <> '')",
    "delete": "FOR DELETE USING (title <> '')",
}


def table(name, **other):
    """A secured table with the good policies, and these instead or besides; None leaves one out."""
    policies = {**POLICIES, **other}
    return SECURED.format(name=name) + "".join(f"CREATE POLICY {key}_own ON {name} {rule};" for key, rule in policies.items() if rule)


def trial(name):
    return {"table": name, "owner_column": "owner_id", "users": ["a", "b"], "row": {"title": "A trial"}}


@pytest.fixture(scope="module")
def app(module, server):
    """A database of an app that owns its tables, with the function that policies call."""
    url = server.create(APP)
    module.must("postgres_rls_helper", url=url)
    yield url
    server.sql(f"DROP OWNED BY {APP}_reader", APP)
    server.sql(f"DROP ROLE {APP}_reader")
    server.drop(APP)


@pytest.fixture(scope="module")
def tables(app, server):
    """One database with everything that can be wrong, each in a table of its own."""
    server.sql(f"DROP ROLE IF EXISTS {APP}_reader; CREATE ROLE {APP}_reader")
    statements = [
        f"SET ROLE {APP};",
        table("good"),
        TABLE.format(name="bare"),
        table("incomplete", delete=None),
        table("wide_open", extra="USING (true)"),
        table("not_forced") + "ALTER TABLE not_forced NO FORCE ROW LEVEL SECURITY;",
        SECURED.format(name="locked_up"),
        table("viewed"),
        # The row is the user's own, whoever is written.
        table("stamped"),
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.owner_id := current_user_id(); RETURN NEW; END $$;",
        "CREATE TRIGGER stamp BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();",
        *(table(f"leaks_{operation}", **{operation: rule}) for operation, rule in LEAKS.items()),
        "RESET ROLE;",
        f"CREATE VIEW around AS SELECT * FROM viewed; GRANT SELECT ON around TO {APP};",
    ]
    server.sql("\n".join(statements), APP)
    return app


def subjects(result):
    return sorted({one["subject"] for one in result["findings"]})


def state(server):
    """Everything that a check could leave behind, but for what sequences have given."""
    names = server.sql("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1", APP).split()
    rows = [server.sql(f"SELECT count(*) FROM {name}", APP) for name in names]
    return names, rows, server.sql("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1", APP)


def test_a_good_table_passes_and_nothing_is_left_behind(module, server, tables):
    """Fails without ROLLBACK at the end of a trial."""
    server.sql("INSERT INTO good (owner_id, title) VALUES ('a', 'x'), ('b', 'y')", APP)
    before = state(server)
    good = module.must("postgres_rls_check", url=tables, tables=["good", "stamped"], isolation=[trial("good"), trial("stamped")])
    assert good["findings"] == [] and good["tables"] == ["public.good", "public.stamped"] and good["role"] == APP
    assert [one["verdict"] for one in good["isolation"]] == ["refused"] * 10 and not good["changed"]
    assert "pa@:/?#%ss" not in good["said"]
    assert state(server) == before


def test_all_that_is_wrong_is_said_at_once(module, server, tables):
    said = module.refused(
        "postgres_rls_check",
        "public.bare: found no row-level security; expected row-level security. ALTER TABLE public.bare ENABLE ROW LEVEL SECURITY;",
        f"public.incomplete DELETE: found no policy for {APP}",
        "public.wide_open policy extra_own: found for SELECT, INSERT, UPDATE, DELETE: USING (true) lets everybody in",
        f"public.not_forced: found row-level security that does not hold for its owner {APP}",
        f"the app's role {APP}: found it is the owner of public.not_forced",
        "public.locked_up: found row-level security without a policy",
        "view public.around: found it reads public.viewed as postgres",
        url=tables,
        isolation=[trial("not_forced")],
    )
    assert subjects(said) == sorted(
        [
            "public.bare",
            "public.incomplete DELETE",
            "public.wide_open policy extra_own",
            "public.not_forced",
            f"the app's role {APP}",
            "public.locked_up",
            "view public.around",
            # An owner who goes around it can do anything.
            *(f"public.not_forced {operation}" for operation in [*OPERATIONS.values(), "SELECT without a user"]),
        ]
    )
    assert "pa@:/?#%ss" not in said["said"]


def test_a_leak_is_found_in_each_operation(module, server, tables):
    """Fails without the cursor: DELETE and UPDATE with a condition bring in the policy for SELECT, which hides what theirs let through."""
    before = state(server)
    names = [f"leaks_{operation}" for operation in OPERATIONS]
    said = module.refused("postgres_rls_check", url=tables, tables=names, isolation=[trial(name) for name in names])
    possible = {(one["table"], one["operation"]) for one in said["isolation"] if one["verdict"] == "possible"}
    expected = {(f"public.leaks_{name}", operation) for name, operation in OPERATIONS.items()}
    assert possible == {*expected, ("public.leaks_select", "SELECT without a user")}
    assert not [one for one in said["isolation"] if one["verdict"] == "unknown"]
    assert len(said["findings"]) == 5
    assert state(server) == before


def test_a_trial_that_cannot_be_made_is_no_pass(module, tables):
    wrong = {**trial("good"), "row": {}}
    said = module.refused(
        "postgres_rls_check", "a cannot make a row to try it on", "null value", url=tables, tables=["good"], isolation=[wrong]
    )
    assert {one["verdict"] for one in said["isolation"]} == {"unknown"}
    module.refused("postgres_rls_check", "cannot become it", url=tables, tables=["good"], role=f"{APP}_reader", isolation=[trial("good")])


def test_roles_that_go_around_and_the_app_s_role_tried_from_another_account(module, server, tables):
    server.sql(f"CREATE ROLE {APP}_dump LOGIN BYPASSRLS; GRANT {APP}_dump TO {APP}_reader")
    server_tables = {"url": tables, "tables": ["good"], "maintenance_user": "postgres"}
    try:
        server.sql(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON good TO {APP}_reader; GRANT USAGE ON SEQUENCE good_id_seq TO {APP}_reader", APP
        )
        said = module.refused("postgres_rls_check", "can log in and is BYPASSRLS", **server_tables)
        assert subjects(said) == [f"role {APP}_dump"]
        module.refused("postgres_rls_check", f"is a member of {APP}_dump, which is BYPASSRLS", role=f"{APP}_reader", **server_tables)
        server.sql(f"REVOKE {APP}_dump FROM {APP}_reader")
        done = module.must(
            "postgres_rls_check", role=f"{APP}_reader", trusted_roles=[f"{APP}_dump"], isolation=[trial("good")], **server_tables
        )
        assert {one["verdict"] for one in done["isolation"]} == {"refused"}
    finally:
        server.sql(f"DROP ROLE {APP}_dump")


def test_the_helper_is_made_once_and_shown_before(module, server, app):
    server.sql(f"CREATE SCHEMA helpers AUTHORIZATION {APP}", APP)
    options = {"url": app, "schema": "helpers", "type": "bigint", "setting": "app.who"}
    assert module.must("postgres_rls_helper", "--check", "--diff", **options)["changed"]
    assert server.sql("SELECT to_regproc('helpers.current_user_id') IS NULL", APP) == "t"
    assert module.must("postgres_rls_helper", **options)["changed"]
    assert not module.must("postgres_rls_helper", **options)["changed"]
    who = "SELECT coalesce(helpers.current_user_id()::text, 'nobody');"
    assert server.sql(f"{who} SET app.who = '42'; {who} SET app.who = ''; {who}", APP).split() == ["nobody", "42", "nobody"]
    module.refused("postgres_rls_helper", "returns bigint, not text", **{**options, "type": "text"})


def test_as_a_check_of_preflight_and_of_a_deploy(app, tables, host, module):
    """The check type ``database`` looks at the same, with the URL from the app's own environment, and shows no password."""
    host.write("/etc/kept-apart.env", f"DATABASE_URL={app}\n", mode="0600")
    check = {"type": "database", "environment_files": ["/etc/kept-apart.env"]}

    def verdict(**wanted):
        result = module.must("health_check", checks=[{**check, "row_security": wanted}], must_be_healthy=False)
        assert "pa@:/?#%ss" not in result["said"] and "pa%40" not in result["said"]
        return result["verdicts"][0]

    assert verdict(tables=["good"], isolation=[trial("good")])["verdict"] == "pass"
    wrong = verdict(tables=["good", "wide_open", "incomplete"], isolation=[trial("leaks_select")])
    assert wrong["verdict"] == "fail"
    told = str(wrong["found"]["findings"])
    assert all(name in told for name in ("wide_open", "incomplete", "leaks_select")) and "public.good" not in told
    host.run(["rm", "/etc/kept-apart.env"])
