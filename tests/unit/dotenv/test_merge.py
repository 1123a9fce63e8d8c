# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The new text of a file, of the old one and what it has to say."""

from __future__ import annotations

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import dialects
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv.merge import merged
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    "text,values,removed,new",
    [
        ("", {"A": "1", "B": "two words"}, [], "A=1\nB='two words'\n"),
        ('# mine\nA = "1"  \n\nB=2\n', {"A": "1", "B": "2"}, [], '# mine\nA = "1"  \n\nB=2\n'),
        ("# mine\nA=1\n# its\nB=2\n", {"A": "1", "B": "3", "C": "4"}, [], "# mine\nA=1\n# its\nB=3\nC=4\n"),
        ("A=1\nB=2\nC=3\n", {"A": "1", "C": "3"}, ["B"], "A=1\nC=3\n"),
        ("A=1", {"A": "1", "B": "2"}, [], "A=1\nB=2\n"),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "3"}, [], "A=1\r\nB=3\n"),
        # Of several, the last one holds.
        ("A=1\nB=2\nA=3\n", {"A": "3", "B": "2"}, [], "A=1\nB=2\nA=3\n"),
        ("A=1\nB=2\nA=3\n", {"A": "4", "B": "2"}, [], "B=2\nA=4\n"),
        # systemd does not see it, others do.
        ("export A=1\nB=2\n", {"A": "1", "B": "2"}, [], "A=1\nB=2\n"),
        ("export A=1\nB=2\n", {"B": "2"}, [], "export A=1\nB=2\n"),
        ("export A=1\nB=2\n", {"B": "2"}, ["A"], "B=2\n"),
        ("export A=1\nB=2\nno name\n", {"B": "2"}, None, "B=2\nno name\n"),
        # What follows a quote that is not closed, or a backslash, would be drawn into it.
        ("# mine\nA='x", {"A": "x", "B": "2"}, [], "# mine\nA=x\nB=2\n"),
        ("A=x\\", {"A": "x", "B": "2"}, [], "A=x\nB=2\n"),
    ],
)
def test_merged(text, values, removed, new):
    assert merged(text, values, removed) == new


PIECES = [*"AB='\"\\#;$ \t\n\r", "A=1\n", "B='x'\n", "export A=2\n", "\ufeff"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
VALUES = st.dictionaries(st.sampled_from(["A", "B", "C"]), st.text(st.sampled_from("x'\"\\ \n#$\r"), max_size=5))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TEXT, VALUES, st.booleans())
def test_whatever_was_there_systemd_has_what_was_wanted_and_a_second_time_changes_nothing(text, values, keep):
    wanted = {**dialects.systemd(text), **values} if keep else values
    new = merged(text, wanted, [] if keep else None)
    assert dialects.systemd(new) == wanted
    assert merged(new, wanted, [] if keep else None) == new
