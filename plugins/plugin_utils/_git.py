# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A commit of a Git repository as a snapshot, fetched into a mirror in the controller's cache.

Credentials in the URL never reach a command line: git hands its URL on to helper programs as an argument, so they are
taken out of it and given to git, for that one origin, by a credential helper that reads the environment.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import typing as t
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import Finished
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._tree import decode, shown
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Cache, locked
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._exclude import Exclusion
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._nearest import nearest
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._snapshot import Budget, Snapshot, Spool, snapshot

_URL = re.compile(r"(?:git\+)?(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_SCP_LIKE = re.compile(r"(?:[A-Za-z0-9._-]+@)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?!//)[^:]*")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_FULL_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA = re.compile(r"[0-9a-f]{7,64}")
# What answers with the credentials, in git's own words (gitcredentials(7)): to "get" only, so that nothing is stored.
_HELPER = (
    "!f() { if test \"$1\" = get; then printf 'username=%s\\npassword=%s\\n'"
    ' "$BULLETPROOF_GIT_USERNAME" "$BULLETPROOF_GIT_PASSWORD"; fi; }; f'
)


@dataclass(frozen=True)
class Remote:
    """Where a repository is, without what it takes to get in."""

    url: str
    host: str
    scheme: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def has_credentials(self) -> bool:
        return bool(self.username or self.password)

    @property
    def mirror_name(self) -> str:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", self.url.rstrip("/").rpartition("/")[2]).lstrip(".-")
        return f"{name[:40]}-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    def redact(self, text: str) -> str:
        """Take the credentials out of a text, in every form in which a program may have repeated them."""
        secrets = {self.password or self.username}
        secrets |= {quote(secret, safe="") for secret in secrets} | {quote(secret) for secret in secrets}
        if self.has_credentials:
            secrets.add(base64.b64encode(f"{self.username}:{self.password}".encode()).decode())
        for secret in sorted(secrets - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def is_remote(source: str) -> bool:
    """Whether a source is written as a place for git rather than as a local path."""
    return _URL.match(source) is not None or (_SCP_LIKE.fullmatch(source) is not None and not os.path.exists(source))


def parse(source: str) -> Remote:
    """Understand a repository's URL or path. What is wrong with one is said without repeating it: it may hold a password."""
    match = _URL.match(source)
    if match is None:
        scp_like = _SCP_LIKE.fullmatch(source)
        if scp_like is not None and not os.path.exists(source):
            return Remote(source, scp_like["host"], "ssh")
        if "::" in source or source.startswith("-"):
            raise Failure("The Git repository is neither a URL nor a path.", fix=f"Use one of {', '.join(_SCHEMES)}, or a path.")
        path = os.path.abspath(os.path.expanduser(source))
        if not os.path.isdir(path):
            raise Failure(f"There is no Git repository at {path} on the controller.", fix="Correct the path, or use a URL.")
        return Remote(path, "the controller", "file")
    scheme = match["scheme"].lower()
    if scheme not in _SCHEMES:
        raise Failure(f"Git repositories over {scheme} are not supported.", fix=f"Use one of {', '.join(_SCHEMES)}.")
    return _parse_url(scheme, source[match.end() :])


def _parse_url(scheme: str, rest: str) -> Remote:
    if scheme == "file":
        return Remote(f"file://{rest}", "the controller", scheme)
    authority, slash, path = rest.partition("/")
    userinfo, _at, host = authority.rpartition("@")
    if not _HOST.fullmatch(host) or not slash or re.search(r"[@?#\s]", path):
        raise Failure(
            f"The URL of the Git repository is not {scheme}://[USER[:PASSWORD]@]HOST[:PORT]/PATH.",
            fix="Write the characters / @ : ? # in a user name or password as %2F %40 %3A %3F %23; a query is not allowed.",
        )
    name = urlsplit(f"//{host}").hostname or host
    username, _colon, password = userinfo.partition(":")
    if scheme == "ssh":
        if password:
            raise Failure("The ssh:// URL of the Git repository holds a password, which ssh does not take.", fix="Use a key, or https.")
        return Remote(f"ssh://{authority}/{path}", name, scheme)
    username, password = unquote(username), unquote(password)
    if re.search(r"[\r\n\0]", username + password):
        raise Failure("The credentials in the URL of the Git repository hold a line break.", fix="Copy them again.")
    return Remote(f"{scheme}://{host}/{path}", name, scheme, username, password)


def is_full_sha(ref: str) -> bool:
    return _FULL_SHA.fullmatch(ref) is not None


class Mirror:
    """The local copy of what was fetched from one repository."""

    def __init__(self, remote: Remote, cache: Cache, timeout: float) -> None:
        self.remote = remote
        self._path = cache.mirror(remote.mirror_name + ".git")
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout

    @contextmanager
    def lock(self) -> t.Iterator[None]:
        with locked(self._path + ".lock", self._timeout):
            self._deadline = time.monotonic() + self._timeout
            yield

    def resolve(self, ref: str) -> str:
        """The commit that a branch, a tag or a SHA means now, with all that it needs in the mirror."""
        if not ref or ref.startswith("-") or re.search(r"[\s~^:?*\[\\\0]|\.\.|@\{", ref):
            raise Failure(f"{ref!r} cannot be the name of a Git ref.", fix="Name a branch, a tag or a commit.")
        self._initialise()
        if is_full_sha(ref):
            return self._resolve_sha(ref)
        known = self._list(f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
        tag, branch = f"refs/tags/{ref}", f"refs/heads/{ref}"
        name = next((candidate for candidate in (ref, tag, branch) if candidate in known), None)
        if name is None:
            if _SHORT_SHA.fullmatch(ref):
                return self._resolve_sha(ref)
            raise self._missing(ref)
        if tag in known and branch in known and known.get(tag + "^{}", known[tag]) != known[branch]:
            raise Failure(
                f"{ref!r} is a tag and a branch of {self.remote.url}, and they are different commits.", fix=f"Write {tag} or {branch}."
            )
        commit = known.get(name + "^{}", known[name])
        if not self._has(commit):
            kept = f"refs/fetched/{hashlib.sha256(name.encode()).hexdigest()[:16]}"
            self._fetch(f"+{name}:{kept}")
            commit = self._commit(kept)
        return commit

    def _resolve_sha(self, ref: str) -> str:
        if self._has(ref):
            return self._commit(ref)
        if is_full_sha(ref) and self._git(self._fetching(f"+{ref}:refs/fetched/{ref[:16]}"), remote=True).ok:
            return self._commit(ref)
        # Not every server gives a commit by its name alone; whatever it is reachable from brings it.
        self._fetch("+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*")
        if not self._has(ref):
            raise self._missing(ref)
        return self._commit(ref)

    def _commit(self, ref: str) -> str:
        return self._must(["rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}"])

    def _has(self, commit: str) -> bool:
        return self._git(["cat-file", "-e", f"{commit}^{{commit}}"]).ok

    def _missing(self, ref: str) -> Failure:
        names = [name.split("/", 2)[2] for name in self._list() if name.startswith(("refs/heads/", "refs/tags/"))]
        existing = {name[:-3] if name.endswith("^{}") else name for name in names}
        return Failure(
            f"The Git repository {self.remote.url} has no branch, tag or commit {ref!r}. The nearest ones: {nearest(ref, existing)}.",
            fix="Correct the ref (or the version, which is the ref unless one is given), or push it.",
        )

    def _list(self, *patterns: str) -> t.Dict[str, str]:
        asked = [*patterns, *(f"{pattern}^{{}}" for pattern in patterns)]
        listed = self._git(["ls-remote", "--quiet", "--", self.remote.url, *asked], remote=True)
        if not listed.ok:
            raise self._unreadable(listed)
        return {name: sha for sha, _tab, name in (line.partition("\t") for line in listed.stdout.splitlines())}

    def _fetching(self, *refspecs: str) -> t.List[str]:
        return ["fetch", "--quiet", "--no-tags", "--", self.remote.url, *refspecs]

    def _fetch(self, *refspecs: str) -> None:
        command = self._fetching(*refspecs)
        fetched = self._git(command, remote=True)
        if not fetched.ok and self._git(["ls-remote", "--quiet", "--", self.remote.url, "HEAD"], remote=True).ok:
            # The repository answers, so it is the mirror: who was killed in the middle leaves locks that no fetch gets past.
            shutil.rmtree(self._path, ignore_errors=True)
            self._initialise()
            fetched = self._git(command, remote=True)
        if not fetched.ok:
            raise self._unreadable(fetched)

    def _unreadable(self, finished: Finished) -> Failure:
        return Failure(
            f"The Git repository {self.remote.url} could not be read from {self.remote.host}:"
            f" git ended with status {finished.rc}.\n{self.remote.redact(finished.last_words())}",
            fix=f"Make sure that 'git ls-remote {self.remote.url}' works on the controller, and that the credentials are right.",
        )

    def _initialise(self) -> None:
        if not os.path.exists(os.path.join(self._path, "HEAD")):
            done = self._git(["init", "--quiet", "--bare", "--template=", self._path], in_mirror=False)
            if not done.ok:
                raise Failure(f"The Git mirror {self._path} cannot be made.\n{done.last_words()}", fix="Make room, or set cache.")

    def tree(self, commit: str, subdirectory: t.Optional[str]) -> t.List[t.Tuple[str, str, str]]:
        """(mode, object, path) of everything in a commit."""
        if subdirectory:
            kind = self._git(["cat-file", "-t", f"{commit}:{subdirectory}"])
            if kind.stdout.strip() != "tree":
                directories = self._must(["ls-tree", "-r", "-d", "--name-only", commit]).splitlines()
                raise Failure(
                    f"The commit {commit} of {self.remote.url} has no directory {subdirectory!r}."
                    f" The nearest: {nearest(subdirectory, directories)}.",
                    fix="Correct subdirectory.",
                )
        listed = self._run(["ls-tree", "-r", "-z", "--full-tree", f"{commit}:{subdirectory or ''}"])
        if listed.returncode:
            raise Failure(f"The commit {commit} cannot be listed.\n{listed.stderr.decode(errors='replace')}", fix=f"Remove {self._path}.")
        found = []
        for record in listed.stdout.split(b"\0")[:-1]:
            about, _tab, path = record.partition(b"\t")
            mode, _kind, name = about.decode().split(" ")
            found.append((mode, name, decode(path)))
        return found

    def read(self, objects: t.Sequence[str], take: t.Callable[[int, t.IO[bytes], int], None]) -> None:
        """Give each blob, by its position, as a stream and a size, in one process."""
        with tempfile.TemporaryFile() as names:
            names.write("".join(f"{name}\n" for name in objects).encode())
            names.seek(0)
            process = subprocess.Popen(
                self._argv(["cat-file", "--batch"]),
                stdin=names,
                stdout=subprocess.PIPE,
                env=self._environment(False),
                start_new_session=True,
            )
        answers = t.cast(t.IO[bytes], process.stdout)
        timer = threading.Timer(self._timeout, process.kill)
        timer.start()
        try:
            for position, name in enumerate(objects):
                header = answers.readline().split()
                if len(header) != 3:
                    raise EOFError(f"git has no object {name}")
                take(position, answers, int(header[2]))
                answers.read(1)
        except EOFError as error:
            raise Failure(f"The Git mirror {self._path} is damaged: {error}.", fix=f"Remove {self._path}; it is fetched again.") from None
        finally:
            timer.cancel()
            answers.close()
            process.kill()
            process.wait()

    def _must(self, arguments: t.Sequence[str]) -> str:
        done = self._git(arguments)
        if not done.ok:
            raise Failure(
                f"The Git mirror {self._path} does not give what was fetched.\n{self.remote.redact(done.last_words())}",
                fix=f"Remove {self._path}; it is fetched again.",
            )
        return done.stdout.strip()

    def _git(self, arguments: t.Sequence[str], remote: bool = False, in_mirror: bool = True) -> Finished:
        done = self._run(arguments, remote, in_mirror)
        return Finished(tuple(arguments), done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def _run(self, arguments: t.Sequence[str], remote: bool = False, in_mirror: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run git to its end, and end its helpers with it: those hold the connection, and outlive a git that is killed."""
        argv = self._argv(arguments, remote, in_mirror)
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(remote),
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Failure("The program git is not on the controller.", fix="Install git there.") from None
        try:
            stdout, stderr = process.communicate(timeout=max(0.1, self._deadline - time.monotonic()))
        except BaseException as error:
            with process, suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failure(
                    f"git {arguments[0]} of {self.remote.url} from {self.remote.host} did not finish within {self._timeout:g} s"
                    " and was stopped.",
                    fix=f"See whether {self.remote.host} can be reached, or raise timeout.",
                ) from None
            raise
        return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)

    def _argv(self, arguments: t.Sequence[str], remote: bool = False, in_mirror: bool = True) -> t.List[str]:
        argv = ["git"]
        if in_mirror:
            argv += [f"--git-dir={self._path}", "-c", "gc.autoDetach=false"]
        if remote and self.remote.has_credentials:
            origin = self.remote.url[: self.remote.url.index("/", len(self.remote.scheme) + 3)]
            # The empty helper drops all others, which would store what they are told; ours answers for this origin alone.
            argv += ["-c", "credential.helper=", "-c", f"credential.{origin}.helper=", "-c", f"credential.{origin}.helper={_HELPER}"]
        return [*argv, *arguments]

    def _environment(self, remote: bool) -> t.Dict[str, str]:
        # In a hook, git's own variables point to another repository; its traces would print what is sent.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        environment.update(LC_ALL="C.UTF-8", GIT_TERMINAL_PROMPT="0", GIT_ALLOW_PROTOCOL=":".join(_SCHEMES), SSH_ASKPASS_REQUIRE="never")
        environment.setdefault("GIT_ASKPASS", "")
        if remote and self.remote.has_credentials:
            environment.update(GIT_ASKPASS="", BULLETPROOF_GIT_USERNAME=self.remote.username, BULLETPROOF_GIT_PASSWORD=self.remote.password)
        if remote and self.remote.scheme == "ssh" and "GIT_SSH" not in environment:
            configured = environment.get("GIT_SSH_COMMAND") or self._git(["config", "core.sshCommand"]).stdout.strip() or "ssh"
            environment["GIT_SSH_COMMAND"] = f"{configured} -o BatchMode=yes"
        return environment


_NOT_INHERITED = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_NAMESPACE",
    "GIT_COMMON_DIR",
    "GIT_PREFIX",
    "GIT_TRACE",
    "GIT_CURL_VERBOSE",
)


@contextmanager
def git_snapshot(
    mirror: Mirror, commit: str, subdirectory: t.Optional[str], patterns: t.Sequence[str], max_size: int, scratch: str
) -> t.Iterator[Snapshot]:
    """A commit's own bytes: no attribute and no filter of the controller's git changes them."""
    origin = f"The commit {commit[:12]} of {mirror.remote.url}"
    exclusion = Exclusion(patterns)
    kept = [(mode, name, path) for mode, name, path in mirror.tree(commit, subdirectory) if not exclusion.leaves_out(path)]
    for mode, _name, path in kept:
        if mode == "160000":
            raise Failure(
                f"{origin} has the submodule {shown(path)}; submodules are not fetched.",
                fix=f"Exclude /{shown(path)}, or make an archive that holds it and deploy that.",
            )
    with Spool(scratch, Budget(max_size, origin)) as spool:

        def take(position: int, stream: t.IO[bytes], size: int) -> None:
            mode, _name, path = kept[position]
            if mode == "120000":
                spool.add_link(path, decode(stream.read(size)))
            else:
                spool.add_file(path, mode == "100755", stream, size)

        mirror.read([name for _mode, name, _path in kept], take)
        yield snapshot(spool.entries, spool.open, exclusion, origin)
