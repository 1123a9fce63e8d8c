# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners and modes of a tree: checked in one walk, put right through file descriptors.

Matching: the rules' globs become one automaton that is stepped once for a directory, not once for a file. Where
only ``**`` reaches, every name in a directory has the same target and no name is looked at; elsewhere one compiled
expression tells the few special names from the rest. What a target says about a (mode, uid, gid) is worked out once
and remembered, so that a file that is right costs one lstat and one dictionary look-up.

Safety: root repairs a tree in which a less trusted user may rename things at any moment. So no path of more than
one name is ever resolved, no symbolic link is followed, and nothing is changed by its name: a file is opened, found
to be the very inode that was judged, judged again, and changed through the descriptor.

The standard library alone, because the agent on the host uses it without Ansible.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import gc
import grp
import itertools
import marshal
import os
import pwd
import re
import stat
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change

LISTED = 100
"""How many single deviations a result spells out; beyond that it counts."""

DEEPEST = 200
"""Levels of directories; every level costs an open file, and a person's tree has a tenth of it."""

# fmt: off
SYSTEM_DIRECTORIES = frozenset((
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root", "/run", "/sbin",
    "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var", "/var/lib", "/var/log",
))
# fmt: on

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: what was a file a moment ago may be a FIFO by now, and opening one waits for its other end.
ENTRY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

REPLACED = "it was replaced by something else while this ran; run again"
HARD_LINK = "it is a hard link: another name of the same file may lie outside of the tree, and the change would give it away"
SPECIAL_FILE = "it is neither a file, a directory nor a symbolic link"
TOO_DEEP = f"it lies more than {DEEPEST} directories deep"

OCTAL = re.compile(r"[0-7]{3,4}")
CLAUSE = re.compile(r"([ugoa]+)([=+-])([rwxX]*)")
CLASSES = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}
PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111}

ANY_DEPTH = "**"

# A rule as it is declared, as an argument spec.
RULE: t.Dict[str, t.Dict[str, t.Any]] = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw"},
    "directory_mode": {"type": "raw"},
    "keep_executable": {"type": "bool", "default": False},
}


def is_mode(spec: str) -> bool:
    return bool(OCTAL.fullmatch(spec)) or all(CLAUSE.fullmatch(clause) for clause in spec.split(","))


def mode_bits(spec: str, found: int, keep_executable: bool = False) -> int:
    """The permission bits that a file or directory with the st_mode ``found`` is to have.

    An octal mode is exact. A symbolic one starts from the bits that are there, but never keeps a file's setuid or
    setgid bit: a file that its owner made setuid must not stay so when it becomes root's.
    """
    bits = stat.S_IMODE(found)
    directory = stat.S_ISDIR(found)
    executable = directory or bool(bits & 0o111)
    if OCTAL.fullmatch(spec):
        wanted = int(spec, 8)
        return wanted | (wanted & 0o444) >> 2 if keep_executable and executable and not directory else wanted
    if not directory:
        bits &= 0o777
    for classes, operator, letters in CLAUSE.findall(spec):
        mask = functools.reduce(int.__or__, (CLASSES[letter] for letter in classes))
        value = functools.reduce(int.__or__, (PERMISSIONS.get(letter, 0o111 if executable else 0) for letter in letters), 0) & mask
        bits = {"=": bits & ~mask | value, "+": bits | value, "-": bits & ~value}[operator]
    return bits


@dataclass(frozen=True)
class Rule:
    """What one glob says; None says nothing about that attribute."""

    path: str
    uid: t.Optional[int] = None
    gid: t.Optional[int] = None
    mode: t.Optional[str] = None
    directory_mode: t.Optional[str] = None
    keep_executable: bool = False


class Repair(t.NamedTuple):
    """The arguments of chown and chmod; -1 leaves an id as it is, None leaves the mode."""

    uid: int
    gid: int
    mode: t.Optional[int]


class Target:
    """What several rules together say about an entry: for each attribute, the last rule that mentions it."""

    def __init__(self, rules: t.Sequence[Rule]) -> None:
        self._uid: t.Optional[int] = None
        self._gid: t.Optional[int] = None
        self._mode: t.Optional[Rule] = None
        self._directory_mode: t.Optional[str] = None
        for rule in rules:
            self._uid = self._uid if rule.uid is None else rule.uid
            self._gid = self._gid if rule.gid is None else rule.gid
            self._mode = self._mode if rule.mode is None else rule
            self._directory_mode = self._directory_mode if rule.directory_mode is None else rule.directory_mode
        self.verdicts: t.Dict[t.Tuple[int, int, int], t.Optional[Repair]] = {}

    def judge(self, mode: int, uid: int, gid: int) -> t.Optional[Repair]:
        """What has to be done to an entry with these; None when it is right."""
        key = (mode, uid, gid)
        try:
            return self.verdicts[key]
        except KeyError:
            self.verdicts[key] = repair = self._judge(mode, uid, gid)
            return repair

    def _judge(self, mode: int, uid: int, gid: int) -> t.Optional[Repair]:
        owner = -1 if self._uid in (None, uid) else self._uid
        # Nothing ever asks for the group of a symbolic link.
        group = -1 if self._gid in (None, gid) or stat.S_ISLNK(mode) else self._gid
        wanted = self._wanted(mode)
        # chown(2) takes the setuid and setgid bits away, so a mode that has them is set again after it.
        lost = wanted is not None and wanted & 0o6000 and (owner, group) != (-1, -1)
        if wanted == stat.S_IMODE(mode) and not lost:
            wanted = None
        return None if (owner, group, wanted) == (-1, -1, None) else Repair(owner, group, wanted)

    def _wanted(self, mode: int) -> t.Optional[int]:
        if stat.S_ISLNK(mode):
            return None
        if stat.S_ISDIR(mode):
            return None if self._directory_mode is None else mode_bits(self._directory_mode, mode)
        return None if self._mode is None else mode_bits(t.cast(str, self._mode.mode), mode, self._mode.keep_executable)


class State:
    """What the patterns can still match beneath one directory.

    :param positions: (pattern, index of its next segment).
    :param usual: The patterns that match every name here.
    :param special: Tells the names that other patterns match too; None when there are none.
    """

    __slots__ = ("positions", "special", "usual")

    def __init__(self, positions: t.FrozenSet[t.Tuple[int, int]], usual: t.Tuple[int, ...], special: t.Optional[t.Pattern[str]]) -> None:
        self.positions = positions
        self.usual = usual
        self.special = special


class RuleSet:
    """Rules and exclusions as an automaton over the names of a path; its states are built when they are met.

    Patterns are numbered: the rules first, in their order, then the exclusions.
    """

    def __init__(self, rules: t.Sequence[Rule], exclude: t.Sequence[str] = ()) -> None:
        self.rules = list(rules)
        self._patterns = [segments(path) for path in [*(rule.path for rule in rules), *exclude]]
        self._matchers = {name: re.compile(fnmatch.translate(name)).match for pattern in self._patterns for name in pattern}
        self._states: t.Dict[t.FrozenSet[t.Tuple[int, int]], t.Optional[State]] = {}
        self._targets: t.Dict[t.Tuple[int, ...], t.Optional[Target]] = {(): None}
        self.start = self._state({(number, 0) for number, pattern in enumerate(self._patterns) if pattern})

    def root(self) -> t.Tuple[int, ...]:
        """The rules for the root itself."""
        return tuple(number for number, pattern in enumerate(self._patterns[: len(self.rules)]) if not pattern)

    def target(self, matched: t.Tuple[int, ...]) -> t.Optional[Target]:
        """What these rules say together; None when there are none."""
        if matched not in self._targets:
            self._targets[matched] = Target([self.rules[number] for number in matched])
        return self._targets[matched]

    def match(self, state: State, name: str) -> t.Optional[t.Tuple[int, ...]]:
        """The rules for a name in a directory; None when it is excluded."""
        matched = {
            number
            for number, position in state.positions
            if position + 1 == len(self._patterns[number]) and self._matchers[self._patterns[number][position]](name)
        }
        return None if any(number >= len(self.rules) for number in matched) else tuple(sorted(matched))

    def step(self, state: State, name: str) -> t.Optional[State]:
        """The state within a directory of that name; None when no rule reaches into it."""
        following: t.Set[t.Tuple[int, int]] = set()
        for number, position in state.positions:
            pattern = self._patterns[number]
            if pattern[position] == ANY_DEPTH:
                following.add((number, position))
            elif position + 1 < len(pattern) and self._matchers[pattern[position]](name):
                following.add((number, position + 1))
        return self._state(following)

    def _state(self, reached: t.Set[t.Tuple[int, int]]) -> t.Optional[State]:
        inner = {(number, at + 1) for number, at in reached if self._patterns[number][at] == ANY_DEPTH}
        positions = frozenset(reached | {(number, at) for number, at in inner if at < len(self._patterns[number])})
        if positions not in self._states:
            self._states[positions] = self._build(positions)
        return self._states[positions]

    def _build(self, positions: t.FrozenSet[t.Tuple[int, int]]) -> t.Optional[State]:
        last = [(number, self._patterns[number][at]) for number, at in positions if at + 1 == len(self._patterns[number])]
        usual = tuple(sorted({number for number, segment in last if segment in ("*", ANY_DEPTH)}))
        special = sorted({segment for _number, segment in last if segment not in ("*", ANY_DEPTH)})
        if any(number >= len(self.rules) for number in usual) or all(number >= len(self.rules) for number, _at in positions):
            return None
        expression = re.compile("|".join(fnmatch.translate(segment) for segment in special)) if special else None
        return State(positions, usual, expression)


def segments(path: str) -> t.Tuple[str, ...]:
    """The names of a pattern; none for the root itself. ``**`` after ``**`` says nothing more."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    return tuple(name for at, name in enumerate(names) if at == 0 or (name, names[at - 1]) != (ANY_DEPTH, ANY_DEPTH))


Row = t.Tuple[str, str, int, int, int, int, int, int, t.Tuple[int, ...]]
"""One entry that deviates: directory, name, device, inode, links, mode, uid, gid, rules. Plain, for it may be one of 100,000."""


def obstacle(mode: int, links: int, repair: Repair, hard_links: bool) -> t.Optional[str]:
    """Why this entry must be left alone; None when it may be changed.

    A user can plant a hard link to a file of somebody else. Which name came first cannot be told, so a file with
    several names only gets changes that give nobody more than before: to root, and fewer bits.
    """
    kind = stat.S_IFMT(mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        return SPECIAL_FILE
    if links == 1 or hard_links or kind == stat.S_IFDIR:
        return None
    gives = repair.uid not in (-1, 0) or repair.gid not in (-1, 0) or (repair.mode or 0) & ~mode
    return HARD_LINK if gives else None


class Descent:
    """Directories beneath a root, each opened from its parent's descriptor and by one name that is not a link."""

    def __init__(self, root: int) -> None:
        self._entered = "."
        self._names: t.List[str] = []
        self._handles = [root]

    def enter(self, directory: str) -> int:
        if directory == self._entered:
            return self._handles[-1]
        names = [] if directory == "." else directory.split("/")
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        self._leave(shared)
        for name in names[shared:]:
            self._handles.append(os.open(name, DIRECTORY, dir_fd=self._handles[-1]))
            self._names.append(name)
        self._entered = directory
        return self._handles[-1]

    def _leave(self, depth: int) -> None:
        self._entered = ""
        while len(self._names) > depth:
            self._names.pop()
            os.close(self._handles.pop())

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._leave(0)


@dataclass
class Tree:
    """A tree and its rules; after ``read``, what deviates in it.

    :param rows: What deviates and will be changed.
    :param refused: What deviates and must be left alone.
    :param left_alone: Why, by path; also what was found to be replaced when it was about to be changed.
    """

    root: str
    rules: RuleSet
    hard_links: bool = False
    seen: int = 0
    rows: t.List[Row] = field(default_factory=list)
    refused: t.List[Row] = field(default_factory=list)
    left_alone: t.List[t.Tuple[str, str]] = field(default_factory=list)

    def read(self) -> None:
        """Walk the tree once: from the top until there are directories enough for every core, then on all cores."""
        with self._opened() as handle, Descent(handle) as descent:
            self._weigh(".", ".", os.fstat(handle), self.rules.root())
            frontier = [(".", self.rules.start)] if self.rules.start else []
            while frontier and len(frontier) < 64:
                frontier = [inner for directory, state in frontier for inner in self._visit(descent, directory, state)]
            slices = min(len(frontier), 512)
            shares = [frontier[number::slices] for number in range(slices)]
            for seen, rows, refused, left_alone in in_parallel(shares, functools.partial(self._walk, handle)):
                self.seen += seen
                self.rows += rows
                self.refused += refused
                self.left_alone += left_alone

    def _walk(self, handle: int, shares: t.Iterable[t.Sequence[t.Tuple[str, State]]]) -> t.Any:
        part = Tree(self.root, self.rules, self.hard_links)
        with Descent(handle) as descent:
            for share in shares:
                waiting = list(share)
                while waiting:
                    waiting.extend(part._visit(descent, *waiting.pop()))
        return part.seen, part.rows, part.refused, part.left_alone

    def _visit(self, descent: Descent, directory: str, state: State) -> t.List[t.Tuple[str, State]]:
        """Judge the entries of one directory; returns the directories in it that rules reach into."""
        if directory.count("/") >= DEEPEST:
            self.left_alone.append((directory, TOO_DEEP))
            return []
        try:
            names = self._judge_entries(descent.enter(directory), directory, state)
        except OSError as error:
            self._passed_over(directory, error)
            return []
        prefix = "" if directory == "." else f"{directory}/"
        steps = ((name, self.rules.step(state, name)) for name in names)
        return [(prefix + name, inner) for name, inner in steps if inner is not None]

    def _judge_entries(self, handle: int, directory: str, state: State) -> t.List[str]:
        """The inner loop: everything in it is paid for 100,000 times."""
        special = state.special.match if state.special else None
        usual = state.usual
        target = self.rules.target(usual)
        verdicts = target.verdicts if target else {}
        unknown = Repair(-1, -1, None)
        rows = self.rows
        directories: t.List[str] = []
        with os.scandir(handle) as entries:
            for entry in entries:
                name = entry.name
                self.seen += 1
                if target is None or (special is not None and special(name)):
                    self._judge_special(entry, directory, state, directories)
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                mode, uid, gid = found.st_mode, found.st_uid, found.st_gid
                repair = verdicts.get((mode, uid, gid), unknown)
                if repair is not None:
                    if repair is unknown or found.st_nlink != 1 or mode & 0o170000 != stat.S_IFREG:
                        self._weigh(directory, name, found, usual)
                    else:
                        rows.append((directory, name, found.st_dev, found.st_ino, 1, mode, uid, gid, usual))
                if mode & 0o170000 == stat.S_IFDIR:
                    directories.append(name)
        return directories

    def _judge_special(self, entry: os.DirEntry[str], directory: str, state: State, directories: t.List[str]) -> None:
        matched = self.rules.match(state, entry.name)
        if matched is None:
            return
        try:
            if matched:
                self._weigh(directory, entry.name, entry.stat(follow_symlinks=False), matched)
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
        except FileNotFoundError:
            return

    def _weigh(self, directory: str, name: str, found: os.stat_result, matched: t.Tuple[int, ...]) -> None:
        mode, uid, gid, links = found.st_mode, found.st_uid, found.st_gid, found.st_nlink
        target = self.rules.target(matched)
        repair = target.judge(mode, uid, gid) if target else None
        if repair is None:
            return
        row = (directory, name, found.st_dev, found.st_ino, links, mode, uid, gid, matched)
        reason = obstacle(mode, links, repair, self.hard_links)
        if reason is None:
            self.rows.append(row)
        else:
            self.refused.append(row)
            self.left_alone.append((os.path.normpath(f"{directory}/{name}"), reason))

    def repair(self, rows: t.Sequence[Row]) -> None:
        """Put these right, on all cores when there are many."""
        size = max(500, len(rows) // 512)
        shares = [rows[at : at + size] for at in range(0, len(rows), size)]
        with self._opened() as handle:
            for left_alone in in_parallel(shares, functools.partial(self._repair_shares, handle)):
                self.left_alone += left_alone

    def _repair_shares(self, handle: int, shares: t.Iterable[t.Sequence[Row]]) -> t.Any:
        part = Tree(self.root, self.rules, self.hard_links)
        matched: t.Tuple[int, ...] = ()
        target: t.Optional[Target] = None
        with Descent(handle) as descent:
            for row in itertools.chain.from_iterable(shares):
                if target is None or row[-1] != matched:
                    matched, target = row[-1], self.rules.target(row[-1])
                try:
                    reason = part._repair_entry(descent.enter(row[0]), row, target)
                except OSError as error:
                    part._passed_over(os.path.normpath(f"{row[0]}/{row[1]}"), error)
                    continue
                if reason is not None:
                    part.left_alone.append((os.path.normpath(f"{row[0]}/{row[1]}"), reason))
        return part.left_alone

    def _repair_entry(self, directory: int, row: Row, target: t.Optional[Target]) -> t.Optional[str]:
        """Returns why it was left alone; None when all is well. Paid for 100,000 times as well."""
        _directory, name, device, inode, _links, before, _uid, _gid, _matched = row
        kind = before & 0o170000
        handle = os.open(name, LINK if kind == stat.S_IFLNK else ENTRY, dir_fd=directory)
        try:
            now = os.fstat(handle)
            mode = now.st_mode
            if now.st_ino != inode or now.st_dev != device or mode & 0o170000 != kind:
                return REPLACED
            repair = target.judge(mode, now.st_uid, now.st_gid) if target else None
            if repair is None:
                return None
            if kind != stat.S_IFREG or now.st_nlink != 1:
                reason = obstacle(mode, now.st_nlink, repair, self.hard_links)
                if reason is not None:
                    return reason
            uid, gid, wanted = repair
            if uid != -1 or gid != -1:
                if kind == stat.S_IFLNK:
                    # fchown(2) refuses the descriptor of a symbolic link; its magic link in /proc stands for the link itself.
                    os.chown(f"/proc/self/fd/{handle}", uid, gid)
                else:
                    os.fchown(handle, uid, gid)
            if wanted is not None:
                os.fchmod(handle, wanted)
        finally:
            os.close(handle)
        return None

    def _opened(self) -> _Handle:
        return _Handle(self.root)

    def _passed_over(self, path: str, error: OSError) -> None:
        """A name that is gone is no error in a living tree; one that has become something else is left alone."""
        if error.errno == errno.ENOENT:
            return
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EWOULDBLOCK):
            self.left_alone.append((path, REPLACED))
            return
        raise Failure(
            f"{printable(os.path.join(self.root, path))} could not be read or changed: {error.strerror}.",
            fix=_fix_of(error),
        ) from None


class _Handle:
    """The root, open for as long as a with block."""

    def __init__(self, root: str) -> None:
        self._root = root

    def __enter__(self) -> int:
        try:
            self._handle = os.open(self._root, DIRECTORY)
        except OSError as error:
            raise _no_root(self._root, error) from None
        return self._handle

    def __exit__(self, *_exc: object) -> None:
        os.close(self._handle)


def _no_root(root: str, error: OSError) -> Failure:
    if os.path.islink(root):
        return Failure(
            f"path is {root}, which is a symbolic link; a directory is needed, because a link can be turned elsewhere.",
            fix=f"Give the directory itself: {os.path.realpath(root)}.",
        )
    return Failure(f"path is {root}, which cannot be opened as a directory: {error.strerror}.", fix="Make it first, or correct path.")


def _fix_of(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "Mount the file system read-write, or take it out with exclude."
    if os.geteuid() != 0:
        return "Run as root: set become to true."
    return "Look whether it is immutable (lsattr) or on a network file system that keeps root out; exclude can take it out."


def in_parallel(shares: t.Sequence[t.Any], work: t.Callable[[t.Iterable[t.Any]], t.Any]) -> t.List[t.Any]:
    """Run ``work`` over the shares in one process for each core (four at most) and return what each came to.

    Forks instead of threads: the walk is as much Python as system calls, and the interpreter's lock would serialise
    it. A process takes the next share when it has done its last, off a pipe that holds the numbers of all.
    """
    workers = min(4, len(os.sched_getaffinity(0)), len(shares))
    if workers < 2:
        return [work(shares)] if shares else []
    queue, feed = os.pipe()
    os.write(feed, b"".join(number.to_bytes(2, "big") for number in range(len(shares))))
    os.close(feed)
    with _no_garbage():
        children = [_fork(queue, shares, work) for _worker in range(workers)]
        os.close(queue)
        answers = [_answer_of(*child) for child in children]
    for answer in answers:
        if isinstance(answer, Failure):
            raise answer
    return answers


@contextlib.contextmanager
def _no_garbage() -> t.Iterator[None]:
    """Nothing looks for cycles among 100,000 rows, which have none: not here, not in what is forked, and not later among those that there are by then."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _fork(queue: int, shares: t.Sequence[t.Any], work: t.Callable[[t.Iterable[t.Any]], t.Any]) -> t.Tuple[int, int]:
    answers, said = os.pipe()
    child = os.fork()
    if child:
        os.close(said)
        return child, answers
    status = 1
    try:
        numbers = iter(lambda: os.read(queue, 2), b"")
        try:
            answer = (True, work(shares[int.from_bytes(number, "big")] for number in numbers))
        except Failure as failure:
            answer = (False, (failure.what, failure.fix))
        with os.fdopen(said, "wb") as stream:
            stream.write(marshal.dumps(answer))
        status = 0
    finally:
        os._exit(status)


def _answer_of(child: int, answers: int) -> t.Any:
    with os.fdopen(answers, "rb") as stream:
        said = stream.read()
    _child, status = os.waitpid(child, 0)
    if status != 0:
        return Failure(f"A part of the walk ended with the wait status {status}.", fix="Run again, and see the kernel log if it recurs.")
    done, answer = marshal.loads(said)
    return answer if done else Failure(*answer)


def printable(path: str) -> str:
    """A path that can be part of a JSON answer, whatever bytes its names have."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@functools.cache
def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


@functools.cache
def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def rules_of(declared: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Rule]:
    """The rules as they were written, checked and with names resolved on this host. Raises one Failure with all mistakes."""
    mistakes: t.List[str] = []
    rules = [_rule_of(f"rules[{number}] ({rule['path']})", rule, mistakes) for number, rule in enumerate(declared)]
    if mistakes:
        raise Failure("\n".join(mistakes), fix="Correct the rules, or make the missing accounts first.")
    return rules


def _rule_of(name: str, declared: t.Mapping[str, t.Any], mistakes: t.List[str]) -> Rule:
    path = declared["path"]
    if path.startswith("/") or ".." in path.split("/"):
        mistakes.append(f"{name}: path is {path!r}; a path or glob relative to the root of the tree is needed, without '..'.")
    for option in ("mode", "directory_mode"):
        _check_mode(f"{name}: {option}", declared.get(option), mistakes)
    return Rule(
        path=path,
        uid=_id_of(f"{name}: owner", "user", declared.get("owner"), lambda owner: pwd.getpwnam(owner).pw_uid, mistakes),
        gid=_id_of(f"{name}: group", "group", declared.get("group"), lambda group: grp.getgrnam(group).gr_gid, mistakes),
        mode=declared.get("mode"),
        directory_mode=declared.get("directory_mode"),
        keep_executable=bool(declared.get("keep_executable")),
    )


def _check_mode(name: str, mode: object, mistakes: t.List[str]) -> None:
    if mode is None or (isinstance(mode, str) and is_mode(mode)):
        return
    # YAML reads an unquoted 0640 as the number 416.
    hint = f' If you wrote 0{mode:o}, write "0{mode:o}".' if isinstance(mode, int) else ""
    mistakes.append(f'{name} is {mode!r}; an octal mode in quotes like "0640" or a symbolic one like "u=rwX,go-w" is needed.{hint}')


def _id_of(name: str, kind: str, wanted: t.Optional[str], look_up: t.Callable[[str], int], mistakes: t.List[str]) -> t.Optional[int]:
    if wanted is None:
        return None
    if wanted.isdigit():
        return int(wanted)
    try:
        return look_up(wanted)
    except KeyError:
        mistakes.append(f"{name} is {wanted!r}; this host has no {kind} of that name.")
        return None


def read(options: t.Mapping[str, t.Any]) -> Tree:
    """Walk the tree that the options name."""
    root = os.path.normpath(options["path"])
    if not os.path.isabs(options["path"]) or root in SYSTEM_DIRECTORIES:
        raise Failure(
            f"path is {options['path']!r}; the absolute path of an application's own tree is needed, not one that the system shares.",
            fix="Give a directory like /opt/shop.",
        )
    tree = Tree(root, RuleSet(rules_of(options["rules"]), options["exclude"]), options["hard_links"])
    tree.read()
    return tree


def deviations(tree: Tree, row: Row) -> t.List[t.Dict[str, str]]:
    """The attributes of one entry that are not as the rules say."""
    directory, name, _device, _inode, _links, mode, uid, gid, matched = row
    repair = t.cast(Repair, t.cast(Target, tree.rules.target(matched)).judge(mode, uid, gid))
    path = printable(os.path.normpath(os.path.join(tree.root, directory, name)))
    found = [
        ("owner", user_name(uid), user_name(uid if repair.uid == -1 else repair.uid)),
        ("group", group_name(gid), group_name(gid if repair.gid == -1 else repair.gid)),
        ("mode", _octal(mode), _octal(mode if repair.mode is None else repair.mode)),
    ]
    return [{"path": path, "attribute": attribute, "found": is_, "expected": ought} for attribute, is_, ought in found if is_ != ought]


def _octal(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


def plan(tree: Tree) -> t.List[Change]:
    """One change for each of the first entries that deviate, and one for all that follow: a diff stays readable at 100,000."""
    changes = [_change(tree, row) for row in tree.rows[:LISTED]]
    rest = tree.rows[LISTED:]
    if rest:
        many = f"{len(rest)} more entries"
        changes.append(Change(f"{tree.root}: {many}", "not as the rules say", "as the rules say", functools.partial(tree.repair, rest)))
    return changes


def _change(tree: Tree, row: Row) -> Change:
    wrong = deviations(tree, row)

    def told(side: str) -> str:
        return ", ".join(f"{deviation['attribute']} {deviation[side]}" for deviation in wrong)

    return Change(wrong[0]["path"], told("found"), told("expected"), functools.partial(tree.repair, [row]))


def report(tree: Tree) -> t.Dict[str, t.Any]:
    """What a person wants to know: how much was looked at, what was wrong, what still is and why."""
    wrong = tree.rows + tree.refused
    listed = [deviation for row in wrong[:LISTED] for deviation in deviations(tree, row)][:LISTED]
    left_alone = [
        {"path": printable(os.path.normpath(os.path.join(tree.root, path))), "reason": reason} for path, reason in tree.left_alone[:LISTED]
    ]
    return {
        "seen": tree.seen + 1,
        "drift": listed,
        "drift_total": len(wrong),
        "left_alone": left_alone,
        "left_alone_total": len(tree.left_alone),
    }
