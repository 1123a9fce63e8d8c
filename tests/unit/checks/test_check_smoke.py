# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type smoke: exchanges that depend on each other, against a server that keeps what it is given."""

from __future__ import annotations

import email
import email.policy
import json
import time
from dataclasses import asdict

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._checks import engine
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

CANARIES = ("pa-canary-ss", "tok-canary-en", "sig-canary-nature", "ref-canary-esh")
PASSWORD, TOKEN, SIGNATURE, REFRESH = CANARIES


class Store:
    """An app that keeps files, with one thing wrong at a time."""

    def __init__(self, storage=None, elsewhere=False):
        self.elsewhere = elsewhere
        self.files = {}
        self.wrong = ""
        self.storage = storage
        self.last_id = 40

    def __call__(self, handler):
        kind, _slash, rest = handler.path.lstrip("/").partition("/")
        body = handler.received()
        if kind == "login":
            assert json.loads(body) == {"user": "shop", "password": PASSWORD} and handler.headers["Content-Type"] == "application/json"
            if self.wrong in ("created", "leaks"):
                return handler.answer(*(500, {"user": {"token": TOKEN * 50}}) if self.wrong == "leaks" else (201, {"refresh": REFRESH}))
            return handler.answer(200, {"user": {"token": TOKEN}} if self.wrong != "login" else {"error": PASSWORD})
        if kind == "signed":
            assert handler.headers["Authorization"] is None
            assert not self.elsewhere or handler.headers["Host"] != "shop.example.com", "what is for the app goes to nobody else"
            name, _question, query = rest.partition("?")
            assert query == f"signature={SIGNATURE}"
            content = b"another content" if self.wrong == "content" else self.files[int(name)]
            return handler.answer(200, content)
        if handler.headers["Authorization"] != f"Bearer {TOKEN}" or handler.headers["Host"] != "shop.example.com":
            return handler.answer(401, {"error": "who are you?"})
        if handler.command == "POST":
            self.last_id += 1
            part = email.message_from_bytes(
                b"Content-Type: " + handler.headers["Content-Type"].encode() + b"\r\n\r\n" + body, policy=email.policy.default
            )
            self.files[self.last_id] = next(part.iter_parts()).get_payload(decode=True)
            place = (
                f"{self.storage.url}/signed/{self.last_id}?signature={SIGNATURE}"
                if self.storage
                else f"/signed/{self.last_id}?signature={SIGNATURE}"
            )
            answer = {"attachment_id": self.last_id, "storage_path": f"r2://{self.last_id}", "url": place}
            if self.wrong == "slow":
                time.sleep(1)
            if self.wrong == "storage_path":
                del answer["storage_path"]
            return handler.answer(500 if self.wrong == "status" else 201, answer)
        if handler.command == "GET":
            time.sleep(1 if self.wrong == "hang" else 0)
            return handler.answer(200, {"attachment_id": int(rest)})
        del self.files[int(rest)]
        return handler.answer(500 if self.wrong == "cleaning" else 204)


BEARER = {"Authorization": "Bearer {token}"}
STEPS = [
    {"name": "log in", "url": "/login", "body": {"user": "shop", "password": PASSWORD}, "capture": {"token": "user.token"}},
    {
        "name": "upload",
        "url": "/attachments",
        "headers": BEARER,
        "form": {"file": {"content": "written by {unique}", "filename": "smoke.txt"}},
        "status": [201],
        "capture": {"id": "attachment_id", "path": "storage_path", "url": "url"},
    },
    {"name": "look", "url": "/attachments/{id}", "headers": BEARER, "json": {"attachment_id": "{id}"}},
    {"name": "fetch", "url": "{url}", "equals": {"content": "written by {unique}"}},
    {"name": "clean up", "url": "/attachments/{id}", "method": "DELETE", "headers": BEARER, "status": [204], "always": True},
]


@pytest.fixture
def run(serve, check, tmp_path):
    """Run the steps against a store, by default over a Unix socket with the files elsewhere."""
    elsewhere = Store(elsewhere=True)
    store = Store(serve(elsewhere))
    elsewhere.files = store.files
    path = str(tmp_path / "s")
    server = serve(store, path)

    def smoke(steps=None, wrong="", **options):
        elsewhere.wrong = store.wrong = wrong
        store.files.clear()
        server.requests.clear()
        steps = STEPS if steps is None else steps
        verdict = check(type="smoke", unix_socket=path, headers={"Host": "shop.example.com"}, steps=steps, **options)
        smoke.asked, smoke.left = list(server.requests), dict(store.files)
        told = json.dumps(asdict(verdict))
        assert not [canary for canary in CANARIES if canary in told], told
        return verdict

    return smoke


def test_values_are_carried_from_step_to_step(run, serve, check):
    verdict = run()
    assert verdict.verdict == "pass", verdict
    assert run.asked == ["POST /login", "POST /attachments", "GET /attachments/41", "DELETE /attachments/41"] and not run.left
    assert [step["step"] for step in verdict.found["steps"]] == [step["name"] for step in STEPS]
    assert "5 steps in" in verdict.evidence and "upload" in verdict.evidence
    # Over TCP, and with an address that is only a path.
    assert check(type="smoke", url=f"{serve(Store()).url}/", headers={"Host": "shop.example.com"}, steps=STEPS).verdict == "pass"


@pytest.mark.parametrize(
    "wrong,said,left",
    [
        ("login", "step 1 of 5, log in: the answer has no user.token; clean up had nothing to do, without id", 0),
        ("created", "step 1 of 5, log in: POST", 0),
        ("leaks", "step 1 of 5, log in: POST", 0),
        ("status", "step 2 of 5, upload: POST", 0),
        ("storage_path", "step 2 of 5, upload: the answer has no storage_path; passed: log in, clean up", 0),
        ("content", "step 4 of 5, fetch: the body is another one: found 15 bytes, expected 43", 0),
        ("cleaning", "step 5 of 5, clean up: DELETE", 0),
    ],
)
def test_a_step_that_fails_is_named_and_what_was_made_is_cleaned_up(run, wrong, said, left):
    verdict = run(wrong=wrong)
    assert verdict.verdict == "fail" and said in verdict.evidence, verdict.evidence
    assert len(run.left) == left


def test_cleaning_up_has_time_of_its_own(run):
    """Fails when a step that hangs may use all the time that there is."""
    verdict = run(wrong="slow", timeout=0.8)
    assert verdict.verdict == "fail" and "step 2 of 5, upload" in verdict.evidence and verdict.elapsed < 1.5
    verdict = run(wrong="hang", timeout=0.8)
    assert verdict.verdict == "fail" and "step 3 of 5, look" in verdict.evidence and "passed: log in, upload, clean up" in verdict.evidence
    assert not run.left


def test_what_was_captured_is_no_secret_shorter_than_a_word(run):
    steps = [*STEPS[:2], {"name": "look", "url": "/attachments/{id}", "headers": {"Authorization": "Bearer {token}x"}}, STEPS[4]]
    verdict = run(steps)
    assert "GET" in verdict.evidence and "/attachments/41 answered 401" in verdict.evidence and "who are you?" in verdict.evidence


def test_it_is_tried_until_it_is_good(run, tmp_path):
    verdict = run(deadline=3, interval=0.05, successes=3)
    assert verdict.verdict == "pass" and verdict.attempts == 3 and not run.left
    (tmp_path / "same").write_text("same")
    steps = [
        STEPS[0],
        {**STEPS[1], "form": {"file": {"path": str(tmp_path / "same")}}},
        {**STEPS[3], "equals": {"path": str(tmp_path / "same")}},
        STEPS[4],
    ]
    assert run(steps).verdict == "pass"
    assert run([*steps[:2], {**steps[2], "equals": {"path": "/nonesuch"}}, STEPS[4]]).verdict == "unknown" and not run.left


@pytest.mark.parametrize(
    "steps,said",
    [
        ([{"url": "/"}], "step 1: name: it is missing"),
        ([{"name": "x", "url": "login"}], "step 1 (x): url: found"),
        ([{"name": "x", "url": "/", "boddy": "x"}], "found boddy, allowed: name, url"),
        ([{"name": "x", "url": "/{token}"}], "found {token}, which no step before it captures; captured: unique"),
        ([{"name": "x", "url": "/", "body": "x", "form": {"a": "b"}}], "body, form: found both"),
        ([{"name": "x", "url": "/", "capture": {"a b": "c"}}], "capture: found"),
        ([{"name": "x", "url": "/", "equals": {"contents": "c"}}], "equals: it has to be"),
        ([{"name": "x", "url": "/", "pattern": "("}], "pattern: found"),
        ([{"name": "x", "url": "/", "status": ["201"]}], "status: found"),
        ([], "steps: found"),
    ],
)
def test_mistakes(steps, said):
    with pytest.raises(Failure) as failure:
        engine.validate([{"type": "smoke", "url": "http://x/", "steps": steps}])
    told = failure.value.message()
    assert said in told or (not steps and "steps" in told)
