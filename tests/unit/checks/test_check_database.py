# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type database, on SQLite; on PostgreSQL, its code is that of the module schema_check, and tried with it."""

from __future__ import annotations

import sqlite3

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks.engine import run_checks, validate
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


@pytest.fixture
def ask(tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"DATABASE_URL=sqlite:///{tmp_path}/shop.db\nSERVER=postgresql://shop:canary@127.0.0.1:1/shop\n")

    def asked(**options):
        (verdict,) = run_checks([{"type": "database", "environment_files": [str(dotenv)], **options}])
        assert "canary" not in verdict.evidence
        return verdict

    return asked


def test_a_database_that_migrations_are_to_make(ask, tmp_path):
    assert (ask().verdict, ask(schema={"can_create_tables": True}).verdict) == ("pass", "pass")
    assert "is not there yet" in ask().evidence
    missing = ask(schema={"tables": ["orders"]})
    assert (missing.verdict, "There is no database" in missing.evidence) == ("fail", True)
    assert not (tmp_path / "shop.db").exists()


def test_what_is_there_and_what_is_not(ask, tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")
    connection.close()
    assert ask(schema={"tables": ["orders"], "columns": ["orders.item"]}).verdict == "pass"
    wrong = ask(schema={"columns": ["orders.metadata"], "absent_columns": ["orders.item"]})
    assert wrong.verdict == "fail"
    assert [one["subject"] for one in wrong.found["findings"]] and "orders.metadata" in wrong.evidence and "orders.item" in wrong.evidence


def test_no_answer_and_no_address(ask):
    silent = ask(variable="SERVER")
    assert silent.verdict == "fail"
    nowhere = ask(variable="NO_SUCH")
    assert (nowhere.verdict, "There is no NO_SUCH in" in nowhere.evidence) == ("fail", True)


def test_a_wrong_expectation_is_a_mistake():
    with pytest.raises(Failure, match=r"colums"):
        validate([{"type": "database", "environment_files": ["/x"], "schema": {"colums": ["a.b"]}}])
