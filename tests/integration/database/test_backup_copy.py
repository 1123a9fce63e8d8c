# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of backups in a real S3 server: sent, proven, rotated, damaged, killed, brought back."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shlex
import time

import pytest

from lab.hosts import Host
from lab.modules import Module, Result
from lab.s3 import KNOWN, WRONG_KEY, WRONG_SECRET, Bucket, Identity, ObjectStore

DIRECTORY = "/opt/backups"
ENVIRONMENT = "/opt/copies.env"
PREFIX = "shop/backups"
DAY = 86400
# How often a copy is killed; more often with BULLETPROOF_KILLS=100.
KILLS = int(os.environ.get("BULLETPROOF_KILLS", "5"))
# A backup as the modules that make them publish it; what is in it is no matter here.
PUBLISH = """
import os, sys
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups
directory, database, taken, kilobytes, form = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
# Extensions apart, because this storage makes a folder of a key that others continue, and keeps it for a while when it is empty.
name = backups.name_for(database, taken, "dir" if form == "directory" else "dump")
partial = backups.partial_path(directory, name)
os.makedirs(directory, exist_ok=True)
os.umask(0o077)
files = {partial: kilobytes}
if form == "directory":
    files = {os.path.join(partial, "toc.dat"): 3, os.path.join(partial, "3301.dat"): kilobytes, os.path.join(partial, "blobs", "a b+c"): 0}
for path, size in files.items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        stream.write(os.urandom(size * 1024))
print(backups.publish(directory, name, database, "postgresql", taken, {"tables": {"orders": 3}}).name)
"""


class Backups:
    """A directory of backups on the host, and a bucket for their copies."""

    def __init__(self, host: Host, module: Module, bucket: Bucket) -> None:
        self.host = host
        self.module = module
        self.bucket = bucket
        self.host.run(["rm", "-rf", DIRECTORY])
        self.come_as(KNOWN["read_write"])

    def come_as(self, identity: Identity, **other: str) -> None:
        variables = {**identity.environment(self.bucket.store, self.bucket.name), **other}
        self.host.write(ENVIRONMENT, "".join(f'{name}="{value}"\n' for name, value in variables.items()), mode="0600")

    def publish(self, taken: float, kilobytes: int = 8, form: str = "file", database: str = "shop") -> str:
        """A new verified backup; its name."""
        argv = ["env", "PYTHONPATH=/opt/code", "python3", "-c", PUBLISH, DIRECTORY, database, str(taken), str(kilobytes), form]
        return self.host.run(argv).stdout.strip()

    def options(self, **options: object) -> dict[str, object]:
        return {"backups": DIRECTORY, "database": "shop", "prefix": PREFIX, "environment_files": [ENVIRONMENT], **options}

    def copy(self, *flags: str, **options: object) -> Result:
        return self.module.must("backup_copy", *flags, **self.options(**options))

    def refused(self, *said: str, **options: object) -> Result:
        return self.module.refused("backup_copy", *said, **self.options(**options))

    def sums(self, name: str) -> str:
        """The content of a backup on the host, in short."""
        path = shlex.quote(f"{DIRECTORY}/{name}")
        return self.host.run(
            ["sh", "-c", f"cd {path} 2> /dev/null && find . -type f -exec sha256sum {{}} + | sort || sha256sum < {path}"]
        ).stdout

    def names(self) -> list[str]:
        return sorted(os.path.basename(line) for line in self.host.run(["ls", "-A", DIRECTORY]).stdout.splitlines())


@pytest.fixture
def shop(host: Host, module: Module, tools: None, code: None, store: ObjectStore) -> Backups:
    return Backups(host, module, store.bucket("shop"))


def test_a_backup_is_copied_once_and_brought_back(shop):
    """Fails without the comparison of what is there: the second run would send it again."""
    name = shop.publish(1_800_000_000)
    content = shop.sums(name)

    planned = shop.copy("--check", "--diff")
    assert planned["changed"] and f"+{PREFIX}/{name}: copy of" in planned["said"]
    assert shop.bucket.objects() == []

    assert shop.copy()["sent"] == [name]
    assert shop.bucket.objects() == [f"{PREFIX}/{name}", f"{PREFIX}/{name}.json"]
    stored = shop.bucket.client.head_object(Bucket="shop", Key=f"{PREFIX}/{name}")
    assert stored["Metadata"]["sha256"] == hashlib.sha256(shop.bucket.read(f"{PREFIX}/{name}")).hexdigest() == content.split()[0]
    again = shop.copy()
    assert not again["changed"] and [copy["name"] for copy in again["copies"]] == [name]

    shop.host.run(["rm", "-rf", DIRECTORY])
    assert shop.copy(fetch="newest", mode="0640")["fetched"] == f"{DIRECTORY}/{name}"
    assert shop.sums(name) == content
    assert shop.host.run(["stat", "-c", "%a %U", f"{DIRECTORY}/{name}"]).stdout.strip() == "640 root"
    assert not shop.copy(fetch=name)["changed"]


def test_a_database_comes_back_on_a_host_that_has_nothing(shop):
    """The whole way with the real modules: backup, copy, the loss of the directory, fetch, and the drill of the restore."""
    shop.come_as(KNOWN["read_write"], DATABASE_URL="sqlite:////opt/copies.db")
    shop.host.run(
        ["sh", "-c", "rm -f /opt/copies.db* && sqlite3 /opt/copies.db 'CREATE TABLE orders (id); INSERT INTO orders VALUES (1), (2)'"]
    )
    url = {"environment_files": [ENVIRONMENT], "backups": DIRECTORY}
    shop.module.must("sqlite_backup_rotate", **url)
    (sent,) = shop.copy(database=None)["sent"]
    assert sent.startswith("copies.db-")
    shop.host.run(["rm", "-rf", DIRECTORY])
    shop.copy(database=None, fetch="newest")
    drilled = shop.module.must("sqlite_restore", drill=True, **url)
    assert not drilled["changed"] and shop.host.exists(f"{DIRECTORY}/{sent}.json")


def test_a_directory_with_a_file_in_parts_is_copied_and_brought_back(shop):
    """Several objects below one key, one of them a multipart upload, one of them empty, names with blanks among them."""
    name = shop.publish(1_800_000_000, kilobytes=12 * 1024, form="directory")
    content = shop.sums(name)
    assert shop.copy(part_size=5)["copies"][0]["objects"] == 3
    assert [key[len(PREFIX) + 1 :] for key in shop.bucket.objects()] == [
        f"{name}.json",
        f"{name}/3301.dat",
        f"{name}/blobs/a b+c",
        f"{name}/toc.dat",
    ]
    etag = shop.bucket.client.head_object(Bucket="shop", Key=f"{PREFIX}/{name}/3301.dat")["ETag"]
    assert etag.endswith('-3"'), "It was sent in three parts."
    # What is damaged here is replaced by what was proven there.
    shop.host.run(["sh", "-c", f"echo torn > {DIRECTORY}/{name}/toc.dat"])
    fetched = shop.copy("--diff", fetch=name)
    assert f"-{DIRECTORY}/{name}: damaged: its content has changed" in fetched["said"]
    assert shop.sums(name) == content


def test_rotation_and_leftovers_touch_only_what_is_ours(shop):
    """Fails without the pattern of our own names: the foreign objects and the foreign upload would go with the leftovers."""
    one, two, three = (shop.publish(1_800_000_000 + day * DAY) for day in range(3))
    shop.publish(1_800_000_000, database="other")
    foreign = [
        f"{PREFIX}/app_dev.db.backup.1",
        f"{PREFIX}/shop-notes.txt",
        f"{PREFIX}/other-20270115T080000.000000Z.dump",
        f"elsewhere/{one}",
    ]
    for key in foreign:
        shop.bucket.write(key, b"not ours")
    shop.bucket.client.create_multipart_upload(Bucket="shop", Key=f"{PREFIX}/video.mp4")
    # What a copy leaves that is killed: data without a record, and an upload that is not completed.
    killed = one.replace(".dump", ".sql")
    shop.bucket.write(f"{PREFIX}/{killed}", b"half of it")
    shop.bucket.client.create_multipart_upload(Bucket="shop", Key=f"{PREFIX}/{killed}")

    done = shop.copy(keep_last=2)
    assert done["sent"] == [three, two], "The newest first, and none that would leave at once."
    assert done["leftovers"] == [f"{PREFIX}/{killed}"] * 2
    newest = shop.publish(1_800_000_000 + 3 * DAY)
    rotated = shop.copy(keep_last=2)
    assert (rotated["sent"], rotated["removed"]) == ([newest], [two])
    kept = [f"{PREFIX}/{name}{end}" for name in (three, newest) for end in ("", ".json")]
    assert shop.bucket.objects() == sorted([*foreign, *kept])
    assert [key for key, _id in shop.bucket.uploads()] == [f"{PREFIX}/video.mp4"]


def test_nothing_leaves_before_a_newer_copy_is_proven(shop):
    """Fails without the comparison with the record before sending, and with the removals before the sending."""
    old = shop.publish(1_800_000_000)
    shop.copy(keep_last=1)
    new = shop.publish(1_800_000_000 + DAY)
    shop.host.run(["sh", "-c", f"printf x | dd of={DIRECTORY}/{new} bs=1 seek=1000 conv=notrunc"])
    shop.refused(new, "is not copied", "its content has changed since it was verified", keep_last=1)
    assert shop.bucket.objects() == [f"{PREFIX}/{old}", f"{PREFIX}/{old}.json"]


def test_a_copy_that_was_replaced_is_found_and_sent_again(shop):
    """Fails without the comparison of ETags: size and record are as they were."""
    name = shop.publish(1_800_000_000)
    shop.copy()
    key = f"{PREFIX}/{name}"
    good = shop.bucket.read(key)
    shop.bucket.write(key, bytes([good[0] ^ 1]) + good[1:])
    healed = shop.copy("--diff")
    assert healed["sent"] == [name] and f"-{key}: damaged: {name} has the ETag" in healed["said"]
    assert shop.bucket.read(key) == good

    shop.bucket.write(key, b"x" + good[1:])
    shop.host.run(["rm", "-rf", DIRECTORY])
    assert shop.refused("are damaged", name, "has the ETag")["cause"] == "damaged"


def test_a_bit_that_flips_in_the_storage_is_found_by_reading_back(shop):
    """Fails without read_back: what the storage says of the object is as it was."""
    name = shop.publish(1_800_000_000)
    shop.copy()
    key = f"{PREFIX}/{name}"
    good = shop.bucket.read(key)
    shop.bucket.flip_bit(good)
    assert not shop.copy()["changed"], "No listing can show it; else this test proves nothing."
    found = shop.copy("--check", "--diff", read_back=True)
    assert found["sent"] == [name] and f"-{key}: damaged:" in found["said"]
    # What is damaged is not brought back over nothing either.
    shop.host.run(["rm", "-rf", DIRECTORY])
    shop.refused("is not what was proven", "Nothing was brought back", fetch=name)
    assert [one for one in shop.names() if name in one] == []


def test_a_killed_module_leaves_no_copy_and_the_next_run_heals(shop):
    """Fails with the record written first, and without the removal of unfinished uploads."""
    name = shop.publish(1_800_000_000, kilobytes=24 * 1024)
    # The upload takes seconds instead of a moment, so that it is surely under way when it is killed.
    shop.host.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "40mbit", "burst", "64kb", "latency", "400ms"])
    try:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(shop.module, "backup_copy", **shop.options(part_size=5))
            deadline = time.monotonic() + 60
            while not shop.bucket.uploads():
                assert not running.done() and time.monotonic() < deadline, running.done() and running.result()
                time.sleep(0.02)
            # Of all processes, the one that talks to the storage and is not the storage.
            ss = shop.host.run(["sh", "-c", "ss -Htnp 'dport = :8333' | grep -o 'python3.*pid=[0-9]*' | grep -o '[0-9]*$' | sort -u"])
            shop.host.run(["kill", "-9", *ss.stdout.split()])
            assert running.result().get("failed")
    finally:
        shop.host.run(["tc", "qdisc", "del", "dev", "lo", "root"])
    assert shop.bucket.uploads() and not [key for key in shop.bucket.objects() if key.endswith(".json")]
    healed = shop.copy(part_size=5)
    assert healed["sent"] == [name] and healed["leftovers"] == [f"{PREFIX}/{name}"]
    assert shop.bucket.uploads() == []


# Copies, rotates and is killed after so many requests; then says what is there, as a reader would find it.
KILLED = """
import json, os, signal, sys
from ansible_collections.bulletproof.deploy.plugins.module_utils import _object_store
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import backups, copies
options, step = json.loads(sys.argv[1]), int(sys.argv[2])
store = _object_store.Store(_object_store.location_of(options))
prefix, directory = copies.prefix_of(options["prefix"]), options["backups"]
def run():
    there = copies.read(store, prefix, "shop")
    todo = copies.plan(backups.backups_of(directory, "shop"), there, backups.Policy(last=2), 1_900_000_000)
    for upload in todo.uploads:
        store.abort(upload)
    for backup, _why in todo.send:
        copies.send(store, prefix, directory, backup, 5 * _object_store.MIB)
    store.delete(*todo.strays)
    for copy in todo.leave:
        copies.remove(store, prefix, copy)
child = os.fork()
if child == 0:
    left = [step]
    def count(**_event):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    store.client.meta.events.register("before-send.s3", count)
    run()
    os._exit(0)
_pid, status = os.waitpid(child, 0)
def look():
    there = copies.read(store, prefix, "shop", read_back=True)
    sound = [one.name for one in there.copies if not one.why]
    damaged = [f"{one.name}: {one.why}" for one in there.copies if one.why]
    rest = [*there.strays, *(one.key for one in there.uploads), *there.unreadable]
    print(json.dumps({"killed": os.WIFSIGNALED(status), "sound": sound, "damaged": damaged, "rest": rest}))
look()
run()
look()
"""


def test_killed_at_any_request_there_is_a_sound_copy_and_no_other(shop):
    """At every moment the newest copy that was there, or a newer one, is sound; the next run leaves what it should.

    Fails with the record written first (a copy that is not all there), and with removals before the sending (no copy left).
    """
    options = {**shop.options(), **{f"{name}": None for name in ("bucket", "endpoint", "access_key_id", "secret_access_key")}}
    options.update(
        {f"{name}_variable": f"R2_{name.upper()}" for name in ("endpoint", "access_key_id", "secret_access_key")},
        bucket_variable="R2_BUCKET_NAME",
    )
    sound_before: list[str] = []
    killed = 0
    for attempt in range(KILLS):
        form = "directory" if attempt % 2 else "file"
        newest = shop.publish(1_800_000_000 + attempt * DAY, kilobytes=6 * 1024, form=form)
        argv = ["env", "PYTHONPATH=/opt/code", "python3", "-c", KILLED, json.dumps(options), str(3 + attempt * 4 % 19)]
        after, healed = (json.loads(line) for line in shop.host.run(argv).stdout.splitlines())
        killed += after["killed"]
        assert after["damaged"] == []
        assert not sound_before or after["sound"][0] in (newest, sound_before[0])
        assert (healed["sound"], healed["rest"]) == ([newest, *sound_before][:2], [])
        sound_before = healed["sound"]
    assert killed >= KILLS // 2


def test_secrets_are_in_no_output(shop):
    """The wrong secret is told by name, and neither the secrets of the environment nor those of the options are in any line of -vvv."""
    shop.publish(1_800_000_000)
    shop.come_as(WRONG_SECRET)
    said = shop.module("backup_copy", "-vvv", "--diff", **shop.options())
    assert said["cause"] == "wrong_secret" and "the secret access key does not belong" in said["msg"]
    given = shop.module(
        "backup_copy",
        "-vvv",
        "--diff",
        **shop.options(
            access_key_id=WRONG_KEY.access_key_id, secret_access_key="canary/option+s3cr3t", endpoint=shop.bucket.store.endpoint
        ),
    )
    assert given["cause"] == "wrong_key"
    for result in (said, given):
        text = json.dumps(result)
        assert "canary" not in text and "s3cr3t" not in text
        assert WRONG_KEY.access_key_id not in text


# Asks the real server as somebody, and says which cause the answer was given.
ASK = """
import contextlib, datetime, json, socket, sys
import ansible_collections.bulletproof.deploy.plugins.module_utils._object_store as o
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
o.library("boto3", "")
import botocore.auth
real = botocore.auth.get_current_datetime
silent = socket.create_server(("127.0.0.1", 0))
for case in json.load(sys.stdin):
    o.READ_TIMEOUT = 0.2 if case["endpoint"] == "silent" else 10
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}" if case["endpoint"] == "silent" else case["endpoint"]
    late = datetime.timedelta(hours=case.get("late", 0))
    botocore.auth.get_current_datetime = lambda *given, **named: real(*given, **named) - late
    store = o.Store(o.Location(endpoint, case["bucket"], case["key"], case["secret"]))
    try:
        found = getattr(store, case["do"])(*[one.encode() if case["do"] == "put" and one != "probe" else one for one in case["with"]])
        print(json.dumps(["nothing", str(found)]))
    except Failure as failure:
        print(json.dumps([failure.facts["cause"], failure.message()]))
"""
READ_WRITE = KNOWN["read_write"]
ASKED = [
    # (cause, who, what is asked, of which bucket, other)
    ("nothing", READ_WRITE, "list", "shop", {}),
    ("wrong_key", WRONG_KEY, "list", "shop", {}),
    ("wrong_key", WRONG_KEY, "head", "shop", {}),
    ("wrong_secret", WRONG_SECRET, "list", "shop", {}),
    ("wrong_secret", WRONG_SECRET, "head", "shop", {}),
    ("no_write", KNOWN["read_only"], "put", "shop", {}),
    ("no_write", KNOWN["read_only"], "delete", "shop", {}),
    ("no_read", KNOWN["write_only"], "get", "shop", {}),
    ("no_list", KNOWN["without_list"], "list", "shop", {}),
    ("no_list", KNOWN["nothing"], "list", "shop", {}),
    ("bucket_absent", READ_WRITE, "list", "absent", {}),
    ("bucket_absent", READ_WRITE, "head", "absent", {}),
    ("no_list", KNOWN["of_one_bucket"], "list", "absent", {}),
    ("object_absent", READ_WRITE, "get", "shop", {}),
    ("nothing", READ_WRITE, "head", "shop", {}),
    ("clock", READ_WRITE, "list", "shop", {"late": 1}),
    ("refused", READ_WRITE, "list", "shop", {"endpoint": "http://127.0.0.1:1"}),
    ("dns", READ_WRITE, "list", "shop", {"endpoint": "http://storage.invalid"}),
    ("tls", READ_WRITE, "list", "shop", {"endpoint": "https://127.0.0.1:8333"}),
    ("timeout", READ_WRITE, "list", "shop", {"endpoint": "silent"}),
]


def test_every_refusal_of_the_real_server_is_told_by_its_cause(shop):
    cases = [
        {
            "endpoint": "http://127.0.0.1:8333",
            "bucket": bucket,
            "key": who.access_key_id,
            "secret": who.secret_access_key,
            "do": do,
            "with": {"list": [""], "put": ["probe", "content"]}.get(do, ["probe"]),
            **other,
        }
        for _cause, who, do, bucket, other in ASKED
    ]
    said = shop.host.run(["env", "PYTHONPATH=/opt/code", "python3", "-c", ASK], stdin=json.dumps(cases)).stdout
    answers = [json.loads(line) for line in said.splitlines()]
    assert [cause for cause, _message in answers] == [case[0] for case in ASKED], said
    for case, (cause, message) in zip(cases, answers, strict=True):
        assert case["secret"] not in message and case["key"] not in message
        assert cause in ("nothing", "object_absent") or ("What to do: " in message and f"bucket {case['bucket']} at" in message)


# Reads through a proxy that breaks connections off after so many bytes.
BREAKS_OFF = """
import hashlib, json, os, socket, socketserver, sys, threading
import ansible_collections.bulletproof.deploy.plugins.module_utils._object_store as o
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
key, secret = sys.argv[1:]
limits = []
def pump(source, sink, limit):
    while limit > 0:
        try:
            data = source.recv(min(65536, limit))
            sink.sendall(data)
        except OSError:
            break
        if not data:
            break
        limit -= len(data)
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
class Proxy(socketserver.BaseRequestHandler):
    def handle(self):
        storage = socket.create_connection(("127.0.0.1", 8333))
        threading.Thread(target=pump, args=(self.request, storage, 1 << 40), daemon=True).start()
        pump(storage, self.request, limits.pop(0) if limits else 1 << 40)
proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy)
proxy.daemon_threads = True
threading.Thread(target=proxy.serve_forever, daemon=True).start()
content = os.urandom(3_000_000)
o.Store(o.Location("http://127.0.0.1:8333", "shop", key, secret)).put("x", content)
through = o.Location(f"http://127.0.0.1:{proxy.server_address[1]}", "shop", key, secret)
limits[:] = [1_500_000, 700_000]
print(o.Store(through).digest("x") == (hashlib.sha256(content).hexdigest(), len(content)), limits)
limits[:] = [100_000] * 50
try:
    o.Store(through).digest("x")
except Failure as failure:
    print(failure.facts["cause"], 50 - len(limits))
"""


def test_a_download_that_breaks_off_goes_on_where_it_was_and_not_for_ever(shop):
    argv = ["env", "PYTHONPATH=/opt/code", "python3", "-c", BREAKS_OFF, READ_WRITE.access_key_id, READ_WRITE.secret_access_key]
    assert shop.host.run(argv).stdout.splitlines() == ["True []", "broken 3"]


def test_the_module_says_what_the_storage_refuses(shop):
    """A token that may only read is enough for a second look, and not for a copy."""
    first = shop.publish(1_800_000_000)
    shop.copy()
    shop.come_as(KNOWN["read_only"])
    assert not shop.copy()["changed"]
    second = shop.publish(1_800_000_000 + DAY)
    refused = shop.refused(f"Removing {PREFIX}/{second}.json", "may not write", "Object Read & Write")
    assert refused["cause"] == "no_write"
    assert shop.bucket.objects() == [f"{PREFIX}/{first}", f"{PREFIX}/{first}.json"]
