# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said to PostgreSQL and its programs, and what is understood of their answers."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import (
    backups,
    postgres,
    postgres_backup,
    postgres_contents,
    postgres_restore,
)
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres_backup import Dump
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.postgres_contents import Contents, Relation
from ansible_collections.bulletproof.deploy.plugins.module_utils._database.url import Postgres
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

SHOP = Postgres(
    name="shop", host="db.example", user="app", password="pa@:/?#%ss", options={"sslmode": "require", "target_session_attrs": "any"}
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('connection to server at "127.0.0.1", port 5432 failed: FATAL:  password authentication failed for user "app"', "wrong_password"),
        ("connection to server failed: fe_sendauth: no password supplied", "wrong_password"),
        ('connection to server failed: FATAL:  database "shop" does not exist', "database_absent"),
        ('connection to server failed: FATAL:  role "app" does not exist', "role_absent"),
        ('connection to server failed: FATAL:  role "app" is not permitted to log in', "role_absent"),
        (
            "connection to server failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
            "unreachable",
        ),
        ('connection to server on socket "/run/postgresql/.s.PGSQL.5432" failed: No such file or directory', "unreachable"),
        ('could not translate host name "db.example" to address: Name or service not known', "unreachable"),
        ("connection to server failed: timeout expired", "unreachable"),
        ("connection to server failed: server does not support SSL, but SSL was required", "tls"),
        ("connection to server failed: SSL error: certificate verify failed", "tls"),
        ('root certificate file "/root/.postgresql/root.crt" does not exist', "tls"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "app", database "shop", no encryption', "tls"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "app", database "shop", SSL encryption', "not_allowed"),
        ('FATAL:  Peer authentication failed for user "app"', "not_allowed"),
        ("FATAL:  sorry, too many clients already", "busy"),
        ("FATAL:  the database system is starting up", "busy"),
        ("FATAL:  das Datenbanksystem wird gestartet", "unknown"),
    ],
)
def test_connections_fail_for_different_reasons(said, reason):
    failure = postgres.explain(f"{said} pa@:/?#%ss", SHOP, "shop")
    assert failure.facts["reason"] == reason
    assert "pa@" not in failure.message() and failure.fix


def test_a_password_goes_to_libpq_and_to_no_command_line():
    assert postgres.arguments(SHOP, "postgres") == {
        "dbname": "postgres",
        "host": "db.example",
        "port": 5432,
        "user": "app",
        "password": "pa@:/?#%ss",
        "application_name": "bulletproof.deploy",
        "connect_timeout": 10,
        "sslmode": "require",
    }
    assert postgres.arguments(Postgres(name="shop"))["host"].startswith("/")
    dump = Dump(format="directory", jobs=4, compress="5", exclude_table_data=("public.sessions",))
    assert postgres_backup.arguments("pg_dump", "/b/.partial-x", dump, "0003-1") == [
        "pg_dump",
        "--format=directory",
        "--file=/b/.partial-x",
        "--no-password",
        "--snapshot=0003-1",
        "--jobs=4",
        "--compress=5",
        "--exclude-table-data=public.sessions",
    ]
    assert postgres_restore.into("pg_restore", "/b/x", "it's=\\odd", 3)[-2:] == ["--dbname=dbname='it\\'s=\\\\odd'", "/b/x"]
    assert "--single-transaction" in postgres_restore.over("pg_restore", "/b/x", "shop")


def test_over_the_socket_there_is_no_password():
    assert postgres.over_socket(SHOP, "postgres") == Postgres(name="shop", user="postgres")
    assert postgres.over_socket(Postgres(name="shop", host="/srv/pg", port=5433), "postgres") == Postgres(
        name="shop", host="/srv/pg", port=5433, user="postgres"
    )


@pytest.mark.parametrize(
    ("dump", "version", "said"),
    [
        (Dump(jobs=2), 15, "only the directory format"),
        (Dump(jobs=0), 15, "jobs"),
        (Dump(compress="zstd:3"), 15, "knows only 0 to 9"),
        (Dump(compress="fast"), 17, "allowed: 0 to 9"),
        (Dump(compress="10"), 17, "allowed: 0 to 9"),
    ],
)
def test_what_pg_dump_would_not_understand_is_refused(dump, version, said):
    with pytest.raises(Failure, match=said):
        postgres_backup.check(dump, version)


def test_what_pg_dump_understands_is_not():
    postgres_backup.check(Dump(format="directory", jobs=8, compress="9"), 13)
    postgres_backup.check(Dump(compress="zstd:19"), 16)


def backup(size):
    return backups.Backup("shop-1.dump", "shop", "postgresql", 1.0, size, "")


@pytest.mark.parametrize(("tables", "newest", "needed"), [(1000, None, 100), (1000, 300, 300), (1000, 5000, 1000)])
def test_how_much_must_be_free(tables, newest, needed):
    assert postgres_backup.needed(tables, backup(newest) if newest else None) == needed + postgres_backup.RESERVE


LISTING = """;
; Archive created at 2025-11-22 04:47:20 UTC
;     dbname: shop
;
; Selected TOC Entries:
;
2; 3079 16390 EXTENSION - hstore
3497; 0 0 COMMENT - EXTENSION hstore
215; 1259 16400 TABLE public customers shop
216; 1259 16410 TABLE public TABLE DATA of old shop
217; 1259 16420 VIEW public spenders shop
218; 1259 16430 MATERIALIZED VIEW public totals shop
219; 1259 16440 SEQUENCE public customers_id_seq shop
3490; 0 16400 TABLE DATA public customers shop
3491; 0 16410 TABLE DATA public TABLE DATA of old shop
3492; 0 16430 MATERIALIZED VIEW DATA public totals shop
"""
RELATIONS = [
    Relation(16400, "public.customers", "table", 8192),
    Relation(16410, 'public."TABLE DATA of old"', "table", 8192),
    Relation(16420, "public.spenders", "view", 0),
    Relation(16430, "public.totals", "materialized view", 8192),
    Relation(16440, "public.customers_id_seq", "sequence", 0),
]


def test_a_table_of_contents_is_compared_by_oid():
    assert postgres_contents.listed(LISTING) == ({16400, 16410, 16420, 16430, 16440}, {16400: 3490, 16410: 3491})
    assert postgres_contents.missing(RELATIONS, LISTING, False) == []
    without = "\n".join(line for line in LISTING.splitlines() if not line.startswith(("217;", "3491;")))
    assert postgres_contents.missing(RELATIONS, without, False) == ["the view public.spenders", 'the rows of public."TABLE DATA of old"']
    assert postgres_contents.missing(RELATIONS, without, True) == ["the view public.spenders"]


EXPECTED = Contents({"public.a": "table", "public.b": "table", "public.v": "view"}, {"public.a": 3, "public.b": None}, {"hstore": "1.8"}, 2)


@pytest.mark.parametrize(
    ("found", "problems"),
    [
        (EXPECTED, []),
        (Contents({**EXPECTED.relations, "public.c": "table"}, {"public.a": 3, "public.b": 9, "public.c": 1}, {"hstore": "2"}, 2), []),
        (Contents({"public.b": "table", "public.v": "view"}, {"public.b": 1}, {"hstore": "1.8"}, 2), ["the table public.a is missing"]),
        (Contents(EXPECTED.relations, {"public.a": 2}, {"hstore": "1.8"}, 2), ["public.a has 2 rows, not 3"]),
        (
            Contents({**EXPECTED.relations, "public.v": "table"}, {"public.a": 3}, {}, 0),
            ["public.v is a table, not a view", "the extension hstore is missing", "it has 0 large objects, not 2"],
        ),
    ],
)
def test_what_was_restored_is_compared(found, problems):
    assert postgres_contents.differences(EXPECTED, found) == problems


PROPERTIES = {
    "owner": 'the "owner"',
    "encoding": "UTF8",
    "collate": "C.UTF-8",
    "ctype": "C.UTF-8",
    "provider": "libc",
    "locale": None,
    "rules": None,
    "tablespace": "pg_default",
    "limit": -1,
    "comment": None,
    "acl": None,
    "settings": [],
}


def test_a_database_is_made_like_another():
    create = 'CREATE DATABASE "new" OWNER "the ""owner""" TEMPLATE template0 ENCODING \'UTF8\' LC_COLLATE \'C.UTF-8\' LC_CTYPE \'C.UTF-8\''
    rest = ' TABLESPACE "pg_default" CONNECTION LIMIT -1'
    assert postgres_contents.creation("new", PROPERTIES) == [create + rest]
    icu = {**PROPERTIES, "provider": "icu", "locale": "de-DE", "rules": "&a < b"}
    assert postgres_contents.creation("new", icu) == [f"{create} LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < b'{rest}"]
    builtin = {**PROPERTIES, "provider": "builtin", "locale": "C.UTF-8"}
    assert postgres_contents.creation("new", builtin) == [f"{create} LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'{rest}"]
    more = {
        **PROPERTIES,
        "owner": "shop",
        "comment": "it's\\",
        "acl": [["", "TEMPORARY", False], ["reader", "CONNECT", True]],
        "settings": [["", "search_path", '"$user", public'], ["shop", "app.name", "x'); DROP DATABASE shop; --"]],
    }
    assert postgres_contents.creation("new", more)[1:] == [
        "COMMENT ON DATABASE \"new\" IS E'it''s\\\\'",
        'REVOKE ALL ON DATABASE "new" FROM PUBLIC, "shop"',
        'GRANT TEMPORARY ON DATABASE "new" TO PUBLIC',
        'GRANT CONNECT ON DATABASE "new" TO "reader" WITH GRANT OPTION',
    ]
    assert postgres_contents.settings("new", more) == [
        "ALTER DATABASE \"new\" SET \"search_path\" TO '$user', 'public'",
        'ALTER ROLE "shop" IN DATABASE "new" SET "app"."name" TO \'x\'\'); DROP DATABASE shop; --\'',
    ]


@pytest.mark.parametrize(
    ("value", "elements"),
    [
        ('"$user", public', ["$user", "public"]),
        ('"a, ""b""",C', ['a, "b"', "c"]),
        ("", [""]),
        ('""', [""]),
        # An owner can store this; as it stands, a superuser would run it.
        ("a;drop/**/database/**/shop", ["a;drop/**/database/**/shop"]),
    ],
)
def test_a_list_is_taken_apart_and_quoted_again(value, elements):
    assert postgres_contents.elements(value) == elements


def test_names_beside_a_database():
    assert postgres_restore.aside_name("shop", "restore", 1763786840.5) == "shop_restore_20251122t044720500000"
    long = [postgres_restore.aside_name("ä" * 31 + last, "replaced", 0.0) for last in "ab"]
    assert all(len(name.encode()) <= 63 for name in long) and long[0] != long[1]


def test_only_what_a_killed_run_has_left_is_dropped():
    names = [
        "shop",
        "shop_restore_20251122t044720500000",
        "shop_drill_20251122t044720500000",
        "shop_replaced_20251122t044720500000",
        "shop_restore_2025",
        "shop2_restore_20251122t044720500000",
        "shop_restore_20251122t044720500000_mine",
    ]
    assert postgres_restore.leftovers("shop", names) == names[1:3]


def test_a_restore_needs_a_verified_backup(tmp_path):
    with pytest.raises(Failure, match="no verified backup of shop"):
        postgres_restore.choose(str(tmp_path), "shop")
    assert postgres_restore.choose(str(tmp_path), "shop", source_file="/x.dump") == postgres_restore.Source("/x.dump")
