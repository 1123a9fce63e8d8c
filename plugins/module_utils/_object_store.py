# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bucket in S3-compatible storage (Cloudflare R2 first), and why it refuses.

Every request ends in an answer or in a Failure that names one cause and carries it as the fact ``cause``. No secret is ever in a message: of an
error only its code, its class and the address are told, never the request.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import os
import re
import typing as t
import urllib.parse
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environment_file
from ansible_collections.bulletproof.deploy.plugins.module_utils._bucket_causes import CAUSES, Cause, cause_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tools import library

# 1.36 is the first that can be told to send checksums only where S3 asks for them; R2 does not know all that it sends otherwise.
# https://developers.cloudflare.com/r2/examples/aws/boto3/
REQUIREMENT = "boto3>=1.36,<2"
BLOCK = 1024 * 1024
MIB = 1024 * 1024
# https://developers.cloudflare.com/r2/objects/multipart-objects/: all parts but the last of one size, from 5 MiB on, at most 10,000.
LEAST_PART = 5 * MIB
MOST_PARTS = 10_000
CONNECT_TIMEOUT = 5
READ_TIMEOUT = 30
ATTEMPTS = 3
# Where Debian keeps the certificates that the host trusts, a company's own among them; boto3 would bring its own list.
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
R2 = ".r2.cloudflarestorage.com"
# https://developers.cloudflare.com/r2/reference/data-location/: these have endpoints of their own, <account>.<jurisdiction>.r2.cloudflarestorage.com.
JURISDICTIONS = ("eu", "fedramp")

# Options that every module with a bucket has; documented by the fragment ``object_store``.
SPEC: t.Dict[str, t.Any] = {
    "bucket": {"type": "str"},
    "endpoint": {"type": "str"},
    "access_key_id": {"type": "str", "no_log": True},
    "secret_access_key": {"type": "str", "no_log": True},
    "account_id": {"type": "str"},
    "jurisdiction": {"type": "str", "choices": list(JURISDICTIONS)},
    "bucket_variable": {"type": "str", "default": "R2_BUCKET_NAME"},
    "endpoint_variable": {"type": "str", "default": "R2_ENDPOINT"},
    "access_key_id_variable": {"type": "str", "default": "R2_ACCESS_KEY_ID", "no_log": False},
    "secret_access_key_variable": {"type": "str", "default": "R2_SECRET_ACCESS_KEY", "no_log": False},
    "account_id_variable": {"type": "str", "default": "R2_ACCOUNT_ID"},
}


@dataclass(frozen=True)
class Location:
    """Which bucket, and who comes."""

    endpoint: str
    bucket: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)

    @property
    def shown(self) -> str:
        """What a person may see; somebody may have written a password into the endpoint."""
        parts = urllib.parse.urlsplit(self.endpoint)
        return f"bucket {self.bucket} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Refused(Failure):
    """A request that failed.

    :param what: What was tried.
    :param because: Its cause.
    """

    def __init__(self, what: str, location: Location, because: Cause) -> None:
        super().__init__(f"{what} ({location.shown}): {because.found}.", fix=because.fix, cause=because.name)
        self.because = because


def location_of(options: t.Mapping[str, t.Any]) -> Location:
    """The bucket that a module's options mean; what they leave out is read from the app's own environment. All that is missing is named at once."""
    files = options["environment_files"]
    found = _environment_file.read(files)

    def value(name: str) -> str:
        return str(options.get(name) or found.get(options.get(f"{name}_variable") or "", "")).strip()

    values = {name: value(name) for name in ("endpoint", "bucket", *SECRETS)}
    account, jurisdiction = value("account_id"), options.get("jurisdiction") or ""
    if account and not values["endpoint"]:
        values["endpoint"] = endpoint_of(account, jurisdiction)
    missing = [options[f"{name}_variable"] for name, value in values.items() if not value]
    if missing:
        where = ", ".join(files) or "no file (environment_files is empty)"
        raise Failure(
            f"The object storage cannot be reached without {', '.join(missing)}: not in {where}, and not given as options.",
            fix="Set them there, or name other variables.",
            cause="credentials_missing",
        )
    for name in SECRETS:
        if not values[name].isascii() or not values[name].isprintable() or " " in values[name]:
            raise Failure(
                f"The value of {options[f'{name}_variable']} has characters that no key has (its value is not shown).",
                fix="Copy it again; look for quotes, line ends and blanks.",
                cause="wrong_key" if name == "access_key_id" else "wrong_secret",
            )
    endpoint = _checked(values["endpoint"])
    _belonging(endpoint, account, jurisdiction)
    return Location(**{**values, "endpoint": endpoint})


def endpoint_of(account: str, jurisdiction: str = "") -> str:
    """Where R2 has an account's buckets."""
    if not re.fullmatch(r"[0-9a-fA-F]{32}", account):
        cause = CAUSES["account"]
        raise Failure(
            "The account (its value is not shown) is none of Cloudflare's: those are 32 digits from 0 to f.",
            fix=cause.fix,
            cause=cause.name,
        )
    return f"https://{account.lower()}.{jurisdiction}".rstrip(".") + R2


def _belonging(endpoint: str, account: str, jurisdiction: str) -> None:
    """Account and jurisdiction are those of the endpoint. Of an endpoint that is not R2's, nobody can know whose it is."""
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    of, _dot, place = host[: -len(R2)].partition(".") if host.endswith(R2) else ("", "", "")
    wrong = ""
    if of and account and of != account.lower():
        wrong = "account"
    elif jurisdiction and jurisdiction != place:
        wrong = "jurisdiction"
    if wrong:
        raise Failure(f"The object storage's endpoint (its value is not shown): {CAUSES[wrong].found}.", fix=CAUSES[wrong].fix, cause=wrong)


SECRETS = ("access_key_id", "secret_access_key")


def _checked(endpoint: str) -> str:
    """An endpoint, when it is one: scheme, host, port and nothing else."""
    cause = CAUSES["endpoint"]
    try:
        parts = urllib.parse.urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.username
    except ValueError:
        usable = False
    if not usable:
        raise Failure(
            f"The object storage's endpoint is not shown, because it is no address: {cause.found}.", fix=cause.fix, cause=cause.name
        )
    if parts.path.strip("/") or parts.query:
        raise Failure(
            f"The object storage's endpoint {parts.scheme}://{parts.netloc} is followed by more ({parts.path or '?'}).",
            fix="Give the bucket on its own, not as a part of the endpoint.",
            cause=cause.name,
        )
    return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True)
class Stored:
    """An object as the storage describes it.

    :param etag: Without quotes. Of what came in one request the MD5; of several parts the MD5 of their MD5s and their number.
    :param modified: By the storage's clock, in seconds since the epoch.
    """

    key: str
    size: int
    etag: str
    metadata: t.Mapping[str, str] = field(default_factory=dict)
    modified: float = 0


@dataclass(frozen=True)
class Sent:
    """What was put there, hashed while it was sent.

    :param proven: By what it is known that the storage has just that: ``etag``, or ``read``.
    """

    key: str
    size: int
    sha256: str
    etag: str
    proven: str


@dataclass(frozen=True)
class Upload:
    """A multipart upload that nobody has completed.

    :param begun: By the storage's clock, in seconds since the epoch.
    """

    key: str
    id: str
    begun: float = 0


class Store:
    """A bucket. Every method raises Failure with the fact ``cause``, and nothing else.

    :param client: boto3's, for what this class has no word for; errors of it go through ``telling``.
    :param read_timeout: Seconds for which the storage may be silent; ``attempts`` times.
    :param checksums: ``when_required``, or ``when_supported``, which is what boto3 does by itself.
    """

    def __init__(
        self, location: Location, read_timeout: t.Optional[float] = None, attempts: t.Optional[int] = None, checksums: str = "when_required"
    ) -> None:
        self.location = location
        boto3, botocore = library("boto3", REQUIREMENT), library("botocore.session", REQUIREMENT)
        from_nowhere = (None, None, os.devnull, None)
        # What is in root's own ~/.aws or AWS_PROFILE is meant for something else.
        settings = {"profile": (None, None, None, None), "config_file": from_nowhere, "credentials_file": from_nowhere}
        session = boto3.session.Session(botocore_session=botocore.Session(session_vars=settings))
        config = library("botocore.config", REQUIREMENT).Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation=checksums,
            response_checksum_validation=checksums,
            connect_timeout=min(CONNECT_TIMEOUT, read_timeout or CONNECT_TIMEOUT),
            read_timeout=read_timeout or READ_TIMEOUT,
            retries={"total_max_attempts": attempts or ATTEMPTS, "mode": "standard"},
        )
        with self.telling("Preparing requests"):
            self.client = session.client(
                "s3",
                endpoint_url=location.endpoint,
                region_name="auto",
                aws_access_key_id=location.access_key_id,
                aws_secret_access_key=location.secret_access_key,
                verify=TRUSTED if os.path.exists(TRUSTED) else None,
                config=config,
            )

    @contextlib.contextmanager
    def telling(self, what: str, tolerate: t.Sequence[str] = ()) -> t.Iterator[None]:
        """Turn whatever goes wrong into a Failure that names the cause.

        :param tolerate: Names of causes that are no failure here.
        """
        try:
            yield
        except Failure:
            raise
        except Exception as error:
            cause = cause_of(error)
            if cause.name in tolerate:
                return
            raise Refused(what, self.location, cause) from None

    def put(self, key: str, data: bytes) -> Sent:
        """Put what fits into memory, in one request. The storage refuses what is not what was sent (Content-MD5)."""
        md5, sha256 = hashlib.md5(data, usedforsecurity=False), hashlib.sha256(data).hexdigest()
        with self.telling(f"Writing {key}"):
            answer = self.client.put_object(
                Bucket=self.location.bucket, Key=key, Body=data, ContentMD5=_base64(md5.digest()), Metadata={"sha256": sha256}
            )
        return self._proven(key, len(data), sha256, md5.hexdigest(), answer.get("ETag"))

    def put_file(self, key: str, path: str, sha256: str = "", part_size: int = 64 * MIB) -> Sent:
        """Put a file, in parts when it is larger than one, and prove that the storage has it.

        :param sha256: Of the content, when it is known already; a file that has become another is a Failure.
        """
        size = os.path.getsize(path)
        part = part_size_for(size, part_size)
        with open(path, "rb") as stream:
            if size <= part:
                sent = self.put(key, stream.read())
            else:
                # It is stored with the object and has to be there first, so the file is read twice.
                sha256 = sha256 or hashed(iter(lambda: stream.read(BLOCK), b""))[0]
                stream.seek(0)
                sent = self.put_parts(key, stream, part, sha256)
        if sent.sha256 != (sha256 or sent.sha256):
            raise Failure(f"{path} has changed while it was copied to {key}.", fix="Run it again.", cause="changed")
        return sent

    def put_parts(self, key: str, stream: t.BinaryIO, part: int, sha256: str) -> Sent:
        """Put in parts of so many bytes; what cannot be completed is aborted.

        :param sha256: Of the content.
        """
        place = {"Bucket": self.location.bucket, "Key": key}
        with self.telling(f"Beginning to write {key}"):
            upload = self.client.create_multipart_upload(**place, Metadata={"sha256": sha256})["UploadId"]
        sent, md5s, size, parts = hashlib.sha256(), b"", 0, []
        try:
            for number, data in enumerate(iter(lambda: stream.read(part), b""), 1):
                sent.update(data)
                md5 = hashlib.md5(data, usedforsecurity=False).digest()
                md5s += md5
                size += len(data)
                with self.telling(f"Writing {key}, part {number}"):
                    answer = self.client.upload_part(**place, UploadId=upload, PartNumber=number, Body=data, ContentMD5=_base64(md5))
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            with self.telling(f"Completing {key}"):
                answer = self.client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            # Its parts are paid for until somebody does this; what cannot be done now, the next run does.
            with contextlib.suppress(Failure):
                self.abort(Upload(key, upload))
            raise
        return self._proven(
            key, size, sent.hexdigest(), f"{hashlib.md5(md5s, usedforsecurity=False).hexdigest()}-{len(parts)}", answer.get("ETag")
        )

    def _proven(self, key: str, size: int, sha256: str, expected: str, answered: t.Optional[str]) -> Sent:
        """What the storage has is what was sent: its ETag is the MD5 that was expected, or it is read back."""
        etag = (answered or "").strip('"')
        if etag == expected:
            return Sent(key, size, sha256, etag, "etag")
        # An ETag need not be an MD5 (of objects that the storage encrypts it is not): then the bytes speak for themselves.
        if self.digest(key) != (sha256, size):
            raise Refused(f"Reading back {key}", self.location, CAUSES["damaged"])
        return Sent(key, size, sha256, etag, "read")

    def get(self, key: str) -> bytes:
        """The content of a small object."""
        return b"".join(self.blocks(key))

    def get_file(self, key: str, path: str) -> t.Tuple[str, int]:
        """Bring an object into a new file, durable; its SHA-256 and size."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            found = hashed(self.blocks(key), stream)
            stream.flush()
            os.fsync(stream.fileno())
        return found

    def digest(self, key: str) -> t.Tuple[str, int]:
        """SHA-256 and size of the bytes that the storage gives back."""
        return hashed(self.blocks(key))

    def blocks(self, key: str) -> t.Iterator[bytes]:
        """The content of an object; after a connection that broke off midway it goes on where it was, a few times."""
        place = {"Bucket": self.location.bucket, "Key": key}
        done, etag, broken = 0, "", 0
        while True:
            rest = {"Range": f"bytes={done}-", "IfMatch": etag} if done else {}
            with self.telling(f"Reading {key}"):
                answer = self.client.get_object(**place, **rest)
            etag = answer["ETag"]
            left = answer["ContentLength"]
            body = answer["Body"]
            try:
                while left:
                    with self.telling(f"Reading {key}"):
                        block = body.read(min(BLOCK, left))
                        if not block:
                            raise EOFError
                    left -= len(block)
                    done += len(block)
                    yield block
                return
            except Failure as failure:
                broken += 1
                if broken >= ATTEMPTS or failure.facts.get("cause") not in ("broken", "timeout", "unknown"):
                    raise
            finally:
                body.close()

    def head(self, key: str) -> t.Optional[Stored]:
        """What the storage says of an object; None when it is not there."""
        place = {"Bucket": self.location.bucket, "Key": key}
        try:
            answer = self.client.head_object(**place)
        except Exception as error:
            # The answer to HEAD has no body and hence no cause; GET has.
            with self.telling(f"Looking at {key}", tolerate=["object_absent"]):
                if getattr(error, "response", None) is None:
                    raise
                self.client.get_object(**place)["Body"].close()
                raise
            return None
        return Stored(key, answer["ContentLength"], answer["ETag"].strip('"'), answer.get("Metadata", {}))

    def list(self, prefix: str, most: t.Optional[int] = None) -> t.List[Stored]:
        """The objects whose key begins with the prefix.

        :param most: How many at the most; all when None.
        """
        with self.telling(f"Listing {prefix or 'everything'}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=prefix, PaginationConfig={"MaxItems": most, "PageSize": most}
            )
            return [
                Stored(one["Key"], one["Size"], one["ETag"].strip('"'), modified=one["LastModified"].timestamp())
                for page in pages
                for one in page.get("Contents", [])
            ]

    def uploads(self, prefix: str) -> t.List[Upload]:
        """The multipart uploads below the prefix that were begun and not completed."""
        with self.telling(f"Listing uncompleted uploads below {prefix or 'everything'}"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.location.bucket, Prefix=prefix)
            return [
                Upload(one["Key"], one["UploadId"], one["Initiated"].timestamp() if "Initiated" in one else 0)
                for page in pages
                for one in page.get("Uploads", [])
            ]

    def abort(self, upload: Upload) -> None:
        with self.telling(f"Aborting the upload of {upload.key}", tolerate=["object_absent"]):
            self.client.abort_multipart_upload(Bucket=self.location.bucket, Key=upload.key, UploadId=upload.id)

    def delete(self, *keys: str) -> None:
        """Remove objects; those that are not there are no mistake.

        One request each: the request that removes many asks for a checksum that not every storage takes.
        """
        for key in keys:
            with self.telling(f"Removing {key}", tolerate=["object_absent"]):
                self.client.delete_object(Bucket=self.location.bucket, Key=key)


def part_size_for(size: int, wanted: int) -> int:
    """The size of all parts but the last: as wanted, but within what the storage allows."""
    needed = math.ceil(math.ceil(size / MOST_PARTS) / MIB) * MIB
    return max(wanted, LEAST_PART, needed)


def hashed(blocks: t.Iterable[bytes], copy: t.Optional[t.BinaryIO] = None) -> t.Tuple[str, int]:
    """SHA-256 and size of what comes in blocks, which is written on the way when there is where to."""
    sha256, size = hashlib.sha256(), 0
    for block in blocks:
        sha256.update(block)
        size += len(block)
        if copy is not None:
            copy.write(block)
    return sha256.hexdigest(), size


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
