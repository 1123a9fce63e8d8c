# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type log, on real files that grow, rotate and are damaged; the journal and containers by programs in their place."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import re
import resource
import shutil
import threading
import time
from dataclasses import asdict

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _log_patterns, _logs
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def log(tmp_path):
    return tmp_path / "error.log"


def append(path, text):
    with open(path, "ab") as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())


def taken(check, *files):
    return check(type="log", files=[str(file) for file in files], **{"from": "end"}).found["cursor"]


def new_in(cursor):
    """What is new, all of it in one text, and the reader."""
    reader = _logs.Reader(_logs.cursor_of(cursor) if isinstance(cursor, str) else cursor)
    text = b"".join(block.data for block in reader.blocks(time.monotonic() + 60))
    return text.decode(), reader


def test_words_that_must_come_and_words_that_must_not(log, check):
    append(log, "Using local filesystem storage\nTraceback (most recent call last):\n")
    cursor = taken(check, log)
    logs = {"type": "log", "files": [str(log)], "cursor": cursor}

    verdict = check(**logs, must=["Bucket access verified", r"pool \w+ ready"], never=["Using local"])
    assert verdict.verdict == "fail" and '"Bucket access verified", "pool \\\\w+ ready"' in verdict.evidence
    assert "0 new bytes" in verdict.evidence, "what was there before the cursor does not count"

    # It comes while the check waits, in two halves of a line, the second without an end.
    append(log, "INFO Bucket acc")
    threading.Timer(0.3, append, (log, "ess verified\nDEBUG pool main ready")).start()
    verdict = check(**logs, must=["Bucket access verified", r"pool \w+ ready"], never=["Using local"], deadline=5, interval=0.05)
    assert verdict.verdict == "pass" and verdict.attempts > 2 and 0.3 <= verdict.elapsed < 2, verdict
    assert f"{log} at byte 66" in verdict.evidence
    assert new_in(verdict.found["cursor"])[0] == "DEBUG pool main ready", "a line that is still written is not counted as read"

    # From the end as it is when the check begins, not when it looks for the last time.
    threading.Timer(0.2, append, (log, " and\nlast words\n")).start()
    late = {"type": "log", "files": [str(log)], "from": "end", "must": ["last words"]}
    assert check(**late, deadline=1, interval=0.7).verdict == "pass"

    # A word that must never come ends the check, whatever time it has.
    threading.Timer(0.3, append, (log, "\nUsing local filesystem storage\n")).start()
    verdict = check(**logs, must=["not there"], never=["Using local"], deadline=30, interval=0.05)
    assert verdict.verdict == "fail" and verdict.elapsed < 3 and 'found "Using local" once' in verdict.evidence
    threading.Timer(0.3, append, (log, "NameError: name 'db' is not defined\n")).start()
    verdict = check(**logs, never=["python"], hold=30, tolerate=5, interval=0.05)
    assert verdict.verdict == "fail" and verdict.elapsed < 3 and "name 'db' is not defined" in verdict.evidence

    verdict = check(type="log", files=[str(log)], never=["python"])
    assert 'found "python" 2 times' in verdict.evidence and "Traceback" in verdict.evidence, "without a cursor, from the start"
    assert check(type="log", files=[str(log)], must=["Traceback"], count=[{"pattern": "Traceback", "max": 1}]).verdict == "pass"


def test_a_log_that_is_not_there_is_unknown_until_it_is(log, check):
    assert check(type="log", files=[str(log)], never=["x"]).verdict == "unknown"
    cursor = taken(check, log)
    assert check(type="log", files=[str(log)], cursor=cursor, never=["x"]).verdict == "unknown"
    threading.Timer(0.2, append, (log, "ready\n")).start()
    assert check(type="log", files=[str(log)], cursor=cursor, must=["ready"], deadline=5, interval=0.05).verdict == "pass"
    log.unlink()
    os.mkfifo(log)
    assert "There is no log" in check(type="log", files=[str(log)], never=["x"]).evidence, "a pipe does not keep it waiting"


def renamed(log):
    log.rename(f"{log}.1")


def copied(log):
    shutil.copyfile(log, f"{log}.1")
    os.truncate(log, 0)


def copied_to_keep(log):
    shutil.copyfile(log, f"{log}.1")


def dated_and_compressed(log):
    with gzip.open(f"{log}-20250102.gz", "wb") as packed:
        packed.write(log.read_bytes())
    log.unlink()


def renamed_twice(log):
    log.rename(f"{log}.2")
    append(f"{log}.1", "between\n")


def before_its_extension(log):
    log.rename(log.with_name("error-2025-01-02.log"))


@pytest.mark.parametrize("rotate", [renamed, copied, copied_to_keep, dated_and_compressed, renamed_twice, before_its_extension])
def test_a_rotated_log_is_read_to_its_end_and_then_the_new_one(log, check, rotate):
    append(log.with_name("error.log.7"), "rotated long ago\n")
    append(log.with_name("error-worker.log"), "another log\n")
    append(log, "old\n")
    cursor = taken(check, log)
    append(log, "last words\n")
    append(log.with_name("error-worker.log"), "another log\n")
    rotate(log)
    append(log, "first words\n")
    text, reader = new_in(cursor)
    assert text == "last words\n" + ("between\n" if rotate is renamed_twice else "") + "first words\n"
    assert not reader.lost
    # And from there, with a second rotation.
    append(log, "more\n")
    if rotate is not renamed_twice:
        for name in log.parent.glob("error.log.1"):
            name.rename(f"{log}.2")
        log.rename(f"{log}.1")
        append(log, "most\n")
    assert new_in(reader.cursor.as_json())[0] == ("more\n" if rotate is renamed_twice else "more\nmost\n")


def test_what_is_lost_is_no_pass(log, check):
    append(log, "x" * 2000 + "\n")
    cursor = taken(check, log)
    log.unlink()
    append(log, "fresh\n")
    verdict = check(type="log", files=[str(log)], cursor=cursor, never=["Traceback"])
    assert verdict.verdict == "unknown" and f"{log} was replaced" in verdict.evidence
    assert check(type="log", files=[str(log)], cursor=cursor, never=["fresh"]).verdict == "fail"


def test_a_glob_takes_each_file_once(tmp_path, check):
    append(tmp_path / "a.log", "one\n")
    append(tmp_path / "b.log", "two\n")
    append(tmp_path / "a.log.1", "older\n")
    cursor = taken(check, tmp_path / "*.log*")
    append(tmp_path / "a.log", "one more\n")
    append(tmp_path / "c.log", "three\n")
    assert sorted(new_in(cursor)[0].split()) == ["more", "one", "three"]
    assert sorted(new_in(_logs.start(_logs.Sources(files=(f"{tmp_path}/*.log*",))))[0].split()) == ["more", "one", "one", "three", "two"]


def test_bytes_that_are_no_text_and_lines_without_end(log, check):
    """A line of 5 MB, NULs, half a character: all is looked at, and memory stays bounded."""
    append(log, b"\xff\xfe caf\xc3\xa9 \xc3\n\x00\x00 start\r\n")
    with open(log, "ab") as stream:
        for _number in range(5):
            stream.write(b"z" * 1_000_000)
        stream.write(b" NEEDLE in the middle ")
        stream.write(b"z" * 500_000)
    verdict = check(type="log", files=[str(log)], must=["café", "^\x00\x00 start$", "NEEDLE in", "z{200}$"], never=["never"])
    assert verdict.verdict == "pass", verdict.evidence
    assert check(type="log", files=[str(log)], never=["NEEDLE"]).evidence.count("z") < 400
    # Where two pieces of it meet, too.
    for shift in range(-8, 1):
        log.write_bytes(b"a" * (_logs.BLOCK + shift) + b"NEEDLE" + b"a" * _logs.BLOCK)
        assert check(type="log", files=[str(log)], must=["NEEDLE"], never=["b"]).verdict == "pass", shift


def bytes_read():
    """By this process, ever."""
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def test_a_log_of_5_gb_is_not_read_from_its_start(log, check):
    append(log, "the first line\n")
    os.truncate(log, 5 << 30)
    append(log, "\n")
    before, already = resource.getrusage(resource.RUSAGE_SELF), bytes_read()
    cursor = taken(check, log)
    append(log, "Bucket access verified\n")
    verdict = check(type="log", files=[str(log)], cursor=cursor, must=["Bucket access verified"], never=["first"])
    assert verdict.verdict == "pass" and "23 new bytes" in verdict.evidence
    assert bytes_read() - already < 1 << 20
    # From the start it is more than the time allows: unknown, and no more memory than ever.
    verdict = check(type="log", files=[str(log)], never=["Traceback"], timeout=0.3)
    assert verdict.verdict == "unknown" and "longer timeout" in verdict.evidence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss < 32 * 1024
    os.truncate(log, 400 << 20)
    append(log, "\nlate\n")
    verdict = check(type="log", files=[str(log)], must=["late"], timeout=0.02, deadline=20, interval=0.01)
    assert verdict.verdict == "pass" and verdict.attempts > 1, "it goes on where the attempt before it ended"


def stamped(seconds, form):
    moment = time.localtime(seconds)
    return time.strftime(form, moment)


@pytest.mark.parametrize(
    "form", ["[%Y-%m-%d %H:%M:%S %z]", '1.2.3.4 - - [%d/%b/%Y:%H:%M:%S %z] "GET /"', "%Y-%m-%dT%H:%M:%S,123", "%b %d %H:%M:%S host app:"]
)
def test_counts_within_a_window(log, check, form):
    now = time.time()
    for age in [3600] * 20 + [100] * 3 + [5] * 2:
        append(log, f"{stamped(now - age, form)} DB_DOWN\n  without a time of its own: DB_SLOW\n{stamped(now - age, form)} fine\n")
    logs = {"type": "log", "files": [str(log)]}
    assert check(**logs, count=[{"pattern": "DB_DOWN", "max": 5, "window": 300}]).verdict == "pass"
    assert check(**logs, count=[{"pattern": "DB_SLOW", "max": 5, "window": 300}]).verdict == "pass"
    verdict = check(**logs, count=[{"pattern": "DB_DOWN", "max": 4, "window": 300}])
    assert verdict.verdict == "fail" and 'found "DB_DOWN" 5 times in the last 300 s, expected at most 4' in verdict.evidence
    assert check(**logs, count=[{"pattern": "DB_DOWN", "max": 1, "window": 20}]).verdict == "fail"
    assert "25 times, expected" in check(**logs, count=[{"pattern": "DB_DOWN", "max": 24}]).evidence
    some = {"pattern": "DB_DOWN", "max_percent": 34}
    assert check(**logs, ratio=[{**some, "window": 300}]).verdict == "pass"
    verdict = check(**logs, ratio=[{**some, "max_percent": 33, "window": 300}])
    assert "in 5 of 15 lines in the last 300 s, which is 33.33 %, expected at most 33 %" in verdict.evidence


def test_the_part_of_errors_in_an_access_log(log, check):
    for number in range(1000):
        status = 503 if number % 100 == 0 else 200
        append(log, f'127.0.0.1 - - [01/Jan/2025:00:00:00 +0000] "GET /500 HTTP/1.1" {status} 512\n')
    append(log, "a line of another kind\n" * 500)
    rule = {"pattern": r'" 5\d\d ', "of": r'" \d{3} '}
    logs = {"type": "log", "files": [str(log)]}
    assert check(**logs, ratio=[{**rule, "max_percent": 1}]).found["ratio"] == {rule["pattern"]: 1.0}
    verdict = check(**logs, ratio=[{**rule, "max_percent": 0.9}])
    assert verdict.verdict == "fail" and "in 10 of 1000 lines with" in verdict.evidence
    assert check(**logs, ratio=[{**rule, "max_percent": 0.9, "min": 1001}]).verdict == "pass"
    assert check(**logs, ratio=[{"pattern": r'" 5\d\d ', "max_percent": 0.7}]).verdict == "pass", "of all lines, where nothing else is said"


def test_secrets_in_a_line_are_not_shown(log, check, tmp_path):
    dotenv = tmp_path / ".env"
    dotenv.write_text("R2_SECRET_ACCESS_KEY=canary-12345\nMODE=info\n")
    append(log, "Traceback: canary-12345 postgresql://shop:hunter2@db/shop password='hunter3' Authorization: Bearer hunter4 mode info\n")
    verdict = check(type="log", files=[str(log)], never=["Traceback"], environment_files=[str(dotenv)])
    told = json.dumps(asdict(verdict))
    assert "canary" not in told and "hunter" not in told
    assert "<R2_SECRET_ACCESS_KEY> postgresql://***@db/shop password='***' Authorization: ***" in verdict.evidence
    assert "mode info" in verdict.evidence


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put a script in the place of a program."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return put


def test_the_journal_of_a_unit(check, programs, tmp_path):
    entries = [
        {"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": f"{int(time.time() - 900)}000000", "MESSAGE": "DB_DOWN long ago"},
        {
            "__CURSOR": "s=2",
            "__REALTIME_TIMESTAMP": f"{int(time.time())}000000",
            "MESSAGE": [ord(char) for char in "caf"] + [0xC3, 0xA9, 0xFF],
        },
        {"__CURSOR": "s=3", "__REALTIME_TIMESTAMP": f"{int(time.time())}000000", "MESSAGE": "DB_DOWN\nTraceback"},
    ]
    journal = tmp_path / "entries"
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    programs("systemctl", "echo LoadState=loaded")
    programs(
        "journalctl", f'echo "$@" >>{tmp_path}/asked; case "$*" in *--lines=1*) head -1 {journal};; *s=1*|*s=3*) ;; *) cat {journal};; esac'
    )
    logs = {"type": "log", "unit": "shop@blue.service"}
    verdict = check(**logs, must=["café"], count=[{"pattern": "DB_DOWN", "max": 1, "window": 300}])
    assert verdict.verdict == "pass" and _logs.cursor_of(verdict.found["cursor"]).journal == "s=3"
    verdict = check(**logs, never=["^Traceback$"], deadline=3)
    assert verdict.verdict == "fail" and "the journal of shop@blue.service: Traceback" in verdict.evidence
    taken = check(**logs, **{"from": "end"}).found["cursor"]
    assert _logs.cursor_of(taken).journal == "s=1"
    check(**logs, cursor=taken, never=["x"])
    assert (tmp_path / "asked").read_text().splitlines()[-1].endswith("--unit=shop@blue.service --after-cursor=s=1")
    assert check(**logs, must=["café"], hold=0.3, interval=0.1).verdict == "pass"

    programs("journalctl", "echo 'Hint: You are currently not seeing messages from other users and the system.' >&2")
    assert check(**logs, never=["x"]).verdict == "unknown", "who may not see the journal has not looked"
    programs("journalctl", "")
    programs("systemctl", "echo LoadState=not-found")
    verdict = check(**logs, never=["x"])
    assert verdict.verdict == "unknown" and "There is no unit" in verdict.evidence
    programs("journalctl", "exec sleep 30")
    verdict = check(**logs, never=["x"], timeout=0.4)
    assert verdict.verdict == "unknown" and verdict.elapsed < 3


def test_what_a_container_says(check, programs, tmp_path):
    said = tmp_path / "said"
    said.write_text("2025-01-01T00:00:01.000000001Z hello\n2025-01-01T00:00:01.000000002Z Bucket access verified\n")
    programs("docker", f'echo "$@" >>{tmp_path}/asked; cat {said} >&2')
    logs = {"type": "log", "container": "shop-web-1"}
    first = check(**logs, must=["Bucket access verified"])
    assert first.verdict == "pass", first
    with said.open("a") as stream:
        stream.write("2025-01-01T00:00:01.000000003Z Using local filesystem storage\n")
    verdict = check(**logs, cursor=first.found["cursor"], never=["Using local"], count=[{"pattern": "hello", "max": 0}])
    assert verdict.verdict == "fail" and "container shop-web-1: Using local" in verdict.evidence and "hello" not in verdict.evidence
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["logs --timestamps -- shop-web-1", "logs --timestamps --since 2025-01-01T00:00:01.000000002Z -- shop-web-1"]
    programs("docker", "echo 'Error: No such container: shop-web-1' >&2; exit 1")
    verdict = check(**logs, never=["x"])
    assert verdict.verdict == "unknown" and "No such container" in verdict.evidence


LINES = st.lists(
    st.sampled_from(["", "ERROR boom", "NameError", "café ERROR", "x" * 50, "user 12 failed", "ok 7", "\x00", "ERR", "a\rb", "ok\r"]),
    max_size=40,
)
PATTERNS = [
    "ERROR", "error", "(?i)error", r"\d+", "^$", "^ok", "failed$", r"user \d+ failed", "Name|boom", "(?:Name|Import)Error", "caf.", r"\bERR\b",
    r"x{3,}", "E(?!RR)", r"(?<!user )\d", r"\Aok", r"boom\Z", "[^a-z]+$", r"\s", "", "ok$",
    r"\d(?!\s)",
    r"boom(?!\s)",
    "ERROR (?:boom|bang)", "(?:abc)?ok", "b$",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from(PATTERNS), st.booleans())
def test_found_in_a_block_is_what_is_found_line_by_line(lines, text, common):
    """However it is searched for, a line is found if and only if the pattern matches it alone."""
    data = "".join(f"{line}\n" for line in lines).encode()
    finder = _log_patterns.Finder([_log_patterns.compiled(text)])
    if common:
        # As it is where a needle is in every other line.
        finder.hits(b"".join(needle + b"\n" for needle in finder._needles) * 20)
    found = [data[: hit.offset].count(b"\n") for hit in finder.hits(data)]
    assert found == [number for number, line in enumerate(lines) if re.search(text, line.removesuffix("\r"))]


def test_times_in_lines():
    for line, seconds in (
        (b"2025-01-02 03:04:05,678 x", None),
        (b"2025-01-02T03:04:05.5Z", 1735787045.5),
        (b"[2025-01-02 03:04:05 +0100]", 1735783445),
        (b"2025/01/02 03:04:05 [error]", None),
        (b'- [02/Jan/2025:03:04:05 -0200] "GET', 1735794245),
        (b"2025-99-99 00:00:00 2025-01-02T03:04:05+00:00", 1735787045),
    ):
        expected = time.mktime((2025, 1, 2, 3, 4, 5, 0, 0, -1)) + (0.678 if b"678" in line else 0) if seconds is None else seconds
        assert _logs.seconds_in(line) == pytest.approx(expected)
    assert _logs.seconds_in(b"no time at all") is None


@pytest.mark.parametrize(
    "options,said",
    [
        ({}, "files, unit, container: found none"),
        ({"files": ["error.log"], "never": ["x"]}, "absolute paths"),
        ({"files": ["/x"]}, "must, never, count, ratio: found none"),
        ({"files": ["/x"], "never": ["("]}, "a regular expression"),
        ({"files": ["/x"], "never": ["x"], "from": "end"}, "looks at nothing"),
        ({"files": ["/x"], "never": ["x"], "from": "cursor"}, "without a cursor"),
        ({"files": ["/x"], "never": ["x"], "cursor": "{}"}, "not a cursor"),
        ({"files": ["/x"], "never": ["x"], "cursor": _logs.start(_logs.Sources(files=("/y",))).as_json()}, "from other logs"),
        ({"files": ["/x"], "count": [{"pattern": "x"}]}, "of which pattern and max have to be there"),
        ({"files": ["/x"], "count": [{"pattern": "x", "max": -1}]}, "count.max"),
        ({"files": ["/x"], "ratio": [{"pattern": "x", "max_percent": 1, "over": "y"}]}, "of which pattern and max_percent"),
        ({"unit": "--help", "never": ["x"]}, "unit: found"),
        ({"container": "a b", "never": ["x"]}, "container: found"),
    ],
)
def test_mistakes(options, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "log", **options}])
    assert said in failure.value.message()
