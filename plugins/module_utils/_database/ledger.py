# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of numbered SQL files, and the ledger of those that are in a database: which are to be run, and whether they may be."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._database import statements
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

NUMBERED = re.compile(r"(\d+)[_-].*\.sql")
# Who numbers by date (20251122_…, 20251122093000_…) leaves gaps by design.
DATED = 10**7


@dataclass(frozen=True)
class File:
    """One numbered file.

    :param sha256: Of its bytes, as sha256sum(1) has it.
    """

    number: int
    name: str
    sha256: str
    text: str


@dataclass(frozen=True)
class Entry:
    """One line of the ledger: a file that is in the database."""

    number: int
    name: str
    sha256: str
    applied_at: str = ""
    run: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """One file to be brought in.

    :param script: None for a file that is in the database already and is only written down.
    """

    file: File
    script: t.Optional[statements.Script]


def files_of(directory: str) -> t.List[File]:
    """The numbered files of a directory, in the order of their numbers. A file of SQL without a number is a Failure: nobody would run it."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".sql"))
    except (FileNotFoundError, NotADirectoryError):
        raise Failure(
            f"There is no directory {directory} with SQL files.", fix="Correct path: it is on the host, inside the release."
        ) from None
    strange = [name for name in names if not NUMBERED.fullmatch(name)]
    if strange or not names:
        found = f"{', '.join(strange)}, which {'has' if len(strange) == 1 else 'have'} no number" if strange else "no SQL file"
        raise Failure(f"In {directory} there is {found}.", fix="Name every file as 002_provider_credentials.sql, or correct path.")
    files = []
    for name in names:
        with open(os.path.join(directory, name), "rb") as stream:
            content = stream.read()
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Failure(
                f"{os.path.join(directory, name)} is not UTF-8: {error.reason} at byte {error.start}.", fix="Save it as UTF-8."
            ) from None
        files.append(File(int(t.cast("re.Match[str]", NUMBERED.fullmatch(name))[1]), name, hashlib.sha256(content).hexdigest(), text))
    return sorted(files, key=lambda file: (file.number, file.name))


def steps(
    files: t.Sequence[File], entries: t.Sequence[Entry], kind: str, out_of_order: bool = False, baseline: t.Optional[int] = None
) -> t.List[Step]:
    """What is to be done, in order; a Failure with all that is wrong when files and ledger contradict each other.

    :param baseline: Files up to this number are in a database that has no ledger yet.
    """
    problems = [*_duplicates(files), *_changed(files, entries), *_unknown(files, entries)]
    if not out_of_order:
        problems += [*_gaps(files), *_late(files, entries)]
    if baseline is not None and not entries and baseline not in {file.number for file in files}:
        problems.append(f"baseline: found {baseline}; allowed: the number of one of the files ({_range(files)}).")
    if problems:
        lines = "\n".join(f"- {problem}" for problem in problems)
        raise Failure(
            f"The SQL files and the database's ledger contradict each other. Nothing was run.\n{lines}",
            fix="Bring back what was applied, and put new changes into a new file with the next number."
            + ("" if out_of_order else " Where gaps and late files are meant, set out_of_order."),
        )
    known = {entry.number for entry in entries}
    written_down = baseline if baseline is not None and not entries else -1
    return [
        Step(file, None if file.number <= written_down else statements.parse(file.text, kind, file.name))
        for file in files
        if file.number not in known
    ]


def _range(files: t.Sequence[File]) -> str:
    return f"{files[0].number} to {files[-1].number}" if files else "there is none"


def _duplicates(files: t.Sequence[File]) -> t.Iterator[str]:
    for number, group in itertools.groupby(files, key=lambda file: file.number):
        names = [file.name for file in group]
        if len(names) > 1:
            yield f"The number {number} is taken {len(names)} times: {', '.join(names)}. Their order would be chance."


def _changed(files: t.Sequence[File], entries: t.Sequence[Entry]) -> t.Iterator[str]:
    by_number = {entry.number: entry for entry in entries}
    for file in files:
        entry = by_number.get(file.number)
        if entry is not None and entry.sha256 != file.sha256:
            yield (
                f"{file.name} has changed since it was applied (as {entry.name}, {entry.applied_at}):"
                f" its SHA-256 was {entry.sha256} and is {file.sha256}."
            )


def _unknown(files: t.Sequence[File], entries: t.Sequence[Entry]) -> t.Iterator[str]:
    """Old files may be cleared away from the front. Any other that is missing means that the database is newer than the code."""
    numbers = {file.number for file in files}
    for entry in entries:
        if entry.number not in numbers and entry.number >= min(numbers, default=0):
            yield f"{entry.name} is in the database (since {entry.applied_at}) and not among the files: the database is newer than this code."


def _gaps(files: t.Sequence[File]) -> t.Iterator[str]:
    for before, after in zip(files, files[1:]):
        if after.number > before.number + 1 and after.number < DATED:
            yield f"There is a gap between {before.name} and {after.name}."


def _late(files: t.Sequence[File], entries: t.Sequence[Entry]) -> t.Iterator[str]:
    numbers = {entry.number for entry in entries}
    highest = max(numbers, default=-1)
    for file in files:
        if file.number not in numbers and file.number < highest:
            yield f"{file.name} is new, and comes before number {highest}, which is in the database already."


def where_it_stands(steps_of_run: t.Sequence[Step], done: t.Sequence[str], failed: str) -> str:
    """After a failure: which files are in, and which are not."""
    rest = [step.file.name for step in steps_of_run if step.file.name not in done and step.file.name != failed]
    return f"In the database of this run's files: {', '.join(done) or 'none'}. Failed: {failed}. Not tried: {', '.join(rest) or 'none'}."
