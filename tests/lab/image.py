# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image of a lab host: an ordinary minimal Debian server with systemd, Python, SSH and nginx."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import tempfile
from pathlib import Path

from lab import engine
from lab.shell import LabError, docker, lock, run, say

RELEASES = ("bookworm", "trixie", "bullseye")
SETUP = Path(__file__).with_name("image-setup")
PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "haproxy",
    "iproute2",
    "iptables",
    "logrotate",
    "nginx",
    "openssh-server",
    "postgresql",
    "procps",
    "python3",
    "python3-venv",
    "sqlite3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)
CONFIGURATION = ('CMD ["/sbin/init"]', "ENV container=docker")
BUILD_TIMEOUT = 900


def ensure(release: str) -> str:
    """The name of the image for a Debian release, built if this recipe has not been built before."""
    if release not in RELEASES:
        raise LabError(f"There is no lab image for the release {release!r}.", f"choose one of {', '.join(RELEASES)}.")
    name = f"bulletproof-lab:{release}-{digest()}"
    with lock(f"image-{release}"):
        if not docker("images", "--quiet", name):
            build(release, name)
    return name


def digest() -> str:
    """What the recipe says, in twelve digits: another recipe makes another image."""
    recipe = "\n".join([*PACKAGES, *CONFIGURATION, SETUP.read_text()])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def build(release: str, name: str) -> None:
    """Build from Debian's packages, which need no image registry; where that cannot be, from the registry's Debian image."""
    say(f"building {name} (once)")
    try:
        if os.geteuid() == 0:
            engine.install("mmdebstrap", "mmdebstrap")
        if not shutil.which("mmdebstrap"):
            raise LabError("The program mmdebstrap is missing.", "as root: apt-get install mmdebstrap")
        build_from_packages(release, name)
    except LabError as no_packages:
        try:
            build_from_registry(release, name)
        except LabError as no_registry:
            raise LabError(
                f"The image {name} could not be built.\nFrom packages: {no_packages}\nFrom the image registry: {no_registry}"
            ) from no_registry


def build_from_packages(release: str, name: str) -> None:
    """Bootstrap a Debian file system and import it."""
    changes = [argument for line in CONFIGURATION for argument in ("--change", line)]
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "root.tar"
        hook = f'chroot "$1" sh -eu -s < {shlex.quote(str(SETUP))}'
        run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                "--skip=cleanup/apt/lists",
                f"--include={','.join(PACKAGES)}",
                f"--customize-hook={hook}",
                release,
                str(archive),
            ],
            timeout=BUILD_TIMEOUT,
        )
        docker("import", *changes, str(archive), name, timeout=BUILD_TIMEOUT)


def build_from_registry(release: str, name: str) -> None:
    """Build on the registry's Debian image."""
    dockerfile = "\n".join(
        [
            f"FROM debian:{release}-slim",
            "COPY image-setup /image-setup",
            "RUN apt-get update"
            f" && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
            " && sh -eu /image-setup && rm /image-setup",
            *CONFIGURATION,
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(SETUP, scratch)
        (Path(scratch) / "Dockerfile").write_text(dockerfile)
        docker("build", "--tag", name, scratch, timeout=BUILD_TIMEOUT)
