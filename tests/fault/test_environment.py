# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The environment arrives in the process as it was declared."""

from __future__ import annotations

import string

from ansible_collections.bulletproof.deploy.plugins.action.release_stage import environment_text

VALUES = {
    "PLAIN": "sqlite:////opt/shop/shared/shop.db",
    "EMPTY": "",
    "NUMBER": 8,
    "PRINTABLE": string.printable.translate({ord(control): None for control in "\t\n\r\v\f"}),
    "QUOTES": "\"double\" 'single' `back`",
    "DOLLAR": "$HOME ${HOME} $(id) $$",
    "BACKSLASH": "C:\\new\\table\\\\ and \\",
    "BLANKS": "  before, between\tand after  ",
    "LINES": "-----BEGIN KEY-----\nabc\\\n# no comment\n\n-----END KEY-----\n",
    "NOT_A_COMMENT": "# ; canary",
    "PERCENT": "100 %n %%",
    "UNICODE": "gr\xfc\xdfe \U0001f389 \u202e",
}


def test_every_value_arrives_as_it_is(host):
    """Through systemd's own parser. Fails without the quoting of \", \\, $ and `."""
    host.write("/root/environment", environment_text(VALUES), mode="0600")
    told = host.run(
        ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "-p", "EnvironmentFile=/root/environment", "/usr/bin/env", "-0"]
    ).stdout
    arrived = dict(entry.split("=", 1) for entry in told.split("\0") if entry)
    assert {name: arrived.get(name) for name in VALUES} == {name: str(value) for name, value in VALUES.items()}
