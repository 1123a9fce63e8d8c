# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What would be set of a bucket, as data."""

from __future__ import annotations

import types

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils import _bucket_settings
from ansible_collections.bulletproof.deploy.plugins.module_utils._bucket_settings import Settings
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure

STORE = types.SimpleNamespace(location=types.SimpleNamespace(shown="bucket shop"))
NOTHING = {"create": False, "cors": None, "lifecycle": None}
CORS = {
    "allowed_origins": ["https://b", "https://a"],
    "allowed_methods": ["PUT", "GET"],
    "allowed_headers": [],
    "expose_headers": [],
    "max_age": 60,
}
HAS_CORS = {"AllowedOrigins": ["https://a", "https://b"], "AllowedMethods": ["GET", "PUT"], "MaxAgeSeconds": 60}
EXPIRE = {"id": "exports", "prefix": "exports/", "expire_days": 30, "abort_uploads_days": None, "enabled": True}
HAS_EXPIRE = {"ID": "exports", "Status": "Enabled", "Filter": {"Prefix": "exports/"}, "Expiration": {"Days": 30}}
ABORT = {"id": "uploads", "prefix": "", "expire_days": None, "abort_uploads_days": 7, "enabled": False}
HAS_ABORT = {"ID": "uploads", "Status": "Disabled", "Prefix": "", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}


def has(cors=None, lifecycle=None) -> Settings:
    return Settings(
        True,
        None if cors is None else [_bucket_settings.cors_rule(one) for one in cors],
        None if lifecycle is None else _bucket_settings.in_order([_bucket_settings.lifecycle_rule(one) for one in lifecycle]),
    )


@pytest.mark.parametrize(
    ("options", "found", "targets"),
    [
        ({}, has(), []),
        ({"create": True}, has(), []),
        ({"create": True}, Settings(False), ["bucket shop"]),
        ({"create": True, "cors": [CORS], "lifecycle": []}, Settings(False), ["bucket shop", "bucket shop, cors"]),
        # Without being asked to make it, there is nothing to set; the check then says that it is not there.
        ({"cors": [CORS]}, Settings(False), []),
        ({"cors": [CORS]}, has(cors=[HAS_CORS]), []),
        ({"cors": [CORS]}, has(cors=[]), ["bucket shop, cors"]),
        ({"cors": [{**CORS, "max_age": None}]}, has(cors=[HAS_CORS]), ["bucket shop, cors"]),
        ({"cors": []}, has(cors=[HAS_CORS]), ["bucket shop, cors"]),
        ({"cors": []}, has(cors=[]), []),
        ({"lifecycle": [ABORT, EXPIRE]}, has(lifecycle=[HAS_EXPIRE, HAS_ABORT]), []),
        ({"lifecycle": [EXPIRE]}, has(lifecycle=[HAS_EXPIRE, HAS_ABORT]), ["bucket shop, lifecycle"]),
        # What the options have no word for is no reason to take it for the same.
        ({"lifecycle": [EXPIRE]}, has(lifecycle=[{**HAS_EXPIRE, "Transitions": []}]), ["bucket shop, lifecycle"]),
        ({"lifecycle": []}, has(lifecycle=[HAS_ABORT]), ["bucket shop, lifecycle"]),
    ],
)
def test_only_what_differs_is_set(options, found, targets):
    assert [one.target for one in _bucket_settings.plan(STORE, {**NOTHING, **options}, found)] == targets


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([EXPIRE, EXPIRE], "each once"),
        ([{**EXPIRE, "expire_days": None}], "the rule exports does nothing"),
        ([{**EXPIRE, "expire_days": 0}], "less than one day"),
    ],
)
def test_mistakes(rules, said):
    with pytest.raises(Failure) as failure:
        _bucket_settings.mistakes({**NOTHING, "lifecycle": rules})
    assert said in failure.value.message()
