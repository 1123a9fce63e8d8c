#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A virtual environment that is exactly what a lock says, shared by everything that needs the same."""

from __future__ import annotations

DOCUMENTATION = r"""
module: virtualenv
short_description: Build a Python virtual environment for a lock, once
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Makes sure that there is a sound virtual environment for a lock file, extra requirements and an interpreter. Its name is a digest of
    these, so releases that need the same share one.
  - An environment that is there is checked before it is used. Its interpreter has to run, and its packages and files have to be those that
    were recorded when it was built.
  - A damaged environment is neither repaired nor removed, because a running service may be using it. It is marked, and another one is
    built beside it. What a build that died has left behind is removed.
  - Builds with C(uv) where it can be had and with C(pip) otherwise, and keeps the cache on the host.
options:
  kind:
    description:
      - What the lock is. V(requirements) is a requirements file, whose hashes count where it has them. V(uv) is an C(uv.lock) beside its
        C(pyproject.toml) and needs C(uv). V(wheel) is a wheel, installed with what it depends on. V(none) installs O(extra) alone.
    type: str
    choices: [requirements, uv, wheel, none]
    default: requirements
  directory:
    description: The directory of the lock, usually the tree of a release. Nothing outside of it is read.
    type: path
  file:
    description: The requirements file or the wheel, relative to O(directory).
    type: str
    default: requirements.txt
  extra:
    description:
      - Requirements besides the lock. Where the lock pins the same package, the lock wins.
      - An entry C(-c FILE) names a file of constraints in O(directory).
    type: list
    elements: str
    default: []
  python:
    description: The interpreter to build for.
    type: path
    default: /usr/bin/python3
  venvs:
    description: The directory of the environments. It is made if it is not there.
    type: path
    required: true
  cache:
    description: Where packages are kept from one build to the next. On the file system of O(venvs) they are hard-linked instead of copied.
    type: path
    default: /var/cache/bulletproof-deploy
  uv:
    description:
      - The path of C(uv). Without it, C(uv) is looked for in C(/opt/bulletproof/tools/bin) and on the path.
      - An empty text builds with C(pip).
    type: str
attributes:
  check_mode:
    description: Can run in check mode; tells whether an environment would be built, and builds none.
    support: full
  diff_mode:
    description: Shows which environment would be built, and why the one that is there cannot be used.
    support: full
"""

EXAMPLES = r"""
- name: The environment of a release
  bulletproof.deploy.virtualenv:
    directory: /opt/shop/releases/1.4.0-1b2c3d4e
    extra:
      - gunicorn==23.0.0
    venvs: /opt/shop/venvs
  register: environment

- name: The environment of an app that is a wheel
  bulletproof.deploy.virtualenv:
    kind: wheel
    directory: /opt/shop/releases/1.4.0-1b2c3d4e
    file: shop-1.4.0-py3-none-any.whl
    extra:
      - -c constraints.txt
    venvs: /opt/shop/venvs
"""

RETURN = r"""
path:
  description: The environment; in check mode, where it would be built.
  returned: success
  type: str
  sample: /opt/shop/venvs/93f433a7c2173cfd
key:
  description: The digest of all that decides what is in the environment.
  returned: success
  type: str
  sample: 93f433a7c2173cfd
how:
  description: How the environment was come by; V(rebuilt) means beside a damaged one.
  returned: success
  type: str
  sample: reused
set_aside:
  description: The damaged environment that this one was built to replace.
  returned: success
  type: str
installed:
  description: Name and version of every installed package; empty in check mode for an environment that would be built.
  returned: success
  type: dict
  sample:
    flask: 3.0.3
builder:
  description: What built the environment, C(uv) or C(pip); empty in check mode for an environment that would be built.
  returned: success
  type: str
  sample: uv
seconds:
  description: How long it took.
  returned: success
  type: float
  sample: 0.9
"""

import time
import typing as t
from dataclasses import asdict, dataclass

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _runner, _venv
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options


@dataclass
class Observed:
    seen: _venv.Survey
    environment: _venv.Environment


def spec_of(options: Options) -> _venv.Spec:
    if options["kind"] != "none" and not options["directory"]:
        raise Failure(f"The option directory is missing: a lock of the kind {options['kind']} is a file in it.", fix="Set directory.")
    return _venv.Spec(
        kind=options["kind"],
        directory=options["directory"] or "",
        file=options["file"],
        extra=tuple(options["extra"]),
        python=options["python"],
    )


def read(options: Options) -> Observed:
    begin = time.monotonic()
    seen = _venv.survey(spec_of(options), options["venvs"])
    if seen.usable:
        return Observed(seen, _venv.adopt(seen.usable, begin))
    damaged = next(iter(seen.damaged), None)
    how = "rebuilt" if damaged else "built"
    return Observed(seen, _venv.Environment(seen.following, seen.key, how, damaged, {}, time.monotonic() - begin, ""))


def plan(options: Options, observed: Observed) -> list[Change]:
    def build() -> None:
        observed.environment = _venv.ensure(spec_of(options), options["venvs"], options["cache"], options["uv"])

    seen = observed.seen
    if seen.usable:
        return []
    aside = [Change(path, "in use", f"set aside: {'; '.join(why)}", lambda: None) for path, why in seen.damaged.items()]
    return [*aside, Change(seen.following, None, "complete", build)]


def report(options: Options, observed: Observed) -> dict[str, t.Any]:
    return asdict(observed.environment)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kind": {"type": "str", "choices": list(_venv.KINDS), "default": "requirements"},
            "directory": {"type": "path"},
            "file": {"type": "str", "default": "requirements.txt"},
            "extra": {"type": "list", "elements": "str", "default": []},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "venvs": {"type": "path", "required": True},
            "cache": {"type": "path", "default": "/var/cache/bulletproof-deploy"},
            "uv": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _runner.run(module, read, plan, report)


if __name__ == "__main__":
    main()
