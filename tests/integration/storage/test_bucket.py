# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bucket is tried on a real S3 server: every cause produced and told apart, what is left cleaned up, no key in any output."""

from __future__ import annotations

import concurrent.futures
import json
import time
import typing as t
from dataclasses import dataclass, field

import pytest
from integration.gateway import PORTS

from lab.hosts import Host
from lab.modules import Module, Result
from lab.s3 import KNOWN, WRONG_KEY, WRONG_SECRET, Bucket, Identity, ObjectStore

ENVIRONMENT = "/opt/storage.env"
PREFIX = ".bulletproof-probe/"
ACCOUNT = "0123456789abcdef0123456789abcdef"
OF_R2 = f"https://{ACCOUNT}.r2.cloudflarestorage.com"

# Checks one bucket after the other in one process, which is how many can be tried in a few seconds.
CHECK = """
import json, os, sys, time
from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket, _object_store
defaults = {name: spec.get("default") for name, spec in _object_store.SPEC.items()}
for case in json.load(sys.stdin):
    began = time.time()
    os.environ.pop("http_proxy", None)
    os.environ.update(case["environment"])
    outcome = _bucket.check({**defaults, "environment_files": [], **case["options"]}, _bucket.Trial(**case["trial"]))
    print(json.dumps({**outcome.facts(), "took": round(time.time() - began, 2)}))
"""


@dataclass(frozen=True)
class Case:
    """Who asks which bucket how, and what has to be found.

    :param causes: In order; a warning begins with a question mark.
    :param endpoint: The name of a gateway, or an address.
    """

    name: str
    causes: tuple[str, ...]
    who: Identity = KNOWN["of_one_bucket"]
    bucket: str = "one-bucket"
    endpoint: str = ""
    said: str = ""
    options: t.Mapping[str, object] = field(default_factory=dict)
    trial: t.Mapping[str, object] = field(default_factory=dict)
    environment: t.Mapping[str, str] = field(default_factory=dict)


READER = KNOWN["reader_of_one_bucket"]
READ = {"access": "read"}
CASES = (
    Case("read and write", ()),
    Case("only read", (), READER, trial=READ),
    Case("without writing", (), trial={"write": False}),
    Case("through a gateway", (), endpoint="pass"),
    Case("over TLS", (), endpoint="tls"),
    Case("an account elsewhere", (), options={"account_id": "any"}),
    # Keys.
    Case("no key", ("credentials_missing",), options={"access_key_id": None}, said="without R2_ACCESS_KEY_ID"),
    Case("wrong key", ("wrong_key",), WRONG_KEY, said="is not known there"),
    Case("wrong secret", ("wrong_secret",), WRONG_SECRET, said="does not belong to the access key id"),
    Case("token over", ("expired",), endpoint="error:403-ExpiredToken", said="has expired"),
    Case("no R2", ("not_enabled",), endpoint="error:403-NotEntitled", said="the account has no object storage"),
    # What a token may.
    Case("no write", ("no_write",), READER, said="may not write"),
    Case("no read", ("?no_list", "?no_list", "no_read", "?excess_buckets"), KNOWN["write_only"], said="may not read"),
    Case("no list", ("no_list",), KNOWN["without_list"], said="may not list"),
    Case("nothing", ("no_list", "no_write", "no_read"), KNOWN["nothing"]),
    Case("may write as well", ("?excess_write",), trial=READ, said="it may write"),
    Case("sees others", ("?excess_buckets",), KNOWN["read_write"], said="other bucket"),
    Case("of another bucket", ("no_list", "no_write", "no_read", "other_buckets"), bucket="shop", said="is for other buckets"),
    # Where.
    Case("no bucket", ("bucket_absent",), KNOWN["read_write"], bucket="absent", said="there is no such bucket"),
    Case("no name", ("bucket_name",), bucket="One Bucket", said="of that name"),
    Case("no address", ("endpoint",), endpoint="storage.example", said="is no address"),
    Case("another account", ("account",), endpoint=OF_R2, options={"account_id": "f" * 32}, said="account and endpoint do not belong together"),
    Case("another jurisdiction", ("jurisdiction",), endpoint=OF_R2, options={"jurisdiction": "eu"}, said="jurisdiction and endpoint"),
    Case("no account", ("handshake",), endpoint="stranger", said="refuses the TLS handshake"),
    # The way there.
    Case("no name server", ("dns",), endpoint="http://storage.invalid", said="cannot be resolved"),
    Case("nobody", ("refused",), endpoint="http://127.0.0.1:1", said="nothing listens"),
    Case("another name", ("tls",), endpoint="tls-other-name", said="the certificate is for another name"),
    Case("nobody's certificate", ("tls",), endpoint="tls-nobodys", said="unable to get local issuer certificate"),
    Case("an old certificate", ("tls",), endpoint="tls-over", said="certificate has expired"),
    Case("TLS to what has none", ("tls",), endpoint="https://127.0.0.1:8333", said="no trusted TLS connection"),
    Case("slow", ("timeout",), endpoint="slow", trial={"read_timeout": 1}, said="did not answer in time"),
    Case("broken off", ("broken",), endpoint="break", said="broke off"),
    Case("no proxy", ("proxy",), environment={"http_proxy": "http://127.0.0.1:1"}, said="the proxy that the environment names"),
    # The storage.
    Case("boto3's own checksums", ("checksum",), endpoint="no-checksums", trial={"checksums": "when_supported"}, said="does not take the checksum"),
    Case("and with what is needed", (), endpoint="no-checksums"),
    Case("damaged", ("damaged",), endpoint="damage", said="is not what was sent"),
    Case("no parts", ("unsupported",), endpoint="no-multipart", said="does not know the request"),
    Case("no presigned", ("presigned",), endpoint="no-presigned", said="a presigned URL is refused"),
    Case("for ever", ("not_expired",), endpoint="cache", said="served when its time is over"),
    Case("too much", ("throttled",), endpoint="error:503-SlowDown", said="takes no more requests"),
    Case("broken storage", ("server",), endpoint="error:500-InternalError", said="the storage failed"),
    Case("anything else", ("request",) * 3, endpoint="error:400-Whatever", said="refused the request (Whatever)"),
)  # fmt: skip
LATE = (
    Case("late", ("clock",), said=" s behind the storage"),
    Case("early", ("clock",), said=" s ahead of the storage"),
    Case("a little early", ("?clock_skew",), said="s ahead of the storage"),
)


class Storage:
    """The server with two buckets, and modules that try them."""

    def __init__(self, host: Host, module: Module, store: ObjectStore, endpoint: t.Callable[[str], str]) -> None:
        self.host = host
        self.module = module
        self.store = store
        self.endpoint = endpoint
        self.buckets = [store.bucket("shop"), store.bucket("one-bucket")]

    @property
    def bucket(self) -> Bucket:
        return self.buckets[1]

    def check(self, cases: t.Sequence[Case], *under: str) -> list[Result]:
        described = [
            {
                "options": {
                    "endpoint": self.endpoint(case.endpoint) if case.endpoint in PORTS else case.endpoint or self.store.endpoint,
                    "bucket": case.bucket,
                    "access_key_id": case.who.access_key_id,
                    "secret_access_key": case.who.secret_access_key,
                    **case.options,
                },
                "trial": {"attempts": 1, **case.trial},
                "environment": {**case.environment},
            }
            for case in cases
        ]
        argv = [*under, "env", "PYTHONPATH=/opt/code", "python3", "-c", CHECK]
        return [json.loads(line) for line in self.host.run(argv, stdin=json.dumps(described), timeout=300).stdout.splitlines()]

    def come_as(self, who: Identity, **other: str) -> None:
        variables = {**who.environment(self.store, "one-bucket"), **other}
        self.host.write(ENVIRONMENT, "".join(f'{name}="{value}"\n' for name, value in variables.items()), mode="0600")

    def __call__(self, *flags: str, **options: object) -> Result:
        return self.module("r2_bucket_check", *flags, **{"environment_files": [ENVIRONMENT], **options})

    def must(self, *flags: str, **options: object) -> Result:
        result = self(*flags, **options)
        assert not result["failed"], result.get("msg")
        return result

    def left(self) -> tuple[list[str], list[tuple[str, str]]]:
        return self.bucket.objects(PREFIX), self.bucket.uploads()


@pytest.fixture
def storage(host: Host, module: Module, tools: None, store: ObjectStore, code: None, gateway: t.Callable[[str], str]) -> Storage:
    return Storage(host, module, store, gateway)


def test_every_cause_is_told_apart(storage, faketime):
    """The table above is the promise: each cause is produced, found by its name, and said in words that no other one has."""
    began = time.time()
    outcomes = storage.check(CASES)
    for case, at in zip(LATE, ("-3600s", "+3600s", "+100s"), strict=True):
        outcomes += storage.check([case], "faketime", "-f", at)
    said: dict[str, set[str]] = {}
    wrong: list[str] = []
    for case, outcome in zip((*CASES, *LATE), outcomes, strict=True):
        found = tuple(f"{'?' if one['severity'] == 'warning' else ''}{one['rule'].removeprefix('r2_')}" for one in outcome["findings"])
        wrong += [f"{case.name}: {found} instead of {case.causes}: {outcome}"] if found != case.causes else []
        words = " ".join(f"{one['subject']}: {one['found']}. {one['fix']}" for one in outcome["findings"])
        wrong += [f"{case.name}: {words}"] if case.said not in words else []
        assert case.who.secret_access_key not in json.dumps(outcome) and case.who.access_key_id not in json.dumps(outcome), case.name
        for one in outcome["findings"]:
            assert one["found"] and one["expected"] and one["fix"], (case.name, one)
            said.setdefault(one["rule"], set()).add(one["found"])
    assert not wrong, "\n".join(wrong)
    for rule, words in said.items():
        others = {sentence for other, sentences in said.items() if other != rule for sentence in sentences}
        assert not words & others, (rule, words & others)
    # Whatever went wrong midway, nothing is left but what could not be removed.
    assert storage.left() == ([], [])
    took = sorted(((one["took"], case.name) for one, case in zip(outcomes, (*CASES, *LATE), strict=True)), reverse=True)
    print(f"{len(outcomes)} cases in {time.time() - began:.1f} s, the slowest: {took[:8]}")


def test_a_round_trip(storage):
    """At most 12 requests, counted by who forwards them; nothing is changed, nothing is left, check mode writes nothing."""
    storage.come_as(KNOWN["of_one_bucket"], R2_ENDPOINT=storage.endpoint("pass"))
    for options, requests in (({}, 12), ({"access": "read"}, 8)):
        storage.host.run(["rm", "-f", "/run/lab-gateway.log"])
        done = storage.must(**options)
        forwarded = storage.host.read("/run/lab-gateway.log").splitlines()
        assert (len(forwarded), done["requests"], done["changed"]) == (requests, requests, False), forwarded
        print({one["step"]: one["ms"] for one in done["steps"]})
    assert [one["cause"] for one in done["steps"] if one["cause"]] == ["excess_write"] and "excess_write" in str(done["findings"])
    assert abs(done["clock_skew"]) < 2 and done["leftovers"] == [] and storage.left() == ([], [])
    storage.host.run(["rm", "-f", "/run/lab-gateway.log"])
    checked = storage.must("--check")
    forwarded = storage.host.read("/run/lab-gateway.log")
    assert checked["not_tried"] == ["put", "multipart", "delete"] and not {"PUT", "POST", "DELETE"} & {*forwarded.split()}
    check = {"type": "r2", "environment_files": [ENVIRONMENT]}
    healthy = storage.module.must("health_check", checks=[check, {**check, "access": "read"}])
    first, second = healthy["verdicts"]
    assert "works (read_write, 12 requests" in first["evidence"] and "Warning: " in second["evidence"], healthy


def test_make_and_set_up(storage):
    """Check mode says what the run then does, and a second one does nothing."""
    name = "to-be-made"
    client = storage.store.client()
    if name in [one["Name"] for one in client.list_buckets()["Buckets"]]:
        client.delete_bucket(Bucket=name)
    storage.come_as(KNOWN["admin"], R2_BUCKET_NAME=name)
    rules = {
        "create": True,
        "cors": [{"allowed_origins": ["https://shop.example", "https://a.example"], "allowed_methods": ["PUT", "GET"], "max_age": 60}],
        "lifecycle": [{"id": "uploads", "abort_uploads_days": 7}, {"id": "exports", "prefix": "exports/", "expire_days": 30}],
    }
    planned = storage.must("--check", "--diff", **rules)
    assert planned["changed"] and f"+bucket {name} at " in planned["said"] and '"https://a.example"' in planned["said"]
    assert name not in [one["Name"] for one in client.list_buckets()["Buckets"]]
    made = storage.must(**rules)
    assert made["changed"] and made["requests"] == 12
    assert client.get_bucket_cors(Bucket=name)["CORSRules"][0]["MaxAgeSeconds"] == 60
    assert {one["ID"] for one in client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]} == {"uploads", "exports"}
    assert not storage.must(**rules)["changed"]
    fewer = storage.must("--diff", cors=[], lifecycle=rules["lifecycle"][:1])
    assert fewer["changed"] and '"exports"' in fewer["said"]
    assert len(client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]) == 1

    storage.come_as(READER)
    refused = storage(cors=rules["cors"])
    assert refused["failed"] and [one["rule"] for one in refused["findings"]] == ["r2_no_admin"], refused
    assert "Admin Read & Write" in refused["msg"]
    client.delete_bucket(Bucket=name)


def test_what_a_killed_run_leaves_is_removed_when_it_is_old(storage):
    """Killed while an upload was under way: the object and the upload stay, until a later run finds them old enough."""
    storage.come_as(KNOWN["of_one_bucket"], R2_ENDPOINT=storage.endpoint("hang"))
    storage.bucket.write("precious", b"not ours")
    port = PORTS["hang"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(storage, timeout=60)
        deadline = time.monotonic() + 60
        while not storage.bucket.uploads():
            assert not running.done() and time.monotonic() < deadline, running.done() and running.result()
            time.sleep(0.05)
        found = storage.host.run(["sh", "-c", f"ss -Htnp 'dport = :{port}' | grep -o 'python3.*pid=[0-9]*' | grep -o '[0-9]*$' | sort -u"])
        storage.host.run(["kill", "-9", *found.stdout.split()])
        assert running.result()["failed"]
    [left], uploads = storage.left()
    assert left.startswith(f"{PREFIX}{storage.host.name}-") and [key for key, _id in uploads] == [left]

    storage.come_as(KNOWN["of_one_bucket"])
    assert storage.must()["leftovers"] == [] and storage.left()[0] == [left], "It may belong to a run that is under way."
    time.sleep(1)
    assert storage.must(leftovers_age=1)["leftovers"] == [left, left]
    assert storage.left() == ([], []) and storage.bucket.objects() == ["precious"]


def test_no_key_is_in_any_output(storage):
    """From the environment or as options, refused or not, at the highest verbosity."""
    storage.come_as(KNOWN["of_one_bucket"])
    storage.host.write("/opt/wrong.env", storage.host.read(ENVIRONMENT).replace("canary", "canary/other"), mode="0600")
    as_options = {"access_key_id": WRONG_KEY.access_key_id, "secret_access_key": "canary/option+s3cr3t", "bucket": "shop"}
    checks = [
        {"type": "r2", "environment_files": [ENVIRONMENT]},
        {"type": "r2", "environment_files": ["/opt/wrong.env"]},
        {"type": "r2", "endpoint": storage.store.endpoint, **as_options},
    ]
    results = [
        storage("-vvv", "--diff", cors=[]),
        storage("-vvv", "--diff", endpoint=storage.store.endpoint, **as_options),
        storage.module("health_check", "-vvv", "--diff", checks=checks, must_be_healthy=False),
    ]
    assert [one["verdict"] for one in results[2]["verdicts"]] == ["pass", "fail", "fail"]
    text = json.dumps(results)
    for cause in ("wrong_secret", "wrong_key"):
        assert cause in text
    for key in ("canary", "s3cr3t", WRONG_KEY.access_key_id, KNOWN["of_one_bucket"].access_key_id, "X-Amz-Signature"):
        assert key not in text, key
