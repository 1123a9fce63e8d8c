# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module env_file on a host, over SSH and as root."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from e2e.canaries import Watcher
from integration.database.direct import Direct

from lab.deployment import BIN, REPOSITORY

PLACE = "/srv/shop"
ENV = f"{PLACE}/.env"
CANARIES = {
    "PLAIN": "canary-plain-1a2b3c",
    "QUOTED": "canary 'single' \"double\" \\ back `tick` # hash = $HOME ${HOME}",
    "LINES": "canary-first-line\ncanary-second-line\n",
    "NUMBER": 987654321012345,
    "SHORT": "c4n4ry7",
    "UMLAUT": "canary-grün-🎉",
}
LINES = [*"\n".join(str(value) for value in CANARIES.values()).split("\n")]
HELD = """import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fresh(host):
    """A directory in which the app may write, as ``shared`` is."""
    host.run(["sh", "-c", f"rm -rf {PLACE} && install -d -o www-data -g www-data -m 0770 {PLACE}"])


def stat(host, path=ENV):
    return host.run(["stat", "-c", "%U:%G %a %h %F", path]).stdout.strip()


def values(host):
    return dialects.systemd(host.read(ENV))


def test_no_value_is_anywhere_but_in_the_file(host, module, fresh, tmp_path):
    """Playbooks that add, change, generate, break rules and fail, with all that Ansible can say, in a check and in earnest."""
    host.write(ENV, "# canary-comment\nOLD='canary-old-value'\nOLD_TOKEN=canary-old-token\n", "0644")
    secrets = {**CANARIES, "URL": "postgresql://shop:canary-password@db/shop"}
    good = {
        "path": ENV,
        "owner": "www-data",
        "group": "www-data",
        "generate": {"MADE": "token_urlsafe", "KEY": {"kind": "ed25519", "public": "KEY_PUBLIC"}},
    }
    tasks = [
        {"values": secrets, **good},
        {"values": {**secrets, "PLAIN": "canary-another"}, **good, "rotate": ["MADE"], "remove": ["OLD_TOKEN"]},
        {
            "values": secrets,
            **good,
            "rules": [{"equals": {"PLAIN": "x"}}, {"required": ["NONE"]}, {"pattern": {"QUOTED": "x"}, "severity": "warning"}],
        },
        {"values": {**secrets, "1BAD": "canary-bad-name", "WRONG": ["canary-list"]}, **good},
        {"values": {**secrets, "LONG": "canary" * 30000}, **good},
        {"values": secrets, **good, "path": f"{PLACE}/none/.env"},
        {"values": ["canary-list"], **good},
        {"values": secrets, **good, "nonesuch": 1},
    ]
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "become": True,
            "tasks": [
                {"name": f"Task {number}", "bulletproof.deploy.env_file": task, "ignore_errors": True} for number, task in enumerate(tasks)
            ],
        }
    ]
    (module.directory / "secrets.json").write_text(json.dumps(play))
    said = ""
    places = ["/tmp", "/root/.ansible", "/home/deploy/.ansible", "/run/bulletproof-deploy"]
    with Watcher({"canary": "canary-", "number": "987654321012345"}, places, host) as watcher:
        for flags in (["--check"], []):
            argv = [str(BIN / "ansible-playbook"), "-i", "hosts.yml", "secrets.json", "-vvv", "--diff", *flags]
            done = subprocess.run(argv, cwd=module.directory, capture_output=True, text=True, timeout=120, check=False)
            assert "ok=8" in done.stdout and "ignored=6" in done.stdout, done.stdout[-3000:]
            said += done.stdout + done.stderr
    generated = [value for name, value in values(host).items() if name.startswith(("MADE", "KEY"))]
    assert len(generated) == 3
    for secret in ["canary", "987654321012345", *(line for line in LINES if len(line) > 7), *"\n".join(generated).split("\n")[:4]]:
        assert secret not in said, said[max(said.index(secret) - 400, 0) : said.index(secret) + 100]
    assert watcher.seen == [] and watcher.looks > 10
    journal = host.run(["journalctl", "--no-pager", "--since=-5min"]).stdout
    assert "canary" not in journal and "ansible" in journal.lower()
    assert "PLAIN: another value" in said and "OLD_TOKEN: one value" in said and "MADE: generated" in said
    assert "PLAIN: found another value; expected x. Set PLAIN to x." in said
    assert stat(host) == "www-data:www-data 600 1 regular file"


def test_merging_keeping_rotating_removing_replacing(host, fresh):
    module = Direct(host)
    text = "# by hand\nOLD = 'kept as it is' \nDEBUG=0\nexport SHELL_ONLY=1\n"
    host.write(ENV, text, "0644")
    asked = {"path": ENV, "values": {**CANARIES, "DEBUG": 1}, "generate": {"ID": "uuid", "TOKEN": {"kind": "token_urlsafe", "bytes": 24}}}

    planned = module.must("env_file", "--check", "--diff", **asked)
    assert planned["changed"] and planned["digest"] == "" and planned["generated"] == ["ID", "TOKEN"]
    assert host.read(ENV) == text and stat(host) == "root:root 644 1 regular file"
    assert host.run(["ls", "-A", PLACE]).stdout.split() == [".env"]

    done = module.must("env_file", **asked)
    assert (
        done["changed"]
        and done["changed_names"] == ["DEBUG"]
        and "OLD" not in done["added"]
        and stat(host) == "root:root 600 1 regular file"
    )
    found = values(host)
    assert {name: found[name] for name in CANARIES} == {name: str(value) for name, value in CANARIES.items()}
    assert found["OLD"] == "kept as it is" and found["DEBUG"] == "1" and len(found["ID"]) == 36 and len(found["TOKEN"]) == 32
    assert host.read(ENV).startswith("# by hand\nOLD = 'kept as it is' \nDEBUG=1\nexport SHELL_ONLY=1\n")
    # The name is that of the content, and each program that reads another value is told by name.
    assert host.run(["sha256sum", ENV]).stdout.startswith(done["digest"])
    assert [one.split(":")[0] for one in done["disagreements"]] == ["QUOTED", "SHELL_ONLY"]

    again = module.must("env_file", **asked)
    assert not again["changed"] and again["digest"] == done["digest"] and values(host) == found
    assert module.must("env_file", "--check", **asked)["digest"] == done["digest"]

    turned = module.must(
        "env_file", **asked, rotate=["TOKEN"], remove=["OLD", "SHELL_ONLY"], owner="www-data", group="www-data", mode="0640"
    )
    new = values(host)
    assert turned["generated"] == ["TOKEN"] and turned["removed"] == ["OLD"] and stat(host) == "www-data:www-data 640 1 regular file"
    assert new["TOKEN"] != found["TOKEN"] and new["ID"] == found["ID"] and "SHELL_ONLY" not in host.read(ENV)

    replaced = module.must("env_file", path=ENV, values={"ONLY": "1"}, generate={"ID": "uuid"}, merge="replace")
    assert values(host) == {"ONLY": "1", "ID": new["ID"]} and replaced["names"] == ["ID", "ONLY"]
    assert stat(host) == "www-data:www-data 600 1 regular file" and host.read(ENV).startswith("# by hand\n")
    assert not module.must("env_file", path=f"{PLACE}/other", values={})["changed"] and not host.exists(f"{PLACE}/other")


def test_rules_are_looked_at_before_anything_is_written(host, fresh):
    module = Direct(host)
    host.write(ENV, "A=before\n")
    rules = [
        {"name": "production", "when": {"PRODUCTION": "1"}, "equals": {"DRIVER": "r2"}},
        {"required": ["SECRET"]},
        {"url": {"A": {"reachable": True, "timeout": 2}}},
    ]
    asked = {
        "path": ENV,
        "values": {"DRIVER": "local", "SECRET": "x", "A": "http://127.0.0.1:9/"},
        "overrides": {"PRODUCTION": 1},
        "rules": rules,
    }
    for flags in ((), ("--check",)):
        result = module("env_file", *flags, **asked)
        assert result["failed"] and [one["rule"] for one in result["findings"]] == ["production", "A.url"]
        assert "DRIVER: found another value; expected r2 when PRODUCTION is 1. Set DRIVER to r2." in result["msg"]
        assert "A: found an error (Connection refused); expected a connection to its host, port 9, within 2 s." in result["msg"]
        assert host.read(ENV) == "A=before\n"
    waivers = [
        {"rule": "production", "reason": "R2 is down", "until": "2999-01-01"},
        {"rule": "A.url", "reason": "starts later", "until": "2999-01-01"},
        {"rule": "SECRET.required", "reason": "none", "until": "2020-01-01"},
        {"rule": "of-another-check", "reason": "none", "until": "2999-01-01"},
    ]
    result = module.must("env_file", **asked, waivers=waivers)
    assert [(one["severity"], one["until"]) for one in result["findings"]] == [("waived", "2999-01-01")] * 2 + [("warning", "")]
    assert "waived until 2999-01-01 (production): r2 is down" in " ".join(result["said"].split()).lower()
    assert "waiver of SECRET.required: found that it ended with 2020-01-01" in " ".join(result["said"].split())
    module.refused("env_file", "rules: rule 1: it says nothing", "waivers: waiver 1: rule", **{**asked, "rules": [{}], "waivers": [{}]})


def test_what_is_no_file_of_its_own_is_refused(host, fresh):
    """The app can write to the directory: root must not read, nor hand out, what a link there leads to."""
    direct = Direct(host)
    asked = {"values": {"A": "1"}, "owner": "www-data", "group": "www-data"}
    host.write(f"{PLACE}/secret", "SECRET=canary\n", "0600")
    host.run(["ln", "-s", "secret", ENV])
    direct.refused(
        "env_file", f"{ENV} is a symbolic link to secret; allowed: a file of its own.", "Put the file itself there", path=ENV, **asked
    )
    host.run(["ln", "-sfn", "/nowhere", ENV])
    direct.refused("env_file", "is a symbolic link to /nowhere", path=ENV, **asked)
    host.run(["ln", "-f", f"{PLACE}/secret", ENV])
    direct.refused("env_file", "has 2 names (hard links); allowed: one.", path=ENV, **asked)
    host.run(["sh", "-c", f"rm {ENV} && mkfifo {ENV}"])
    direct.refused("env_file", f"{ENV} is no file.", path=ENV, **asked)
    host.run(["sh", "-c", f"rm {ENV} && mkdir {ENV}"])
    direct.refused("env_file", f"{ENV} is no file.", path=ENV, **asked)
    direct.refused("env_file", f"The directory {PLACE}/none does not exist.", path=f"{PLACE}/none/.env", **asked)
    direct.refused("env_file", "The account nobody-here does not exist", path=f"{PLACE}/x", values={"A": "1"}, owner="nobody-here")
    direct.refused("env_file", "mode: found 0644; allowed: octal in quotes, nothing for others", path=f"{PLACE}/x", mode="0644")
    assert host.read(f"{PLACE}/secret") == "SECRET=canary\n" and stat(host, f"{PLACE}/secret").startswith("root:root 600")
    # What systemd gives a service nothing of.
    host.run(["sh", "-c", f"rmdir {ENV} && printf 'A=1\\nB=\\377canary\\n' > {ENV}"])
    direct.refused("env_file", f"{ENV} is not UTF-8 in line 2", path=ENV, **asked)
    host.run(["sh", "-c", f"printf 'A=1\\nB=x\\000y\\n' > {ENV}"])
    direct.refused("env_file", "there is a NUL byte in line 2", path=ENV, **asked)


def test_strange_files_and_a_megabyte(host, fresh):
    direct = Direct(host)
    # A BOM, CRLF, a duplicate, and quotes of every kind stay what they are.
    text = "\ufeffFIRST=1\r\nA='1'\r\nB=\"two\r\nlines\"\r\nA=2\r\nC=x\\\r\n"
    host.write(ENV, text)
    result = direct.must("env_file", path=ENV, values={"D": "4"})
    assert values(host) == {"A": "2", "B": "two\r\nlines", "C": "x", "D": "4"} and host.read(ENV) == text + "D=4\n"
    assert {one.split(":")[0] for one in result["disagreements"]} == {"FIRST", "B", "C", "a name that is not shown"}

    many = {f"KEY_{number:05}": f"value {number} \\ # = ' and some more" for number in range(25000)}
    host.write(ENV, "".join(dialects.written(name, value)[0] for name, value in many.items()))
    assert int(host.run(["stat", "-c", "%s", ENV]).stdout) > 1_000_000
    result = direct.must("env_file", path=ENV, values={"KEY_12345": "new", "KEY_NEW": "new"})
    assert result["changed_names"] == ["KEY_12345"] and result["added"] == ["KEY_NEW"] and result["disagreements"] == []
    assert values(host) == {**many, "KEY_12345": "new", "KEY_NEW": "new"}


def test_two_at_once_lose_nothing(host, fresh):
    """Eight that each add a variable, all at the same time; and one that has to wait for another says so."""
    direct = Direct(host)
    results = []

    def add(number):
        results.append(direct("env_file", path=ENV, values={f"KEY_{number}": str(number)}, generate={"TOKEN": "token_urlsafe"}))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [one for one in results if one.get("failed")]
    assert {f"KEY_{number}" for number in range(8)} | {"TOKEN"} == set(values(host))
    # Made once, whoever came first.
    assert sum(one["generated"] == ["TOKEN"] for one in results) == 1
    assert host.run(["ls", "-A", PLACE]).stdout.split() == [".env"]


def test_the_collection_ships_the_presets():
    """The role finds them by their names."""
    role = Path(REPOSITORY) / "roles" / "environment"
    spec = (role / "meta" / "argument_specs.yml").read_text()
    names = sorted(path.stem for path in (role / "files" / "presets").glob("*.yml"))
    assert f"choices: [{', '.join(names)}]" in spec
