# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lab hosts: containers that boot systemd, with an address and an SSH login of their own."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import re
import socket
import subprocess
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import access, engine, image
from lab.shell import LabError, docker, lock, run, say

NETWORK = "bulletproof-lab"
PREFIX = "bulletproof-lab-"
BOOT_TIMEOUT = 60
# Without one of these a host that ran out of something while it booted may still answer, degraded.
ESSENTIAL = ("dbus.service", "systemd-journald.service", "systemd-logind.service")
# What systemd takes for "halt now, in order"; any other signal and every stop waits for its time limit.
STOP_SIGNAL = "SIGRTMIN+3"
# What cuts a host off from everybody but itself.
ISOLATION = (("INPUT", "!", "-i", "lo", "-j", "DROP"), ("OUTPUT", "!", "-o", "lo", "-j", "DROP"))
# A disk that is made for being filled is smaller than this.
LARGEST_DISK_KB = 4 * 1024 * 1024
FILLING = ".filled-by-the-lab"
COMPANY_CA = "etc/ssl/certs/ca-certificates.crt"
COMPANY_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


class Host:
    """One lab host, by its short name."""

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
            raise LabError(f"{name!r} is no name for a host.", "use lower-case letters, digits and hyphens.")
        self.name = name
        self.container = PREFIX + name

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    @property
    def address(self) -> str:
        """The IP address; the same over reboots, and for the next host of this name."""
        return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAMConfig.IPv4Address}}{{end}}", self.container)

    @property
    def state(self) -> str:
        """The container's state: running, paused, exited … or absent."""
        return docker("inspect", "--format", "{{.State.Status}}", self.container, check=False) or "absent"

    def run(
        self, argv: Sequence[str], *, check: bool = True, timeout: float = 120, user: str = "root", stdin: str | bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, past SSH: for arranging a test and for looking at what came of it."""
        return run(["docker", "exec", "--interactive", "--user", user, self.container, *argv], check=check, timeout=timeout, stdin=stdin)

    def read(self, path: str) -> str:
        """The text of a file on the host."""
        return self.run(["cat", path]).stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Put a file on the host, owned by root."""
        self.run(["install", "-D", "-m", mode, "/dev/stdin", path], stdin=text)

    def exists(self, path: str) -> bool:
        """Whether a path is there, be it only a dangling link."""
        return self.run(["sh", "-c", 'test -e "$1" || test -L "$1"', "sh", path], check=False).returncode == 0

    def ssh(self, *command: str) -> list[str]:
        """The command line that logs in as the user `deploy`."""
        options = [f"-o{key}={value}" for key, value in access.ssh_options(self.name).items()]
        return ["ssh", *options, "-i", str(access.key("client")), f"{access.USER}@{self.address}", *command]

    def reboot(self) -> None:
        """Shut down in order and boot; return when the host is up."""
        docker("stop", "-t", "20", self.container)
        self.start()

    def kill(self) -> None:
        """Cut the power."""
        docker("kill", self.container)

    def start(self) -> None:
        """Boot a host that was killed or has shut down; return when it is up.

        One that has booted only in part is stopped: what it lacks comes with the next boot and not before, and whoever finds it running would not boot it.
        """
        docker("start", self.container)
        try:
            self.wait_until_up()
        except LabError:
            docker("kill", self.container, check=False)
            raise

    def pause(self) -> None:
        """Freeze every process: to the outside, a host that no longer answers."""
        docker("pause", self.container)

    def unpause(self) -> None:
        """Let the processes go on where they were."""
        docker("unpause", self.container)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Frozen while the block runs."""
        self.pause()
        try:
            yield
        finally:
            self.unpause()

    def cut_off(self) -> None:
        """Let nothing come in or go out, neither new nor under way; the host itself works on. A reboot connects it again."""
        for rule in ISOLATION:
            self.run(["iptables", "-I", *rule])

    def connect(self) -> None:
        """Let everything through again."""
        for rule in ISOLATION:
            while not self.run(["iptables", "-D", *rule], check=False).returncode:
                pass

    @contextlib.contextmanager
    def isolated(self) -> Iterator[None]:
        """Cut off while the block runs."""
        self.cut_off()
        try:
            yield
        finally:
            self.connect()

    @contextlib.contextmanager
    def without(self, *rule: str) -> Iterator[None]:
        """One kind of packets is dropped while the block runs, given as iptables matches it: ``INPUT -p tcp --dport 22``."""
        self.run(["iptables", "-I", *rule, "-j", "DROP"])
        try:
            yield
        finally:
            # A reboot has taken the rule away.
            self.run(["iptables", "-D", *rule, "-j", "DROP"], check=False)

    @contextlib.contextmanager
    def slow(self, ms: float, loss: float = 0) -> Iterator[None]:
        """While the block runs, what the host sends is this much later, and this percentage of it does not arrive."""
        said = self.run(["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", f"{ms:g}ms", "loss", f"{loss:g}%"], check=False)
        if said.returncode:
            raise LabError(f"{self.name} cannot be slowed: {said.stderr.strip()}", "load the kernel module sch_netem on this machine.")
        try:
            yield
        finally:
            self.run(["tc", "qdisc", "del", "dev", "eth0", "root"], check=False)

    def fill_disk(self, path: str) -> None:
        """Take all room of the file system that a directory is on. One of the machine's own disks is refused."""
        # Somebody else may take some of the room first.
        for _time in range(20):
            free = int(self.run(["df", "-k", "--output=avail", path]).stdout.split()[-1])
            if free > LARGEST_DISK_KB:
                raise LabError(
                    f"{path} on {self.name} has {free // 1024} MB free: that is this machine's own disk.", "give the host a small one."
                )
            if free <= 0 or self.run(["fallocate", "--length", f"{free}KiB", f"{path}/{FILLING}"], check=False).returncode == 0:
                return
        raise LabError(f"{path} on {self.name} cannot be filled: {free} KB stay free.", "look who makes and removes files there.")

    def free_disk(self, path: str) -> None:
        self.run(["rm", "-f", f"{path}/{FILLING}"])

    @contextlib.contextmanager
    def full_disk(self, path: str) -> Iterator[None]:
        """Full while the block runs."""
        self.fill_disk(path)
        try:
            yield
        finally:
            self.free_disk(path)

    def wait_until_up(self, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until systemd has finished booting and SSH answers."""
        deadline = time.monotonic() + timeout
        # A shared SSH connection from before the boot leads nowhere, and whoever tries it gets an error.
        access.forget_connection(self.name)
        while True:
            # The bus that systemctl asks comes a moment after the first process.
            answer = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=timeout).stdout.strip()
            if answer in ("running", "degraded") and self._whole() and self._greets():
                break
            if time.monotonic() > deadline:
                found = f"The host {self.name} is not up after {timeout:g} s: systemd says {answer!r}."
                raise LabError(found, f"see `docker logs {self.container}`.")
            time.sleep(0.1)

    def failed_units(self) -> list[str]:
        """The units that systemd gave up on."""
        listing = self.run(["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).stdout
        return [line.split()[0] for line in listing.splitlines()]

    def _whole(self) -> bool:
        return self.run(["systemctl", "is-active", *ESSENTIAL], check=False).stdout.split() == ["active"] * len(ESSENTIAL)

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def up(
    names: Sequence[str],
    release: str = "bookworm",
    *,
    small_disk: int | None = None,
    options: Sequence[str] = (),
    fresh: bool = False,
    network: str = NETWORK,
) -> list[Host]:
    """Hosts of these names, up and reachable.

    A host that is there already stays as it is, with all that is on it, unless ``fresh`` or unless it was made of
    another image or with other options.

    :param small_disk: Megabytes; /opt becomes a file system of this size, to be filled up. It is emptied by a reboot.
    :param options: More arguments for ``docker create``, such as a volume.
    :param network: The Docker network that they are on; hosts on different ones do not reach each other.
    """
    hosts = [Host(name) for name in names]
    engine.ensure()
    running = docker("ps", "--filter", f"name=^/{PREFIX}", "--format", "{{.Names}}").splitlines()
    engine.allow(len({*running, *(host.container for host in hosts)}))
    name = image.ensure(release)
    subnet = ensure_network(network)
    if small_disk is not None:
        options = [*options, "--tmpfs", f"/opt:rw,exec,mode=755,size={small_disk}m"]

    def one(host: Host) -> None:
        label = json.dumps([name, *([network] if network != NETWORK else []), *options])
        if fresh or docker("inspect", "--format", '{{index .Config.Labels "made-of"}}', host.container, check=False) != label:
            down([host.name])
            create(host, name, subnet, [*options, "--label", f"made-of={label}"], network)
        if host.state == "paused":
            host.unpause()
        # Keys and certificates come from the machine, not from the image: they may be newer than the host.
        if host.state == "running":
            # Each `docker cp` to or from a running container leaves its volumes mounted once more in there, which makes every unit with a sandbox start slower.
            docker("exec", "--interactive", host.container, "tar", "-x", "-C", "/", stdin=belongings(host))
        else:
            docker("cp", "-", f"{host.container}:/", stdin=belongings(host))
        host.start()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, hosts))
    say("up: " + ", ".join(f"{host.name} {host.address}" for host in hosts))
    return hosts


def down(names: Sequence[str]) -> None:
    """Remove hosts, with all that is on them; those that are not there are no mistake."""
    hosts = [Host(name) for name in names]
    if hosts and engine.answers():
        for host in hosts:
            access.forget_connection(host.name)
        run(["docker", "rm", "--force", "--volumes", *(host.container for host in hosts)], check=False)


def known() -> list[Host]:
    """Every host that this machine's lab has."""
    if not engine.answers():
        return []
    containers = docker("ps", "--all", "--filter", f"name=^/{PREFIX}", "--format", "{{.Names}}").splitlines()
    return [Host(container.removeprefix(PREFIX)) for container in sorted(containers)]


def ensure_network(name: str = NETWORK) -> ipaddress.IPv4Network:
    """A network of the lab, made if it is missing.

    Docker gives a container a lasting address only on a network whose range was asked for. So the engine
    chooses a free range first, and then the network is made again with just that range.
    """
    show = ("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", name)
    with lock("network"):
        subnet = docker(*show, check=False)
        if not subnet:
            docker("network", "create", name)
            subnet = docker(*show)
            docker("network", "rm", name)
            docker("network", "create", "--subnet", subnet, name)
    return ipaddress.IPv4Network(subnet)


def create(host: Host, image_name: str, subnet: ipaddress.IPv4Network, options: Sequence[str], network: str = NETWORK) -> None:
    """Make the container, not started yet, at the address that belongs to its name."""
    first = zlib.crc32(host.name.encode())
    places = subnet.num_addresses - 3  # without the network, the gateway and the broadcast address
    for attempt in range(8):
        address = subnet[2 + (first + attempt) % places]
        if address not in taken():
            docker("create", "--name", host.container, "--hostname", host.name, "--network", network, "--ip", str(address),
                   "--stop-signal", STOP_SIGNAL,
                   "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--security-opt", "seccomp=unconfined",
                   "--tmpfs", "/run:rw,mode=755", "--tmpfs", "/run/lock:rw,mode=1777",
                   "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns", "host", *options, image_name)  # fmt: skip
            return
    raise LabError(f"No free address for the host {host.name} in {subnet}.", "remove hosts: lab down --all")


def taken() -> set[ipaddress.IPv4Address]:
    """The addresses of the hosts that there are, running or not."""
    found = set()
    for host in known():
        # Somebody else may be removing it just now.
        with contextlib.suppress(LabError):
            found.add(ipaddress.IPv4Address(host.address))
    return found


def belongings(host: Host) -> bytes:
    """What a host gets from this machine, as an archive of its root directory: the lab's keys, the machine's certificates."""
    files: dict[str, tuple[bytes, int]] = {
        f"home/{access.USER}/.ssh/authorized_keys": (access.key("client").with_suffix(".pub").read_bytes(), 0o644),
        "etc/ssh/ssh_host_ed25519_key": (access.key("host").read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (access.key("host").with_suffix(".pub").read_bytes(), 0o644),
    }
    files.update(company_ca(host))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, int(time.time())
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def company_ca(host: Host) -> Mapping[str, tuple[bytes, int]]:
    """The machine's certificates, where they are not Debian's own, and the variables by which Python's programs find them.

    A company that inspects its traffic sets its servers up like this: pip and its kin come with certificates of
    their own and do not look at the system's unless told to.
    """
    bundle = Path("/") / COMPANY_CA
    if not bundle.exists() or bundle.read_bytes() == bundle_of(host):
        return {}
    variables = [f"{name}=/{COMPANY_CA}" for name in COMPANY_CA_VARIABLES]
    return {
        COMPANY_CA: (bundle.read_bytes(), 0o644),
        "etc/environment": ("".join(f"{line}\n" for line in variables).encode(), 0o644),
        "etc/systemd/system.conf.d/company-ca.conf": (f"[Manager]\nDefaultEnvironment={' '.join(variables)}\n".encode(), 0o644),
        "etc/sudoers.d/company-ca": (f'Defaults env_keep += "{" ".join(COMPANY_CA_VARIABLES)}"\n'.encode(), 0o440),
    }


def bundle_of(host: Host) -> bytes:
    """The certificates that a host has now, running or not."""
    if host.state == "running":
        return host.read(f"/{COMPANY_CA}").encode()
    copied = subprocess.run(["docker", "cp", f"{host.container}:/{COMPANY_CA}", "-"], capture_output=True, timeout=60, check=True)
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:
        content = tar.extractfile(tar.getmembers()[0])
        return content.read() if content else b""
