# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a bucket is there, who may ask it from a browser (CORS), and what leaves it by itself (lifecycle).

What is declared and what the storage has are brought into one form (a list of plain mappings, in a fixed order), so that they can be compared, and
that what is the same is left alone.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._object_store import Store
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

Rules = t.List[t.Dict[str, t.Any]]

# An option's name and the storage's, for what is a list of texts and for what is a number.
CORS_LISTS = {
    "allowed_origins": "AllowedOrigins",
    "allowed_methods": "AllowedMethods",
    "allowed_headers": "AllowedHeaders",
    "expose_headers": "ExposeHeaders",
}
METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
SPEC: t.Dict[str, t.Any] = {
    "create": {"type": "bool", "default": False},
    "cors": {
        "type": "list",
        "elements": "dict",
        "options": {
            "allowed_origins": {"type": "list", "elements": "str", "required": True},
            "allowed_methods": {"type": "list", "elements": "str", "required": True, "choices": list(METHODS)},
            "allowed_headers": {"type": "list", "elements": "str", "default": []},
            "expose_headers": {"type": "list", "elements": "str", "default": []},
            "max_age": {"type": "int"},
        },
    },
    "lifecycle": {
        "type": "list",
        "elements": "dict",
        "options": {
            "id": {"type": "str", "required": True},
            "prefix": {"type": "str", "default": ""},
            "expire_days": {"type": "int"},
            "abort_uploads_days": {"type": "int"},
            "enabled": {"type": "bool", "default": True},
        },
    },
}


@dataclass(frozen=True)
class Settings:
    """What there is.

    :param cors: None when nobody asked.
    :param lifecycle: None when nobody asked.
    """

    exists: bool
    cors: t.Optional[Rules] = None
    lifecycle: t.Optional[Rules] = None


def asked(options: Options) -> bool:
    return bool(options["create"]) or options["cors"] is not None or options["lifecycle"] is not None


def mistakes(options: Options) -> None:
    """Refuse what no storage would take."""
    rules = options["lifecycle"] or []
    ids = [rule["id"] for rule in rules]
    empty = [rule["id"] for rule in rules if rule["expire_days"] is None and rule["abort_uploads_days"] is None]
    low = [rule["id"] for rule in rules for name in ("expire_days", "abort_uploads_days") if rule[name] is not None and rule[name] < 1]
    if len(set(ids)) != len(ids):
        raise Failure(f"lifecycle: found the ids {', '.join(ids)}; allowed: each once.")
    if empty:
        raise Failure(f"lifecycle: the rule {empty[0]} does nothing.", fix="Give it expire_days or abort_uploads_days.")
    if low:
        raise Failure(f"lifecycle: the rule {low[0]} has less than one day; allowed: 1 or more.")


def read(store: Store, options: Options) -> Settings:
    """What the storage has of that which is asked for."""
    client, place = store.client, {"Bucket": store.location.bucket}
    found: t.List[str] = []
    with store.telling("Looking at the bucket", tolerate=["bucket_absent"]):
        client.head_bucket(**place)
        found.append(store.location.bucket)
    if not found:
        return Settings(exists=False)
    cors = lifecycle = None
    if options["cors"] is not None:
        answer = _without(("NoSuchCORSConfiguration",), store, "Reading CORS", lambda: client.get_bucket_cors(**place))
        cors = [cors_rule(rule) for rule in answer.get("CORSRules", [])]
    if options["lifecycle"] is not None:
        absent = ("NoSuchLifecycleConfiguration",)
        answer = _without(absent, store, "Reading the lifecycle", lambda: client.get_bucket_lifecycle_configuration(**place))
        lifecycle = in_order([lifecycle_rule(rule) for rule in answer.get("Rules", [])])
    return Settings(True, cors, lifecycle)


def _without(codes: t.Sequence[str], store: Store, what: str, ask: t.Callable[[], t.Dict[str, t.Any]]) -> t.Dict[str, t.Any]:
    """An answer; an empty one for these errors, which say that nothing is set."""
    with store.telling(what):
        try:
            return ask()
        except Exception as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code") not in codes:
                raise
    return {}


def cors_rule(rule: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """A rule of the storage's, in the form of the options."""
    found: t.Dict[str, t.Any] = {ours: sorted(rule.get(theirs, [])) for ours, theirs in CORS_LISTS.items()}
    return {**found, "max_age": rule.get("MaxAgeSeconds")}


def wanted_cors(rules: Rules) -> Rules:
    return [{**{name: sorted(rule[name]) for name in CORS_LISTS}, "max_age": rule["max_age"]} for rule in rules]


def lifecycle_rule(rule: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """A rule of the storage's, in the form of the options; what those have no word for is named, so that it is not lost unseen."""
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    found = {
        "id": rule.get("ID", ""),
        "prefix": prefix,
        "expire_days": rule.get("Expiration", {}).get("Days"),
        "abort_uploads_days": rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
        "enabled": rule.get("Status") == "Enabled",
    }
    other = sorted({*rule} - {"ID", "Status", "Filter", "Prefix", "Expiration", "AbortIncompleteMultipartUpload"})
    return {**found, "other": other} if other else found


def in_order(rules: Rules) -> Rules:
    """By id: their order has no meaning, and storages give them back in another one."""
    return sorted(rules, key=lambda rule: str(rule["id"]))


def wanted_lifecycle(rules: Rules) -> Rules:
    return in_order([{name: rule[name] for name in ("id", "prefix", "expire_days", "abort_uploads_days", "enabled")} for rule in rules])


def plan(store: Store, options: Options, found: Settings) -> t.List[Change]:
    """What has to be done, in the order in which it can be."""
    shown, changes = store.location.shown, []
    if options["create"] and not found.exists:
        changes.append(Change(shown, None, "made", lambda: _create(store)))
    if not found.exists and not changes:
        return []
    if options["cors"] is not None:
        wanted = wanted_cors(options["cors"])
        if wanted != (found.cors or []):
            changes.append(Change(f"{shown}, cors", found.cors or None, wanted or None, lambda: _set_cors(store, wanted)))
    if options["lifecycle"] is not None:
        rules = wanted_lifecycle(options["lifecycle"])
        if rules != (found.lifecycle or []):
            changes.append(Change(f"{shown}, lifecycle", found.lifecycle or None, rules or None, lambda: _set_lifecycle(store, rules)))
    return changes


def _create(store: Store) -> None:
    with store.telling("Making the bucket"):
        store.client.create_bucket(Bucket=store.location.bucket)


def _set_cors(store: Store, rules: Rules) -> None:
    with store.telling("Setting CORS"):
        if not rules:
            store.client.delete_bucket_cors(Bucket=store.location.bucket)
            return
        sent = [
            {
                **{theirs: rule[ours] for ours, theirs in CORS_LISTS.items() if rule[ours]},
                **({} if rule["max_age"] is None else {"MaxAgeSeconds": rule["max_age"]}),
            }
            for rule in rules
        ]
        store.client.put_bucket_cors(Bucket=store.location.bucket, CORSConfiguration={"CORSRules": sent})


def _set_lifecycle(store: Store, rules: Rules) -> None:
    with store.telling("Setting the lifecycle"):
        if not rules:
            store.client.delete_bucket_lifecycle(Bucket=store.location.bucket)
            return
        sent = []
        for rule in rules:
            one: t.Dict[str, t.Any] = {"ID": rule["id"], "Filter": {"Prefix": rule["prefix"]}}
            one["Status"] = "Enabled" if rule["enabled"] else "Disabled"
            if rule["expire_days"] is not None:
                one["Expiration"] = {"Days": rule["expire_days"]}
            if rule["abort_uploads_days"] is not None:
                one["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": rule["abort_uploads_days"]}
            sent.append(one)
        store.client.put_bucket_lifecycle_configuration(Bucket=store.location.bucket, LifecycleConfiguration={"Rules": sent})
