# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a source is written, what a release is called, and what its environment is built from."""

from __future__ import annotations

import os
import threading
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._unpack import tree_digest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _snapshot
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Artefact, Cache
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built, parse_source, release_id, requirements
from unit.artefact.sources import commit_all, git, plant

Make = t.Callable[..., Built]


def test_kinds(app: Path, tmp_path: Path) -> None:
    commit_all(app)
    git(app, "clone", "--quiet", "--bare", str(app), str(tmp_path / "bare.git"))
    for written, kind in {
        "https://git.example.org/x.git": "git",
        "git+ssh://git@git.example.org/x": "git",
        "git@git.example.org:team/x.git": "git",
        str(tmp_path / "bare.git"): "git",
        str(app): "git",
        str(app / "lib"): "directory",
        "x.tar.gz": "archive",
        "x.tgz": "archive",
        "x.tar": "archive",
        "x.zip": "archive",
        "dist/x-1-py3-none-any.whl": "wheel",
    }.items():
        assert parse_source(written).kind == kind


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("", "is empty"),
        (7, "text or a mapping, not int"),
        ({}, "none of them"),
        ({"ref": "x"}, "none of them"),
        ({"git": "x", "wheel": "y"}, "git and wheel"),
        ({"directory": "x", "ref": "y"}, r"source\.ref is not an option: beside directory nothing"),
        ({"git": "x", "reff": "y"}, r"source\.reff is not an option: beside git only ref and subdirectory"),
        ({"git": "x", "ref": 1.4}, r"source\.ref must be text.*float"),
        ({"git": None}, "is empty"),
        ({"git": "x", "subdirectory": "/etc"}, "relative to the root"),
        ("https://user:secret@host/x.tar.gz", "https://host/x.tar.gz; only Git"),
    ],
)
def test_wrong_sources(source: object, told: str) -> None:
    with pytest.raises(Failure, match=told) as refused:
        parse_source(source)
    assert "secret" not in refused.value.message()


def test_absent(make: Make, app: Path) -> None:
    with pytest.raises(Failure, match=f"no directory at {app}x on the controller.*app"):
        make(str(app) + "x")
    with pytest.raises(Failure, match="is not a file"):
        make({"archive": str(app)})
    with pytest.raises(Failure, match="not named like an archive"):
        make({"archive": str(app / "app.py")})


def test_release_id() -> None:
    one = release_id("1.4.2", "d" * 64, {"a": 1, "b": [True, None]})
    assert one == release_id("1.4.2", "d" * 64, {"b": (True, None), "a": 1})
    assert one.startswith("1.4.2-") and len(one) == len("1.4.2-") + 12
    others = [release_id("1.4.2", digest, inputs) for digest in ("d" * 64, "e" * 64) for inputs in ({"a": 1}, {"a": "1"}, None, "")]
    assert len({one, *others}) == 9
    assert release_id("../a/b c\u00e9", "d", None).rpartition("-")[0] == "a-b-c-"
    for bad in ("", "...", "-", "v" * 101):
        with pytest.raises(Failure, match="version is"):
            release_id(bad, "d", None)


def test_requirements() -> None:
    def found(*paths: str, chosen: t.Optional[str] = None) -> t.Dict[str, str]:
        return requirements(Artefact("", "", 0, paths), chosen)

    assert found("requirements.txt", "pyproject.toml", "uv.lock") == {"kind": "uv", "file": "uv.lock"}
    assert found("requirements.txt", "uv.lock") == {"kind": "requirements", "file": "requirements.txt"}
    assert found("x-1-py3-none-any.whl") == {"kind": "wheel", "file": "x-1-py3-none-any.whl"}
    assert found("lib/requirements.txt", "pyproject.toml") == {"kind": "none"}
    assert found("prod.txt", "uv.lock", "pyproject.toml", chosen="prod.txt") == {"kind": "requirements", "file": "prod.txt"}
    with pytest.raises(Failure, match=r"no file 'prod\.txt'.*requirements/prod\.txt"):
        found("requirements/prod.txt", chosen="prod.txt")


def test_wheel(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "shop-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("shop-1.0.dist-info/METADATA", "Name: shop\n")
    built = make(str(path))
    assert list(built.artefact.paths) == [path.name]
    path.chmod(0o755)
    assert make(str(path)).artefact == built.artefact
    with pytest.raises(Failure, match="not named like a wheel"):
        make(str(path.rename(tmp_path / "shop.whl")))
    (tmp_path / "text-1.0-py3-none-any.whl").write_text("x")
    with pytest.raises(Failure, match="is not a wheel"):
        make(str(tmp_path / "text-1.0-py3-none-any.whl"))


def test_a_directory_that_changes_while_it_is_read(app: Path, cache: Cache) -> None:
    snapshot = _snapshot.directory_snapshot(str(app), (), 1 << 20)
    (app / "app.py").write_text("app = 2\n")
    for change in ((app / "app.py").write_text, lambda _text: (app / "app.py").unlink(), lambda _text: (app / "app.py").symlink_to("run")):
        change("longer than it was before\n")
        with pytest.raises(Failure, match=r"app\.py changed while"):
            cache.store(snapshot)
    assert os.listdir(cache.scratch) == []


def test_a_file_that_is_written_to_while_it_is_read(tmp_path: Path) -> None:
    big = tmp_path / "source" / "big"
    big.parent.mkdir()
    with open(big, "wb") as stream:
        stream.truncate(100 << 20)
    done = threading.Event()

    def write() -> None:
        with open(big, "r+b", buffering=0) as stream:
            while not done.is_set():
                os.pwrite(stream.fileno(), b"x", 0)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(Failure, match="big changed while"):
            tree_digest(str(big.parent))
    finally:
        done.set()
        writer.join()
    # The kernel's own files have more in them than they say.
    with pytest.raises(Failure, match="changed while"):
        tree_digest("/proc/self/fdinfo")


def test_what_is_no_file(make: Make, app: Path) -> None:
    os.mkfifo(app / "pipe")
    with pytest.raises(Failure, match="pipe is neither a file"):
        make(str(app))
    assert "pipe" not in make(str(app), exclude=["pipe"]).artefact.paths


def test_a_directory_that_is_too_large(make: Make, app: Path) -> None:
    plant(app, {"dump.sql": "x" * 1000})
    with pytest.raises(Failure, match=r"more than max_size=500 bytes; dump\.sql"):
        make(str(app), max_size=500)


def test_abandoned_files_are_cleared(make: Make, app: Path, cache: Cache) -> None:
    old, young = Path(cache.scratch, ".old"), Path(cache.scratch, ".young")
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    make(str(app))
    assert (old.exists(), young.exists()) == (False, True)
