# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same tree is the same artefact, whatever kind of source it comes from, and comes out on the host as it went in."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import tarfile
import tempfile
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import check, digest_of, entries_of
from ansible_collections.bulletproof.deploy.plugins.module_utils._unpack import tree_digest, unpack
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Cache
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built, Options, build, parse_source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.artefact.sources import commit_all, plant

Tree = t.Dict[str, t.Tuple[bytes, bool]]

_NAMES = st.text(string.ascii_lowercase + string.digits + " é-_+ß", min_size=1, max_size=8).map(lambda name: f"n{name}")
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TREES = st.dictionaries(_PATHS, st.tuples(st.binary(max_size=300), st.booleans()), min_size=1, max_size=8)


def _consistent(tree: Tree) -> bool:
    """No path is above another, and none would be refused in an archive as another one's twin."""
    folded = {path.casefold() for path in tree}
    above = {path.rsplit("/", depth)[0] for path in tree for depth in range(1, path.count("/") + 1)}
    return len(folded) == len(tree) and not above & set(tree) and len({one.casefold() for one in above}) == len(above)


def _write(tree: Tree, directory: Path) -> None:
    for path, (content, executable) in tree.items():
        where = directory / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_bytes(content)
        where.chmod(0o755 if executable else 0o644)


def _built(source: object, cache: Cache) -> Built:
    return build(parse_source(source), "main", Options((), 1 << 24, 30), cache)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(_TREES.filter(_consistent))
def test_four_kinds_of_source_and_the_way_to_the_host(tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        source = root / "source"
        source.mkdir()
        _write(tree, source)
        with tarfile.open(root / "a.tar.gz", "w:gz") as tar:
            tar.add(source, ".")
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            for path in sorted(tree, reverse=True):
                archive.write(source / path, path)
        commit_all(source)
        sources = (str(source), str(root / "a.tar.gz"), str(root / "a.zip"), {"git": str(source)})
        # A cache each, or the first artefact would stand in for the others.
        built = [_built(kind, Cache(str(root / f"cache{number}"))) for number, kind in enumerate(sources)]
        assert len({one.artefact.digest for one in built}) == 1
        assert len({Path(one.artefact.path).read_bytes() for one in built}) == 1

        target = root / "target"
        unpack(built[0].artefact.path, str(target), built[0].artefact.digest)
        assert tree_digest(str(target)) == built[0].artefact.digest
        found = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if path.is_file()}
        assert {path: (where.read_bytes(), bool(where.stat().st_mode & 0o100)) for path, where in found.items()} == tree


@settings(max_examples=50, deadline=None)
@given(_TREES.filter(_consistent), _TREES.filter(_consistent))
def test_different_trees_have_different_digests(one: Tree, other: Tree) -> None:
    digests = []
    for tree in (one, other):
        with tempfile.TemporaryDirectory() as directory:
            _write(tree, Path(directory))
            digests.append(tree_digest(directory))
    assert (digests[0] == digests[1]) == (one == other)


def test_links_times_owners_and_empty_directories(make: t.Callable[..., Built], app: Path, tmp_path: Path) -> None:
    first = make(str(app)).artefact
    for path in app.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
    (app / "app.py").chmod(0o600)
    (app / "nothing in it").mkdir()
    assert make(str(app)).artefact.digest == first.digest
    assert make({"git": str(app), "ref": commit_all(app)}).artefact.digest == first.digest

    old = os.umask(0o077)
    try:
        unpack(first.path, str(tmp_path / "target"), first.digest)
    finally:
        os.umask(old)
    target = tmp_path / "target"
    assert (target / "current").readlink() == Path("lib/a.py")
    assert (target / "app.py").stat().st_mode & 0o777 == 0o644
    assert (target / "run").stat().st_mode & 0o777 == 0o755
    assert (target / "lib/deep").stat().st_mode & 0o777 == 0o755


def test_every_part_of_an_entry_counts(tmp_path: Path) -> None:
    variants: t.List[t.Dict[str, str]] = [{"a": "x"}, {"b": "x"}, {"a": "y"}, {"a*": "x"}, {"a": "-> x"}, {"a": "-> y"}, {"d/a": "x"}]
    digests = {tree_digest(str(plant(tmp_path / str(number), files))) for number, files in enumerate(variants)}
    assert len(digests) == len(variants)


def test_names_that_are_not_utf8(make: t.Callable[..., Built], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.txt")).write_text("x")
    artefact = make(str(source)).artefact
    # The host's locale decides nothing about it.
    script = (
        "import sys\nfrom ansible_collections.bulletproof.deploy.plugins.module_utils._unpack import tree_digest, unpack\n"
        "unpack(*sys.argv[1:])\nassert tree_digest(sys.argv[2]) == sys.argv[3]\n"
    )
    for locale in ("C.UTF-8", "C"):
        target = tmp_path / f"target-{locale}"
        environment = {**os.environ, "LC_ALL": locale, "PYTHONPATH": _COLLECTIONS, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        subprocess.run([sys.executable, "-c", script, artefact.path, str(target), artefact.digest], check=True, env=environment)
        assert os.listdir(os.fsencode(target)) == [b"caf\xe9.txt"]


def test_names_on_a_host_of_another_encoding(make: t.Callable[..., Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.txt")).write_text("x")
    artefact = make(str(source)).artefact
    # What tarfile takes from the locale where it is not told; few machines have such a locale installed.
    monkeypatch.setattr(tarfile.TarFile, "encoding", "iso8859-1")
    unpack(artefact.path, str(tmp_path / "target"), artefact.digest)
    assert os.listdir(os.fsencode(tmp_path / "target")) == [b"caf\xe9.txt"]


def test_a_release_is_verified_beside_what_is_not_the_artefacts(make: t.Callable[..., Built], app: Path, tmp_path: Path) -> None:
    artefact = make(str(app)).artefact
    target = tmp_path / "target"
    (target / ".release").mkdir(parents=True)
    unpack(artefact.path, str(target), artefact.digest)
    plant(target, {".release/manifest.json": "{}", "lib/__pycache__/a.pyc": "x", "uploads": "-> /srv/uploads", "data/live.db": "x"})
    assert tree_digest(str(target), ["uploads", "/data/"]) == artefact.digest
    assert tree_digest(str(target)) != artefact.digest
    (target / "lib/a.py").write_text("changed\n")
    assert tree_digest(str(target), ["uploads", "data"]) != artefact.digest


def test_a_link_that_looks_tame_and_leaves_through_another_one(tmp_path: Path) -> None:
    outside = [
        {"a": "-> /etc/passwd"},
        {"a": "-> ../x"},
        {"d/a": "-> ../../x"},
        {"d/a": "-> x/../../.."},
        {"deep/er/up": "-> ../..", "a": "-> deep/er/up/../x"},
        {"a": "-> b", "b": "-> a"},
        {"a": "-> b/x", "b": "-> .."},
    ]
    inside = [{"d/a": "-> ../x"}, {"a": "-> not there"}, {"a": "-> ."}, {"d/up": "-> ..", "a": "-> d/up/x"}]
    refused = []
    for number, files in enumerate([*outside, *inside]):
        directory = plant(tmp_path / str(number), files)
        entries = entries_of(str(directory), lambda _path, _is_directory: False)
        try:
            check(entries, "it")
        except Exception as failure:
            refused.append(number)
            assert "symbolic link" in str(failure)
        assert digest_of(entries)
    assert refused == list(range(len(outside)))


_COLLECTIONS = str(Path(__file__).parents[3] / ".cache" / "collections")
