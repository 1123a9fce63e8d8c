# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One report of all hosts, as data."""

from __future__ import annotations

from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _report

DISK = {
    "severity": "error",
    "subject": "disk space of /opt",
    "found": "12 MB free",
    "expected": "at least 256 MB free",
    "fix": "Make room.",
    "rule": "",
}
CLOCK = {"severity": "warning", "subject": "clock", "found": "3 s off", "expected": "at most 1 s", "fix": "", "rule": "clock"}
LOCAL = {
    "severity": "waived",
    "subject": "ATTACHMENT_STORAGE_DRIVER",
    "found": "local",
    "expected": "r2",
    "fix": "",
    "rule": "r2",
    "until": "2026-12-01",
    "reason": "the bucket moves",
}
KEY = {**DISK, "subject": "ATTACHMENT_SECRET", "rule": "ATTACHMENT_SECRET.not_default"}


def told(answers):
    findings = _report.findings_of(answers)
    return _report.text("shop", len(answers), findings), findings


def test_nothing_in_the_way():
    assert told({"web1": {"findings": []}, "web2": {"findings": []}}) == ("shop on 2 hosts: nothing is in the way.", [])


def test_the_worst_first_and_the_same_once():
    text, findings = told({"web1": {"findings": [LOCAL, CLOCK, DISK]}, "web2": {"findings": [DISK, KEY]}})
    assert [(one["severity"], one["host"]) for one in findings] == [
        ("error", "web2"),
        ("error", "web1"),
        ("error", "web2"),
        ("warning", "web1"),
        ("waived", "web1"),
    ]
    lines = text.splitlines()
    assert lines[0] == "shop on 2 hosts: 3 errors, 1 warning, 1 waived. Nothing was touched."
    assert "- error on web1, web2: disk space of /opt" in lines
    assert "    found:      12 MB free" in lines
    assert "    what to do: Make room." in lines
    assert "    its rule:   ATTACHMENT_SECRET.not_default (app_waivers can let it pass for a while, with a reason)" in lines
    assert "    waived:     until 2026-12-01: the bucket moves" in lines
    assert text.index("ATTACHMENT_SECRET") < text.index("clock") < text.index("ATTACHMENT_STORAGE_DRIVER")


def test_a_host_that_says_nothing_is_an_error():
    """Fails when only hosts with findings are looked at: nobody looked at this one."""
    for answer in (
        None,
        {"unreachable": True, "msg": "ssh: connect to host web2 port 22: No route to host"},
        {"failed": True, "msg": "no sudo"},
    ):
        text, findings = told({"web1": {"findings": []}, "web2": answer})
        assert [(one["severity"], one["host"], one["subject"]) for one in findings] == [("error", "web2", "the host itself")]
        assert (answer or {"msg": "it gave no answer"})["msg"] in text


def test_warnings_alone_stop_nothing():
    text, _findings = told({"web1": {"findings": [CLOCK]}})
    assert text.splitlines()[0] == "shop on 1 host: 1 warning."


def test_one_machine_under_two_names():
    """It would be deployed to twice at once."""
    text, findings = told(
        {"web1": {"findings": [], "machine": "a"}, "web2": {"findings": [], "machine": "b"}, "www": {"findings": [], "machine": "a"}}
    )
    assert [(one["host"], one["severity"]) for one in findings] == [("www", "error")]
    assert "the same machine as web1" in text and "Nothing was touched." in text


def test_what_was_found_beside_the_hosts():
    beside = [{**DISK, "subject": "load balancer lb1"}]
    findings = _report.findings_of({"web1": {"findings": [CLOCK]}, "web2": {"findings": []}}, beside)
    assert [(one["host"], one["subject"]) for one in findings] == [("web1", "load balancer lb1"), ("web1", "clock")]
