# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Versions of Python packages, and whether a requirement allows one (PEP 440), without the library that not every environment has."""

from __future__ import annotations

import re
import typing as t

VERSION = re.compile(
    r"""\s*v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)
    (?:[-_.]?(?P<pre>alpha|beta|preview|pre|a|b|c|rc)[-_.]?(?P<pre_number>\d*))?
    (?:-(?P<post_bare>\d+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>\d*))?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>\d*))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
CLAUSE = re.compile(r"\s*(===|~=|==|!=|<=|>=|<|>)\s*([^\s,]+)\s*")
PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}

Key = t.Tuple[t.Any, ...]


class Version(t.NamedTuple):
    """A version, taken apart; ``-1`` stands for a part that is not there."""

    epoch: int
    release: t.Tuple[int, ...]
    pre: t.Tuple[str, int]
    post: int
    dev: int
    local: t.Tuple[str, ...]

    def key(self, local: bool = True) -> Key:
        """What versions are ordered by."""
        release = list(self.release)
        while len(release) > 1 and release[-1] == 0:
            release.pop()
        # 1.0.dev1 < 1.0a1.dev1 < 1.0a1 < 1.0 < 1.0.post1.dev1 < 1.0.post1; a local part that is a number comes after one that is not.
        only_dev = not self.pre[0] and self.post < 0 and self.dev >= 0
        pre = ("",) if only_dev else self.pre if self.pre[0] else ("z",)
        labels = tuple((1, int(one), "") if one.isdigit() else (0, 0, one) for one in self.local) if local else ()
        return self.epoch, tuple(release), pre, self.post, (0, self.dev) if self.dev >= 0 else (1, 0), labels


def version_of(text: str) -> Version:
    """
    :raises ValueError: it is no version.
    """
    found = VERSION.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no version")
    pre = (found["pre"] or "").lower()
    post = -1
    if found["post_bare"] or found["post"]:
        post = int(found["post_bare"] or found["post_number"] or 0)
    return Version(
        epoch=int(found["epoch"] or 0),
        release=tuple(map(int, found["release"].split("."))),
        pre=(PRE.get(pre, pre), int(found["pre_number"] or 0)),
        post=post,
        dev=int(found["dev_number"] or 0) if found["dev"] else -1,
        local=tuple(re.split(r"[-_.]", found["local"].lower())) if found["local"] else (),
    )


def clauses_of(text: str) -> t.List[t.Tuple[str, str]]:
    """The clauses of ``>=2,<3``, each as operator and version.

    :raises ValueError: it is no list of clauses.
    """
    found = []
    for clause in filter(None, (one.strip() for one in text.strip().strip("()").split(","))):
        match = CLAUSE.fullmatch(clause)
        if not match:
            raise ValueError(f"{clause!r} is no comparison of a version")
        operator, wanted = match[1], match[2]
        prefix = wanted.endswith(".*")
        if prefix and operator not in ("==", "!="):
            raise ValueError(f"{clause!r}: .* goes with == and != alone")
        if operator != "===":
            parsed = version_of(wanted[:-2] if prefix else wanted)
            if operator == "~=" and len(parsed.release) < 2:
                raise ValueError(f"{clause!r}: ~= needs two numbers or more")
            if parsed.local and operator not in ("==", "!="):
                raise ValueError(f"{clause!r}: a local version goes with == and != alone")
        found.append((operator, wanted))
    return found


def allows(clauses: t.Iterable[t.Tuple[str, str]], installed: str) -> bool:
    """Whether all clauses allow what is installed, be it a pre-release: it is there already."""
    return all(_allows(operator, wanted, installed) for operator, wanted in clauses)


def _allows(operator: str, wanted: str, installed: str) -> bool:
    if operator == "===":
        return installed.lower() == wanted.lower()
    found = version_of(installed)
    if wanted.endswith(".*"):
        return _begins_with(found, version_of(wanted[:-2])) == (operator == "==")
    limit = version_of(wanted)
    if operator in ("==", "!="):
        return (found.key(bool(limit.local)) == limit.key()) == (operator == "==")
    public, bound = found.key(local=False), limit.key()
    if operator == "~=":
        series = limit._replace(release=limit.release[:-1], pre=("", 0), post=-1, dev=-1)
        return public >= bound and _begins_with(found, series)
    if operator == "<=":
        return public <= bound
    if operator == ">=":
        return public >= bound
    if operator == "<":
        # A pre-release of what is excluded is excluded as well, unless the limit is one itself.
        return public < bound and not (_early(found) and not _early(limit) and _is_of(found, limit))
    # And so is a post-release of what has to be exceeded.
    return public > bound and not (found.post >= 0 and limit.post < 0 and limit.dev < 0 and found.pre == limit.pre and _is_of(found, limit))


def _is_of(found: Version, limit: Version) -> bool:
    """Whether one is a pre- or a post-release of the other."""
    same = found.key()[:2] == limit.key()[:2]
    return same and (limit.post < 0 or (found.pre, found.post) == (limit.pre, limit.post))


def _early(version: Version) -> bool:
    return bool(version.pre[0]) or version.dev >= 0


def _begins_with(found: Version, start: Version) -> bool:
    size = len(start.release)
    padded = found.release + (0,) * (size - len(found.release))
    if found.epoch != start.epoch or padded[:size] != start.release:
        return False
    # "==1.1a1.*" is allowed, though nobody writes it.
    return not start.pre[0] or found.pre == start.pre
