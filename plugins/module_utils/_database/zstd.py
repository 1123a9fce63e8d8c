# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zstandard: the program where the host has it, otherwise the library of the tools environment."""

from __future__ import annotations

import functools
import subprocess
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _tools
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

BLOCK = 1024 * 1024
EXTENSION = ".zst"


def _program() -> t.Optional[str]:
    try:
        return _tools.program("zstd", "zstd")
    except Failure:
        return None


def _library() -> t.Any:
    try:
        return _tools.library("zstandard", "zstandard>=0.22,<1")
    except Failure:
        raise Failure(
            "compress: zstd needs the program zstd or the library zstandard, and this host has neither.",
            fix="apt-get install zstd, or add zstandard>=0.22,<1 to tools_requirements and run provision.yml.",
        ) from None


def require() -> None:
    """Refuse beforehand where nothing on the host can do it."""
    if _program() is None:
        _library()


def compress(source: str, target: str, timeout: float) -> None:
    """Compress a file into another, which is there already and empty."""
    program = _program()
    if program is not None:
        must([program, "--quiet", "--force", "--threads=0", "-o", target, source], f"{source} cannot be compressed", timeout=timeout)
        return
    with open(source, "rb") as plain, open(target, "wb") as packed:
        _library().ZstdCompressor(level=3, threads=-1, write_checksum=True).copy_stream(plain, packed)


def blocks(source: str) -> t.Iterator[bytes]:
    """What a compressed file holds. A damaged or truncated one is a Failure, at the latest at its end."""
    program = _program()
    if program is None:
        library = _library()
        try:
            with open(source, "rb") as packed, library.ZstdDecompressor().stream_reader(packed) as plain:
                yield from iter(functools.partial(plain.read, BLOCK), b"")
        except library.ZstdError as error:
            raise Failure(f"{source} cannot be decompressed: {error}.") from None
        return
    with subprocess.Popen([program, "--quiet", "-dc", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            plainly, errors = t.cast(t.IO[bytes], process.stdout), t.cast(t.IO[bytes], process.stderr)
            yield from iter(functools.partial(plainly.read, BLOCK), b"")
            said = errors.read().decode(errors="replace").strip()
            if process.wait():
                raise Failure(f"{source} cannot be decompressed: {said}.")
        finally:
            process.kill()
