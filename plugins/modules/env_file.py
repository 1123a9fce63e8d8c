#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of environment variables, merged, generated, and held against rules before it is written."""

from __future__ import annotations

DOCUMENTATION = r"""
module: env_file
short_description: Keep a C(.env) file as declared, and refuse one that breaks rules
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Merges declared values, values that are generated on the host, and what the file already has. Declared ones win. Generated ones are made once, and
    kept. What is only on the host stays, unless O(merge=replace) or O(remove) names it.
  - The file is read as systemd reads C(EnvironmentFile=). What Docker Compose or python-dotenv reads differently is a warning that names the variable.
    A new value is written in the form that all three read alike, as far as there is one. What has not changed stays as it is written.
  - Rules are looked at before anything is written. Where one finds an error, nothing is changed.
  - No value is ever shown, not in the diff, not in a finding, not at any verbosity.
  - A file that is a link, or has several names, is refused. Two that write to it at once wait for one another, and none loses the other's variables.
options:
  path:
    description: The file. Its directory has to be there.
    type: path
    required: true
  values:
    description: The declared variables, each text or a whole number. They may be secret, and are not shown.
    type: dict
    default: {}
  remove:
    description: Variables that must not be in the file.
    type: list
    elements: str
    default: []
  merge:
    description: Whether variables that are only in the file stay (V(keep)), or go (V(replace)).
    type: str
    choices: [keep, replace]
    default: keep
  generate:
    description:
      - Variables whose values are made on the host when they are not in the file, each a kind, or a mapping with C(kind) and its options.
      - C(token_urlsafe) has C(bytes) (32 unless set); C(fernet) and C(uuid) have no options; C(rsa) has C(bits) (3072 unless set).
      - C(rsa) and C(ed25519) are key pairs in PEM, and have C(public), the variable for the public key.
    type: dict
    default: {}
  rotate:
    description: Variables among O(generate) that get a new value now. A key pair is rotated as one.
    type: list
    elements: str
    default: []
  rules:
    description:
      - What the environment has to be. Each rule has exactly one of C(required), C(forbidden), C(pattern), C(one_of), C(equals), C(not_default),
        C(entropy), C(url), C(endpoint_account), and may have C(name), C(when), C(severity) and C(fix). All mistakes in them are reported at once.
      - Of several rules with one name the last one holds.
    type: list
    elements: dict
    default: []
  overrides:
    description: Variables that whoever reads the file has from elsewhere, and that win over the file's. They count for the rules, and are not written.
    type: dict
    default: {}
  waivers:
    description: Rules whose findings are let pass, each with C(rule), C(reason) and C(until), its last day (C(YYYY-MM-DD), in UTC).
    type: list
    elements: dict
    default: []
  dialects:
    description: The programs that read the file, so that what they read differently is worth a warning.
    type: list
    elements: str
    choices: [systemd, compose, python_dotenv]
    default: [systemd, compose, python_dotenv]
  owner:
    description: The account that owns the file. It stays what it is unless set.
    type: str
  group:
    description: The file's group. It stays what it is unless set.
    type: str
  mode:
    description: The file's mode, octal and in quotes. Others may have no access.
    type: raw
    default: "0600"
attributes:
  check_mode:
    description: Says what would change. The rules are looked at, too.
    support: full
  diff_mode:
    description: Names the variables that are added, changed, removed or generated. Never a value.
    support: full
"""

EXAMPLES = r"""
- name: Have the environment of the shop
  bulletproof.deploy.env_file:
    path: /opt/shop/shared/.env
    owner: shop
    group: shop
    values:
      PRODUCTION: "1"
      DATABASE_URL: "{{ vault_database_url }}"
    generate:
      SECRET_KEY: token_urlsafe
      ATTACHMENT_KEY: fernet
      JWT_PRIVATE_KEY: {kind: ed25519, public: JWT_PUBLIC_KEY}
    rules:
      - required: [DATABASE_URL, SECRET_KEY]
      - not_default: {SECRET_KEY: [changeme, dev]}
      - name: r2-in-production
        when: {PRODUCTION: "1"}
        equals: {ATTACHMENT_STORAGE_DRIVER: r2}
    waivers:
      - {rule: r2-in-production, reason: "R2 is down, ticket 4711", until: "2026-12-01"}

- name: Make a new key
  bulletproof.deploy.env_file:
    path: /opt/shop/shared/.env
    generate:
      SECRET_KEY: token_urlsafe
    rotate: [SECRET_KEY]
"""

RETURN = r"""
digest:
  description:
    - The name of this version of the file, of its content. It is that by which a release remembers its environment.
    - Empty where there is no file, and in check mode where values would be generated.
  returned: success
  type: str
  sample: 2c26b46b68ffc68f
names:
  description: The variables in the file, sorted.
  returned: success
  type: list
  elements: str
added:
  description: Variables that were not in the file.
  returned: success
  type: list
  elements: str
changed_names:
  description: Variables that had another value.
  returned: success
  type: list
  elements: str
removed:
  description: Variables that are not in the file any more.
  returned: success
  type: list
  elements: str
generated:
  description: Variables for which a value was made.
  returned: success
  type: list
  elements: str
findings:
  description: What is wrong by the rules, and by the waivers themselves.
  returned: success, and when the rules find an error
  type: list
  elements: dict
  contains:
    subject:
      description: The variable.
      type: str
    found:
      description: What was found, in words; never the value.
      type: str
    expected:
      description: What the rule says.
      type: str
    fix:
      description: What to do.
      type: str
    severity:
      description: V(error), V(warning) or V(waived).
      type: str
    rule:
      description: The name by which a waiver can let it pass.
      type: str
      sample: SECRET_KEY.not_default
    reason:
      description: Of one that is waived, why.
      type: str
    until:
      description: Of one that is waived, the last day.
      type: str
disagreements:
  description: Variables that the programs do not read alike, one sentence each.
  returned: success
  type: list
  elements: str
"""

import contextlib
import hashlib
import json
import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _findings, _mutex, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._dotenv import declared, desired, dialects
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

LOCKS = "/run/bulletproof-deploy"
LOCK_WAIT = 60.0
# Ansible blanks every occurrence of a secret in all that a module returns. A shorter one would hit words and numbers.
SHORTEST_BLANKED = 8
# It looks for each of them in each text, which takes minutes for tens of thousands.
MOST_BLANKED = 1000
HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"

SPEC: t.Dict[str, t.Any] = {
    "path": {"type": "path", "required": True},
    "values": {"type": "dict", "default": {}, "no_log": True},
    "remove": {"type": "list", "elements": "str", "default": []},
    "merge": {"type": "str", "choices": ["keep", "replace"], "default": "keep"},
    "generate": {"type": "dict", "default": {}},
    "rotate": {"type": "list", "elements": "str", "default": []},
    "rules": {"type": "list", "elements": "dict", "default": []},
    "overrides": {"type": "dict", "default": {}, "no_log": True},
    "waivers": {"type": "list", "elements": "dict", "default": []},
    "dialects": {"type": "list", "elements": "str", "choices": list(dialects.DIALECTS), "default": list(dialects.DIALECTS)},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0600"},
}


def mistakes(options: Options, values: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """What is wrong with the options themselves, all of it."""
    yield from (f"{option}: {said}" for option, said in declared.mistakes({**options, "values": values}))
    mode = options["mode"]
    if not isinstance(mode, str) or not re.fullmatch(r"0?[46][04]0", mode):
        yield f"mode: found {mode}; allowed: octal in quotes, nothing for others, such as '0600' or '0640'."


class EnvFile:
    """One execution of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.values: t.Dict[str, t.Any] = dict(module.params["values"])
        self.overrides = {name: str(value) for name, value in module.params["overrides"].items()}
        # To Ansible the 1 of DEBUG=1 is a secret, too, and would be blotted out of every number; below is decided what is one.
        for option in ("values", "overrides"):
            module.params[option] = {name: HIDDEN for name in module.params[option]}
        self._blank(module.params, [*map(str, self.values.values()), *self.overrides.values()])

    def _blank(self, options: Options, values: t.Sequence[str]) -> None:
        """Nothing here shows a value. Should it happen all the same, Ansible blots it out, unless it is a word of the task itself."""
        plain = json.dumps(options, ensure_ascii=False, default=str)
        wanted = {value for value in values[:MOST_BLANKED] if len(value) >= SHORTEST_BLANKED}
        self.module.no_log_values = {value for value in wanted if value not in plain}

    def read(self, options: Options) -> desired.Observed:
        said = list(mistakes(options, self.values))
        if said:
            raise Failure(
                f"{options['path']}: its declaration has {len(said)} mistake{'' if len(said) == 1 else 's'}:\n"
                + "\n".join(f"- {one}" for one in said)
            )
        directory = os.path.dirname(options["path"])
        if not os.path.isdir(directory):
            raise Failure(f"The directory {directory} does not exist.", fix="Run provision.yml, or correct the path.")
        observed = desired.observe(options, self.values, self.overrides)
        self._blank(options, [*map(str, self.values.values()), *self.overrides.values(), *observed.secrets])
        return observed

    def plan(self, options: Options, observed: desired.Observed) -> t.List[Change]:
        self._warn(options, observed)
        errors = [one for one in observed.findings if one.severity == "error"]
        if errors:
            failure = _findings.failure_of(errors, f"{options['path']} would break its rules, so nothing was changed")
            failure.facts["findings"] = _findings.as_data(observed.findings)
            raise failure
        file, wanted = observed.file, observed.wanted
        if wanted is None or file == wanted:
            return []
        # Each line of the plan names a variable; the last one writes them all, in one rename.
        changes = [Change(name, before, after, lambda: None) for name, before, after in of_names(observed)]
        content = (
            file.version if file else None,
            "new values" if observed.generated else wanted.version,
        )
        places = (words(file.place) if file else None, words(wanted.place))
        before = None if file is None else ", ".join(one[0] for one in (content, places) if one[0])
        changes.append(Change(options["path"], before, f"{content[1]}, {places[1]}", lambda: self._write(options["path"], wanted)))
        return changes

    def _warn(self, options: Options, observed: desired.Observed) -> None:
        for one in observed.findings:
            if one.severity != "error":
                self.module.warn(f"{options['path']}: {one}")
        for sentence in observed.disagreements:
            self.module.warn(f"{options['path']}: {sentence}")

    def _write(self, path: str, wanted: desired.File) -> None:
        write_atomically(path, wanted.text, wanted.place[2], wanted.place[:2])

    def report(self, options: Options, observed: desired.Observed) -> t.Dict[str, t.Any]:
        unknown = self.module.check_mode and bool(observed.generated)
        return {
            "digest": "" if observed.wanted is None or unknown else observed.wanted.version,
            "names": sorted(dialects.shown(name) if name not in self.values else name for name in observed.target),
            "added": [name for name in observed.target if name not in observed.present],
            "changed_names": [name for name, value in observed.target.items() if observed.present.get(name, value) != value],
            "removed": [dialects.shown(name) for name in observed.present if name not in observed.target],
            "generated": sorted(observed.generated),
            "findings": _findings.as_data(observed.findings),
            "disagreements": observed.disagreements,
        }


def of_names(observed: desired.Observed) -> t.Iterator[t.Tuple[str, t.Optional[str], t.Optional[str]]]:
    """Each variable that is added, changed or removed: its name, what it was, what it will be; never the value."""
    for name, value in observed.target.items():
        before = "one value" if name in observed.present else None
        if observed.present.get(name) != value:
            yield name, before, "generated" if name in observed.generated else "another value" if before else "set"
    for name in observed.present:
        if name not in observed.target:
            yield dialects.shown(name), "one value", None


def words(place: desired.Place) -> str:
    return f"owner {place[0]}, group {place[1]}, mode {place[2]:04o}"


@contextlib.contextmanager
def alone(path: str) -> t.Iterator[None]:
    """Keep others that write to the same file out: what was read must be what is there when it is written."""
    place = LOCKS if os.geteuid() == 0 else os.path.dirname(path)
    if os.path.isdir(os.path.dirname(place)):
        os.makedirs(place, mode=0o700, exist_ok=True)
    same = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    with _mutex.exclusive(place, f"env-{hashlib.sha256(same.encode()).hexdigest()[:16]}", LOCK_WAIT):
        yield


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    work = EnvFile(module)
    _runner.run(module, work.read, work.plan, work.report, guard=alone(module.params["path"]))


if __name__ == "__main__":
    main()
