# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is expanding and what is contracting, as data."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.classify import Made, classify, judge, judge_sql

INTEGER = {"sql": "INTEGER", "family": "integer", "length": None}
BIG = {"sql": "BIGINT", "family": "big_integer", "length": None}


def string(length):
    return {"sql": f"VARCHAR({length})" if length else "VARCHAR", "family": "string", "length": length}


TEXT = {"sql": "TEXT", "family": "text", "length": None}
ALTER = {"op": "AlterColumnOp", "table_name": "t", "column_name": "c", "nullable": None, "default": "kept", "name": None, "type": None}
ADD = {"op": "AddColumnOp", "table_name": "t", "column_name": "c", "nullable": True, "default": False, "unique": False}


@pytest.mark.parametrize(
    "operation,kind,words",
    [
        ({"op": "CreateTableOp", "table_name": "t"}, "expanding", "adds the table t"),
        ({"op": "DropTableOp", "table_name": "t"}, "contracting", "drops the table t"),
        ({"op": "RenameTableOp", "table_name": "t", "new_table_name": "u"}, "contracting", "renames the table t to u"),
        (ADD, "expanding", "adds the column t.c"),
        ({**ADD, "nullable": False, "default": True}, "expanding", "adds the column t.c"),
        ({**ADD, "nullable": False}, "contracting", "NOT NULL without a server default"),
        ({**ADD, "unique": True}, "expanding", "adds the column t.c"),
        ({**ADD, "unique": True, "default": True}, "contracting", "unique with a default"),
        ({"op": "DropColumnOp", "table_name": "t", "column_name": "c"}, "contracting", "drops the column t.c"),
        ({**ALTER, "name": "d"}, "contracting", "renames t.c to d"),
        ({**ALTER, "nullable": False}, "contracting", "makes t.c NOT NULL"),
        ({**ALTER, "nullable": True}, "expanding", "allows more in t.c"),
        ({**ALTER, "default": "removed"}, "contracting", "takes the default off t.c"),
        ({**ALTER, "default": "set"}, "expanding", "allows more"),
        ({**ALTER, "type": BIG, "existing_type": INTEGER}, "contracting", "from INTEGER to BIGINT"),
        ({**ALTER, "type": BIG}, "contracting", "changes the type of t.c to BIGINT"),
        ({**ALTER, "type": INTEGER, "existing_type": INTEGER}, "expanding", "allows more"),
        ({**ALTER, "type": string(80), "existing_type": string(40)}, "expanding", "allows more"),
        ({**ALTER, "type": TEXT, "existing_type": string(40)}, "expanding", "allows more"),
        ({**ALTER, "type": string(20), "existing_type": string(40)}, "contracting", "from VARCHAR(40) to VARCHAR(20)"),
        ({**ALTER, "type": string(20), "existing_type": TEXT}, "contracting", "from TEXT to VARCHAR(20)"),
        ({**ALTER, "type": string(80), "existing_type": string(40), "nullable": False}, "contracting", "NOT NULL"),
        ({"op": "CreateIndexOp", "table_name": "t", "index_name": "i", "unique": False}, "expanding", "adds the index i"),
        ({"op": "CreateIndexOp", "table_name": "t", "index_name": "i", "unique": True}, "contracting", "makes i on t unique"),
        ({"op": "DropIndexOp", "table_name": "t", "index_name": "i"}, "contracting", "drops i of t"),
        ({"op": "CreateUniqueConstraintOp", "table_name": "t", "constraint_name": "u"}, "contracting", "makes u on t unique"),
        ({"op": "CreateForeignKeyOp", "source_table": "t", "constraint_name": "f"}, "contracting", "adds the foreign key f to t"),
        ({"op": "CreateCheckConstraintOp", "table_name": "t", "constraint_name": "k"}, "contracting", "adds the check k"),
        ({"op": "CreatePrimaryKeyOp", "table_name": "t"}, "contracting", "adds a primary key"),
        ({"op": "DropConstraintOp", "table_name": "t", "constraint_name": "f", "constraint_type": "foreignkey"}, "expanding", "takes the"),
        ({"op": "DropConstraintOp", "table_name": "t", "constraint_name": "u", "constraint_type": "unique"}, "contracting", "drops u of t"),
        ({"op": "DropConstraintOp", "table_name": "t", "constraint_name": "u"}, "contracting", "drops u of t"),
        ({"op": "BulkInsertOp", "table_name": "t"}, "expanding", "adds rows to t"),
        ({"op": "CreateTableCommentOp", "table_name": "t"}, "expanding", "comments on t"),
        ({"op": "ReplaceFunctionOp"}, "unknown", "ReplaceFunctionOp is not an operation whose effect is known"),
    ],
)
def test_operations(operation, kind, words):
    found = judge(operation, Made())
    assert found[0] == kind and words in found[1]


@pytest.mark.parametrize(
    "sql,kind",
    [
        ("CREATE TABLE t (id int)", "expanding"),
        ("create table if not exists t (id int); insert into t values (1)", "expanding"),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", "expanding"),
        ("CREATE UNIQUE INDEX i ON t (a)", "contracting"),
        ("ALTER TABLE t ADD COLUMN c int", "expanding"),
        ("ALTER TABLE t ADD c int NOT NULL", "contracting"),
        ("ALTER TABLE ONLY public.t ADD COLUMN IF NOT EXISTS c int NOT NULL DEFAULT 0", "expanding"),
        ("ALTER TABLE t ADD COLUMN c int, DROP COLUMN d", "contracting"),
        ("ALTER TABLE t DROP c", "contracting"),
        ("ALTER TABLE t ALTER c DROP NOT NULL", "expanding"),
        ("ALTER TABLE t ALTER COLUMN c SET NOT NULL", "contracting"),
        ("ALTER TABLE t ALTER COLUMN c TYPE bigint", "contracting"),
        ("ALTER TABLE t ALTER COLUMN c SET DEFAULT 1", "expanding"),
        ("ALTER TABLE t ALTER COLUMN c DROP DEFAULT", "contracting"),
        ("ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID", "contracting"),
        ("ALTER TABLE t DROP CONSTRAINT k", "contracting"),
        ("ALTER TABLE t RENAME COLUMN a TO b", "contracting"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "contracting"),
        ("ALTER TYPE mood ADD VALUE 'fine'", "expanding"),
        ("ALTER TYPE mood RENAME VALUE 'fine' TO 'good'", "contracting"),
        ("DROP TABLE t", "contracting"),
        ("DROP INDEX i", "contracting"),
        ("TRUNCATE t", "contracting"),
        ("DELETE FROM t WHERE a = 1", "contracting"),
        ("UPDATE t SET a = 1", "unknown"),
        ("ALTER TABLE t ADD COLUMN b int; UPDATE t SET b = a", "expanding"),
        ("ALTER TABLE t ADD COLUMN b int; UPDATE t SET b = a, a = 0", "unknown"),
        ("INSERT INTO t VALUES ('DROP TABLE t; DELETE FROM x')", "expanding"),
        ("-- DROP TABLE t\nCREATE TABLE u (id int)", "expanding"),
        ("CREATE /* it's DROP */ TABLE u (id int) -- 'x", "expanding"),
        ("DO $$ BEGIN DROP TABLE t; END $$", "unknown"),
        ("SELECT strange()", "unknown"),
        ("CREATE OR REPLACE VIEW v AS SELECT 1", "contracting"),
        ("CREATE TRIGGER g AFTER INSERT ON t EXECUTE FUNCTION f()", "contracting"),
        ("GRANT SELECT ON t TO reader", "expanding"),
        ("REVOKE SELECT ON t FROM reader", "contracting"),
        ("", "expanding"),
    ],
)
def test_raw_sql(sql, kind):
    assert judge_sql(sql, Made())[0] == kind


def test_what_is_new_concerns_nobody():
    steps = [
        {"revision": "1", "operations": [{"op": "CreateTableOp", "table_name": "new"}, {**ADD, "column_name": "fresh"}]},
        {
            "revision": "2",
            "operations": [
                {"op": "CreateIndexOp", "table_name": "new", "index_name": "i", "unique": True},
                {**ALTER, "column_name": "fresh", "nullable": False},
                {"op": "ExecuteSQLOp", "sql": "UPDATE t SET fresh = 1; DELETE FROM new"},
            ],
        },
    ]
    assert [found["kind"] for found in classify(steps).values()] == ["expanding", "expanding"]


def test_the_worst_counts_and_what_was_not_seen_is_unknown():
    drop = {"op": "DropTableOp", "table_name": "t"}
    found = classify(
        [
            {"revision": "1", "operations": [ADD], "unseen": "it cannot run without a database: x"},
            {"revision": "2", "operations": [ADD, drop], "unseen": "it cannot run without a database: x"},
            {"revision": "3", "operations": []},
        ]
    )
    assert [one["kind"] for one in found.values()] == ["unknown", "contracting", "expanding"]
    assert found["1"]["why"] == ["it cannot run without a database: x"]
    assert found["2"]["why"] == ["drops the table t", "it cannot run without a database: x"]
