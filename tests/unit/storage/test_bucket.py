# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is tried of a bucket and what is made of it, without a storage; with a real one it is in tests/integration/storage."""

from __future__ import annotations

import contextlib
import io
import types
import urllib.parse

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket, _bucket_causes, _bucket_url, _object_store
from ansible_collections.bulletproof.deploy.plugins.module_utils._bucket_causes import CAUSES
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import Location, Refused, Stored, Upload
from botocore import auth, awsrequest, credentials

ACCOUNT = "0123456789abcdef0123456789abcdef"
LOCATION = Location(f"https://{ACCOUNT}.r2.cloudflarestorage.com", "shop", "key", "canary")
NOW = 1_800_000_000.0


class Storage:
    """One object of a storage that answers certain requests with certain causes."""

    def __init__(self, refused: dict[str, str], age: float = 0, buckets: tuple[str, ...] = ("shop",)) -> None:
        self.location = LOCATION
        self.refused = refused
        self.age = age
        self.asked: list[str] = []
        self.content: bytes | None = None
        body = types.SimpleNamespace(read=lambda _size: b"", close=lambda: None)
        self.client = types.SimpleNamespace(
            head_bucket=lambda **_given: self.ask("head"),
            get_object=lambda **_given: self.ask("get") or {"Body": body},
            list_buckets=lambda: self.ask("buckets") or {"Buckets": [{"Name": name} for name in buckets]},
            meta=types.SimpleNamespace(events=types.SimpleNamespace(register=lambda *_given: None)),
        )

    def ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.refused:
            raise Refused(what, LOCATION, CAUSES[self.refused[what]])

    @contextlib.contextmanager
    def telling(self, what: str, tolerate=()):
        try:
            yield
        except Refused as failure:
            if failure.because.name not in tolerate:
                raise

    def list(self, prefix: str, most: int | None = None) -> list[Stored]:
        self.ask("list")
        return [Stored("left", 1, "", modified=NOW - self.age)]

    def uploads(self, prefix: str) -> list[Upload]:
        self.ask("uploads")
        return [Upload("half", "id", NOW - self.age)]

    def put(self, key: str, content: bytes) -> None:
        self.ask("put")
        self.content = content

    def put_parts(self, key: str, stream: io.BytesIO, part: int, sha256: str) -> None:
        self.ask("multipart")
        self.content = stream.read()

    def get(self, key: str) -> bytes:
        self.ask("get")
        return b"other" if "get other" in self.refused else self.content or b""

    def delete(self, key: str) -> None:
        self.ask("delete" if key != "left" else "delete left")

    def abort(self, upload: Upload) -> None:
        self.ask("abort left")


@pytest.fixture
def fetch(monkeypatch):
    """Presigned URLs, served by the storage: good for as long as they say."""
    current: list[Storage] = []

    def get(location, url, timeout, limit=None):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        current[-1].ask("presigned" if query["X-Amz-Expires"] == ["60"] else "expired")
        if query["X-Amz-Expires"] == ["1"] and "not expired" not in current[-1].refused:
            raise Refused("expired", location, CAUSES["no_read"])
        return current[-1].content or b""

    monkeypatch.setattr(_bucket_url, "fetch", get)
    monkeypatch.setattr(_bucket.time, "time", lambda: NOW)
    return current.append


FULL = ["list", "head", "uploads", "put", "get", "multipart", "presigned", "expired", "buckets", "delete"]
READ = ["list", "head", "get", "presigned", "expired"]
ALL_BUT = FULL[:-1]


@pytest.mark.parametrize(
    ("trial", "refused", "asked", "found"),
    [
        pytest.param({}, {}, FULL, [], id="all is well"),
        pytest.param({}, {"buckets": "no_list"}, FULL, [], id="a token of one bucket"),
        # What every request would meet is told once.
        pytest.param({}, {"list": "wrong_key"}, ["list"], ["r2_wrong_key"], id="a wrong key"),
        pytest.param({}, {"list": "timeout"}, ["list"], ["r2_timeout"], id="silence"),
        pytest.param({}, {"head": "bucket_absent"}, ["list", "head"], ["r2_bucket_absent"], id="no bucket"),
        pytest.param(
            {}, {"list": "no_list"}, [one for one in FULL if one not in ("head", "uploads")], ["r2_no_list"], id="without list"
        ),
        pytest.param(
            {}, {"put": "no_write"}, ["list", "head", "uploads", "put", "get", "presigned", "expired", "buckets"], ["r2_no_write"],
            id="without write, and nothing to clean up",
        ),
        pytest.param(
            {}, {"get": "no_read"}, ["list", "head", "uploads", "put", "get", "multipart", "buckets", "delete"], ["r2_no_read"],
            id="without read",
        ),
        pytest.param(
            {}, {"list": "no_list", "put": "no_write", "get": "no_read"}, ["list", "put", "get", "buckets"],
            ["r2_no_list", "r2_no_write", "r2_no_read"], id="all that a token lacks, at once",
        ),
        pytest.param({}, {"put": "timeout"}, ["list", "head", "uploads", "put", "delete"], ["r2_timeout"], id="nobody knows whether it is there"),
        pytest.param({}, {"get": "broken"}, ["list", "head", "uploads", "put", "get", "delete"], ["r2_broken"], id="broken off, cleaned up"),
        pytest.param({}, {"get other": ""}, [*FULL[:6], "buckets", "delete"], ["r2_damaged"], id="something else comes back"),
        pytest.param({}, {"multipart": "unsupported"}, FULL, ["r2_unsupported"], id="no multipart"),
        pytest.param({}, {"presigned": "no_read"}, [*FULL[:7], "buckets", "delete"], ["r2_presigned"], id="no presigned URLs"),
        pytest.param({}, {"not expired": ""}, FULL, ["r2_not_expired"], id="for ever"),
        pytest.param({}, {"delete": "no_write"}, FULL, ["r2_no_write"], id="without delete"),
        pytest.param({"access": "read"}, {"put": "no_write"}, [*READ, "put", "buckets"], [], id="may only read"),
        pytest.param({"access": "read"}, {}, [*READ, "put", "buckets", "delete"], ["warning r2_excess_write"], id="may write as well"),
        pytest.param({"access": "read"}, {"put": "no_write", "get": "object_absent"}, [*READ, "put", "buckets"], [], id="an empty bucket"),
        pytest.param({"access": "read"}, {"list": "no_list", "get": "no_read"}, ["list", "get", "put", "buckets", "delete"],
                     ["r2_no_list", "r2_no_read", "warning r2_excess_write"], id="the wrong way round"),
        pytest.param({"write": False}, {}, [*READ, "buckets"], [], id="check mode writes nothing"),
        pytest.param({"seconds": -1}, {}, [], ["r2_timeout"], id="no time"),
    ],
)  # fmt: skip
def test_what_is_tried_and_what_is_found(fetch, trial, refused, asked, found):
    storage = Storage(refused)
    fetch(storage)
    outcome = _bucket.Probe(storage, _bucket.Trial(**trial)).run()
    assert storage.asked == asked
    assert [f"{one.severity} {one.rule}".replace("error ", "") for one in outcome.findings] == found
    assert all(one.found and one.expected and one.fix and "canary" not in str(one) for one in outcome.findings)
    assert {one.step for one in outcome.steps} <= {*_bucket.EXPECTED}
    assert outcome.not_tried == ([] if trial.get("write", True) else ["put", "multipart", "delete"])


def test_other_buckets_and_leftovers(fetch):
    """Fails without the age: what another run is just doing would be taken from it."""
    storage = Storage({}, age=3599, buckets=("shop", "other", "third"))
    fetch(storage)
    outcome = _bucket.Probe(storage, _bucket.Trial()).run()
    assert [(one.rule, one.severity) for one in outcome.findings] == [("r2_excess_buckets", "warning")]
    assert "it lists 2 other buckets" in outcome.findings[0].found and not outcome.errors and outcome.leftovers == []
    storage = Storage({"get": "no_read"}, buckets=("other",))
    fetch(storage)
    assert [one.rule for one in _bucket.Probe(storage, _bucket.Trial()).run().findings] == ["r2_no_read", "r2_other_buckets"]
    storage = Storage({"abort left": "no_write"}, age=3600)
    fetch(storage)
    outcome = _bucket.Probe(storage, _bucket.Trial()).run()
    assert outcome.leftovers == ["left"] and [one.rule for one in outcome.findings] == ["r2_no_write"] and not outcome.errors


def test_a_clock_that_is_off_is_a_warning_before_it_is_a_failure(fetch):
    for ahead, said in ((31.0, "31 s ahead of"), (-500.0, "500 s behind")):
        storage = Storage({"list": "clock"} if ahead < 0 else {})
        fetch(storage)
        probe = _bucket.Probe(storage, _bucket.Trial())
        probe.skew = ahead
        [finding] = probe.run().findings
        assert said in finding.found and finding.rule == ("r2_clock" if ahead < 0 else "r2_clock_skew")


@pytest.mark.parametrize(
    ("date", "now", "skew"),
    [
        ("Sun, 22 Nov 2026 08:00:00 GMT", 1795334400.9, 0),
        ("Sun, 22 Nov 2026 08:00:00 GMT", 1795334410.0, 9),
        ("Sun, 22 Nov 2026 08:00:00 GMT", 1795334390.0, -10),
        ("yesterday", 0, None),
        (None, 0, None),
    ],
)
def test_skew(date, now, skew):
    assert _bucket.skew_of(date, now) == skew


@pytest.mark.parametrize("endpoint", [LOCATION.endpoint, "http://10.0.0.1:8333"])
def test_a_presigned_url_is_signed_as_boto_signs_it(monkeypatch, endpoint):
    """The same moment, the same signature."""
    location = Location(endpoint, "shop", "key", "canary")
    key = ".bulletproof-probe/host a+b=c~d"
    ours = _bucket_url.presigned(location, key, NOW, 60)
    moment = _bucket_url.time.strftime("%Y%m%dT%H%M%SZ", _bucket_url.time.gmtime(NOW))
    request = awsrequest.AWSRequest("GET", ours.partition("?")[0])
    signer = auth.S3SigV4QueryAuth(credentials.Credentials("key", "canary"), "s3", "auto", expires=60)
    frozen = types.SimpleNamespace(strftime=lambda _form: moment)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_given, **_named: frozen)
    signer.add_auth(request)
    theirs, mine = (urllib.parse.urlsplit(one) for one in (request.url, ours))
    assert (mine.netloc, mine.path) == (theirs.netloc, theirs.path)
    assert urllib.parse.parse_qs(mine.query) == urllib.parse.parse_qs(theirs.query)


OPTIONS = {name: spec.get("default") for name, spec in _object_store.SPEC.items()}
GIVEN = {**OPTIONS, "environment_files": [], "bucket": "shop", "access_key_id": "key", "secret_access_key": "canary"}
R2 = "r2.cloudflarestorage.com"


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({"account_id": ACCOUNT}, f"https://{ACCOUNT}.{R2}"),
        ({"account_id": ACCOUNT.upper(), "jurisdiction": "eu"}, f"https://{ACCOUNT}.eu.{R2}"),
        ({"account_id": ACCOUNT, "endpoint": f"https://{ACCOUNT}.fedramp.{R2}/"}, f"https://{ACCOUNT}.fedramp.{R2}"),
        # Whose a storage elsewhere is, nobody can tell by its name.
        ({"account_id": "any", "endpoint": "http://10.0.0.1:8333"}, "http://10.0.0.1:8333"),
    ],
)
def test_the_endpoint_follows_from_the_account(options, endpoint):
    assert _object_store.location_of({**GIVEN, **options}).endpoint == endpoint


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({}, "credentials_missing"),
        ({"account_id": "canary"}, "account"),
        ({"account_id": "f" * 32, "endpoint": f"https://{ACCOUNT}.{R2}"}, "account"),
        ({"jurisdiction": "eu", "endpoint": f"https://{ACCOUNT}.{R2}"}, "jurisdiction"),
        ({"jurisdiction": "eu", "endpoint": f"https://{ACCOUNT}.fedramp.{R2}"}, "jurisdiction"),
        ({"jurisdiction": "eu", "endpoint": "http://10.0.0.1:8333"}, "jurisdiction"),
    ],
)
def test_what_does_not_belong_together_is_told_without_a_request(options, cause):
    with pytest.raises(Failure) as failure:
        _object_store.location_of({**GIVEN, **options})
    assert failure.value.facts["cause"] == cause and "canary" not in failure.value.message()
    [finding] = _bucket.check({**GIVEN, **options}, _bucket.Trial()).findings
    assert finding.rule == f"r2_{cause}" and finding.fix


def test_the_storage_says_that_it_takes_no_checksums():
    """What R2 has said to boto3's own settings, and what is no such thing."""
    for code, said, cause in (
        ("NotImplemented", "STREAMING-UNSIGNED-PAYLOAD-TRAILER not implemented: trailer", "checksum"),
        ("NotImplemented", "Header 'x-amz-checksum-algorithm' with value 'CRC32' not implemented", "checksum"),
        ("NotImplemented", "Multipart is not implemented", "unsupported"),
        ("InvalidRequest", "The value of x-amz-trailer is wrong", "checksum"),
    ):
        answer = {"Error": {"Code": code, "Message": said}, "ResponseMetadata": {"HTTPStatusCode": 501}}
        assert _bucket_causes.answered(answer, "PutObject").name == cause
