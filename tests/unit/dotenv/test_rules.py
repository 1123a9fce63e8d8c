# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules for an environment, the presets, and waivers: as data."""

from __future__ import annotations

import datetime
import json
import pathlib

import pytest
import yaml
from ansible_collections.bulletproof.deploy.plugins.module_utils import _waivers
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import rules
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._findings import Finding

PRESETS = pathlib.Path(__file__).parents[3] / "roles" / "environment" / "files" / "presets"
ACCOUNT = "0123456789abcdef0123456789abcdef"
R2 = {
    "R2_ACCOUNT_ID": ACCOUNT,
    "R2_ENDPOINT": f"https://{ACCOUNT}.r2.cloudflarestorage.com",
    "R2_BUCKET_NAME": "shop",
    "R2_ACCESS_KEY_ID": "fedcba9876543210fedcba9876543210",
    "R2_SECRET_ACCESS_KEY": "8e7d6c5b4a39281706f5e4d3c2b1a0998877665544332211ffeeddccbbaa0099",
    "ATTACHMENT_STORAGE_DRIVER": "r2",
    "PRODUCTION": "1",
}


def found(rule_list, environment, reached=lambda host, port, timeout: ""):
    return [(one.rule, one.severity) for one in rules.check(rules.checked(rule_list), environment, reached)]


@pytest.mark.parametrize(
    "rule,environment,names",
    [
        ({"required": ["A", "B"]}, {"A": "canary"}, ["B.required"]),
        ({"required": ["A"]}, {"A": ""}, ["A.required"]),
        ({"required": ["A"], "name": "mine"}, {}, ["mine"]),
        ({"forbidden": ["A", "B"]}, {"A": "canary", "B": ""}, ["A.forbidden"]),
        ({"pattern": {"A": "[a-z]+"}}, {"A": "canary"}, []),
        ({"pattern": {"A": "[a-z]+"}}, {"A": "canary 1"}, ["A.pattern"]),
        ({"pattern": {"A": "[a-z]+"}}, {}, []),
        ({"one_of": {"A": ["x", 1]}}, {"A": "1"}, []),
        ({"one_of": {"A": ["x", 1]}}, {"A": "canary"}, ["A.one_of"]),
        ({"equals": {"A": "1"}}, {"A": "1"}, []),
        ({"equals": {"A": 1}}, {"A": "canary"}, ["A.equals"]),
        ({"equals": {"A": "1"}}, {}, ["A.equals"]),
        ({"not_default": {"A": ["canary"]}}, {"A": " Canary "}, ["A.not_default"]),
        ({"not_default": {"A": ["canary"]}}, {"A": "canary1"}, []),
        ({"entropy": {"A": 64}}, {"A": "canarycanarycanarycanary"}, ["A.entropy"]),
        ({"entropy": {"A": 128}}, {"A": "8e7d6c5b4a39281706f5e4d3c2b1a0998877665544332211ffeeddccbbaa0099"}, []),
        ({"entropy": {"A": 1}}, {"A": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, ["A.entropy"]),
        ({"url": {"A": {"schemes": ["https"]}}}, {"A": "https://canary/x"}, []),
        ({"url": {"A": {"schemes": ["https"]}}}, {"A": "http://canary/x"}, ["A.url"]),
        ({"url": {"A": {}}}, {"A": "canary"}, ["A.url"]),
        ({"url": {"A": {}}}, {"A": "https://"}, ["A.url"]),
        ({"url": {"A": {}}}, {"A": "https://canary:port/"}, ["A.url"]),
        ({"url": {"A": {"schemes": ["postgresql", "sqlite"]}}}, {"A": "postgresql+psycopg2://u:canary@h/d"}, []),
        ({"url": {"A": {"schemes": ["postgresql", "sqlite"]}}}, {"A": "sqlite:////srv/canary.db"}, []),
        ({"url": {"A": {"reachable": True}}}, {"A": "canary://host/"}, ["A.url"]),
        ({"required": ["A"], "when": {"P": "1"}}, {"P": "1"}, ["A.required"]),
        ({"required": ["A"], "when": {"P": "1"}}, {"P": "0"}, []),
        ({"required": ["A"], "when": {"P": [1, "yes"]}}, {"P": "yes"}, ["A.required"]),
        ({"required": ["A"], "when": {"P": [1, "yes"], "unset": ["Q"]}}, {"P": "1", "Q": "x"}, []),
        ({"required": ["A"], "when": {"set": ["P", "Q"]}}, {"P": "1"}, []),
        ({"required": ["A"], "when": {"set": ["P"], "unset": ["Q"]}}, {"P": "1", "Q": ""}, ["A.required"]),
        ({"endpoint_account": {"endpoint": "E", "account": "A"}}, {"E": "https://abc.r2.cloudflarestorage.com", "A": "abc"}, []),
        ({"endpoint_account": {"endpoint": "E", "account": "A"}}, {"E": "https://abc.eu.r2.cloudflarestorage.com/shop", "A": "ABC"}, []),
        (
            {"endpoint_account": {"endpoint": "E", "account": "A"}},
            {"E": "https://canary.r2.cloudflarestorage.com", "A": "abc"},
            ["E.endpoint_account"],
        ),
        (
            {"endpoint_account": {"endpoint": "E", "account": "A"}},
            {"E": "https://xabc.r2.cloudflarestorage.com", "A": "abc"},
            ["E.endpoint_account"],
        ),
        ({"endpoint_account": {"endpoint": "E", "account": "A"}}, {"E": "https://canary/abc", "A": "abc"}, ["E.endpoint_account"]),
        ({"endpoint_account": {"endpoint": "E", "account": "A"}}, {"E": "https://abc.r2.cloudflarestorage.com"}, []),
    ],
)
def test_a_rule(rule, environment, names):
    findings = rules.check(rules.checked([rule]), environment, lambda host, port, timeout: "")
    assert [one.rule for one in findings] == names
    assert set(names) <= rules.names([rule])
    # What the rule itself says is no secret; what was found is.
    said = json.dumps([str(one) for one in findings]).replace("postgresql", "")
    assert "canary" not in said


def test_reachable_urls_are_tried_at_once_and_only_their_port_is_told():
    tried = []

    def connect(host, port, timeout):
        tried.append((host, port, timeout))
        return "no answer" if host == "canary" else ""

    rule = {"url": {name: {"reachable": True, "timeout": 2} for name in "ABCD"}}
    environment = {"A": "postgresql://u:p@canary/d", "B": "redis://b:7000/0", "C": "https://[::1]/", "D": "sqlite:////x.db"}
    (finding,) = rules.check([rule], environment, connect)
    assert sorted(tried) == [("::1", 443, 2.0), ("b", 7000, 2.0), ("canary", 5432, 2.0)]
    assert str(finding).startswith("A: found no answer; expected a connection to its host, port 5432, within 2 s.")
    assert rules.tcp_connect("127.0.0.1", 1, 1) == "an error (Connection refused)"
    assert rules.tcp_connect("no.such.host.invalid", 1, 1) == "a host whose name cannot be resolved"


def test_a_finding_says_all_that_is_known():
    rule = {"required": ["B"], "when": {"P": ["1", "2"], "set": ["A"]}, "severity": "warning", "fix": "Ask Ann."}
    (finding,) = rules.check([rule], {"P": "2", "A": "x"})
    assert str(finding) == "B: found nothing; expected a value when P is 1 or 2 and A is set. Ask Ann."
    assert finding.severity == "warning" and finding.rule == "B.required"


def test_all_mistakes_in_rules_are_told_at_once():
    wrong = [
        {"requires": ["A"]},
        {"required": ["A"], "forbidden": ["B"]},
        {"required": "A"},
        {"required": ["1A"], "name": "mine"},
        {"pattern": {"A": "["}},
        {"equals": {"A": True}},
        {"one_of": {"A": "x"}},
        {"entropy": {"A": "64"}},
        {"url": {"A": {"scheme": "x"}}},
        {"endpoint_account": {"endpoint": "A"}},
        {"required": ["A"], "severity": "fatal", "when": {"P": True, "set": "Q", "1": "x"}, "fix": 1},
        "required",
    ]
    said = rules.mistakes(wrong)
    assert [one.partition(":")[0] for one in said] == (
        ["rule 1"] * 2
        + ["rule 2", "rule 3", "rule 4 (mine)", *(f"rule {number}" for number in range(5, 11))]
        + ["rule 11"] * 5
        + ["rule 12"]
    )
    assert "rule 1: requires: unknown; allowed: required, forbidden" in said[0]
    assert "rule 2: it says required, forbidden; allowed: exactly one of" in said[2]
    assert rules.mistakes("x") and rules.mistakes([]) == []
    with pytest.raises(Failure) as error:
        rules.checked(wrong)
    assert "17 mistakes" in error.value.message()


def test_of_several_rules_with_one_name_the_last_one_holds():
    assert found([{"name": "x", "required": ["A"]}, {"required": ["B"]}, {"name": "x", "required": ["C"], "severity": "warning"}], {}) == [
        ("B.required", "error"),
        ("x", "warning"),
    ]


def test_entropy_is_an_upper_bound():
    assert rules.entropy("") == 0 and rules.entropy("aaaa") == 0
    assert rules.entropy("ab") == 2 and round(rules.entropy("0123456789abcdef"), 6) == 64


def preset(name):
    return yaml.safe_load((PRESETS / f"{name}.yml").read_text())


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yml")), ids=lambda path: path.stem)
def test_presets_have_no_mistakes(path):
    assert rules.mistakes(yaml.safe_load(path.read_text())) == []


@pytest.mark.parametrize(
    "change,names",
    [
        ({}, []),
        ({"PRODUCTION": "0", "ATTACHMENT_STORAGE_DRIVER": "local"}, []),
        ({"ATTACHMENT_STORAGE_DRIVER": "local"}, ["r2-driver"]),
        ({"ATTACHMENT_STORAGE_DRIVER": ""}, ["r2-driver"]),
        ({"R2_BUCKET_NAME": "", "R2_SECRET_ACCESS_KEY": ""}, ["r2-settings", "r2-settings"]),
        ({"R2_ACCOUNT_ID": "f" * 32}, ["r2-endpoint-account"]),
        ({"R2_ENDPOINT": f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"}, []),
        ({"R2_ENDPOINT": f"http://{ACCOUNT}.r2.cloudflarestorage.com"}, ["r2-endpoint-url"]),
    ],
)
def test_the_preset_r2_production(change, names):
    assert [name for name, _severity in found(preset("r2_production"), {**R2, **change})] == names


@pytest.mark.parametrize(
    "name,environment,names",
    [
        ("flask", {"SECRET_KEY": "3hT9vQxw7RkLmN2pZs5yUcBf8JdGaEo1"}, []),
        ("flask", {}, ["flask-secret-key"]),
        ("flask", {"SECRET_KEY": "dev"}, ["flask-secret-key-default", "flask-secret-key-entropy"]),
        ("flask", {"SECRET_KEY": "3hT9vQxw7RkLmN2pZs5yUcBf8JdGaEo1", "FLASK_DEBUG": "1", "PRODUCTION": "1"}, ["flask-debug"]),
        ("fernet", {"FERNET_KEY": "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4="}, []),
        ("fernet", {"FERNET_KEY": "short"}, ["fernet-key-form"]),
        ("postgresql", {"DATABASE_URL": "postgresql://shop:pw@db/shop"}, []),
        ("postgresql", {"DATABASE_URL": "sqlite:////x.db"}, ["postgresql-url"]),
        ("postgresql", {}, ["postgresql-required"]),
    ],
)
def test_presets(name, environment, names):
    assert [one for one, _severity in found(preset(name), environment)] == names


TODAY = datetime.date(2026, 11, 22)


def finding(rule, severity="error"):
    return Finding(rule, "x", "y", "z", severity, rule)


def test_a_waiver_lets_a_finding_pass_until_its_last_day():
    waiver = {"rule": "a", "reason": "R2 is down", "until": "2026-11-22"}
    first, second = _waivers.apply([finding("a"), finding("b")], [waiver], TODAY)
    assert (first.severity, first.reason, first.until) == ("waived", "R2 is down", "2026-11-22") and second == finding("b")
    assert str(first).endswith("Waived until 2026-11-22 (a): R2 is down")

    first, note = _waivers.apply([finding("a")], [waiver], TODAY + datetime.timedelta(days=1))
    assert first.severity == "error" and note.severity == "warning"
    assert str(note).startswith("waiver of a: found that it ended with 2026-11-22: R2 is down; expected")


def test_a_waiver_that_matches_nothing_is_told_where_its_rule_was_looked_at():
    waiver = {"rule": "a", "reason": "x", "until": datetime.date(2030, 1, 1)}
    (note,) = _waivers.apply([], [waiver], TODAY)
    assert note.severity == "warning" and "nothing that it lets pass" in note.found
    assert _waivers.apply([], [waiver], TODAY, known=["b"]) == []
    assert len(_waivers.apply([], [waiver], TODAY, known=["a"])) == 1
    # What has no rule's name cannot be waived.
    assert _waivers.apply([finding("")], [], TODAY) == [finding("")]


def test_all_mistakes_in_waivers_are_told_at_once():
    wrong = [
        {"rule": "a", "reason": "x", "until": "2026-02-30"},
        {"rule": "a", "reason": " ", "until": "2026-12-01"},
        {"reason": "x", "until": "soon", "who": "me"},
        "a",
    ]
    with pytest.raises(Failure) as error:
        _waivers.checked(wrong)
    said = error.value.message().splitlines()
    assert said[0] == "app_waivers has 7 mistakes:" and len(said) == 8
    assert said[1] == "- waiver 1 (a): until: found 2026-02-30; allowed: a day, YYYY-MM-DD."
    assert "waiver 4: allowed is a mapping" in said[-1]
    assert _waivers.mistakes({}) and _waivers.checked([]) == []
