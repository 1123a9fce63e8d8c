# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which cause an error is given, and which bucket is meant; the real server's answers are in tests/integration/database/test_backup_copy.py."""

from __future__ import annotations

import socket
import ssl

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _object_store
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import CAUSES, MIB, Location, cause_of
from botocore import exceptions


def answer(code: str, status: int, operation: str = "GetObject", message: str = "") -> exceptions.ClientError:
    return exceptions.ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


def wrapped(kind: type, inner: BaseException, **more: object) -> BaseException:
    return kind(endpoint_url="https://storage.example", error=inner, **more)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (answer("InvalidAccessKeyId", 403), "wrong_key"),
        # https://developers.cloudflare.com/r2/api/error-codes/
        (answer("Unauthorized", 401), "wrong_key"),
        (answer("InvalidArgument", 400, message="Credential access key has length 20, should be 32"), "wrong_key"),
        (answer("InvalidArgument", 400, message="Part number must be positive"), "request"),
        (answer("SignatureDoesNotMatch", 403), "wrong_secret"),
        (answer("NotEntitled", 403), "not_enabled"),
        (answer("RequestTimeTooSkewed", 403), "clock"),
        (answer("ExpiredRequest", 400), "clock"),
        (answer("AccessDenied", 403, "ListObjectsV2"), "no_list"),
        (answer("AccessDenied", 403, "ListMultipartUploads"), "no_list"),
        (answer("AccessDenied", 403, "GetObject"), "no_read"),
        (answer("403", 403, "HeadObject"), "no_read"),
        (answer("AccessDenied", 403, "PutObject"), "no_write"),
        (answer("AccessDenied", 403, "DeleteObject"), "no_write"),
        (answer("AccessDenied", 403, "CreateMultipartUpload"), "no_write"),
        (answer("NoSuchBucket", 404, "ListObjectsV2"), "bucket_absent"),
        (answer("404", 404, "HeadBucket"), "bucket_absent"),
        (answer("NoSuchKey", 404), "object_absent"),
        (answer("404", 404, "HeadObject"), "object_absent"),
        (answer("BadDigest", 400, "PutObject"), "damaged"),
        (answer("SlowDown", 503), "throttled"),
        (answer("Whatever", 429), "throttled"),
        (answer("InternalError", 500), "server"),
        (answer("Whatever", 502), "server"),
        (answer("NotImplemented", 501), "unsupported"),
        (answer("PreconditionFailed", 412), "request"),
        (exceptions.NoCredentialsError(), "credentials_missing"),
        (exceptions.EndpointConnectionError(endpoint_url="https://x", error=socket.gaierror(-2, "Name or service not known")), "dns"),
        (exceptions.EndpointConnectionError(endpoint_url="https://x", error=ConnectionRefusedError(111, "refused")), "refused"),
        (exceptions.EndpointConnectionError(endpoint_url="https://x", error=OSError(113, "No route to host")), "broken"),
        (wrapped(exceptions.SSLError, ssl.SSLCertVerificationError(1, "self-signed certificate")), "tls"),
        (wrapped(exceptions.ConnectTimeoutError, TimeoutError()), "timeout"),
        (wrapped(exceptions.ReadTimeoutError, TimeoutError()), "timeout"),
        (exceptions.ConnectionClosedError(endpoint_url="https://x", error=ConnectionResetError(104, "reset")), "broken"),
        (exceptions.ResponseStreamingError(error=ConnectionResetError(104, "reset")), "broken"),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), "broken"),
        (exceptions.ProxyConnectionError(proxy_url="http://u:p@proxy", error=OSError()), "proxy"),
        (ValueError("Invalid endpoint: nonsense"), "endpoint"),
        (exceptions.ParamValidationError(report='Invalid bucket name "a b"'), "bucket_name"),
        (KeyError("ETag"), "unknown"),
    ],
)
def test_every_error_has_one_cause(error, cause):
    assert cause_of(error).name == cause


def test_every_cause_has_an_own_sentence():
    found = [cause.found for cause in CAUSES.values()]
    assert len(set(found)) == len(found)
    told = [name for name, cause in CAUSES.items() if not cause.fix]
    assert told == ["object_absent", "request", "unknown"]


ENVIRONMENT = {
    "R2_ENDPOINT": "https://account.r2.cloudflarestorage.com/",
    "R2_BUCKET_NAME": "shop",
    "R2_ACCESS_KEY_ID": "key",
    "R2_SECRET_ACCESS_KEY": "canary",
}
OPTIONS = {name: spec.get("default") for name, spec in _object_store.SPEC.items()}


def options_for(tmp_path, **other: str) -> dict[str, object]:
    path = tmp_path / ".env"
    path.write_text("".join(f"{name}={value}\n" for name, value in {**ENVIRONMENT, **other}.items()))
    return {**OPTIONS, "environment_files": [str(path)]}


def test_the_bucket_is_read_from_the_environment_and_options_win(tmp_path):
    options = options_for(tmp_path)
    found = _object_store.location_of(options)
    assert found == Location("https://account.r2.cloudflarestorage.com", "shop", "key", "canary")
    assert "canary" not in repr(found) and "key" not in repr(found)
    assert found.shown == "bucket shop at https://account.r2.cloudflarestorage.com"
    assert _object_store.location_of({**options, "bucket": "other"}).bucket == "other"


@pytest.mark.parametrize(
    ("other", "said", "cause"),
    [
        ({"R2_ENDPOINT": "", "R2_SECRET_ACCESS_KEY": ""}, "without R2_ENDPOINT, R2_SECRET_ACCESS_KEY", "credentials_missing"),
        ({"R2_SECRET_ACCESS_KEY": '"canary canary"'}, "R2_SECRET_ACCESS_KEY has characters that no key has", "wrong_secret"),
        ({"R2_ACCESS_KEY_ID": "canäry"}, "R2_ACCESS_KEY_ID has characters that no key has", "wrong_key"),
        ({"R2_ENDPOINT": "canary.r2.cloudflarestorage.com"}, "is no address", "endpoint"),
        ({"R2_ENDPOINT": "https://user:canary@storage.example"}, "is no address", "endpoint"),
        ({"R2_ENDPOINT": "https://storage.example:port"}, "is no address", "endpoint"),
        ({"R2_ENDPOINT": "https://storage.example/shop"}, "followed by more (/shop)", "endpoint"),
    ],
)
def test_what_is_missing_or_wrong_is_said_without_the_value(tmp_path, other, said, cause):
    with pytest.raises(Failure) as failure:
        _object_store.location_of(options_for(tmp_path, **other))
    message = failure.value.message()
    assert said in message and "can" not in message.replace("cannot", "")
    assert failure.value.facts["cause"] == cause


@pytest.mark.parametrize(
    ("size", "wanted", "part"),
    [
        (0, 64 * MIB, 64 * MIB),
        (1, 1, 5 * MIB),
        # 10,000 parts at the most, so a terabyte needs larger ones.
        (1024**4, 64 * MIB, 105 * MIB),
        (10_000 * 64 * MIB, 64 * MIB, 64 * MIB),
        (10_000 * 64 * MIB + 1, 64 * MIB, 65 * MIB),
    ],
)
def test_parts_are_within_what_the_storage_allows(size, wanted, part):
    assert _object_store.part_size_for(size, wanted) == part


class Storage(_object_store.Store):
    """A storage whose ETags are no MD5, as those of objects that it encrypts with a key of its own are."""

    def __init__(self, gives_back: bytes) -> None:
        self.location = Location("https://storage.example", "shop", "key", "canary")
        self.gives_back = gives_back

    def blocks(self, key):
        yield self.gives_back


def test_an_etag_that_is_no_md5_proves_nothing_and_the_bytes_do():
    """Fails without the reading back: whatever the storage has would be taken for what was sent."""
    sha256 = _object_store.hashed([b"content"])[0]
    sent = Storage(b"content")._proven("x", 7, sha256, "md5", '"opaque"')
    assert (sent.etag, sent.proven) == ("opaque", "read")
    assert Storage(b"")._proven("x", 7, sha256, "md5", '"md5"').proven == "etag"
    with pytest.raises(Failure) as failure:
        Storage(b"Content")._proven("x", 7, sha256, "md5", '"opaque"')
    assert failure.value.facts["cause"] == "damaged"
