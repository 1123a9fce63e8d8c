# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``r2``: from options to a verdict. What is tried is in tests/unit/storage, a real storage in tests/integration/storage."""

from __future__ import annotations

import time

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

ENVIRONMENT = "R2_ENDPOINT={endpoint}\nR2_BUCKET_NAME=shop\nMY_KEY=AKIDCANARY0000000000\nMY_SECRET=s3cr3t/canary\n"
VARIABLES = {"access_key_id": "MY_KEY", "secret_access_key": "MY_SECRET"}


@pytest.fixture
def declared(tmp_path):
    def write(endpoint: str = "http://127.0.0.1:1") -> dict[str, object]:
        (tmp_path / ".env").write_text(ENVIRONMENT.format(endpoint=endpoint))
        return {"type": "r2", "environment_files": [str(tmp_path / ".env")], "variables": VARIABLES}

    return write


def test_a_storage_that_does_not_answer(check, declared, serve_bytes, tmp_path):
    refused = check(**declared())
    assert refused.verdict == "fail" and refused.found["causes"] == ["refused"], refused
    assert "bucket shop at http://127.0.0.1:1" in refused.evidence and "found nothing listens at the endpoint" in refused.evidence
    began = time.monotonic()
    silent = check(**declared(serve_bytes(lambda connection: time.sleep(5))), timeout=1)
    assert silent.verdict == "fail" and silent.found["causes"] == ["timeout"] and time.monotonic() - began < 3
    echo = declared(serve_bytes(lambda connection: connection.sendall(b"HTTP/1.1 500 s3cr3t/canary\r\n\r\n")))
    for verdict in (refused, silent, check(**echo)):
        assert "s3cr3t" not in str(verdict) and "AKIDCANARY" not in str(verdict)
    missing = check(type="r2", environment_files=[str(tmp_path / "none")])
    assert missing.verdict == "fail" and missing.found["causes"] == ["credentials_missing"]
    assert check(type="r2", environment_files=[str(tmp_path)]).verdict == "unknown"


def test_findings_become_a_verdict(check, declared, monkeypatch):
    """A warning is said and is no failure; whatever is in the evidence, no key is."""
    seen = []

    def outcome(*findings):
        monkeypatch.setattr(
            _bucket, "check", lambda options, trial: seen.append((options, trial)) or _bucket.Outcome("bucket shop", findings)
        )
        return check(**declared(), access="read", timeout=20)

    said = ("bucket shop", "a leak of s3cr3t/canary", "none", "Look.")
    passed = outcome(Finding(*said, "warning", "r2_excess_write"))
    assert passed.verdict == "pass" and "Warning: bucket shop: found a leak of ********;" in passed.evidence
    failed = outcome(Finding(*said, "error", "r2_no_read"), Finding(*said, "error", "r2_no_list"))
    assert failed.verdict == "fail" and failed.found["causes"] == ["no_read", "no_list"] and failed.evidence.count("found") == 2
    options, trial = seen[-1]
    assert (options["secret_access_key_variable"], options["bucket_variable"]) == ("MY_SECRET", "R2_BUCKET_NAME")
    assert (trial.access, trial.seconds + 2 * trial.read_timeout, trial.attempts) == ("read", 20, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "environment_files: it is missing"),
        ({"environment_files": ["/x"], "variables": {"secret": "X"}}, 'variables: found "secret"'),
        ({"environment_files": ["/x"], "variables": {"bucket": 3}}, "the name of a variable"),
        ({"environment_files": ["/x"], "access": "write"}, "one of read, read_write"),
        ({"bucket": "x", "access_key_id": "s3cr3t", "secret_access_key": {"s3cr3t": 1}}, "not shown"),
    ],
)
def test_mistakes(check, options, said):
    with pytest.raises(Failure) as failure:
        check(type="r2", **options)
    assert said in failure.value.message() and "s3cr3t" not in failure.value.message()


def test_what_is_given_and_what_others_pay(check, python):
    """Fails with the import at the top: a check of a disk must not wait for what only this type needs."""
    found = check(type="r2", bucket="shop", endpoint="http://127.0.0.1:1", access_key_id="key", secret_access_key="canary")
    assert found.name == "r2 shop" and found.found["causes"] == ["refused"]
    code = "import sys; from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import registry; registry.every(); print(*sys.modules)"
    loaded = python(code).stdout.split()
    assert not {"ssl", "boto3", "http.client", "email.utils", "ipaddress"} & {*loaded}
    assert not [name for name in loaded if name.endswith(("._bucket", "._object_store"))]
