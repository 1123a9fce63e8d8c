# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type import, in a real virtual environment; and the comparison of versions, against the library that defines it."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _pep440
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine, imports
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

ME = getpass.getuser()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with packages that are no more than their metadata, and an app beside it."""
    path = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path / "venv"], check=True)
    site = next((path / "venv" / "lib").glob("python*/site-packages"))
    for name, version in (("bcrypt", "4.3.0"), ("email_validator", "2.2.0"), ("Flask.Login", "0.7.0rc1"), ("odd", "not a version")):
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    app = path / "app" / "shop"
    app.mkdir(parents=True)
    (app / "__init__.py").write_text("import os\nos.write(1, b'hello from the app')\n")
    (app / "wsgi.py").write_text("def app(): ...\nnothing = 5\n")
    (app / "models.py").write_text("class Base: ...\n\nraise ValueError(\"Attribute name 'metadata' is reserved, canary-12345\")\n")
    (app / "views.py").write_text("import sys\nfrom shop import tools\n")
    (app / "tools.py").write_text("x = undefined\n")
    (app / "broken.py").write_text("def f(:\n")
    (app / "quits.py").write_text("import sys\nsys.exit(3)\n")
    (app / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    (app / "dies.py").write_text("import os, sys\nprint('out of metrics', file=sys.stderr)\nos._exit(4)\n")
    (app / "threads.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n")
    return path


@pytest.fixture
def imported(environment, check):
    python = str(environment / "venv" / "bin" / "python")
    return lambda **options: check(type="import", python=python, directory=str(environment / "app"), **options)


def test_what_is_installed(imported):
    verdict = imported(requires=["bcrypt<5", "email-validator>=2", "flask_login~=0.7.0rc1", "BCRYPT[extra] >= 4, != 4.2.*"])
    assert verdict.verdict == "pass", verdict
    assert verdict.found["installed"] == {"bcrypt": "4.3.0", "email-validator": "2.2.0", "flask-login": "0.7.0rc1"}
    verdict = imported(requires=["bcrypt<4", "email-validator>=2.10", "boto3", "flask-login>=0.7", "odd>1"])
    for said in (
        "bcrypt is 4.3.0, expected bcrypt<4",
        "email-validator is 2.2.0, expected email-validator>=2.10",
        "boto3 is not installed, expected boto3",
        "flask-login is 0.7.0rc1, expected flask-login>=0.7",
        "odd: 'not a version' is no version",
    ):
        assert said in verdict.evidence
    assert verdict.verdict == "fail"


def test_what_can_be_imported(imported, environment):
    verdict = imported(modules=["shop", "json", "shop.threads"], entrypoint="shop.wsgi:app", user=ME)
    assert verdict.verdict == "pass" and "hello" not in verdict.evidence and verdict.elapsed < 5, verdict
    assert not list((environment / "app").rglob("__pycache__")), "a check writes nothing"
    (environment / ".env").write_text("TOKEN=canary-12345\n")
    modules = ["shop.models", "shop.views", "shop.broken", "shop.quits", "shop.nowhere"]
    for said, verdict in (
        ("shop.models cannot be imported: ValueError: Attribute name 'metadata' is reserved", imported(modules=modules, user=ME)),
        (f"shop.views cannot be imported: NameError: name 'undefined' is not defined ({environment}/app/shop/tools.py, line 1)", None),
        (
            f"shop.broken cannot be imported: SyntaxError: invalid syntax (broken.py, line 1) ({environment}/app/shop/broken.py, line 1)",
            None,
        ),
        ("shop.quits cannot be imported: SystemExit: 3", None),
        ("shop.nowhere cannot be imported: ModuleNotFoundError: No module named 'shop.nowhere'", None),
    ):
        last = verdict or last  # noqa: F821
        assert said in last.evidence, last.evidence
    assert "it cannot be called" in imported(entrypoint="shop.wsgi:nothing", user=ME).evidence
    assert "AttributeError" in imported(entrypoint="shop.wsgi:other", user=ME).evidence


def test_what_cannot_be_told(imported, check):
    verdict = imported(modules=["shop.dies"], user=ME)
    assert (
        verdict.verdict == "unknown"
        and "ended with status 4 without an answer:" in verdict.evidence
        and "out of metrics" in verdict.evidence
    )
    began = time.monotonic()
    assert imported(modules=["shop.hangs"], user=ME, timeout=0.5).verdict == "unknown"
    assert time.monotonic() - began < 3
    assert check(type="import", python="/nonesuch/python", requires=["x"]).verdict == "unknown"
    assert imported(modules=["shop"], user="nonesuch").verdict == "unknown"


def test_another_account_imports_in_a_sandbox(imported, environment, monkeypatch):
    """With its variables, whose values are neither in the arguments nor in what is told."""
    (environment / ".env").write_text("TOKEN=canary-12345\n")
    asked = []

    def run(argv, **given):
        asked.append(argv)
        told = {"python": "3.11.2", "installed": {}, "errors": {"shop": ["ValueError", "no such token: canary-12345", ""]}}
        return _command.Finished(tuple(argv), 0, f"noise\n{json.dumps(told)}\n", "")

    monkeypatch.setattr(imports._command, "run", run)
    verdict = imported(modules=["shop"], user="daemon", environment_files=[str(environment / ".env")], timeout=7)
    assert "no such token: <TOKEN>" in verdict.evidence and "canary" not in json.dumps(asdict(verdict)) + str(asked)
    argv = asked[0]
    assert argv[0] == "systemd-run" and argv[-4:-1] == [str(environment / "venv" / "bin" / "python"), "-B", "-c"]
    for property in (
        "User=daemon",
        f"WorkingDirectory={environment}/app",
        f"EnvironmentFile=-{environment}/.env",
        "RuntimeMaxSec=7",
        "ProtectSystem=strict",
    ):
        assert property in argv
    assert not any("$" in argument for argument in argv)


@pytest.mark.parametrize(
    "options,said",
    [
        ({}, "requires, modules, entrypoint: found none"),
        ({"python": "python3", "requires": ["x"]}, "python: found"),
        ({"requires": ["bcrypt<5; python_version<'3.9'"]}, "a marker is not allowed"),
        ({"requires": ["bcrypt @ https://x/"]}, "an address is not allowed"),
        ({"requires": ["bcrypt=5"]}, "no comparison of a version"),
        ({"requires": ["bcrypt>=5.*"]}, ".* goes with"),
        ({"modules": ["shop.views:x"], "user": ME}, "names of modules"),
        ({"entrypoint": "shop.wsgi", "user": ME}, "such as shop.wsgi:app"),
        ({"requires": ["x"], "environment_files": ["/x"]}, "they go with user"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "import", "python": "/x/python", **options}])
    assert said in failure.value.message()


def test_an_app_is_never_imported_as_root_by_oversight(monkeypatch):
    monkeypatch.setattr(imports.os, "geteuid", lambda: 0)
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "import", "python": "/x/python", "modules": ["shop"]}])
    assert "would run as root" in failure.value.message()
    assert engine.validate([{"type": "import", "python": "/x/python", "requires": ["x"]}])


MOST = "1 1.0 1.0.0 1.0.1 1.1 1.10 1.2 2 10 0.9 1.0a1 1.0a2.dev3 1.0b1 1.0rc1 1.0.dev1 1.0.post1 1.0.post1.dev2 1.0-1"
OTHERS = "1.0.0.post0 1!0.5 1!1.0 1.0+local 1.0+local.2 1.0+1 v1.0 1.0alpha 1.0-beta.2 1.0c1 1.1.dev0 1.1a1 2.0rc1 1.0.0.0.1 0 1.0a1.post1 1.2.3.post4+x.y"
VERSIONS = [*MOST.split(), *OTHERS.split()]


def test_versions_are_compared_as_their_library_does():
    parsed = {text: Version(text) for text in VERSIONS}
    for one in VERSIONS:
        for other in VERSIONS:
            expected = (parsed[one] > parsed[other]) - (parsed[one] < parsed[other])
            mine, others = _pep440.version_of(one).key(), _pep440.version_of(other).key()
            assert (mine > others) - (mine < others) == expected, (one, other)
    for operator in ("==", "!=", "<=", ">=", "<", ">", "~=", "==*", "!=*", "==="):
        for wanted in VERSIONS:
            text = f"{operator[:2]}{wanted}.*" if operator.endswith("*") else f"{operator}{wanted}"
            try:
                specifier = Requirement(f"x{text}").specifier
            except InvalidRequirement:
                specifier = None
            try:
                clauses = _pep440.clauses_of(text)
            except ValueError:
                clauses = None
            if specifier is None or clauses is None:
                assert operator.endswith("*") or (specifier is None) == (clauses is None), text
                continue
            for installed in VERSIONS:
                if operator in "<>" and parsed[wanted].is_postrelease and parsed[installed].is_prerelease:
                    continue  # the library has changed its mind
                if operator == ">" and parsed[wanted].is_prerelease and parsed[installed].is_postrelease:
                    continue
                assert _pep440.allows(clauses, installed) == specifier.contains(installed, prereleases=True), (installed, text)
    assert _pep440.allows(_pep440.clauses_of("(>=1.0, <2)"), "1.5") and not _pep440.allows(_pep440.clauses_of(">=1,<1.5"), "1.5")
