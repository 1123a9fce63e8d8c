# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that were not made in good faith: each is refused, by the name of the member, and nothing of it is kept."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import typing as t
import warnings
import zipfile
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _archive
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built

Make = t.Callable[..., Built]


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, target: str = "") -> t.Tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def tar_of(path: Path, *members: t.Tuple[tarfile.TarInfo, bytes]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def zip_of(path: Path, *members: t.Tuple[str, int], content: bytes = b"x") -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
        for name, mode in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr, info.compress_type = 3, mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return str(path)


GOOD = member("good.py")


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([member("../evil.py")], r"\.\./evil\.py leads out"),
        ([member("lib/../../evil.py")], r"lib/\.\./\.\./evil\.py leads out"),
        ([member("/etc/evil")], r"/etc/evil has an absolute path"),
        ([member("l", kind=tarfile.SYMTYPE, target="/etc/passwd")], "l -> /etc/passwd"),
        ([member("d/l", kind=tarfile.SYMTYPE, target="../../x")], r"d/l -> \.\./\.\./x"),
        ([member("l", kind=tarfile.SYMTYPE, target="d"), member("l/evil.py")], "l/evil.py below l"),
        ([member("l/evil.py"), member("l", kind=tarfile.SYMTYPE, target="d")], "l/evil.py below l"),
        ([member("h", kind=tarfile.LNKTYPE, target="/etc/shadow")], "h is a hard link to /etc/shadow"),
        ([member("h", kind=tarfile.LNKTYPE, target="../x")], r"h is a hard link to \.\./x"),
        ([member("null", kind=tarfile.CHRTYPE)], "null is a device"),
        ([member("sda", kind=tarfile.BLKTYPE)], "sda is a device"),
        ([member("pipe", kind=tarfile.FIFOTYPE)], "pipe is a device, a FIFO"),
        ([member("twice.py"), member("twice.py", b"other")], r"twice\.py is in it twice"),
        ([member("twice.py"), member("./twice.py", b"other")], r"\./twice\.py is in it twice"),
        ([member("App.py"), member("app.py")], r"app\.py differs from App\.py only in case"),
        ([member("Lib/a.py"), member("lib/b.py")], r"lib/b\.py differs from Lib only in case"),
        ([member("caf\u00e9"), member("cafe\u0301")], "only in case or in how"),
        ([member(".release/manifest.json")], r"\.release/manifest\.json"),
    ],
)
def test_tar(make: Make, tmp_path: Path, members: t.List[t.Tuple[tarfile.TarInfo, bytes]], told: str) -> None:
    path = tar_of(tmp_path / "a.tar.gz", GOOD, *members)
    with pytest.raises(Failure, match=told):
        make(path)
    assert os.listdir(tmp_path / "cache" / "artefacts") == []


FILE = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("../evil.py", FILE)], r"\.\./evil\.py leads out"),
        ([("/etc/evil", FILE)], "/etc/evil has an absolute path"),
        ([("d\\..\\..\\evil.py", FILE)], "has a backslash"),
        ([("link", stat.S_IFLNK | 0o777)], "link is a symbolic link"),
        ([("null", stat.S_IFCHR | 0o666)], "null is a device"),
        ([("twice.py", FILE), ("twice.py", FILE)], r"twice\.py is in it twice"),
        ([("App.py", FILE), ("app.py", FILE)], "only in case"),
        ([("a", FILE), ("a/b", FILE)], "a/b below a"),
    ],
)
def test_zip(make: Make, tmp_path: Path, members: t.List[t.Tuple[str, int]], told: str) -> None:
    path = zip_of(tmp_path / "a.zip", ("good.py", FILE), *members)
    with pytest.raises(Failure, match=told):
        make(path)
    assert os.listdir(tmp_path / "cache" / "artefacts") == []


def test_bombs(make: Make, tmp_path: Path) -> None:
    zeros = bytes(4 << 20)
    for path in (
        zip_of(tmp_path / "bomb.zip", ("zeros", FILE), content=zeros),
        tar_of(tmp_path / "bomb.tar.gz", member("zeros", zeros)),
        zip_of(tmp_path / "many.zip", *((f"zeros{number}", FILE) for number in range(5)), content=bytes(1 << 20)),
    ):
        assert os.path.getsize(path) < 64 << 10
        with pytest.raises(Failure, match=r"more than max_size=4000000 bytes; zeros\d? went over it"):
            make(path, max_size=4_000_000)
        make(path, max_size=6 << 20)


def test_bomb_of_headers(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name is read by tarfile itself, as a whole, before anybody can look at it."""
    monkeypatch.setattr(_archive, "_TAR_OVERHEAD", 1 << 20)
    info = tarfile.TarInfo("x")
    info.pax_headers = {"comment": "y" * (8 << 20)}
    path = tar_of(tmp_path / "a.tar.gz", GOOD, (info, b""))
    with pytest.raises(Failure, match=r"what follows good\.py went over it"):
        make(path, max_size=1000)


def test_too_many_members(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_archive, "_MOST_MEMBERS", 3)
    with pytest.raises(Failure, match="d is one more than the 3"):
        make(tar_of(tmp_path / "a.tar.gz", *(member(name) for name in "abcd")))


def test_damaged(make: Make, tmp_path: Path) -> None:
    whole = Path(tar_of(tmp_path / "whole.tar.gz", member("a", os.urandom(5000)), member("b", os.urandom(5000)))).read_bytes()
    plain = gzip.decompress(whole)
    zipped = Path(zip_of(tmp_path / "whole.zip", ("a", FILE), content=os.urandom(5000))).read_bytes()
    flipped = bytearray(zipped)
    flipped[1000] ^= 1
    for name, content in {
        "cut.tar.gz": whole[:-3000],
        "no checksum.tar.gz": whole[:-8],
        "not gzip.tar.gz": plain,
        "empty.tar.gz": b"",
        "text.tar": b"hello\n" * 200,
        # In the middle of a file, and right between two members, where the tar's own end is all that is missing.
        "cut.tar": plain[:7000],
        "cut between.tar": plain[: 512 + 5120],
        "cut.zip": zipped[:-30],
        "flipped.zip": bytes(flipped),
        "text.zip": b"hello",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Failure, match="is damaged or of another kind"):
            make(str(tmp_path / name))
    assert os.listdir(tmp_path / "cache" / "artefacts") == []


def test_encrypted_zip(make: Make, tmp_path: Path) -> None:
    path = Path(zip_of(tmp_path / "a.zip", ("secret.py", FILE)))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Failure, match=r"secret\.py is encrypted"):
        make(str(path))


def test_what_good_archives_hold(make: Make, tmp_path: Path) -> None:
    """Hard links inside, directories, a leading ./, and an old tar's absence of modes."""
    path = tar_of(
        tmp_path / "a.tar",
        member("./", kind=tarfile.DIRTYPE),
        member("./a", b"content"),
        member("./h", kind=tarfile.LNKTYPE, target="./a"),
        member("./l", kind=tarfile.SYMTYPE, target="a"),
    )
    os.rename(path, path + ".gz")
    assert list(make(path + ".gz").artefact.paths) == ["a", "h", "l"]


def test_subdirectory(make: Make, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", member("app-1.0/app.py"), member("app-1.0/lib/x.py"), member("other/y"))
    inner = make({"archive": path, "subdirectory": "app-1.0/"})
    assert list(inner.artefact.paths) == ["app.py", "lib/x.py"]
    with pytest.raises(Failure, match="nothing below subdirectory=app-2"):
        make({"archive": path, "subdirectory": "app-2"})
    with pytest.raises(Failure, match=r"without \.\."):
        make({"archive": path, "subdirectory": "app-1.0/../other"})
