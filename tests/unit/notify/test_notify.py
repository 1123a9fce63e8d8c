# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages that reach real servers, and those that do not; no run that fails for it, and no URL in any output."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import apprise
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.bulletproof.deploy.examples import versions
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _notify, _notify_sender

from lab.deployment import SHOP

ROOT = pathlib.Path(__file__).parents[3]
SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
TEAMS = "https://prod-12.westus.logic.azure.com:443/workflows/643e69f83c8944/triggers/manual/paths/invoke?api-version=2016-06-01&sp=%2Ft&sig=KODuebWbDGYFr0z0eu"

PLAY = """
- hosts: web1,web2
  gather_facts: false
  connection: local
  any_errors_fatal: true
  tasks:
    - block:
        - ansible.builtin.import_role: {name: bulletproof.deploy.notify, rolespec_validate: false}
          vars: {notify_event: start, notify_timeout: 2.5}
        - ansible.builtin.import_role: {name: bulletproof.deploy.notify, rolespec_validate: false}
          vars: {notify_event: success, notify_title: "{{ nothing_of_that_name }}"}
        - ansible.builtin.fail: {msg: "The release is not healthy: no answer.\\nIts last words: x"}
          when: inventory_hostname == 'web2'
        - ansible.builtin.fail: {msg: "nothing went wrong on web2"}
          when: not ansible_check_mode
      rescue:
        - ansible.builtin.set_fact:
            switch_revert: "{{ {'serves': '1.4.1-ba9876543210', 'seconds': 0.04} if inventory_hostname == 'web1' else {'serves': '', 'seconds': 0} }}"
        - ansible.builtin.import_role: {name: bulletproof.deploy.notify, tasks_from: failed}
          vars: {notify_timeout: 2.5}
"""


def told(where, behaviour):
    return [came for does, _secret, came in where.came if does == behaviour]


def ansible(tmp_path, *command):
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
    }
    return subprocess.run(["ansible-playbook", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def play(tmp_path, urls, *arguments):
    """Run the role as a user's playbook does, its first URL encrypted. Returns its output; it has to end well."""
    vault = VaultLib([("default", VaultSecret(b"canary-vault"))]).encrypt(urls[0]).decode()
    lines = ["app_name: shop", "app_version: 1.4.2", "app_notify:", "  - !vault |", *("      " + line for line in vault.splitlines())]
    (tmp_path / "vars.yml").write_text("\n".join([*lines, *("  - " + json.dumps(url) for url in urls[1:]), ""]))
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "password").write_text("canary-vault")
    done = ansible(tmp_path, "-i", "web1,web2", "--vault-password-file", "password", "-e", "@vars.yml", "play.yml", *arguments)
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, output
    assert "canary" not in output.replace("canary-vault", "") and "KODuebWb" not in output and "TIiajkdn" not in output, output
    return output


def test_a_run_tells_people_and_does_not_depend_on_it(tmp_path, webhook, mailbox):
    output = play(
        tmp_path,
        [
            webhook.url("ok"),
            {"url": mailbox.url("ops"), "events": ["failure"], "name": "operators"},
            webhook.url("500"),
            {"url": webhook.url("hang"), "events": ["failure"]},
            {"url": webhook.url("drip"), "events": ["revert"]},
            "https://canary-host.invalid/canary-token",
            "json://canary-user:canary-password@127.0.0.1:9/canary-token",
            {"url": mailbox.url("nobody"), "events": ["revert"]},
        ],
        "-vvv",
        "--diff",
    )
    start, revert = told(webhook, "ok")
    assert (start["title"], start["message"], start["type"]) == ("shop 1.4.2: deploy begins", "Hosts: web1, web2", "info")
    assert (revert["title"], revert["type"]) == ("shop 1.4.2: deploy failed, and was taken back", "failure")
    assert revert["message"].splitlines() == [
        "Hosts: web1, web2",
        "Why, on web2: The release is not healthy: no answer.",
        "web1 serves 1.4.1-ba9876543210.",
        "web2 serves nothing.",
        "Next: ansible-playbook bulletproof.deploy.status",
    ]
    (mail,) = mailbox.mails
    assert mail["Subject"] == revert["title"] and "ops@example.org" in mail["To"]
    assert "Why, on web2: The release is not healthy: no answer." in mail.get_body(("plain", "html")).get_content()
    for event in ("start", "revert"):
        for to, why in [
            ("json (3 of 8)", "it answered HTTP 500"),
            ("https (6 of 8)", "its host name is not known here"),
            ("json (7 of 8)", "the connection was refused"),
        ]:
            assert f"The notification of {event} did not reach {to}: {why}." in output, (to, why, output)
    for to, why in [
        ("json (4 of 8)", "no answer within 2.5 s"),
        ("json (5 of 8)", "no answer within 2.5 s"),
        ("mailto (8 of 8)", "it answered SMTP 550"),
    ]:
        assert (
            f"The notification of revert did not reach {to}: {why}." in output
            and f"The notification of start did not reach {to}" not in output
        )
    # The message that cannot be put together: nothing was sent, and the run went on to the failure that is its own.
    assert "notify_title cannot be evaluated: 'nothing_of_that_name' is undefined" in output and len(told(webhook, "500")) == 2
    assert "nothing went wrong on web2" not in output
    assert webhook.processes and "canary" not in "".join(webhook.processes)


def test_check_mode_sends_nothing_and_says_what_it_would_send(tmp_path, webhook):
    output = play(tmp_path, [webhook.url("ok"), {"url": SLACK, "name": "the team"}, TEAMS, "canarie://x"], "--check")
    assert webhook.came == []
    assert "Would be sent to json (1 of 4), the team (2 of 4), https (3 of 4): shop 1.4.2: deploy begins Hosts: web1, web2" in output
    assert "The notification of start would not reach canarie (4 of 4): apprise does not understand its URL." in output


def test_a_deploy_that_is_refused_is_told(tmp_path, webhook):
    """Hosts that do not answer are the simplest that preflight has to refuse. Fails where only what comes after it is rescued."""
    versions.make_tree(tmp_path / "tree", "flask", "1.0.0")
    declared = {
        **SHOP,
        "app_source": {"directory": str(tmp_path / "tree")},
        "app_version": "1.0.0",
        "app_notify": [webhook.url("ok")],
        "ansible_host": "127.0.0.1",
        "ansible_port": 9,
    }
    (tmp_path / "app.json").write_text(json.dumps({"app": {"hosts": {"web1": {}, "web2": {}}, "vars": declared}}))
    done = ansible(tmp_path, "-i", "app.json", "bulletproof.deploy.deploy")
    (failure,) = told(webhook, "ok")
    assert failure["title"] == "shop 1.0.0: deploy failed" and failure["type"] == "failure"
    assert failure["message"].splitlines()[:2] == ["Hosts: web1, web2", "Why, on web1: shop on 2 hosts: 2 errors. Nothing was touched."]
    assert done.returncode == 2 and "was not deployed, and nothing was touched" in done.stdout, done.stdout


def test_without_apprise_it_says_how_to_install_it(tmp_path, monkeypatch, webhook):
    (tmp_path / "apprise.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (verdict,) = _notify.send(_notify.targets([webhook.url("ok")], ["start"]), "start", "t", "b", timeout=10)
    assert not verdict.sent and f"{sys.executable} -m pip install apprise" in verdict.why and webhook.came == []


def test_the_time_out_holds_even_for_a_process_that_does_not_begin(monkeypatch, tmp_path):
    (tmp_path / "sender.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(_notify, "_SENDER", str(tmp_path / "sender.py"))
    began = time.monotonic()
    (verdict,) = _notify.send(_notify.targets(["json://h/canary"], ["start"]), "start", "t", "b", timeout=0.5)
    assert verdict.why == "no answer within 0.5 s" and time.monotonic() - began < 5


@pytest.mark.parametrize(
    "wrong",
    [
        *("canary", "json://host/a canary", 5, None, True, [], {}),
        *({"url": "canary"}, {"url": 5}, {"url": "a://canary", True: ["start"]}),
        *({"url": "a://b", "events": "failure"}, {"url": "a://canary", "events": ["end"]}, {"url": "a://canary", "name": ["x"]}),
    ],
)
def test_what_is_no_url_is_named_by_its_place(wrong):
    assert not _notify.allowed([SLACK, wrong])
    with pytest.raises(_notify.Failure) as failure:
        _notify.targets([SLACK, wrong], ["start"])
    assert failure.value.what.startswith("URL 2 of 2") and "canary" not in failure.value.message()


@pytest.mark.parametrize(
    "url,kind",
    [(SLACK, "Slack"), (TEAMS, "Workflows"), ("https://example.org/hook?a=b", "JSON"), ("HTTP://example.org", "JSON"), ("canarie://x", "")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_web_address_is_the_service_that_gives_out_such_ones(url, kind):
    found = _notify_sender.service(apprise, url)
    assert type(found).__name__ == f"Notify{kind}" if kind else found is None


def test_who_is_told_what():
    failures, reverts, all_of_them = _notify.targets(
        [{"url": SLACK, "events": ["failure"]}, {"url": SLACK, "events": ["revert"], "name": "ops"}, SLACK], _notify.EVENTS
    )
    assert [one.label for one in (failures, reverts, all_of_them)] == ["https (1 of 3)", "ops (2 of 3)", "https (3 of 3)"]
    assert [one.wants("revert") for one in (failures, reverts, all_of_them)] == [True, True, True]
    assert [one.wants("failure") for one in (failures, reverts, all_of_them)] == [True, False, True]
    assert [one.wants("success") for one in (failures, reverts, all_of_them)] == [False, False, True]


@pytest.mark.parametrize(
    "said,why",
    [
        ([], "it was not accepted"),
        (["Failed to send Slack notification: error=404."], "it answered HTTP 404"),
        (["Socket Exception: (535, b'5.7.8 canary')"], "it answered SMTP 535"),
        (
            ["A Connection error", "Socket Exception: [SSL: CERTIFICATE_VERIFY_FAILED] (host='canary')"],
            "its TLS certificate is not trusted",
        ),
        (
            ["Socket Exception: Max retries exceeded with url: /canary/refused (odd)"],
            "Socket Exception: Max retries exceeded with url: /***/refused (odd)",
        ),
        (["x canary%2Ftoken y canary/token z\n" + "long " * 100], "x *** y ***/*** z"),
    ],
)
def test_why_without_a_part_of_the_url(said, why):
    told = _notify_sender.cause(said, "slack://canary%2Ftoken@canary/token")
    assert told.startswith(why) and "canary" not in told and len(told) <= 200
