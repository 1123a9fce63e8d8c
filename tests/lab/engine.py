# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Docker engine: used if it answers, started if this machine can have one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from lab.shell import CACHE, LabError, lock, run, say

START_TIMEOUT = 60
# systemd watches files by inotify. All hosts take their instances from one account's, root's: by default 128, which 18 hosts use up.
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES_WANTED = 1024
INSTANCES_OF_A_HOST = 7
PID_FILES = {
    Path("/run/docker.pid"): "dockerd",
    Path("/run/docker/containerd/containerd.pid"): "containerd",
}


def ensure() -> None:
    """Return when an engine answers; one that answers already is left as it is."""
    with lock("engine"):
        if answers():
            return
        if os.geteuid() != 0:
            raise LabError(
                "No Docker engine answers, and one can only be started by root.",
                "start Docker (or join the group `docker`), or run this as root.",
            )
        install("dockerd", "docker.io")
        if not shutil.which("docker"):
            install("docker", "docker-cli")
        if not answers():
            start()


def answers() -> bool:
    """Whether an engine is there for this user."""
    if not shutil.which("docker"):
        return False
    return run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=20).returncode == 0


def allow(hosts: int) -> None:
    """Let this many hosts run at once; where this user may not, say so before one does not boot for it."""
    allowed = int(INSTANCES.read_text())
    if allowed >= INSTANCES_WANTED:
        return
    try:
        INSTANCES.write_text(f"{INSTANCES_WANTED}\n")
    except OSError:
        if hosts * INSTANCES_OF_A_HOST > allowed:
            say(
                f"{hosts} hosts need some {hosts * INSTANCES_OF_A_HOST} instances of inotify, and this machine allows {allowed}: some may not boot. "
                f"As root on it: sysctl fs.inotify.max_user_instances={INSTANCES_WANTED}"
            )


def install(program: str, package: str) -> None:
    """Install a Debian package, if the program that it brings is missing."""
    if shutil.which(program):
        return
    if not shutil.which("apt-get"):
        raise LabError(f"The program {program} is missing, and this is not a Debian system.", f"install {program} yourself.")
    if os.geteuid() != 0:
        raise LabError(f"The program {program} is missing.", f"as root: apt-get install {package}")
    say(f"installing {package}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=quiet, timeout=300)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", package], env=quiet, timeout=600)


def start() -> None:
    """Start an engine that outlives this command."""
    say("starting the Docker engine")
    log = CACHE / "dockerd.log"
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], timeout=START_TIMEOUT)
    else:
        forget_dead_engine()
        with log.open("ab") as output:
            # setsid forks: the engine is nobody's child, and whoever started it has nothing to wait for.
            subprocess.run(["setsid", "--fork", "dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True)
    deadline = time.monotonic() + START_TIMEOUT
    while not answers():
        if time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
            raise LabError(f"The Docker engine does not answer {START_TIMEOUT} s after its start.\n{tail}", f"see {log}.")
        time.sleep(0.3)


def forget_dead_engine() -> None:
    """Remove the process ids that an engine left behind when it was killed: dockerd refuses to start if another process has one by now."""
    for file, program in PID_FILES.items():
        if not file.exists():
            continue
        command = Path("/proc") / file.read_text().strip() / "comm"
        if not command.exists() or command.read_text().strip() != program:
            file.unlink()
