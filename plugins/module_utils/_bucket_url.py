# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Presigned URLs: made for a moment of one's choice, and fetched by somebody who has nothing but the URL."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import os
import re
import ssl
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket_causes
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import TRUSTED, Location, Refused

REGION = "auto"
BODY_LIMIT = 64 * 1024


def presigned(location: Location, key: str, signed: float, expires: int) -> str:
    """A URL with which anybody may read an object for a while.

    boto3 can only sign for the moment in which it is called. A URL whose time is over would have to be waited for, and whether one of a single second
    is still good would be up to how far two clocks are apart.
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html

    :param signed: The moment from which it is good, in seconds since the epoch.
    :param expires: For how many seconds.
    """
    parts = urllib.parse.urlsplit(location.endpoint)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(signed))
    scope = f"{moment[:8]}/{REGION}/s3/aws4_request"
    path = urllib.parse.quote(f"/{location.bucket}/{key}", safe="/-_.~")
    query = urllib.parse.urlencode(
        {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{location.access_key_id}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": "host",
        },
        quote_via=urllib.parse.quote,
        safe="-_.~",
    )
    request = "\n".join(["GET", path, query, f"host:{parts.netloc}\n", "host", "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    signing = f"AWS4{location.secret_access_key}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, to_sign.encode(), "sha256").hex()
    return f"{location.endpoint}{path}?{query}&X-Amz-Signature={signature}"


def fetch(location: Location, url: str, timeout: float, limit: t.Optional[int] = None) -> bytes:
    """What a URL of this location gives to somebody without keys.

    :param limit: Bytes after which it is enough; all that there are when None.
    :raises Refused: with its cause.
    """
    what = "Fetching a presigned URL"
    cause: _bucket_causes.Cause
    try:
        with urllib.request.build_opener(*_trusting(url)).open(url, timeout=timeout) as response:
            return bytes(response.read() if limit is None else response.read(limit))
    except urllib.error.HTTPError as error:
        said = ""
        # The status alone has to do where the rest breaks off.
        with error, contextlib.suppress(OSError, http.client.HTTPException):
            said = error.read(BODY_LIMIT).decode("utf-8", "replace")
        cause = _bucket_causes.answered(
            {"Error": _error_in(said, error.code), "ResponseMetadata": {"HTTPStatusCode": error.code}}, "GetObject"
        )
    except (OSError, http.client.HTTPException) as error:
        cause = _bucket_causes.cause_of(error)
    # Outside of the handlers, whose exceptions carry the URL, and with it a signature that is good for a minute.
    raise Refused(what, location, cause)


def _trusting(url: str) -> t.Sequence[urllib.request.BaseHandler]:
    """What makes TLS trust whom this host trusts; reading their certificates takes longer than most requests."""
    if not url.startswith("https:"):
        return ()
    context = ssl.create_default_context(cafile=TRUSTED if os.path.exists(TRUSTED) else None)
    return (urllib.request.HTTPSHandler(context=context),)


def _error_in(said: str, status: int) -> t.Dict[str, str]:
    """Code and message of an answer in S3's XML."""
    found = {name: re.search(f"<{name}>([^<]*)</{name}>", said) for name in ("Code", "Message")}
    return {"Code": str(status), **{name: match[1] for name, match in found.items() if match}}
