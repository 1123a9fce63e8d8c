# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets stay where they belong, whatever happens and however much is printed."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.examples import versions
from e2e.apps import App
from e2e.canaries import Watcher, found_in
from e2e.conftest import NewApp
from unit.artefact.sources import GitServer, commit_all, git

from lab.deployment import Played
from lab.hosts import Host

ENVIRONMENT = "c4nary-of-the-environment"
# What has to be quoted somewhere is what leaks past a naive search.
QUOTED = 'c4nary "of" $quotes \\ and `such`'
KEY = "-----BEGIN KEY-----\nc4nary of a key\n-----END KEY-----\n"
DOTENV = "c4nary-of-dotenv"
CANARIES = {
    "app_environment": ENVIRONMENT,
    "app_environment, in quotes": 'c4nary "of"',
    "app_environment, escaped": 'c4nary \\"of\\"',
    "app_environment, of several lines": "c4nary of a key",
    ".env": DOTENV,
    "Git password": GitServer.password,
    "Git password, in a URL": urllib.parse.quote(GitServer.password, safe=""),
}
# The one place of each on the host; nobody but root reads it.
# The release's own, the shared one, and the copies of that one that slots run with.
ALLOWED = {"environment", ".env", "environments/*"}


def place(path: str) -> str:
    """A file's name; of what is named after its content, its directory's."""
    one = Path(path)
    return "environments/*" if one.parent.name == "environments" else one.name


ON_THE_HOST = ("/opt", "/etc", "/var", "/run", "/tmp", "/home", "/root", "/dev/shm")
COMES_AND_GOES = ("/tmp", "/home/deploy", "/root", "/var/tmp", "/dev/shm")

TALKATIVE = """
import os
import sys

from .hooks import Hooks


class Behaviour(Hooks):
    def start(self) -> None:
        if os.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/"):
            print(dict(os.environ), os.environ["KEY"], file=sys.stderr, flush=True)
            raise RuntimeError(f"cannot log in with {os.environ['TOKEN']}")
"""


@pytest.fixture(scope="module")
def git_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    served = tmp_path_factory.mktemp("served")
    repository = served / "shop"
    versions.make_repository(repository)
    git(repository, "checkout", "--quiet", "1.1.0")
    (repository / "shop" / "behaviour.py").write_text(TALKATIVE)
    commit_all(repository, "Tell the whole world")
    git(repository, "tag", "1.2.0-talkative")
    server = GitServer(served)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Directories of the controller's own for all that it keeps: home, temporary files, cache."""
    directory = tmp_path_factory.mktemp("controller")
    with pytest.MonkeyPatch.context() as patch:
        for name, variable in {"home": "HOME", "tmp": "TMPDIR", "cache": "XDG_CACHE_HOME"}.items():
            (directory / name).mkdir()
            patch.setenv(variable, str(directory / name))
        yield directory


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host, git_server: GitServer, controller: Path) -> App:
    userinfo = f"{git_server.username}:{urllib.parse.quote(git_server.password, safe='')}@"
    app = new_shop(
        "secrets",
        [host],
        app_source=git_server.url("shop/.git", userinfo),
        app_environment={"DATABASE_URL": "sqlite:////opt/secrets/shared/shop.db", "TOKEN": ENVIRONMENT, "AWKWARD": QUOTED, "KEY": KEY},
    )
    app.project.must("provision")
    host.write("/opt/secrets/shared/.env", f"MAIL_PASSWORD={DOTENV}\n", mode="0600")
    host.run(["chown", "www-data:www-data", "/opt/secrets/shared/.env"])
    return app


def silent(played: Played) -> None:
    leaks = [line for line in played.output.splitlines() if any(canary in line for canary in CANARIES.values()) or "c4nary" in line]
    assert not leaks, "\n".join(leaks)


def test_secrets_are_where_they_belong_and_nowhere_else(shop: App, controller: Path) -> None:
    began = time.time()
    with (
        Watcher(CANARIES, [str(controller)]) as here,
        Watcher(CANARIES, COMES_AND_GOES, shop.host) as there,
    ):
        good = shop.deploy("1.0.0", "-vvv", "--diff")
        checked = shop.deploy("1.1.0", "-vvv", "--diff", "--check")
        broken = [shop.broken_deploy(f"1.2.0-{name}", "-vvv", "--diff") for name in ("crash-on-import", "crash-on-boot")]
        back = shop.deploy("1.1.0", "-vvv", "--diff")
        rolled = shop.project.must("rollback", "-vvv", "--diff")
        told = shop.project.must("status", "-vvv", "--diff")
    assert shop.version() == "1.0.0"

    for played in (good, checked, *broken, back, rolled, told):
        silent(played)
    assert here.looks > 10
    assert there.looks > 10
    assert not here.seen
    assert not there.seen

    found = found_in(shop.host, CANARIES, ON_THE_HOST)
    assert {place(path) for path in found} == ALLOWED, found
    for path in found:
        owner, mode = shop.host.run(["stat", "--format=%U %a", path]).stdout.split()
        assert mode == "600"
        assert owner == ("www-data" if path.endswith("/.env") else "root")

    journal = shop.host.run(["journalctl", "--all", "--no-pager", "--output=export", f"--since=@{began:.0f}"]).stdout
    assert "c4nary" not in journal
    print(f"canaries: looked {here.looks} times on the controller and {there.looks} times on the host, found {sorted(found)}")


def test_an_app_that_prints_its_secrets_is_not_quoted(shop: App) -> None:
    """It writes them into its own log, and that is where they stay."""
    played = shop.broken_deploy("1.2.0-talkative", "-vvv", "--diff")
    assert "cannot log in with <TOKEN>" in played.output
    silent(played)
    silent(shop.project.must("status"))
    assert "c4nary" in shop.host.read("/var/log/secrets/error.log")
    found = found_in(shop.host, CANARIES, ["/opt/secrets", "/var/log/secrets"])
    assert {place(path) for path in found} == {*ALLOWED, "error.log"}, found
