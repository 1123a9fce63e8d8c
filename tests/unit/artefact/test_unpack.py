# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host trusts no artefact: it takes what a tree can hold, and only the tree that was meant."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._unpack import tree_digest, unpack
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built
from unit.artefact.sources import plant

COLLECTIONS = str(Path(__file__).parents[3] / ".cache" / "collections")


def crafted(path: Path, *members: t.Tuple[str, bytes, str]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"x"))
    return str(path)


FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("../evil", FILE, "")], "not a plain relative path"),
        ([("/evil", FILE, "")], "not a plain relative path"),
        ([("a/./b", FILE, "")], "not a plain relative path"),
        ([("a", FILE, ""), ("a", FILE, "")], "out of order or there twice"),
        ([("b", FILE, ""), ("a", FILE, "")], "out of order"),
        ([("out", LINK, "OUTSIDE"), ("out/evil", FILE, "")], "below a link or file"),
        ([("out", LINK, "OUTSIDE"), ("z", FILE, "")], "leads out of the tree"),
        ([("d/out", LINK, "../..")], "leads out of the tree"),
        ([("h", tarfile.LNKTYPE, "/etc/passwd")], "neither a file nor a symbolic link"),
        ([("d", tarfile.CHRTYPE, "")], "neither a file nor a symbolic link"),
        ([("d", tarfile.DIRTYPE, "")], "neither a file nor a symbolic link"),
        ([(".release/manifest.json", FILE, "")], "record|in the way"),
        ([("a", FILE, "")], "is not the one meant"),
    ],
)
def test_refused_and_nothing_left(tmp_path: Path, members: t.List[t.Tuple[str, bytes, str]], told: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [(name, kind, str(outside) if target == "OUTSIDE" else target) for name, kind, target in members]
    target = tmp_path / "releases" / "new"
    (target / ".release").mkdir(parents=True)
    with pytest.raises(Failure, match=told):
        unpack(crafted(tmp_path / "a.tar.gz", *members), str(target), "0" * 64)
    assert os.listdir(target) == [".release"]
    assert os.listdir(target / ".release") == []
    assert os.listdir(outside) == []
    assert sorted(os.listdir(tmp_path)) == ["a.tar.gz", "outside", "releases"]


def test_damaged(make: t.Callable[..., Built], app: Path, tmp_path: Path) -> None:
    artefact = make(str(app)).artefact
    whole = Path(artefact.path).read_bytes()
    for content in (whole[:-20], whole[: len(whole) // 2], gzip.decompress(whole), b"", gzip.compress(b"no tar" * 200)):
        (tmp_path / "cut.tar.gz").write_bytes(content)
        with pytest.raises(Failure, match=r"cut\.tar\.gz is (damaged|not the one)"):
            unpack(str(tmp_path / "cut.tar.gz"), str(tmp_path / "target"), artefact.digest)
        assert os.listdir(tmp_path / "target") == []


def test_directory_must_be_empty(make: t.Callable[..., Built], app: Path) -> None:
    artefact = make(str(app)).artefact
    before = tree_digest(str(app))
    with pytest.raises(Failure, match="is not empty"):
        unpack(artefact.path, str(app), artefact.digest)
    assert tree_digest(str(app)) == before


def _on_a_small_disk(options: str, artefact: t.Any, mount_point: Path) -> str:
    """Unpack onto a file system of its own, in a namespace that goes away with the process; returns what it said."""
    script = (
        "import os, sys\n"
        "from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure\n"
        "from ansible_collections.bulletproof.deploy.plugins.module_utils._unpack import unpack\n"
        "try:\n    unpack(sys.argv[1], sys.argv[2] + '/new', sys.argv[3])\n"
        "except Failure as failure:\n    print(failure.message())\n"
        "print('left:', os.listdir(sys.argv[2] + '/new') if os.path.exists(sys.argv[2] + '/new') else [])\n"
    )
    mounted = f'mount -t tmpfs -o {options} none {mount_point} && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces")
    return subprocess.run(
        [*command, sys.executable, "-c", script, artefact.path, str(mount_point), artefact.digest],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": COLLECTIONS},
    ).stdout


def test_full_disk(make: t.Callable[..., Built], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"big{number}").write_bytes(os.urandom(500_000))
    (tmp_path / "disk").mkdir()
    said = _on_a_small_disk("size=1m", make(str(source)).artefact, tmp_path / "disk")
    assert "The disk is full" in said
    assert "needs about 1.9 MiB" in said
    assert "1.0 MiB and" in said
    assert "left: []" in said


def test_no_inodes(make: t.Callable[..., Built], tmp_path: Path) -> None:
    source = plant(tmp_path / "source", {f"d{number}/f": "x" for number in range(30)})
    (tmp_path / "disk").mkdir()
    artefact = make(str(source)).artefact
    for limit in (20, 1):
        said = _on_a_small_disk(f"size=1m,nr_inodes={limit}", artefact, tmp_path / "disk")
        assert "The disk is full" in said
        assert "60 inodes" in said
        assert "left: []" in said


def test_what_is_no_file_in_a_release(app: Path) -> None:
    os.mkfifo(app / "pipe")
    with pytest.raises(Failure, match="pipe is neither a file"):
        tree_digest(str(app))


def test_unreadable_path(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be read"):
        tree_digest(str(tmp_path / "absent"))
