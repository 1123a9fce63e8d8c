# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compiles what is installed in a virtual environment, and keeps what was compiled for the next one that has the same file.

A program for the environment's own interpreter, with the standard library alone: ``python -I -S - CACHE DIRECTORY...``, this text on its standard input.
What is not compiled before, each worker would compile at every start, because the service cannot write there. And compiling is by far the largest part
of building an environment from packages that the host has already.

Bytecode is kept by the digest of the very source that it was compiled from, whatever package and version that came with, so no package can give another
one its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import multiprocessing
import os
import py_compile
import sys
import tempfile
import time
import typing as t

# The header of a .pyc (PEP 552): magic number, flags (0: checked by time and size), the source's time, its size; 4 bytes each.
HEADER = 16
DIGEST = hashlib.sha256().digest_size
KEPT_SECONDS = 180 * 24 * 3600.0


def sources(directories: t.Iterable[str]) -> t.Iterator[str]:
    for directory in directories:
        for here, _directories, names in os.walk(directory):
            yield from (os.path.join(here, name) for name in names if name.endswith(".py"))


def kept_in(cache: str, source: bytes) -> str:
    """Where the bytecode of a source is kept, for this version of the interpreter."""
    name = hashlib.sha256(source).hexdigest()
    return os.path.join(cache, importlib.util.MAGIC_NUMBER.hex(), name[:2], name)


def recall(path: str) -> t.Optional[bytes]:
    """What was kept, if it is still what was written; that it was of use is noted."""
    try:
        with open(path, "rb") as stream:
            kept = stream.read()
    except FileNotFoundError:
        return None
    digest, code = kept[:DIGEST], kept[DIGEST:]
    if hashlib.sha256(code).digest() != digest:
        return None
    os.utime(path)
    return code


def keep(path: str, code: bytes) -> None:
    """Write it whole or not at all; not durable, because it is checked when it is read."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with open(handle, "wb") as stream:
            stream.write(hashlib.sha256(code).digest() + code)
            os.fchmod(stream.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def compiled(cache: str, path: str) -> None:
    """Put the bytecode of one source in its place. A source that does not compile has none: it is a template, or for another version."""
    with open(path, "rb") as stream:
        source = stream.read()
    kept = kept_in(cache, source)
    target = importlib.util.cache_from_source(path)
    code = recall(kept)
    if code is not None:
        seconds = int(os.stat(path).st_mtime) & 0xFFFFFFFF
        parts = [importlib.util.MAGIC_NUMBER, *(number.to_bytes(4, "little") for number in (0, seconds, len(source) & 0xFFFFFFFF)), code]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # Nobody looks there before all of it is complete.
        with open(target, "wb") as stream:
            stream.write(b"".join(parts))
        return
    with contextlib.suppress(py_compile.PyCompileError):
        py_compile.compile(path, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
        with open(target, "rb") as stream:
            code = stream.read()[HEADER:]
        keep(kept, code)


def _compiled(task: t.Tuple[str, str]) -> None:
    compiled(*task)


def forget(cache: str, now: float) -> None:
    """Remove what no environment has asked for in a long time."""
    for here, _directories, names in os.walk(cache):
        for name in names:
            path = os.path.join(here, name)
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(path).st_mtime < now - KEPT_SECONDS:
                    os.unlink(path)


def main(cache: str, *directories: str) -> None:
    """
    :param cache: Root's own directory, kept from one environment to the next.
    :param directories: In which packages are installed.
    """
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        pool.map(_compiled, [(cache, path) for path in sources(directories)], chunksize=16)
    forget(cache, time.time())


if __name__ == "__main__":
    main(*sys.argv[1:])
