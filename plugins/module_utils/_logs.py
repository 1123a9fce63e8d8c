# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logs, read on from where they ended: files through their rotations, the journal of a unit, what a container says.

A cursor can be taken at any time, kept as JSON, and read from by another process. Memory is bounded, whatever a log holds.

A file is known by its inode and by its first bytes: after a rotation by renaming, the inode has another name; after one by copying and
truncating (logrotate's ``copytruncate``), the first bytes are in another file. What is known is read on from where it was, under
whatever name it is now; everything else is new. The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import stat
import time
import typing as t
from dataclasses import asdict, dataclass, field, replace

from ansible_collections.bulletproof.deploy.plugins.module_utils import _command, _systemd
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

# Small enough to stay in the processor's cache while it is searched for one pattern after another.
BLOCK = 256 * 1024
# Of a line that does not end, pieces of about a block are looked at, which overlap by this much.
OVERLAP = 1024
# So many first bytes of a file make it known.
HEAD = 1024
ROTATED = r"[.-](?:\d[\dT:_.-]*|old)"
COMPRESSED = ".gz"
# What a program that could not do its work says is short.
COMPLAINT = 4096


@dataclass(frozen=True)
class Sources:
    """Where to read.

    :param files: Paths; ``*``, ``?`` and ``[...]`` as in a shell.
    :param unit: The journal of this unit; empty for none.
    :param container: The name or id of a container, whose output Docker keeps; empty for none.
    """

    files: t.Tuple[str, ...] = ()
    unit: str = ""
    container: str = ""


@dataclass(frozen=True)
class Position:
    """How far a file has been read.

    :param head: SHA-256 of the first ``head_size`` bytes, for which no more than what has been read is taken.
    :param live: It had the name that is asked for, not that of a rotated file.
    """

    path: str
    device: int
    inode: int
    offset: int
    head_size: int
    head: str
    live: bool


@dataclass(frozen=True)
class Cursor:
    """How far the sources have been read.

    :param files: None: from the beginning of what is there, without the files that were rotated before.
    :param journal: What journalctl calls a cursor; empty: from the beginning.
    :param container: Docker's time of the last line that was read (RFC 3339); empty: from the beginning.
    """

    sources: Sources
    files: t.Optional[t.Tuple[Position, ...]] = None
    journal: str = ""
    container: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))


def cursor_of(text: str) -> Cursor:
    """The cursor in a text.

    :raises ValueError: it is none.
    """
    try:
        data = json.loads(text)
        sources = data["sources"]
        files = data["files"]
        return Cursor(
            Sources(tuple(map(str, sources["files"])), str(sources["unit"]), str(sources["container"])),
            None if files is None else tuple(Position(**one) for one in files),
            str(data["journal"]),
            str(data["container"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"not a cursor of a log ({type(error).__name__})") from None


@dataclass(frozen=True)
class Block:
    """Some lines.

    :param data: Whole lines, each with its end; or a piece of one that is longer than a block.
    :param place: The file, or what else a person would name.
    :param offset: Where ``data`` begins in the file; None where it is from no file.
    :param when: Seconds since the epoch, where the source knows when it was said.
    :param whole: Not the beginning of a line that is still being written, which will come again with its end.
    """

    data: bytes
    place: str
    offset: t.Optional[int] = None
    when: t.Optional[float] = None
    whole: bool = True


def start(sources: Sources) -> Cursor:
    """The beginning of what is there."""
    return Cursor(sources)


def end(sources: Sources, strict: bool = True) -> Cursor:
    """Where the sources end now: only what is said from now on is read from there.

    :param strict: A file that cannot be read is a Failure; otherwise it is left out.
    """
    with contextlib.ExitStack() as stack:
        cursor = Cursor(sources, files=tuple(_position(found, found.size) for found in _all_opened(stack, sources, (), strict)))
    if sources.unit:
        # The newest entry of anybody: what the unit says next comes after it, too.
        newest = _command.must(journal_command("", "", newest=True), "The journal cannot be read").stdout.splitlines()
        cursor = replace(cursor, journal=_parsed(newest[-1].encode()).get("__CURSOR", "") if newest else "")
    if sources.container:
        cursor = replace(cursor, container=_rfc3339(time.time()))
    return cursor


def _rfc3339(seconds: float) -> str:
    whole, fraction = divmod(int(seconds * 1e6), 1000000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{fraction:06d}000Z"


@dataclass
class Reader:
    """Reads what is new, once: each round goes on where the last one ended.

    :param lost: Files that ended otherwise than by a rotation that could be followed. What was in them after the cursor is not known.
    :param seen: Whether there was anything to read from, be it empty.
    :param finished: The last round came to the end of all sources.
    """

    cursor: Cursor
    lost: t.List[str] = field(default_factory=list)
    seen: bool = False
    finished: bool = False
    _unit_known: bool = False

    def blocks(self, until: float) -> t.Iterator[Block]:
        """One round.

        :param until: When to stop, on the monotonic clock. What is left comes in the next round.
        """
        self.finished = False
        sources = self.cursor.sources
        complete = True
        if sources.files:
            complete = yield from self._files(until)
        if sources.unit and complete:
            self.seen = True
            complete = yield from self._journal(until)
        if sources.container and complete:
            self.seen = True
            complete = yield from self._container(until)
        self.finished = complete

    def _files(self, until: float) -> t.Generator[Block, None, bool]:
        with contextlib.ExitStack() as stack:
            parts, lost = _unread(stack, self.cursor)
            self.lost += [path for path in lost if path not in self.lost]
            self.seen = self.seen or bool(parts)
            try:
                for part in parts:
                    for block in part.blocks():
                        yield block
                        # What is compressed cannot be read on from its middle.
                        if time.monotonic() >= until and not part.inside:
                            return part is parts[-1] and part.reached >= part.found.size
            finally:
                self.cursor = replace(self.cursor, files=tuple(_position(part.found, part.reached) for part in parts))
        return True

    def _journal(self, until: float) -> t.Generator[Block, None, bool]:
        unit = self.cursor.sources.unit
        process = _Lines(journal_command(unit, self.cursor.journal), until)
        with process:
            for line in process:
                entry = _parsed(line)
                message = entry.get("MESSAGE")
                # What is not UTF-8 comes as a list of numbers; what cannot be parsed, because it is very long, is still a text to look at.
                data = bytes(message) if isinstance(message, list) else str(message or "").encode("utf-8", "replace") if entry else line
                when = int(entry["__REALTIME_TIMESTAMP"]) / 1e6 if "__REALTIME_TIMESTAMP" in entry else None
                yield Block(data + b"\n", f"the journal of {unit}", when=when)
                self.cursor = replace(self.cursor, journal=entry.get("__CURSOR", self.cursor.journal))
                self._unit_known = True
        if process.complaints and re.search(r"insufficient permissions|not seeing messages|No journal files", process.complaints):
            raise Failure(
                f"The journal of {unit} cannot be read: {process.complaints}",
                fix="Run the check as root, or as a member of systemd-journal.",
            )
        process.must_be_good(f"The journal of {unit} cannot be read")
        if not self._unit_known and _systemd.show(unit).load == "not-found":
            raise Failure(f"There is no unit {unit}, and nothing of it in the journal.", fix="Correct the name of the unit.")
        self._unit_known = True
        return not process.stopped

    def _container(self, until: float) -> t.Generator[Block, None, bool]:
        name = self.cursor.sources.container
        said: t.List[bytes] = []
        process = _Lines(container_command(name, self.cursor.container), until, merged=True)
        with process:
            for line in process:
                stamp, _blank, message = line.partition(b" ")
                if not CONTAINER_TIME.fullmatch(stamp):
                    said = [*said, line][-5:]
                    continue
                when = stamp.decode("ascii")
                # What was said at the time of the cursor has been read: Docker includes it.
                if when > self.cursor.container:
                    yield Block(message + b"\n", f"container {name}", when=seconds_in(stamp))
                    self.cursor = replace(self.cursor, container=when)
        process.complaints = b"\n".join(said).decode("utf-8", "replace")
        process.must_be_good(f"The log of the container {name} cannot be read")
        return not process.stopped


def tail(cursor: Cursor, most: int) -> str:
    """The last bytes of what is new in the files, for a person. What cannot be read is left out."""
    text = b""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        parts, _lost = _unread(stack, cursor, strict=False)
        for part in reversed(parts):
            with contextlib.suppress(OSError, EOFError):
                text = part.tail(most - len(text)) + text
    return text.decode("utf-8", errors="replace")


class _Opened:
    """A file that is open, and stays the same whatever becomes of its name."""

    def __init__(self, path: str, live: bool) -> None:
        self.path, self.live = path, live
        # A pipe under this name must not keep the check waiting.
        self.handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        self.status = os.fstat(self.handle)

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)

    @property
    def compressed(self) -> bool:
        return not self.live and self.path.endswith(COMPRESSED)

    @property
    def size(self) -> int:
        return self.status.st_size

    @property
    def identity(self) -> t.Tuple[int, int]:
        return self.status.st_dev, self.status.st_ino

    def head(self, size: int, inside: bool = False) -> str:
        """SHA-256 of the first bytes; of what was compressed if they are asked for from inside."""
        with self.stream(inside) as stream:
            try:
                return hashlib.sha256(stream.read(size)).hexdigest()
            except (OSError, EOFError):
                return ""

    @contextlib.contextmanager
    def stream(self, inside: bool) -> t.Iterator[t.BinaryIO]:
        raw = open(os.dup(self.handle), "rb", buffering=0)  # noqa: SIM115 - closed below
        try:
            raw.seek(0)
            yield t.cast(t.BinaryIO, _unpacked(raw) if inside else raw)
        finally:
            raw.close()

    def unpacked_size(self) -> int:
        """Modulo 4 GiB, from the end of the file (RFC 1952)."""
        return int.from_bytes(os.pread(self.handle, 4, max(self.size - 4, 0)), "little")

    def close(self) -> None:
        os.close(self.handle)


def _unpacked(raw: t.Any) -> t.Any:
    import gzip

    return gzip.open(raw, "rb")


@dataclass
class _Part:
    """A file, or the rest of one, that has not been read.

    :param reached: How far it has been read.
    :param inside: What counts is what was compressed in it; it then is read as a whole from ``reached`` on.
    """

    found: _Opened
    reached: int
    inside: bool = False

    def blocks(self) -> t.Iterator[Block]:
        if not self.inside and self.reached >= self.found.size:
            return
        with self.found.stream(self.inside) as stream:
            stream.seek(self.reached)
            rest = b""
            for new in iter(lambda: stream.read(BLOCK), b""):
                data, begin = rest + new, self.reached
                cut = data.rfind(b"\n") + 1
                if not cut and len(data) >= BLOCK:
                    cut, rest = len(data), data[-OVERLAP:]
                else:
                    rest = data[cut:]
                self.reached += len(data) - len(rest)
                if cut:
                    yield Block(data[:cut], self.found.path, begin)
            if rest:
                # A rotated file is not written any more: its last line has its end.
                yield Block(rest, self.found.path, self.reached, whole=not self.found.live)
                self.reached += 0 if self.found.live else len(rest)
        if self.inside:
            self.reached = self.found.size

    def tail(self, most: int) -> bytes:
        if most <= 0:
            return b""
        with self.found.stream(self.inside) as stream:
            stream.seek(self.reached if self.inside else max(self.reached, self.found.size - most))
            return stream.read()[-most:]


def _position(found: _Opened, offset: int) -> Position:
    size = min(HEAD, offset)
    return Position(found.path, *found.identity, offset, size, found.head(size), found.live)


def _unread(stack: contextlib.ExitStack, cursor: Cursor, strict: bool = True) -> t.Tuple[t.List[_Part], t.List[str]]:
    """What has not been read, the oldest first, and the files that are gone with what they held."""
    known = cursor.files
    parts: t.List[_Part] = []
    rest: t.List[_Opened] = []
    used: t.Set[Position] = set()
    for found in _all_opened(stack, cursor.sources, known or (), strict):
        position = next((one for one in known or () if (one.device, one.inode) == found.identity), None)
        if known is None:
            # From the beginning means that of the log as it is now, not what was rotated away and is kept for the archive.
            parts.append(_Part(found, 0 if found.live else found.size))
        elif position is not None and found.size >= position.offset and found.head(position.head_size) == position.head:
            used.add(position)
            parts.append(_Part(found, position.offset))
        else:
            rest.append(found)
    for found in rest:
        position = next((one for one in known or () if one.head_size and _is_copy(found, one)), None)
        if position is None:
            parts.append(_Part(found, 0, found.compressed))
            continue
        # Of two copies, or of a copy and the original, one is enough.
        done = position in used or (found.compressed and found.unpacked_size() == position.offset % (1 << 32))
        parts.append(_Part(found, found.size) if done else _Part(found, position.offset, found.compressed))
        used.add(position)
    parts.sort(key=lambda part: (part.found.live, part.found.status.st_mtime_ns))
    return parts, [one.path for one in known or () if one.live and one not in used]


def _is_copy(found: _Opened, position: Position) -> bool:
    if not found.compressed and found.size < position.offset:
        return False
    return found.head(position.head_size, found.compressed) == position.head


def _all_opened(stack: contextlib.ExitStack, sources: Sources, known: t.Iterable[Position], strict: bool = True) -> t.List[_Opened]:
    """Every file once: those that are asked for, and those that were rotated from them. The stack closes them."""
    live = sorted({path for pattern in sources.files for path in glob.glob(pattern)})
    former = {one.path for one in known if one.live} | {path for path in sources.files if not glob.has_magic(path)}
    # A pattern such as *.log* is for rotated files, too; they are not logs of their own.
    rotated = sorted({path for name in former.union(live) for path in _rotated(name)})
    opened: t.List[_Opened] = []
    seen: t.Set[t.Tuple[int, int]] = set()
    for path in [*(path for path in live if path not in rotated), *rotated]:
        try:
            found = _Opened(path, path not in rotated)
        except FileNotFoundError:
            continue  # rotated this moment: it is there under its new name, or comes in the next round
        except OSError as error:
            if not strict:
                continue
            raise Failure(f"The log {path} cannot be read: {error.strerror}.", fix="Run the check as root.") from None
        stack.callback(found.close)
        if found.regular and found.identity not in seen:
            seen.add(found.identity)
            opened.append(found)
    return opened


def _rotated(path: str) -> t.List[str]:
    """The files that a log was rotated to: ``error.log.1``, ``error.log-20250101.gz``, ``error-20250101.log``."""
    directory, name = os.path.split(path)
    stem, extension = os.path.splitext(name)
    pattern = re.compile(
        rf"(?:{re.escape(name)}{ROTATED}|{re.escape(stem)}{ROTATED}{re.escape(extension)})(?:{re.escape(COMPRESSED)})?"
        if extension
        else rf"{re.escape(name)}{ROTATED}(?:{re.escape(COMPRESSED)})?"
    )
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return []
    return [os.path.join(directory, one) for one in names if one != name and pattern.fullmatch(one)]


def journal_command(unit: str, cursor: str, newest: bool = False) -> t.List[str]:
    """The command line that prints the journal as JSON (journalctl(1)). With ``--all``, because a long message would be null without."""
    return [
        "journalctl",
        "--output=json",
        "--output-fields=MESSAGE",
        "--all",
        "--no-pager",
        *(["--lines=1", "--quiet"] if newest else []),
        *([f"--unit={unit}"] if unit else []),
        *([f"--after-cursor={cursor}"] if cursor else []),
    ]


CONTAINER_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def container_command(container: str, since: str) -> t.List[str]:
    """The command line that prints what a container said, each line with its time."""
    return ["docker", "logs", "--timestamps", *(["--since", since] if since else []), "--", container]


def _parsed(line: bytes) -> t.Dict[str, t.Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


class _Lines:
    """The lines of a program's output as they come, until a moment. A very long line comes in pieces."""

    def __init__(self, argv: t.Sequence[str], until: float, merged: bool = False) -> None:
        self.argv, self.until, self.merged = argv, until, merged
        self.complaints = ""
        self.stopped = False
        self.status = 0

    def __enter__(self) -> _Lines:
        import subprocess
        import tempfile

        # Not a pipe: nobody reads it while the output is read.
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self.merged else self._errors,
                env=dict(os.environ, LC_ALL="C.UTF-8"),
            )
        except FileNotFoundError:
            self._errors.close()
            raise Failure(
                f"The program {self.argv[0]} is not on this machine.", fix=f"Install {self.argv[0]}, or check another source."
            ) from None
        return self

    def __iter__(self) -> t.Iterator[bytes]:
        import select

        output = t.cast(t.IO[bytes], self._process.stdout)
        rest = b""
        while True:
            left = self.until - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                self.stopped = True
                return
            new = os.read(output.fileno(), BLOCK)
            *lines, rest = (rest + new).split(b"\n")
            if not new or len(rest) >= BLOCK:
                lines, rest = [*lines, rest] if rest else lines, b""
            yield from lines
            if not new:
                return

    def __exit__(self, *exception: object) -> None:
        if self._process.stdout:
            self._process.stdout.close()
        if self.stopped or exception[0] is not None:
            self._process.kill()
        self.status = self._process.wait()
        self._errors.seek(0)
        self.complaints = self._errors.read(COMPLAINT).decode("utf-8", "replace").strip()
        self._errors.close()

    def must_be_good(self, what: str) -> None:
        if self.status and not self.stopped:
            raise Failure(f"{what}: {self.argv[0]} ended with status {self.status}. {self.complaints}".strip())


# As Python, nginx, gunicorn, journald and Docker write it; as an access log has it; and as syslog does, without the year.
ISO = rb"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))? ?(Z|UTC|[+-]\d\d:?\d\d)?"
COMMON = rb"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})"
SYSLOG = rb"([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d)"
TIMES = re.compile(b"|".join((ISO, COMMON, SYSLOG)))
MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def seconds_in(line: bytes) -> t.Optional[float]:
    """The first time that a line tells, in seconds since the epoch; in this machine's zone where it tells none; None without a time."""
    for found in TIMES.finditer(line):
        one = found.groups()
        with contextlib.suppress(ValueError, OverflowError):
            if one[0]:
                zone, fraction = one[7], float(b"0." + (one[6] or b"0"))
                return _seconds(int(one[0]), int(one[1]), one[2:6], zone) + fraction
            if one[8]:
                return _seconds(int(one[10]), MONTHS.index(one[9]) + 1, (one[8], *one[11:14]), one[14])
            year = time.localtime().tm_year
            when = _seconds(year, MONTHS.index(one[15]) + 1, one[16:20], None)
            # In January, December was last year.
            return when if when < time.time() + 86400 else _seconds(year - 1, MONTHS.index(one[15]) + 1, one[16:20], None)
    return None


def _seconds(year: int, month: int, rest: t.Sequence[bytes], zone: t.Optional[bytes]) -> float:
    import datetime

    day, hour, minute, second = map(int, rest)
    moment = datetime.datetime(year, month, day, hour, minute, second)
    if zone is None:
        return moment.timestamp()
    shift = 0
    if zone not in (b"Z", b"UTC"):
        digits = zone[1:].replace(b":", b"")
        shift = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[:1] == b"-" else 1)
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp() - 60 * shift
