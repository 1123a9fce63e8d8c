# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks on a lab host, as a playbook runs them."""

from __future__ import annotations

import typing as t

import pytest

from lab.modules import Module

Verdicts = list[dict[str, t.Any]]


@pytest.fixture
def run(module: Module) -> t.Callable[..., Verdicts]:
    """Run checks at the same time; the verdicts."""

    def checks(*declared: t.Mapping[str, t.Any], python: str = "/usr/bin/python3") -> Verdicts:
        flags = ["-e", f"ansible_python_interpreter={python}"]
        return t.cast(Verdicts, module.must("health_check", *flags, checks=list(declared), must_be_healthy=False)["verdicts"])

    return checks
