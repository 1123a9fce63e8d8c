# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module health_check, run as Ansible runs it: a process that reads its arguments and prints one JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml
from ansible_collections.bulletproof.deploy.plugins.module_utils import _logs
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine, registry
from ansible_collections.bulletproof.deploy.plugins.modules import health_check

CANARY = "s3cr3tcanary"


def run_module(*checks, check_mode=False, **options):
    arguments = {"ANSIBLE_MODULE_ARGS": {"checks": list(checks), "_ansible_check_mode": check_mode, **options}}
    command = [sys.executable, "-m", health_check.__name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, timeout=60, env=environment, check=False)
    return done.returncode, json.loads(done.stdout), done.stdout + done.stderr


@pytest.fixture
def echo(serve):
    """The URL of a server that answers 500 and sends back what it got."""

    def respond(handler):
        said = f"{handler.received().decode()} {handler.headers['Authorization']} for {handler.headers['Host']}"
        handler.answer(500, said.encode())

    return f"{serve(respond).url}/"


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_healthy_host(tmp_path, check_mode):
    status, result, _output = run_module({"type": "path", "path": str(tmp_path), "state": "directory"}, check_mode=check_mode)
    assert status == 0 and result["healthy"] is True and result["changed"] is False
    assert result["summary"] == "1 of 1 checks passed."
    assert result["verdicts"][0]["verdict"] == "pass" and result["verdicts"][0]["attempts"] == 1


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    "bad,verdict",
    [({"type": "path", "path": "/nonesuch"}, "fail"), ({"type": "disk", "path": "/nonesuch", "min_free_mb": 1}, "unknown")],
)
def test_failed_and_unknown_fail_the_module(bad, verdict, check_mode):
    good = {"type": "path", "path": "/"}
    status, result, _output = run_module(good, {**bad, "name": "the bad one"}, check_mode=check_mode)
    assert status == 1 and result["failed"] and result["healthy"] is False
    assert f"- the bad one: {verdict}: " in result["msg"]
    assert [each["verdict"] for each in result["verdicts"]] == ["pass", verdict]


def test_it_only_reports_when_asked_to():
    status, result, _output = run_module({"type": "path", "path": "/nonesuch"}, must_be_healthy=False)
    assert status == 0 and result["healthy"] is False and "0 of 1" in result["summary"]


def test_mistakes_are_told_before_anything_is_checked():
    status, result, output = run_module({"type": "path", "path": "x", "mode": 420}, {"type": "http", "json": "x", "body": CANARY})
    assert status == 1 and "verdicts" not in result
    for said in ("path: found", "mode: found 420", "url, unix_socket: found none", "json: found"):
        assert said in result["msg"]
    assert CANARY not in output


def test_secrets_are_nowhere_and_everything_else_is_legible(echo):
    """A header or a field of one letter must not blank the numbers and verdicts of the result."""
    secret = {"Authorization": f"Bearer {CANARY}", "Host": "shop.example", "X-One": "1"}
    status, result, output = run_module({"type": "http", "url": echo, "headers": secret, "form": {"password": CANARY, "a": "fail"}})
    assert status == 1 and CANARY not in output
    assert result["verdicts"][0]["attempts"] == 1 and result["verdicts"][0]["verdict"] == "fail"
    status, result, output = run_module({"type": "http", "url": echo, "headers": secret, "body": f"{CANARY} 1"}, must_be_healthy=False)
    assert status == 0 and CANARY not in output
    assert result["healthy"] is False and "********" in result["summary"] and "for shop.example" in result["summary"]
    given = result["invocation"]["module_args"]["checks"][0]
    assert given["url"] == echo and not {"headers", "body", "form"} & set(given)


def test_the_documentation_says_what_the_types_take():
    documented = yaml.safe_load(health_check.DOCUMENTATION)["options"]["checks"]["suboptions"]
    spec = engine.argument_spec()
    assert set(documented) == set(spec)
    for name, option in spec.items():
        shape = {key: value for key, value in documented[name].items() if key in ("type", "elements", "choices", "default", "required")}
        assert shape == {key: value for key, value in option.items() if key != "no_log"}, name
    for check_type in registry.every():
        for name in check_type.options:
            assert f"V({check_type.name})" in str(documented[name]["description"]), (check_type.name, name)


def test_the_examples_have_no_mistakes():
    cursor = json.dumps(_logs.start(_logs.Sources(files=("/var/log/shop/error.log",))).as_json())
    for task in yaml.safe_load(health_check.EXAMPLES.replace('"{{ before.verdicts[0].found.cursor }}"', cursor)):
        assert engine.validate(task["bulletproof.deploy.health_check"]["checks"])


def test_what_is_secret_is_marked_so():
    secret = {name for name, option in engine.argument_spec().items() if option.get("no_log")}
    assert secret == {"headers", "body", "form", "steps", "access_key_id", "secret_access_key"}
