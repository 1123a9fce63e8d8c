# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the check of row-level security where Ansible has not looked at them."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._database import separation
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def test_they_are_completed():
    options = separation.completed(
        {"tables": ["orders"], "isolation": [{"table": "orders", "owner_column": "user_id", "users": ["1", "2"]}]}
    )
    assert options["schema"] == "public" and options["forced"] is True and options["role"] is None
    assert options["isolation"] == [
        {"table": "orders", "owner_column": "user_id", "users": ["1", "2"], "setting": "app.current_user_id", "row": {}}
    ]


def test_null_is_not_given_but_for_a_column():
    trial = {"table": "orders", "owner_column": "user_id", "users": ["1", "2"], "setting": None, "row": {"note": None}}
    options = separation.completed({"schema": None, "isolation": [trial]})
    assert options["schema"] == "public" and options["isolation"] == [{**trial, "setting": "app.current_user_id"}]


def test_all_mistakes_are_told_at_once():
    with pytest.raises(Failure) as told:
        separation.completed({"forced": "yes", "tabels": [], "isolation": [{"table": "orders"}]})
    for said in ("forced: found 'yes', allowed: true or false", "tabels: there is no such option", "isolation: users: missing"):
        assert said in told.value.what
