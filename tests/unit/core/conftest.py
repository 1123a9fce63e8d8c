# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's memory in a directory, without a host."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout


@pytest.fixture
def layout(tmp_path):
    (tmp_path / ".deploy").mkdir()
    return Layout("shop", str(tmp_path))
