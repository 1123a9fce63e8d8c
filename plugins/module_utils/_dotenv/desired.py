# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an environment file is, what it is to become, and what is wrong with that; nothing is written."""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from dataclasses import dataclass, field

from ansible_collections.bulletproof.deploy.plugins.module_utils import _environments, _findings, _waivers
from ansible_collections.bulletproof.deploy.plugins.module_utils._accounts import gid_of, uid_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import declared, dialects, generate, merge, rules
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

Options = t.Mapping[str, t.Any]
LARGEST = 16 * 1024 * 1024

Place = t.Tuple[int, int, int]


@dataclass(frozen=True)
class File:
    """What is there. Its text never is in a message."""

    text: str = field(repr=False)
    place: Place

    @property
    def version(self) -> str:
        """The name under which a switch keeps it."""
        return _environments.name_of(self.text.encode())


@dataclass(frozen=True)
class Observed:
    """What is there, and what is to be there; None for no file.

    :param generated: Names whose values were made just now.
    """

    file: t.Optional[File]
    wanted: t.Optional[File]
    present: t.Dict[str, str] = field(repr=False)
    target: t.Dict[str, str] = field(repr=False)
    generated: t.FrozenSet[str]
    findings: t.List[_findings.Finding]
    disagreements: t.List[str]

    @property
    def secrets(self) -> t.List[str]:
        """Every value that was or will be there."""
        return [*self.present.values(), *self.target.values()]


def read_file(path: str) -> t.Optional[File]:
    """The file, not followed if it is a link: the app can write to its directory, and root would read and hand out whatever it leads to."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise Failure(
            f"{path} is a symbolic link to {os.readlink(path)}; allowed: a file of its own.",
            fix="Put the file itself there, or give the path that the link leads to.",
        ) from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Failure(f"{path} is no file.", fix="Remove what is there, or correct the path.")
        if status.st_nlink > 1:
            raise Failure(f"{path} has {status.st_nlink} names (hard links); allowed: one.", fix="Copy it, and put the copy there.")
        with open(handle, "rb", closefd=False) as stream:
            content = stream.read(LARGEST + 1)
    finally:
        os.close(handle)
    if len(content) > LARGEST:
        raise Failure(f"{path} has more than {LARGEST} bytes; allowed: that many.", fix="Look whether this is the right file.")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Failure(
            f"{path} is not UTF-8 in line {line}; systemd gives a service nothing of such a file.",
            fix="Correct that line, or remove the file.",
        ) from None
    return File(text, (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)))


def merged(options: Options, values: t.Mapping[str, str], present: t.Mapping[str, str], made: t.Mapping[str, str]) -> t.Dict[str, str]:
    """Declared values win; generated ones are kept once they are there; what is only on the host stays, unless it is to go."""
    generated = generate.keys(generate.wanted(options["generate"]))
    staying = [name for name in present if options["merge"] == "keep" or name in generated]
    return {**{name: present[name] for name in staying if name not in options["remove"]}, **values, **made}


def observe(options: Options, given: t.Mapping[str, t.Any], overrides: t.Mapping[str, str]) -> Observed:
    """Look at the file, and see what it is to be.

    :param options: Those of the module env_file, without mistakes.
    :param given: The declared values.
    :param overrides: What wins over the file, and so counts for the rules.
    """
    file = read_file(options["path"])
    text = file.text if file else ""
    try:
        present = dialects.systemd(text)
    except dialects.Unreadable as error:
        raise Failure(f"{options['path']}: systemd {error}.", fix="Correct that line, or remove the file.") from None
    made = generate.values(generate.wanted(options["generate"]), present, options["rotate"])
    target = merged(options, {name: str(value) for name, value in given.items()}, present, made)
    new = merge.merged(text, target, options["remove"] if options["merge"] == "keep" else None)
    every = rules.checked(options["rules"])
    findings = _waivers.apply(rules.check(every, {**target, **overrides}), options["waivers"], _waivers.today(), rules.names(every))
    return Observed(
        file=file,
        wanted=File(new, _place(options, file)) if target or file else None,
        present=present,
        target=target,
        generated=frozenset(made),
        findings=findings + too_long(target),
        disagreements=dialects.disagreements(new, options["dialects"]),
    )


def _place(options: Options, file: t.Optional[File]) -> Place:
    uid, gid = file.place[:2] if file else (os.geteuid(), os.getegid())
    owner, group = options["owner"], options["group"]
    return (uid_of(owner) if owner else uid, gid_of(group) if group else gid, int(options["mode"], 8))


def too_long(target: t.Mapping[str, str]) -> t.List[_findings.Finding]:
    return [
        _findings.Finding(
            dialects.shown(name),
            f"{declared.length(name, value)} bytes with its name",
            f"at most {declared.LONGEST}",
            "Shorten it, or put it into a file: Linux starts no program with it.",
            "warning",
        )
        for name, value in target.items()
        if declared.length(name, value) > declared.LONGEST
    ]
