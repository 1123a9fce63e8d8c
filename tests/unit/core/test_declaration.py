# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A declaration and what is wrong with it, as a table."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _declaration

GOOD = {
    "app_name": "shop",
    "app_source": "/src",
    "app_version": "1.0",
    "app_entrypoint": "shop.wsgi:app",
    "app_root": "/opt/shop",
    "app_worker_class": "sync",
}


def mistakes(optional=(), **variables):
    merged = {**GOOD, **variables}
    return _declaration.check({name: value for name, value in merged.items() if value is not ...}, optional)[1]


def test_a_good_one():
    declared, wrong = _declaration.check(GOOD)
    assert wrong == [] and declared["app_workers"] == 3 and declared["app_lease"] == 300


@pytest.mark.parametrize(
    "variables,said",
    [
        ({"app_workers": "three"}, 'app_workers: found "three"; allowed: a whole number from 1 to 256.'),
        ({"app_workers": 0}, "app_workers: found 0; allowed: a whole number from 1 to 256."),
        ({"app_workers": True}, "app_workers: found true; allowed: a whole number from 1 to 256."),
        ({"app_workers": [3]}, "app_workers: found [3]; allowed: a whole number from 1 to 256."),
        ({"app_workerz": 3}, "app_workerz: unknown; did you mean app_workers?"),
        ({"app_zzzzzzz": 3}, "app_zzzzzzz: unknown; no variable of that name exists"),
        ({"app_name": ...}, "app_name: missing; The app's name."),
        ({"app_name": ""}, "app_name: missing; The app's name."),
        ({"app_name": "Shop"}, 'app_name: found "Shop"; allowed: lower-case letters'),
        ({"app_name": "shop/../x"}, 'app_name: found "shop/../x"'),
        ({"app_name": "a" * 33}, "at most 32"),
        ({"app_root": "/"}, 'app_root: found "/"; allowed: an absolute path of letters, digits and ._+-, at least two levels deep.'),
        ({"app_root": "opt/shop"}, "app_root: found"),
        ({"app_root": "/opt/my shop"}, "app_root: found"),
        ({"app_version": "1.0; rm -rf /"}, "app_version: found"),
        ({"app_entrypoint": "shop/wsgi.py"}, 'app_entrypoint: found "shop/wsgi.py"; allowed: module:attribute'),
        ({"app_strategy": "green"}, 'app_strategy: found "green"; allowed: one of blue_green, direct, rolling.'),
        ({"app_health_path": "health"}, "app_health_path: found"),
        ({"app_health_status": []}, "app_health_status: found []"),
        ({"app_health_status": [200, 777]}, "a list of HTTP statuses, 100 to 599"),
        ({"app_health_status": ["ok"]}, "a list of HTTP statuses, 100 to 599"),
        ({"app_health_version": {"json": "a", "header": "b"}}, "app_health_version: found"),
        ({"app_health_version": {"xml": "a"}}, "app_health_version: found"),
        ({"app_environment": {"1A": "x"}}, "app_environment: found a value that is not shown; allowed: a dictionary of names"),
        ({"app_environment": {"A": ["canary"]}}, "app_environment: found a value that is not shown"),
        ({"app_notify": ["canary"]}, "app_notify: found a value that is not shown; allowed: a list of URLs"),
        ({"app_notify": [{"url": "json://host/canary", True: ["start"]}]}, "app_notify: found a value that is not shown"),
        (
            {"app_notify": [{"url": "json://host/canary", "events": ["end"]}]},
            "and, if wanted, events (start, success, failure, revert) and name.",
        ),
        ({"app_env": {"1A": "x"}}, "app_env: 1A is no name of a variable"),
        ({"app_env": {"A": True}}, "app_env: A: allowed is text or a whole number; put it in quotes"),
        ({"app_env": {"A": "canary" * 30000}}, "app_env: A: it has 180003 bytes with its name; allowed: 131072"),
        ({"app_env": ["canary"]}, "app_env: found a value that is not shown; allowed: a dictionary."),
        ({"app_env_generate": {"A": "guid"}}, "app_env_generate: A: allowed is a kind"),
        ({"app_env": {"A": "x"}, "app_env_generate": {"A": "uuid"}}, "app_env_generate: A is declared, too; allowed: one of both."),
        ({"app_env": {"A": "x"}, "app_env_remove": ["A"]}, "app_env_remove: A is declared, too"),
        ({"app_env": {"A": "x"}, "app_environment": {"A": "x"}}, "app_environment: found A, which is in app_env or app_env_generate, too"),
        ({"app_env_merge": "overwrite"}, 'app_env_merge: found "overwrite"; allowed: one of keep, replace.'),
        (
            {"app_env_presets": ["r2"]},
            'app_env_presets: found ["r2"]; allowed: a list of presets: fernet, flask, postgresql, r2_production.',
        ),
        ({"app_env_rules": [{"requires": ["A"], "required": ["A"]}]}, "app_env_rules: rule 1: requires: unknown; allowed: required"),
        ({"app_waivers": [{"rule": "a", "reason": "b", "until": "soon"}]}, "app_waivers: waiver 1 (a): until: found soon; allowed: a day"),
        ({"app_shared_directories": ["../etc"]}, "app_shared_directories: found"),
        ({"app_shared_directories": ["/etc"]}, "app_shared_directories: found"),
        ({"app_shared_files": [".release/x"]}, "app_shared_files: found"),
        ({"app_user": "root;"}, "app_user: found"),
        ({"app_listen": 70000}, "app_listen: found 70000; allowed: a whole number from 1 to 65535."),
        ({"app_watch_replaced": -1}, "app_watch_replaced: found -1; allowed: a whole number from 0 to 1000."),
        (
            {"app_lease": 60},
            "app_lease: found 60; allowed: at least 100 (app_start_timeout + app_watch, or app_batch_watch if that is longer, + 30)",
        ),
        ({"app_lease": 130, "app_batch_watch": 60}, "app_lease: found 130; allowed: at least 150"),
        ({"app_instances": 0, "app_strategy": "rolling"}, "app_instances: found 0; allowed: a whole number from 1 to 64."),
        ({"app_instances": 3}, "app_instances: found 3; allowed with app_strategy blue_green: 1 (rolling has several)."),
        (
            {"app_instances": 5, "app_strategy": "rolling"},
            "app_lease: found 300; allowed: at least 340 (app_start_timeout for each of app_instances + app_watch",
        ),
        ({"app_batches": [1, 0]}, "app_batches: found [1, 0]; allowed: a list of numbers of hosts (1 or more)"),
        ({"app_batches": ["150%"]}, 'app_batches: found ["150%"]; allowed'),
        ({"app_batches": []}, "app_batches: found []; allowed"),
        ({"app_batches": ["a few"]}, "app_batches: found"),
        ({"app_batches": 2.5}, "app_batches: found"),
        ({"app_max_failures": -1}, "app_max_failures: found -1; allowed: a whole number from 0"),
        ({"app_interface": "asgi"}, 'app_worker_class: found "sync"; allowed with app_interface asgi'),
        ({"app_threads": 4}, 'app_worker_class: found "sync"; allowed with app_threads of more than 1: gthread'),
        (
            {"app_shared_directories": ["x"], "app_shared_files": ["x"]},
            'app_shared_files: found "x", which is in app_shared_directories too',
        ),
    ],
)
def test_one_mistake(variables, said):
    found = mistakes(**variables)
    assert len(found) == 1 and said in found[0], found


def test_all_mistakes_at_once_and_no_secret_among_them():
    found = mistakes(app_workers="three", app_lease="x", app_nome="x", app_environment={"1": "canary-12345"}, app_source=...)
    assert len(found) == 5 and "canary" not in "".join(found), found


@pytest.mark.parametrize(
    "strategy,instances,slots",
    [("blue_green", 1, ["blue", "green"]), ("rolling", 1, ["blue", "green"]), ("rolling", 3, ["1..3"]), ("direct", 1, ["main"])],
)
def test_where_a_release_may_run(strategy, instances, slots):
    assert _declaration.slots({"app_strategy": strategy, "app_instances": instances}) == slots


def test_what_a_playbook_can_do_without():
    assert mistakes(optional=["app_version"], app_version=...) == []
    assert len(mistakes(app_version=...)) == 1


@pytest.mark.parametrize("name", sorted(_declaration.PLAYBOOK_VARIABLES))
def test_what_playbooks_use_themselves_is_no_mistake(name):
    assert mistakes(**{name: {}}) == []


@pytest.mark.parametrize("version,told", [("1.0", ["1.0", "v1.0"]), ("v1.0", ["1.0", "v1.0"]), ("vintage", ["vintage", "vvintage"])])
def test_a_version_may_be_told_with_or_without_v(version, told):
    assert _declaration.expected_versions(version) == told


def test_checks_are_looked_at_before_any_host():
    """Fails when they are left to the engine on the host, which would refuse them in the middle of a switch."""
    told = mistakes(
        app_checks=[
            {"type": "burst", "path": "/", "requests": 20},
            {"type": "log", "files": ["{logs}/error.log"], "never": ["python"], "when": "later"},
            {"type": "http", "path": "/", "deadlne": 3},
            {"path": "/"},
        ],
        app_preflight_checks=[{"type": "r2", "severity": "fatal"}, {"type": "port", "port": "ssh"}],
    )
    assert [one.split(":")[0] for one in told] == ["app_checks"] * 3 + ["app_preflight_checks"] * 2
    assert 'app_checks: check 2: when: found "later"; allowed: before, after, watch.' in told
    assert any("deadlne" in one and "deadline" in one for one in told)
    assert "app_checks: check 4: type: missing; ansible-doc bulletproof.deploy.health_check lists them." in told
    assert 'app_preflight_checks: check 1: severity: found "fatal"; allowed: error, warning.' in told
    assert any("check 2" in one and "port" in one for one in told[4:])
