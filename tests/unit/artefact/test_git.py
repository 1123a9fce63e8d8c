# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Git: which commit is meant, what is fetched and what is not, and where the password never is."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _git
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._cache import Cache, locked
from ansible_collections.bulletproof.deploy.plugins.plugin_utils._source import Built, Options, build, parse_source
from unit.artefact.sources import GitServer, commit_all, git, plant

Make = t.Callable[..., Built]


@pytest.fixture
def served(git_server: GitServer, app: Path) -> GitServer:
    """The app as shop.git with two tags and a branch."""
    commit_all(app, "one")
    git(app, "tag", "v1.0")
    plant(app, {"new.py": "two\n"})
    commit_all(app, "two")
    git(app, "tag", "--annotate", "--message", "release", "v1.1")
    git(app, "branch", "topic/x")
    git(app, "clone", "--quiet", "--bare", str(app), str(git_server.root / "shop.git"))
    return git_server


def userinfo(server: GitServer) -> str:
    return f"{server.username}:{quote(server.password, safe='')}@"


class Onlooker:
    """Reads the arguments of every process, over and over, as any user of the machine could."""

    def __init__(self) -> None:
        self.seen: t.Set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(process.read_bytes())
                except OSError:
                    continue


def test_password_is_in_no_argument_no_file_and_no_text(served: GitServer, cache: Cache, make: Make) -> None:
    source = {"git": served.url("shop.git", userinfo(served)), "ref": "v1.0"}
    with Onlooker() as onlooker:
        built = make(source)
    helpers = [arguments for arguments in onlooker.seen if b"remote-http" in arguments and str(served.port).encode() in arguments]
    assert helpers, "the onlooker was too slow to see git's helper"
    for form in (served.password, quote(served.password, safe=""), quote(served.password)):
        assert not [arguments for arguments in onlooker.seen if form.encode() in arguments]
        assert form not in repr(built)
        for path in Path(cache.directory).rglob("*"):
            assert form not in str(path)
            assert not path.is_file() or form.encode() not in path.read_bytes()
    assert built.description.startswith(f"Git repository {served.url('shop.git')}, ref v1.0, commit ")


def test_wrong_password_and_missing_ref_are_told_without_it(served: GitServer, make: Make) -> None:
    with pytest.raises(Failure) as refused:
        make({"git": served.url("shop.git", "deploy:wr0ng%2Fcanary@"), "ref": "v1.0"})
    assert "127.0.0.1" in refused.value.message()
    assert "Authentication failed" in refused.value.message()
    assert "canary" not in refused.value.message()
    with pytest.raises(Failure, match=r"no branch, tag or commit '1\.0'.*v1\.0") as missing:
        make({"git": served.url("shop.git", userinfo(served))}, "1.0")
    assert "c4nary" not in missing.value.message()


def test_git_that_repeats_the_password_is_redacted(tmp_path: Path) -> None:
    remote = _git.parse("https://me:p%40ss@git.example.org/x.git")
    said = "fatal: https://me:p%40ss@git.example.org/x.git p@ss bWU6cEBzcw== me"
    assert remote.redact(said) == "fatal: https://me:***@git.example.org/x.git *** *** me"
    assert "p@ss" not in repr(remote)
    token = _git.parse("https://ghp_t0ken@git.example.org/x.git")
    assert (token.url, token.redact("x ghp_t0ken")) == ("https://git.example.org/x.git", "x ***")


def test_a_server_that_repeats_the_password(served: GitServer, make: Make) -> None:
    with pytest.raises(Failure) as refused:
        make({"git": served.url("chatty/shop.git", userinfo(served)), "ref": "v1.0"})
    assert "*** is not allowed to do this" in refused.value.message()
    assert served.password not in refused.value.message()


def test_password_goes_to_no_other_host(served: GitServer, make: Make) -> None:
    served.redirect_to = f"http://localhost:{served.port}"
    with pytest.raises(Failure):
        make({"git": served.url("moved/shop.git", userinfo(served)), "ref": "v1.0"})
    assert served.seen_elsewhere
    assert set(served.seen_elsewhere) == {""}


def test_password_is_given_to_no_other_helper(served: GitServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git tells every helper that is configured what has worked, and 'store' writes it down."""
    config = tmp_path / "gitconfig"
    stored = tmp_path / "stored"
    config.write_text(
        f'[credential]\n\thelper = store --file={stored}\n[credential "http://127.0.0.1:{served.port}"]\n\thelper = store --file={stored}\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    make({"git": served.url("shop.git", userinfo(served)), "ref": "v1.0"})
    assert not stored.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://user:se/cret@host/x.git",
        "https://user:secret#1@host/x.git",
        "https://host/x.git?token=secret",
        "https://secret/1@host/x.git",
        "ssh://git:secret@host/x.git",
        "ext::sh -c secret",
        "foo://user:secret@host/x",
        "https://user:sec%0Asecret@host/x.git",
        "https://secret@",
        "https://user:secret/x.git",
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_repeating_it(make: Make, url: str) -> None:
    with pytest.raises(Failure) as refused:
        make({"git": url, "ref": "main"})
    assert "secret" not in refused.value.message()


def test_refs(served: GitServer, make: Make, app: Path) -> None:
    url = served.url("shop.git", userinfo(served))
    first, second = git(app, "rev-parse", "v1.0"), git(app, "rev-parse", "main")
    for ref, commit in {
        "v1.0": first,
        "refs/tags/v1.0": first,
        "v1.1": second,  # an annotated tag is an object of its own
        "main": second,
        "topic/x": second,
        "HEAD": second,
        first: first,
        second[:10]: second,
    }.items():
        assert make({"git": url, "ref": ref}).commit == commit
    assert make(url, "v1.0").commit == first
    for bad in ("--upload-pack=x", "a..b", "a b", "-x"):
        with pytest.raises(Failure, match="cannot be the name"):
            make({"git": url, "ref": bad})
    with pytest.raises(Failure, match="no branch, tag or commit"):
        make({"git": url, "ref": "0" * 40})


def test_a_name_that_is_tag_and_branch(make: Make, app: Path) -> None:
    first = commit_all(app, "one")
    git(app, "tag", "both")
    git(app, "branch", "both")
    assert make({"git": str(app), "ref": "both"}).commit == first
    git(app, "branch", "--force", "both", commit_all(app, "two"))
    with pytest.raises(Failure, match="is a tag and a branch") as refused:
        make({"git": str(app), "ref": "both"})
    assert "Write refs/tags/both or refs/heads/both." in refused.value.message()


def test_what_moves_is_fetched_and_what_cannot_is_not_even_asked_for(served: GitServer, make: Make, app: Path, cache: Cache) -> None:
    url = served.url("shop.git", userinfo(served))
    built = make({"git": url, "ref": "main"})
    served.requests = 0
    for mirror in Path(cache.directory, "git").glob("*.git"):
        shutil.rmtree(mirror)
    again = make({"git": url, "ref": built.commit})
    assert served.requests == 0
    assert again.artefact == built.artefact

    plant(app, {"newer.py": "three\n"})
    third = commit_all(app, "three")
    git(app, "tag", "--force", "v1.0")
    git(app, "push", "--quiet", "--force", "--tags", str(served.root / "shop.git"), "main")
    assert make({"git": url, "ref": "main"}).commit == third
    assert make({"git": url, "ref": "v1.0"}).commit == third
    git(app, "reset", "--quiet", "--hard", "HEAD~2")
    git(app, "push", "--quiet", "--force", str(served.root / "shop.git"), "main")
    assert make({"git": url, "ref": "main"}).commit == git(app, "rev-parse", "main")


def test_a_lost_artefact_is_made_again(make: Make, app: Path) -> None:
    source = {"git": str(app), "ref": commit_all(app)}
    built = make(source)
    path = Path(built.artefact.path)
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(whole[:-1])):
        damage()
        assert make(source).artefact == built.artefact
        assert path.read_bytes() == whole


def test_a_mirror_that_a_killed_fetch_left_behind(make: Make, app: Path, cache: Cache) -> None:
    commit_all(app, "one")
    make({"git": str(app), "ref": "main"})
    (mirror,) = Path(cache.directory, "git").glob("*.git")
    for lock in mirror.glob("refs/fetched/*"):
        (lock.parent / f"{lock.name}.lock").touch()
    plant(app, {"new.py": "x"})
    assert make({"git": str(app), "ref": "main"}).commit != commit_all(app, "two")
    assert make({"git": str(app), "ref": "main"}).commit == git(app, "rev-parse", "main")


def test_content_is_the_commits_own(make: Make, app: Path) -> None:
    """No attribute changes a byte on the way: not line ends, not substitutions, not what to export."""
    attributes = "*.txt eol=crlf\nkeyword export-subst\nhidden export-ignore\n"
    plant(app, {".gitattributes": attributes, "a.txt": "x\n", "keyword": "$Format:%H$\n", "hidden": "x"})
    directory = make(str(app)).artefact.digest
    assert make({"git": str(app), "ref": commit_all(app)}).artefact.digest == directory


def test_submodules_and_subdirectories(make: Make, app: Path, tmp_path: Path) -> None:
    library = plant(tmp_path / "library", {"x.py": "x"})
    commit_all(library)
    commit_all(app)
    git(app, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "vendor/library")
    source = {"git": str(app), "ref": commit_all(app)}
    with pytest.raises(Failure, match="submodule vendor/library"):
        make(source)
    assert "app.py" in make(source, exclude=["vendor/library"]).artefact.paths
    inner = make({**source, "subdirectory": "lib"})
    assert list(inner.artefact.paths) == ["a.py", "deep/b.py"]
    for wrong in ("lob", "app.py"):
        with pytest.raises(Failure, match=f"no directory '{wrong}'.*lib"):
            make({**source, "subdirectory": wrong})


def test_unreachable(make: Make) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(Failure, match=r"could not be read from 127\.0\.0\.1.*\n.*Failed to connect") as refused:
        make({"git": f"http://me:canary@127.0.0.1:{port}/x.git", "ref": "main"})
    assert "canary" not in refused.value.message()


def test_a_server_that_never_answers(make: Make) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(Failure, match=r"from 127\.0\.0\.1 did not finish within 1 s"):
            make({"git": f"http://127.0.0.1:{port}/x.git", "ref": "main"}, timeout=1)
        assert time.monotonic() - begun < 10
        # Git's helper holds the connection; it has to go with git.
        assert str(port) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_variables_of_a_hook_lead_nowhere_else(make: Make, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = commit_all(app)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    assert make({"git": str(app), "ref": "main"}).commit == commit
    assert not (tmp_path / "objects").exists()


def test_many_at_once(served: GitServer, cache: Cache) -> None:
    source = parse_source({"git": served.url("shop.git", userinfo(served)), "ref": "main"})
    options = Options((), 1 << 24, 60)
    with ThreadPoolExecutor(6) as pool:
        built = list(pool.map(lambda _number: build(source, "1", options, cache), range(6)))
    assert len({one.artefact.digest for one in built}) == 1
    assert sorted(name.partition(".")[2] for name in os.listdir(cache.scratch)) == ["json", "tar.gz"]


def test_a_lock_that_is_held(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with locked(lock, 1), pytest.raises(Failure, match="Another process has held"), locked(lock, 0.1):
        pass
    with locked(lock, 1):
        pass


def test_the_cache_is_its_users_own(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(os.stat(cache.directory).st_mode) == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Cache().directory == str(tmp_path / "xdg" / "bulletproof-deploy")
    os.chmod(cache.directory, 0o777)
    with pytest.raises(Failure, match="Others than its user can write"):
        Cache(cache.directory)
