# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why object storage refuses: one name for each cause, and what to do about it.

Of an error only its code, its class and what TLS says of a certificate are told, never the request.
"""

from __future__ import annotations

import dataclasses
import re
import socket
import ssl
import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why a request failed.

    :param name: What a program compares.
    :param found: The end of a sentence that begins with what was tried.
    """

    name: str
    found: str
    fix: str = ""


TOKENS = "in the dashboard under R2, Manage API tokens"
CAUSES: t.Mapping[str, Cause] = {
    cause.name: cause
    for cause in (
        Cause("credentials_missing", "there is no access key", "Set access key id and secret access key."),
        Cause(
            "wrong_key",
            "the access key id is not known there",
            f"Compare it with the token's {TOKENS}; a token that was rolled has another. Compare the account in the endpoint, too.",
        ),
        Cause(
            "wrong_secret",
            "the secret access key does not belong to the access key id",
            f"Set the secret that was shown when the token was made; it cannot be shown again, but a new token can be made {TOKENS}.",
        ),
        Cause(
            "no_read",
            "the token may not read objects of this bucket (or there is no such bucket, which is not told to a token of other buckets)",
            f"Compare the bucket's name, and give the token the permission Object Read {TOKENS}.",
        ),
        Cause(
            "no_write",
            "the token may not write objects to this bucket (or there is no such bucket, which is not told to a token of other buckets)",
            f"Compare the bucket's name, and give the token the permission Object Read & Write {TOKENS}.",
        ),
        Cause(
            "no_list",
            "the token may not list this bucket (or there is no such bucket, which is not told to a token of other buckets)",
            f"Compare the bucket's name, and give the token the permission Object Read & Write for it {TOKENS}.",
        ),
        Cause(
            "no_admin",
            "the token may not make or set up buckets",
            f"Use a token with the permission Admin Read & Write {TOKENS}, for this and nothing else.",
        ),
        Cause("expired", "the token has expired", f"Make a new one {TOKENS}."),
        Cause("not_enabled", "the account has no object storage", "Enable R2 in the dashboard, and compare the account in the endpoint."),
        Cause("bucket_absent", "there is no such bucket", "Compare its name, the account in the endpoint and the jurisdiction, or make the bucket."),
        Cause(
            "other_buckets",
            "the token is for other buckets, and does not know this one",
            f"Compare the bucket's name, and the buckets that the token is applied to {TOKENS}.",
        ),
        Cause("object_absent", "there is no such object", ""),
        Cause("clock", "the host's clock is more than 15 minutes wrong", "Look at timedatectl and switch time synchronization on."),
        Cause("dns", "the endpoint's name cannot be resolved", "Compare the endpoint, https://<account>.r2.cloudflarestorage.com, and try: getent hosts"),
        Cause("refused", "nothing listens at the endpoint", "Compare its address and port, and look at firewalls on the way."),
        Cause("tls", "there is no trusted TLS connection to the endpoint", "Look at: openssl s_client -connect HOST:443. The host must trust a company CA."),
        Cause(
            "handshake",
            "the server at the endpoint refuses the TLS handshake for this name, as R2 does for an account that does not exist",
            "Compare the account in the endpoint with the account ID that the dashboard shows under R2.",
        ),
        Cause("account", "account and endpoint do not belong together", "The endpoint is https://<account>.r2.cloudflarestorage.com; compare both."),
        Cause(
            "jurisdiction",
            "jurisdiction and endpoint do not belong together",
            "The endpoint of a jurisdiction is https://<account>.<jurisdiction>.r2.cloudflarestorage.com; compare both.",
        ),
        Cause("timeout", "the endpoint did not answer in time", "Look at the network and at the provider's status page, and run it again."),
        Cause("broken", "the connection broke off", "Look at the network and at proxies on the way, and run it again."),
        Cause("proxy", "the proxy that the environment names cannot be reached", "Look at HTTPS_PROXY and NO_PROXY."),
        Cause("throttled", "the storage takes no more requests just now", "Run it again later."),
        Cause("server", "the storage failed", "Look at the provider's status page, and run it again."),
        Cause("damaged", "what arrived there is not what was sent", "Run it again; if it happens again, look at the memory and the network of this host."),
        Cause(
            "checksum",
            "the storage does not take the checksum that came with the request",
            "Set request_checksum_calculation and response_checksum_validation to when_required (or the variables"
            " AWS_REQUEST_CHECKSUM_CALCULATION and AWS_RESPONSE_CHECKSUM_VALIDATION, for the app as well).",
        ),
        Cause(
            "presigned",
            "a presigned URL is refused, although the same keys may read",
            "Look at the clock (timedatectl), and at proxies before the endpoint that change a request's query or its Host header.",
        ),
        Cause(
            "not_expired",
            "a presigned URL is served when its time is over",
            "Look for a cache before the endpoint: whoever has had a URL once has it for good. Otherwise the storage does not keep what it promises.",
        ),
        Cause("unsupported", "the storage does not know the request", "Compare the endpoint; whatever answers there is no complete S3."),
        Cause("endpoint", "the endpoint is no address", "Write it as https://<account>.r2.cloudflarestorage.com, without the bucket."),
        Cause("bucket_name", "this can be no bucket of that name", "Bucket names have 3 to 63 lower-case letters, digits and hyphens."),
        Cause("request", "the request was refused", ""),
        Cause("unknown", "something unexpected happened", ""),
    )
}  # fmt: skip

# https://developers.cloudflare.com/r2/api/error-codes/ and https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
BY_CODE: t.Mapping[str, str] = {
    "InvalidAccessKeyId": "wrong_key",
    "Unauthorized": "wrong_key",
    "401": "wrong_key",
    "SignatureDoesNotMatch": "wrong_secret",
    "ExpiredToken": "expired",
    "RequestTimeTooSkewed": "clock",
    "ExpiredRequest": "clock",
    "NotEntitled": "not_enabled",
    "NoSuchBucket": "bucket_absent",
    "NoSuchKey": "object_absent",
    "NoSuchUpload": "object_absent",
    "404": "object_absent",
    "BadDigest": "damaged",
    "InvalidDigest": "damaged",
    "XAmzContentSHA256Mismatch": "damaged",
    "InvalidPart": "damaged",
    "SlowDown": "throttled",
    "TooManyRequests": "throttled",
    "ServiceUnavailable": "server",
    "InternalError": "server",
    "NotImplemented": "unsupported",
    "MethodNotAllowed": "unsupported",
}
DENIED = ("AccessDenied", "403", "Forbidden")
LISTING = ("ListObjectsV2", "ListObjects", "ListMultipartUploads", "HeadBucket", "ListBuckets")
READING = ("GetObject", "HeadObject")
SETTING_UP = re.compile(r"CreateBucket|DeleteBucket|(Get|Put|Delete)Bucket(Cors|Lifecycle\w*)")
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL.
OTHER_NAME = (62, 64)
ABOUT_CHECKSUMS = re.compile(r"checksum|trailer", re.IGNORECASE)


def cause_of(error: BaseException) -> Cause:
    """The one cause of an error of boto3, botocore or the network below."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return answered(response, str(getattr(error, "operation_name", "")))
    # By name, because botocore is not there where this file is only imported.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if {"NoCredentialsError", "PartialCredentialsError"} & kinds:
        return CAUSES["credentials_missing"]
    if "ProxyConnectionError" in kinds:
        return CAUSES["proxy"]
    below = list(_chain(error))
    if any(isinstance(one, ssl.SSLError) or type(one).__name__ == "SSLError" for one in below):
        return _insecure(below)
    if any(isinstance(one, socket.gaierror) or type(one).__name__ in ("NameResolutionError", "LocationParseError") for one in below):
        return CAUSES["dns"]
    if any(isinstance(one, ConnectionRefusedError) for one in below):
        return CAUSES["refused"]
    if {"ConnectTimeoutError", "ReadTimeoutError"} & kinds or any(isinstance(one, (socket.timeout, TimeoutError)) for one in below):
        return CAUSES["timeout"]
    if "FlexibleChecksumError" in kinds:
        return CAUSES["damaged"]
    if {"HTTPClientError", "ConnectionError", "ResponseStreamingError", "IncompleteReadError", "HTTPException", "URLError"} & kinds:
        return CAUSES["broken"]
    if "ParamValidationError" in kinds and "bucket" in str(error):
        return CAUSES["bucket_name"]
    if isinstance(error, ValueError) and "ndpoint" in str(error):
        return CAUSES["endpoint"]
    return Cause("unknown", f"an unexpected {type(error).__name__}", "Run it again; if it happens again, it is a mistake here: report it.")


def _insecure(below: t.Sequence[BaseException]) -> Cause:
    """Why there is no TLS connection; what OpenSSL says of a certificate is for a person, too."""
    reasons = [str(getattr(one, "reason", None) or "") for one in below if isinstance(one, ssl.SSLError)]
    if any("HANDSHAKE_FAILURE" in reason or "UNRECOGNIZED_NAME" in reason for reason in reasons):
        return CAUSES["handshake"]
    # By its class, because urllib3 compares names by itself where they are addresses.
    checked = [one for one in below if type(one).__name__ == "CertificateError" or getattr(one, "verify_code", None) in OTHER_NAME]
    said = ["the certificate is for another name"] * len(checked)
    said += [str(message) for message in (getattr(one, "verify_message", None) for one in below) if message]
    detail = [*said, *(reason.lower().replace("_", " ") for reason in reasons if reason)][:1]
    return dataclasses.replace(CAUSES["tls"], found=f"{CAUSES['tls'].found} ({detail[0].rstrip('.')})") if detail else CAUSES["tls"]


def answered(response: t.Mapping[str, t.Any], operation: str) -> Cause:
    """The cause in an answer of the storage."""
    code = str(response["Error"].get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    said = str(response["Error"].get("Message", ""))
    if code in DENIED:
        name = (
            "no_admin"
            if SETTING_UP.fullmatch(operation)
            else "no_list"
            if operation in LISTING
            else "no_read"
            if operation in READING
            else "no_write"
        )
    elif code in ("NotImplemented", "InvalidArgument", "InvalidRequest") and ABOUT_CHECKSUMS.search(said):
        name = "checksum"
    elif code == "404" and operation == "HeadBucket":
        name = "bucket_absent"
    elif code in BY_CODE:
        name = BY_CODE[code]
    elif code == "InvalidArgument" and "access key" in said.lower():
        # What R2 says of an access key id that is not 32 characters long.
        name = "wrong_key"
    elif status == 429:
        name = "throttled"
    elif status >= 500:
        name = "server"
    else:
        return Cause("request", f"the storage refused the request ({code or status})", "Look the code up in the provider's documentation.")
    return CAUSES[name]


def _chain(error: BaseException) -> t.Iterator[BaseException]:
    """An error and all that it came from; botocore keeps what it wraps in ``kwargs``, urllib3 in ``reason``."""
    waiting: t.List[object] = [error]
    seen: t.Set[int] = set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        kept = getattr(one, "kwargs", None)
        waiting += [
            one.__cause__,
            one.__context__,
            getattr(one, "reason", None),
            *one.args,
            *(kept.values() if isinstance(kept, dict) else ()),
        ]
