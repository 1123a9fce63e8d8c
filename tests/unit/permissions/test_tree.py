# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real trees, repaired by root while somebody else tries to lead it astray."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
import typing as t
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from ansible_collections.bulletproof.deploy.plugins.module_utils import _permissions as permissions
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, which is what is tested here")

CHECKOUT = Path(__file__).resolve().parents[3]
APP = 12345
ALL = [{"path": "**", "owner": str(APP), "group": str(APP), "mode": "0640", "directory_mode": "0750"}]


@pytest.fixture
def place() -> t.Iterator[Path]:
    """A directory that other users can come to, with a tree in it and the world outside of the tree."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        (Path(name) / "tree").mkdir()
        (Path(name) / "outside").mkdir()
        (Path(name) / "outside" / "secret").write_text("secret")
        (Path(name) / "outside" / "secret").chmod(0o600)
        yield Path(name)


def read(root: Path, rules: t.Sequence[t.Mapping[str, t.Any]], exclude: t.Sequence[str] = (), hard_links: bool = False) -> permissions.Tree:
    return permissions.read({"path": str(root), "rules": rules, "exclude": exclude, "hard_links": hard_links})


def apply(tree: permissions.Tree) -> permissions.Tree:
    for change in permissions.plan(tree):
        change.apply()
    return tree


def facts(path: Path) -> t.Tuple[int, int, str]:
    found = path.lstat()
    return found.st_uid, found.st_gid, f"{stat.S_IMODE(found.st_mode):04o}"


def assert_untouched(place: Path) -> None:
    assert facts(place / "outside") == (0, 0, "0755")
    assert facts(place / "outside" / "secret") == (0, 0, "0600")


def reasons(tree: permissions.Tree) -> t.Dict[str, str]:
    return dict(tree.left_alone)


def test_repairs_what_is_wrong_and_then_finds_nothing(place: Path) -> None:
    root = place / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_text("")
    (root / "link").symlink_to("a")
    tree = apply(read(root, ALL))
    assert {permissions.deviations(tree, row)[0]["path"] for row in tree.rows} == {str(root / p) for p in ("a", "a/b", "a/b/file", "link")}
    assert facts(root) == (0, 0, "0755")
    assert facts(root / "a" / "b") == (APP, APP, "0750")
    assert facts(root / "a" / "b" / "file") == (APP, APP, "0640")
    assert (root / "link").lstat().st_uid == APP
    again = read(root, ALL)
    assert (again.rows, again.left_alone, again.seen) == ([], [], 4)


def test_the_root_has_its_own_rule(place: Path) -> None:
    apply(read(place / "tree", [{"path": ".", "owner": str(APP), "directory_mode": "0700"}]))
    assert facts(place / "tree") == (APP, 0, "0700")


def test_excluded_and_unmentioned_entries_stay(place: Path) -> None:
    root = place / "tree"
    for name in ("kept/x", "taken/x", "other/x"):
        (root / name).parent.mkdir()
        (root / name).write_text("")
    tree = apply(read(root, [{"path": "kept/**", "owner": str(APP)}, {"path": "taken/**", "owner": str(APP)}], exclude=["kept/x"]))
    assert [facts(root / name / "x")[0] for name in ("kept", "taken", "other")] == [0, APP, 0]
    assert tree.seen == 5


def test_many_directories_are_walked_and_repaired_by_several_processes(place: Path) -> None:
    root = place / "tree"
    for number in range(150):
        (root / str(number) / "inner").mkdir(parents=True)
        for name in range(5):
            (root / str(number) / "inner" / str(name)).write_text("")
    tree = apply(read(root, ALL))
    assert (tree.seen, len(tree.rows), tree.left_alone) == (150 * 7, 150 * 7, [])
    assert all(facts(path)[:2] == (APP, APP) for path in root.rglob("*"))
    assert read(root, ALL).rows == []


def test_a_failure_in_one_process_is_the_failure_of_all() -> None:
    def work(shares: t.Iterable[int]) -> int:
        if 3 in list(shares):
            raise Failure("three", fix="four")
        return 0

    with pytest.raises(Failure, match="three") as caught:
        permissions.in_parallel(list(range(8)), work)
    assert caught.value.fix == "four"


def test_a_process_that_dies_is_a_failure() -> None:
    def work(shares: t.Iterable[int]) -> int:
        if 3 in list(shares):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(Failure, match="status 9"):
        permissions.in_parallel(list(range(8)), work)


def test_names_need_not_be_text(place: Path) -> None:
    odd = os.path.join(os.fsencode(place / "tree"), b"\xff\n")
    with open(odd, "wb"):
        pass
    tree = apply(read(place / "tree", ALL))
    assert os.lstat(odd).st_uid == APP
    assert json.loads(json.dumps(permissions.report(tree)))["drift"][0]["path"].endswith("\\xff\n")


def test_a_planted_link_is_not_followed(place: Path) -> None:
    root = place / "tree"
    (root / "to-directory").symlink_to(place / "outside")
    (root / "to-file").symlink_to(place / "outside" / "secret")
    (root / "to-itself").symlink_to(".")
    tree = apply(read(root, ALL))
    assert_untouched(place)
    assert facts(root / "to-file")[0] == APP
    assert tree.seen == 3


def test_a_planted_link_is_no_directory_where_names_matter(place: Path) -> None:
    (place / "tree" / "link").symlink_to(place / "outside")
    tree = apply(read(place / "tree", [{"path": "link/*", "owner": str(APP)}, {"path": "*.db", "owner": str(APP)}]))
    assert_untouched(place)
    assert (tree.seen, tree.left_alone) == (1, [])


def test_a_root_that_is_a_link_is_refused(place: Path) -> None:
    (place / "alias").symlink_to("outside")
    with pytest.raises(Failure, match="symbolic link") as caught:
        read(place / "alias", ALL)
    assert str(place / "outside") in caught.value.fix
    assert_untouched(place)


@pytest.mark.parametrize("path", ["/", "/etc", "/var/lib/", "/usr/../etc", "relative"])
def test_a_root_that_the_system_shares_is_refused(path: str) -> None:
    with pytest.raises(Failure, match="own tree"):
        permissions.read({"path": path, "rules": [], "exclude": [], "hard_links": False})


def test_a_missing_root_is_refused(place: Path) -> None:
    with pytest.raises(Failure, match="No such file"):
        read(place / "nothing", ALL)


def before_opening(monkeypatch: pytest.MonkeyPatch, name: str, act: t.Callable[[], object]) -> None:
    """Do something at the last moment before a name is opened."""
    real = os.open
    waiting = [act]

    def opening(path: t.Any, flags: int, *args: t.Any, **kwargs: t.Any) -> int:
        if path == name and waiting:
            waiting.pop()()
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(permissions.os, "open", opening)


def swap(path: Path, target: Path) -> None:
    path.rename(path.with_name("moved-away"))
    path.symlink_to(target)


def test_a_directory_swapped_for_a_link_before_it_is_entered(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = place / "tree" / "victim"
    victim.mkdir()
    before_opening(monkeypatch, "victim", lambda: swap(victim, place / "outside"))
    tree = apply(read(place / "tree", ALL))
    assert_untouched(place)
    assert reasons(tree) == {"victim": permissions.REPLACED}


def test_a_directory_swapped_for_a_link_between_reading_and_repairing(place: Path) -> None:
    victim = place / "tree" / "victim"
    victim.mkdir()
    (victim / "secret").write_text("")
    tree = read(place / "tree", [{"path": "victim/*", "owner": str(APP), "mode": "0666"}])
    swap(victim, place / "outside")
    apply(tree)
    assert_untouched(place)
    assert reasons(tree) == {"victim/secret": permissions.REPLACED}


def test_a_parent_swapped_for_another_directory(place: Path) -> None:
    victim = place / "tree" / "victim"
    victim.mkdir()
    (victim / "secret").write_text("")
    tree = read(place / "tree", ALL)
    victim.rename(place / "tree" / "moved-away")
    (place / "outside").rename(victim)
    apply(tree)
    victim.rename(place / "outside")
    assert_untouched(place)
    assert reasons(tree) == {"victim": permissions.REPLACED, "victim/secret": permissions.REPLACED}


def test_a_file_swapped_for_a_link_is_not_even_opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = place / "tree" / "victim"
    victim.write_text("")
    before_opening(monkeypatch, "victim", lambda: swap(victim, place / "outside" / "secret"))
    opened = []
    real = os.fstat
    monkeypatch.setattr(permissions.os, "fstat", lambda handle: opened.append(real(handle).st_ino) or real(handle))
    tree = apply(read(place / "tree", ALL))
    assert_untouched(place)
    assert (place / "outside" / "secret").stat().st_ino not in opened
    assert reasons(tree) == {"victim": permissions.REPLACED}


@pytest.mark.parametrize("hard_links", [False, True])
def test_a_file_swapped_for_a_hard_link_before_it_is_opened(place: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool) -> None:
    victim = place / "tree" / "victim"
    victim.write_text("")

    def plant() -> None:
        victim.unlink()
        os.link(place / "outside" / "secret", victim)

    before_opening(monkeypatch, "victim", plant)
    tree = apply(read(place / "tree", ALL, hard_links=hard_links))
    assert_untouched(place)
    assert reasons(tree) == {"victim": permissions.REPLACED}


def test_a_file_swapped_after_it_was_found_to_be_the_right_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = place / "tree" / "victim"
    victim.write_text("")
    inode = victim.stat().st_ino
    real = os.fstat

    def looking(handle: int) -> os.stat_result:
        found = real(handle)
        if found.st_ino == inode and not victim.is_symlink():
            swap(victim, place / "outside" / "secret")
        return found

    monkeypatch.setattr(permissions.os, "fstat", looking)
    apply(read(place / "tree", ALL))
    assert_untouched(place)
    assert facts(place / "tree" / "moved-away") == (APP, APP, "0640")


def test_a_link_swapped_for_a_hard_link(place: Path) -> None:
    link = place / "tree" / "link"
    link.symlink_to("x")
    tree = read(place / "tree", ALL)
    link.unlink()
    os.link(place / "outside" / "secret", link)
    apply(tree)
    assert_untouched(place)
    assert reasons(tree) == {"link": permissions.REPLACED}


def test_a_file_swapped_for_a_fifo_does_not_hang(place: Path) -> None:
    victim = place / "tree" / "victim"
    victim.write_text("")
    tree = read(place / "tree", ALL)
    victim.unlink()
    os.mkfifo(victim)
    with deadline(5):
        apply(tree)
    assert facts(victim)[0] == 0
    assert reasons(tree) == {"victim": permissions.REPLACED}


@contextmanager
def deadline(seconds: int) -> t.Iterator[None]:
    def late(*_args: object) -> None:
        raise AssertionError(f"still busy after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def flipping(path: Path, target: Path) -> t.Iterator[None]:
    """Another process, like the app's own, that makes a name the real thing and a link to the outside in turns."""
    hold = path.with_name(f"{path.name}-held")
    child = os.fork()
    if child == 0:
        try:
            while True:
                os.rename(path, hold)
                os.symlink(target, path)
                os.unlink(path)
                os.rename(hold, path)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["directory", "directory/secret"])
def test_links_that_come_and_go_during_the_walk(place: Path, name: str) -> None:
    victim = place / "tree" / name
    (place / "tree" / "directory").mkdir()
    (place / "tree" / "directory" / "secret").write_text("")
    for number in range(1000):  # they keep the walk busy between seeing the directory and entering it
        (place / "tree" / str(number)).write_text("")
    target = place / "outside" / ("secret" if name.endswith("secret") else "")
    runs, caught = 0, 0
    with flipping(victim, target):
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for owner in (str(APP), str(APP + 1)):
                rules = [{"path": path, "owner": owner, "mode": "0666", "directory_mode": "0777"} for path in ("directory", "directory/**")]
                tree = apply(read(place / "tree", rules))
                assert_untouched(place)
                runs += 1
                caught += len(tree.left_alone)
    assert caught, f"the race never happened in {runs} runs, so nothing was tried"


def test_what_vanishes_is_no_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("directory", "file"):
        (place / "tree" / name).mkdir() if name == "directory" else (place / "tree" / name).write_text("")
    before_opening(monkeypatch, "directory", (place / "tree" / "directory").rmdir)
    tree = read(place / "tree", ALL)
    (place / "tree" / "file").unlink()
    apply(tree)
    assert tree.left_alone == []


def test_a_planted_hard_link_is_not_given_away(place: Path) -> None:
    secret, planted = place / "outside" / "secret", place / "tree" / "planted"
    os.link(secret, planted)
    tree = apply(read(place / "tree", ALL))
    assert_untouched(place)
    assert reasons(tree) == {"planted": permissions.HARD_LINK}
    assert {entry["attribute"] for entry in permissions.report(tree)["drift"]} == {"owner", "group", "mode"}
    assert permissions.plan(read(place / "tree", ALL)) == []


@pytest.mark.parametrize("rule", [{"group": str(APP)}, {"owner": "root", "mode": "0644"}, {"mode": "o+r"}])
def test_a_planted_hard_link_is_not_opened_to_others(place: Path, rule: t.Dict[str, str]) -> None:
    os.link(place / "outside" / "secret", place / "tree" / "planted")
    tree = apply(read(place / "tree", [{"path": "**", **rule}]))
    assert_untouched(place)
    assert reasons(tree) == {"planted": permissions.HARD_LINK}


def test_a_hard_link_is_taken_away_from_those_who_must_not_write_it(place: Path) -> None:
    cached, installed = place / "outside" / "module.py", place / "tree" / "module.py"
    cached.write_text("")
    os.chown(cached, APP, APP)
    cached.chmod(0o664)
    os.link(cached, installed)
    tree = apply(read(place / "tree", [{"path": "**", "owner": "root", "mode": "go-w"}]))
    assert facts(installed) == (0, APP, "0644")
    assert tree.left_alone == []


def test_hard_links_are_changed_on_request(place: Path) -> None:
    os.link(place / "outside" / "secret", place / "tree" / "wanted")
    apply(read(place / "tree", ALL, hard_links=True))
    assert facts(place / "outside" / "secret") == (APP, APP, "0640")


def test_sockets_and_fifos_are_reported_and_left_alone(place: Path) -> None:
    root = place / "tree"
    os.mkfifo(root / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(root / "socket"))
    tree = apply(read(root, ALL))
    assert reasons(tree) == {"fifo": permissions.SPECIAL_FILE, "socket": permissions.SPECIAL_FILE}
    assert facts(root / "fifo")[0] == facts(root / "socket")[0] == 0


def test_a_setuid_file_of_the_app_never_becomes_roots(place: Path) -> None:
    program = place / "tree" / "program"
    program.write_text("")
    os.chown(program, APP, APP)
    program.chmod(0o4777)
    apply(read(place / "tree", [{"path": "**", "owner": "root", "mode": "go-w"}]))
    assert facts(program) == (0, APP, "0755")


def test_a_tree_too_deep_to_be_anybodys_is_left_alone(place: Path) -> None:
    here = os.open(place / "tree", os.O_RDONLY)
    for _level in range(permissions.DEEPEST + 5):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    tree = apply(read(place / "tree", ALL))
    assert list(reasons(tree).values()) == [permissions.TOO_DEEP]
    assert facts(place / "tree" / "d" / "d")[0] == APP


def test_no_descriptor_stays_open(place: Path) -> None:
    (place / "tree" / "a" / "b" / "c").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    apply(read(place / "tree", ALL))
    assert os.listdir("/proc/self/fd") == before


# The module as Ansible runs it.


def module(place: Path, check: bool = False, **options: t.Any) -> t.Dict[str, t.Any]:
    options = {"path": str(place / "tree"), "rules": ALL, **options, "_ansible_check_mode": check, "_ansible_diff": True}
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "plugins" / "modules" / "permissions.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": options}),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / ".cache" / "collections")},
        encoding="utf-8",
        check=False,
    )
    return t.cast(t.Dict[str, t.Any], json.loads(done.stdout))


def test_check_mode_tells_the_same_and_changes_nothing(place: Path) -> None:
    for number in range(120):
        (place / "tree" / f"{number:03}").write_text("")
    planned = module(place, check=True)
    assert facts(place / "tree" / "000")[0] == 0
    done = module(place)
    assert facts(place / "tree" / "000")[0] == APP
    assert planned["changed"] and {**planned, "invocation": 0} == {**done, "invocation": 0}
    assert (done["drift_total"], len(done["drift"]), done["seen"]) == (120, 100, 121)
    assert done["diff"]["before"].splitlines()[-1].startswith(f"{place / 'tree'}: 20 more entries")
    assert "owner root, group root, mode 0644" in done["diff"]["before"]
    again = module(place)
    assert (again["changed"], again["drift_total"], again["diff"]) == (False, 0, {"before": "", "after": ""})


def test_the_module_warns_of_what_it_left_alone(place: Path) -> None:
    os.link(place / "outside" / "secret", place / "tree" / "planted")
    done = module(place)
    assert not done["changed"]
    assert done["left_alone"] == [{"path": str(place / "tree" / "planted"), "reason": permissions.HARD_LINK}]
    assert "planted" in json.dumps(done["warnings"])


def test_the_module_names_an_unknown_user(place: Path) -> None:
    done = module(place, rules=[{"path": "**", "owner": "nobody-of-that-name"}])
    assert done["failed"]
    assert "nobody-of-that-name" in done["msg"]


# The rules that the role brings.


def role_rules() -> t.Tuple[t.List[t.Dict[str, t.Any]], t.List[str]]:
    text = (CHECKOUT / "roles" / "permissions" / "defaults" / "main.yml").read_text()
    for variable in ("app_user", "app_group"):
        text = text.replace("{{ " + variable + " }}", str(APP))
    defaults = yaml.safe_load(text)
    return defaults["permissions_rules"], defaults["permissions_exclude"]


def as_the_service(act: t.Callable[[], object]) -> bool:
    """Whether the service's account may do something."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(APP)
            os.setuid(APP)
            with suppress(PermissionError, sqlite3.OperationalError):
                act()
                status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_the_roles_rules_put_a_whole_app_right_after_a_careless_chown(place: Path) -> None:
    root = place / "tree"
    for name in ("releases/1/.release", "venvs/1/bin", "slots", "shared/uploads", "backups", ".deploy"):
        (root / name).mkdir(parents=True)
    code, script, environment = root / "releases/1/app.py", root / "releases/1/run", root / "releases/1/.release/environment"
    for path in (code, script, environment, root / "venvs/1/bin/python", root / "shared/.env", root / "shared/key", root / "backups/1"):
        path.write_text("x")
    script.chmod(0o777)
    (root / "shared/key").chmod(0o600)
    (root / "slots/main").symlink_to("../releases/1")
    database = root / "shared/app.db"
    subprocess.run(["chown", "-R", f"{APP}:{APP}", str(root)], check=True)
    subprocess.run(["chmod", "-R", "u+rw,g+rw,o+r", str(root)], check=True)
    (root / "shared/key").chmod(0o600)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table t (x)")
        rules, exclude = role_rules()
        apply(read(root, rules, exclude))
        expected = {
            ".": (0, 0, "0755"),
            "releases": (0, APP, "0750"),
            "releases/1/app.py": (0, APP, "0640"),
            "releases/1/run": (0, APP, "0750"),
            "releases/1/.release/environment": (0, 0, "0600"),
            "venvs/1/bin/python": (0, APP, "0644"),
            "shared": (APP, APP, "0770"),
            "shared/.env": (APP, APP, "0600"),
            "shared/key": (APP, APP, "0600"),
            "shared/uploads": (APP, APP, "0770"),
            "shared/app.db": (APP, APP, "0664"),
            "shared/app.db-wal": (APP, APP, "0664"),
            "shared/app.db-shm": (APP, APP, "0664"),
            "backups": (0, 0, "0700"),
            ".deploy": (0, 0, "0700"),
        }
        assert {name: facts(root / name) for name in expected} == expected
        assert read(root, rules, exclude).rows == []

        def insert() -> None:
            with closing(sqlite3.connect(database)) as service:
                service.execute("insert into t values (1)")
                service.commit()

        assert as_the_service(insert)
    assert as_the_service(code.read_text)
    assert not as_the_service(lambda: code.write_text("y"))
    assert not as_the_service(code.unlink)
    assert not as_the_service(lambda: os.replace(root / "slots/main", root / "slots/other"))
    assert not as_the_service(lambda: os.listdir(root / "backups"))
    assert not as_the_service(environment.read_text)
