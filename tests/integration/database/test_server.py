# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all the others stand on."""

from __future__ import annotations


def test_the_server_answers_the_owner_with_the_password(host, server):
    url = server.create("first")
    assert host.run(["psql", "--no-align", "--tuples-only", "--command=SELECT current_user", url]).stdout.strip() == "first"
    assert server.version >= 13
