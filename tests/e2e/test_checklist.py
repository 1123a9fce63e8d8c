# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checklist of docs/checklists.md as one playbook: what it looks for by hand is found, before users are."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator

import pytest
import yaml
from e2e.apps import App
from e2e.conftest import NewApp

from lab.deployment import REPOSITORY, Played
from lab.hosts import Host
from lab.s3 import KNOWN, WRONG_SECRET, Bucket, ObjectStore

BUCKET = "checklist"
PASSWORD = "canary-of-the-shops-password"
# The lab's storage is no R2: no TLS, and no account in its name.
LAB = [{"rule": rule, "reason": "the lab's own storage", "until": "2999-12-31"} for rule in ("r2-endpoint-url", "r2-endpoint-account")]


@pytest.fixture(scope="module")
def store(host: Host) -> Iterator[ObjectStore]:
    store = ObjectStore(host)
    store.start()
    store.bucket(BUCKET)
    yield store
    store.stop()


@pytest.fixture(scope="module")
def shop(new_shop: NewApp, host: Host, store: ObjectStore) -> App:
    declared = yaml.safe_load((REPOSITORY / "examples" / "checklists" / "r2_storage.yml").read_text())
    return new_shop("checklist", [host], app_watch=3, app_waivers=LAB, **declared, **secrets(store))


def secrets(store: ObjectStore, identity: str = "read_write") -> dict[str, object]:
    one = WRONG_SECRET if identity == "wrong_secret" else KNOWN[identity]
    return {
        "vault_r2_account_id": "0123456789abcdef0123456789abcdef",
        "vault_r2_bucket_name": BUCKET,
        "vault_r2_endpoint": store.endpoint,
        "vault_r2_access_key_id": one.access_key_id,
        "vault_r2_secret_access_key": one.secret_access_key,
        "vault_shop_password": PASSWORD,
    }


def refused(played: Played, *said: str) -> None:
    assert not played.ok, played.output
    assert "Nothing was touched." in played.output
    missing = [text for text in said if text not in played.output]
    assert not missing, (missing, played.output)


def test_the_checklist_is_one_playbook(shop: App, store: ObjectStore) -> None:
    """Fails without the preflight: the wrong secret would come out when the release starts."""
    shop.project.must("provision")
    shop.declare(**secrets(store, "wrong_secret"))
    refused(shop.project.play("deploy", app_version="1.0.0"), "the secret access key does not belong to the access key id")
    assert not shop.manifests()
    shop.declare(**secrets(store, "read_only"))
    refused(shop.project.play("preflight"), "may not write")

    shop.declare(**secrets(store))
    deployed = shop.project.play("deploy", "-vvv", "--diff", app_version="1.0.0")
    assert deployed.ok, deployed.output
    assert shop.version() == "1.0.0"
    assert "Bucket access verified" in shop.host.read(f"/var/log/{shop.name}/error.log")
    # The probe and the smoke test have cleaned up.
    assert Bucket(store, BUCKET).objects() == []
    for secret in (PASSWORD, KNOWN["read_write"].secret_access_key):
        assert secret not in deployed.output
    again = shop.project.play("deploy", app_version="1.0.0")
    assert again.ok and again.recap(shop.host.name)["changed"] == 0, again.output
    assert shop.host.run(["stat", "--format=%a %U", f"{shop.root}/shared/.env"]).stdout.split() == ["600", "www-data"]


def test_a_fallback_to_local_files_never_gets_users(shop: App) -> None:
    """The rule refuses it; with the rule waived, the log gives it away, and the old release goes on."""
    local = {"app_env": {"PRODUCTION": "1", "ATTACHMENT_STORAGE_DRIVER": "local", "SHOP_PASSWORD": PASSWORD}, "app_preflight_checks": []}
    refused(shop.project.play("deploy", app_version="1.1.0", **local), "r2-driver")
    waivers = [*LAB, *({"rule": one, "reason": "moving", "until": "2999-12-31"} for one in ("r2-driver", "r2-settings"))]
    played = shop.project.play("deploy", app_version="1.1.0", app_waivers=waivers, **local)
    assert not played.ok
    assert "Using local filesystem storage" in played.output
    assert "waived:     until 2999-12-31: moving" in played.output
    assert shop.version() == "1.0.0"
    lines = shop.host.read(f"/var/log/{shop.name}/deployment.log").splitlines()
    told: list[dict[str, t.Any]] = [json.loads(line) for line in lines]
    assert any("r2-driver until 2999-12-31: moving" in one.get("waived", []) for one in told)
