#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an app can work with its bucket."""

from __future__ import annotations

DOCUMENTATION = r"""
module: r2_bucket_check
short_description: Check that a bucket in Cloudflare R2, or other S3-compatible storage, does what the app needs
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Tries, from the host and with the app's own keys, what the app does. It lists, looks at the bucket, writes a small object, reads it back and compares,
    writes one in parts, fetches it by a presigned URL without keys, sees that such a URL is refused when its time is over, and removes the object.
    At most 12 requests; with O(access=read), 7.
  - Whatever fails is a finding with its cause and what to do. What a token can do beyond O(access) is a finding, too, of severity V(warning).
    Fails when there is a finding of severity V(error).
  - The object's key begins with C(.bulletproof-probe/), the host's name and a random part. It is removed in any case. What a run has left that was killed is
    removed by the next one (O(leftovers_age)).
  - Makes the bucket and sets CORS and lifecycle when asked to, and only then changes anything.
options:
  environment_files:
    description: Files of environment variables on the host, from which bucket and keys are read. A later file wins over an earlier one.
    type: list
    elements: path
    default: []
  access:
    description:
      - What the app needs. With V(read_write), it must be able to list, to read, to write and to remove.
      - With V(read), it must be able to list and to read, and must not be able to write.
      - In both cases, it should not see other buckets.
    type: str
    choices: [read, read_write]
    default: read_write
  checksums:
    description:
      - What boto3 is told about checksums. V(when_required) is what R2 needs.
      - V(when_supported) is what boto3 does by itself from 1.36 on. Try with it what an app would see that leaves it at that.
    type: str
    choices: [when_required, when_supported]
    default: when_required
  timeout:
    description: Seconds for which the storage may be silent. A request that got no answer is sent once more.
    type: float
    default: 10
  total_timeout:
    description: Seconds after which no further step begins.
    type: float
    default: 60
  leftovers_age:
    description: How old, in seconds, an object or an uncompleted upload of a killed run must be to be removed. Younger ones may belong to a check that runs.
    type: int
    default: 3600
  create:
    description: Make the bucket when it is not there. Needs a token with the permission Admin Read & Write.
    type: bool
    default: false
  cors:
    description:
      - The rules for requests from browsers, all of them. Those that are not named are removed; an empty list removes all.
      - Left as they are unless set. Needs a token with the permission Admin Read & Write.
    type: list
    elements: dict
    suboptions:
      allowed_origins:
        description: Where a page may come from, for instance C(https://shop.example.com).
        type: list
        elements: str
        required: true
      allowed_methods:
        description: What it may do.
        type: list
        elements: str
        required: true
        choices: [GET, PUT, POST, DELETE, HEAD]
      allowed_headers:
        description: The headers that it may send.
        type: list
        elements: str
        default: []
      expose_headers:
        description: The headers of the answer that it may see.
        type: list
        elements: str
        default: []
      max_age:
        description: Seconds for which a browser may remember the answer.
        type: int
  lifecycle:
    description:
      - The rules by which objects leave by themselves, all of them. Those that are not named are removed, the one that R2 gives each new bucket
        (uncompleted uploads leave after 7 days) as well; an empty list removes all.
      - Left as they are unless set. Needs a token with the permission Admin Read & Write.
    type: list
    elements: dict
    suboptions:
      id:
        description: The rule's name.
        type: str
        required: true
      prefix:
        description: What the keys of the objects begin with; all objects if empty.
        type: str
        default: ""
      expire_days:
        description: Days after which objects are removed.
        type: int
      abort_uploads_days:
        description: Days after which uncompleted uploads are removed.
        type: int
      enabled:
        description: Whether the rule is in force.
        type: bool
        default: true
extends_documentation_fragment:
  - bulletproof.deploy.object_store
attributes:
  check_mode:
    description:
      - Shows whether the bucket would be made and what would be set. Tries what needs no writing; RV(not_tried) names the rest.
    support: full
  diff_mode:
    description: Shows the bucket that would be made, and the rules before and after.
    support: full
"""

EXAMPLES = r"""
- name: The app's token does what it needs, and no more
  bulletproof.deploy.r2_bucket_check:
    environment_files: [/opt/shop/shared/.env]

- name: The token of the reports may only read
  bulletproof.deploy.r2_bucket_check:
    environment_files: [/opt/reports/shared/.env]
    access: read

- name: A bucket in the EU, with keys that the app does not have
  bulletproof.deploy.r2_bucket_check:
    bucket: shop
    account_id: 0123456789abcdef0123456789abcdef
    jurisdiction: eu
    access_key_id: "{{ vault_r2_admin_key_id }}"
    secret_access_key: "{{ vault_r2_admin_secret }}"
    create: true
    cors:
      - allowed_origins: [https://shop.example.com]
        allowed_methods: [GET, PUT]
        allowed_headers: [content-type]
        max_age: 3600
    lifecycle:
      - id: uncompleted uploads
        abort_uploads_days: 7
      - id: exports
        prefix: exports/
        expire_days: 30
"""

RETURN = r"""
findings:
  description:
    - All that is not as it must be, each with C(subject), C(found), C(expected), C(fix), C(severity) (V(error) or V(warning)) and C(rule),
      which is C(r2_) and the cause. Also when the module fails.
  returned: always
  type: list
  elements: dict
  sample:
    - subject: bucket shop at https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com, put
      found: the token may not write objects to this bucket
      expected: that an object can be written
      fix: Give the token the permission Object Read & Write.
      severity: error
      rule: r2_no_write
bucket:
  description: The bucket and its address. Also when the module fails.
  returned: always
  type: str
  sample: bucket shop at https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com
steps:
  description: What was tried, with C(step), C(ms) (milliseconds that it took) and C(cause), which is empty where it is as it should be.
  returned: always
  type: list
  elements: dict
  sample:
    - step: put
      ms: 48.3
      cause: ""
requests:
  description: How many requests that took, without those for O(create), O(cors) and O(lifecycle).
  returned: always
  type: int
  sample: 12
clock_skew:
  description: Seconds by which the host's clock is ahead of the storage's.
  returned: always
  type: float
  sample: 0.0
not_tried:
  description: Steps that were left out in check mode, because they write.
  returned: always
  type: list
  elements: str
  sample: []
leftovers:
  description: Keys of what killed runs had left, and which was removed.
  returned: always
  type: list
  elements: str
  sample: []
"""

import typing as t
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket, _bucket_settings, _findings, _object_store, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass(frozen=True)
class Observed:
    """The bucket, and what there is of that which is asked for."""

    store: _object_store.Store
    settings: _bucket_settings.Settings


def read(options: Options) -> t.Optional[Observed]:
    """Nothing when only a check is asked for."""
    for name in ("timeout", "total_timeout"):
        if options[name] <= 0:
            raise Failure(f"{name}: found {options[name]:g}; allowed: more than 0 (seconds).")
    _bucket_settings.mistakes(options)
    if not _bucket_settings.asked(options):
        return None
    try:
        store = _object_store.Store(_object_store.location_of(options), options["timeout"])
        return Observed(store, _bucket_settings.read(store, options))
    except Failure as failure:
        raise not_set_up(options, failure) from None


def plan(options: Options, observed: t.Optional[Observed]) -> t.List[Change]:
    return _bucket_settings.plan(observed.store, options, observed.settings) if observed else []


def told(outcome: _bucket.Outcome) -> Failure:
    facts = outcome.facts()
    facts.pop("findings")
    return _findings.failure_of(outcome.findings, f"Object storage, {outcome.shown}", **facts)


def not_set_up(options: Options, failure: Failure) -> Failure:
    """What kept the bucket from being made or set up, as a finding."""
    try:
        shown = _object_store.location_of(options).shown
    except Failure:
        shown = "object storage"
    return told(_bucket.Outcome(shown, [_bucket.finding_of(failure, shown, "a bucket that can be set up")]))


def report(module: AnsibleModule, observed: t.Optional[Observed]) -> t.Dict[str, t.Any]:
    options = module.params
    if module.check_mode and observed and options["create"] and not observed.settings.exists:
        # There is nothing yet that could be tried.
        return _bucket.Outcome(observed.store.location.shown, [], not_tried=list(_bucket.EXPECTED)).facts()
    outcome = _bucket.check(
        options,
        _bucket.Trial(
            access=options["access"],
            write=not module.check_mode,
            seconds=options["total_timeout"],
            read_timeout=options["timeout"],
            checksums=options["checksums"],
            leftovers_age=options["leftovers_age"],
        ),
    )
    if outcome.errors:
        raise told(outcome)
    for one in outcome.warnings:
        module.warn(str(one))
    return outcome.facts()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "environment_files": {"type": "list", "elements": "path", "default": []},
            "access": {"type": "str", "choices": ["read", "read_write"], "default": "read_write"},
            "checksums": {"type": "str", "choices": ["when_required", "when_supported"], "default": "when_required"},
            "timeout": {"type": "float", "default": 10},
            "total_timeout": {"type": "float", "default": 60},
            "leftovers_age": {"type": "int", "default": _bucket.HOUR},
            **_bucket_settings.SPEC,
            **_object_store.SPEC,
        },
        supports_check_mode=True,
    )
    _runner.run(module, read, plan, lambda _options, observed: report(module, observed), rescue=not_set_up)


if __name__ == "__main__":
    main()
