#!/usr/bin/python
# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give nginx new configuration files once it has approved of the whole configuration with them in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_site
short_description: Change nginx's configuration without ever breaking it
version_added: 0.1.0
author:
  - The bulletproof.deploy authors (@bulletproof-deploy)
description:
  - Writes, replaces and removes files of nginx's configuration, as one change.
  - Before anything is written, C(nginx -t) judges a private copy of the whole configuration with the new files in it.
  - A configuration that was broken before, by hand or otherwise, is reported as such, also when there is nothing to change.
  - Reloads a running nginx and looks whether it took the new configuration over; when it did not, the files are put back.
  - With O(running), starts an nginx that does not run.
options:
  files:
    description: The text of each file by its path below O(directory).
    type: dict
    default: {}
  absent:
    description: Paths below O(directory) of files or links that are to be gone.
    type: list
    elements: str
    default: []
  worker_connections:
    description:
      - How many connections each of nginx's processes may have, where C(nginx.conf) still has Debian's 768; it gets four times as many files.
      - While an app restarts behind its socket, its requests wait in nginx, two connections each. 768 are seven seconds of a hundred requests a second, and
        what comes then is lost. A value that somebody has chosen stays, and V(0) leaves C(nginx.conf) alone.
    type: int
    default: 0
  running:
    description: Whether nginx has to run, now and from each boot on.
    type: bool
    default: false
  directory:
    description: Where C(nginx.conf) is.
    type: path
    default: /etc/nginx
  executable:
    description: The nginx that judges.
    type: str
    default: nginx
  service:
    description: The unit that is reloaded. It is left alone while it does not run, unless with O(running).
    type: str
    default: nginx.service
attributes:
  check_mode:
    description: Can run in check mode; the configuration is judged, and nothing is changed.
    support: full
  diff_mode:
    description: Shows the files before and after.
    support: full
"""

EXAMPLES = r"""
- name: Proxy the app
  bulletproof.deploy.nginx_site:
    files:
      conf.d/shop.conf: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"
    absent:
      - sites-enabled/default
"""

RETURN = r"""
reloaded:
  description: Whether nginx was made to read its configuration again, or would be in check mode.
  returned: success
  type: bool
  sample: true
"""

import os
import re
import typing as t
from dataclasses import dataclass
from functools import partial

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bulletproof.deploy.plugins.module_utils import _nginx, _runner
from ansible_collections.bulletproof.deploy.plugins.module_utils._command import must, run
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._files import read_text, replace_link, write_atomically
from ansible_collections.bulletproof.deploy.plugins.module_utils._runner import Change, Options

MAIN = "nginx.conf"
ERROR_LOG = "/var/log/nginx/error.log"
# nginx starts its new workers within milliseconds; a host that is this slow is at its end.
PATIENCE = 10.0


@dataclass(frozen=True)
class Place:
    """What is at a path: a text, a link, or nothing."""

    text: t.Optional[str] = None
    link: t.Optional[str] = None

    @property
    def shown(self) -> t.Optional[str]:
        return self.text if self.link is None else f"-> {self.link}"


@dataclass(frozen=True)
class Observed:
    """:param wanted: What is to be at each path.
    :param places: What is there.
    """

    wanted: t.Mapping[str, Place]
    places: t.Mapping[str, Place]
    running: bool
    enabled: bool

    @property
    def different(self) -> t.List[str]:
        return [path for path, place in self.wanted.items() if place != self.places[path]]


def look(path: str) -> Place:
    if os.path.islink(path):
        return Place(link=os.readlink(path))
    return Place(text=read_text(path))


def put(path: str, place: Place) -> None:
    """Make a path what it is to be."""
    try:
        if place.link is not None:
            replace_link(path, place.link)
        elif place.text is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_atomically(path, place.text)
        elif os.path.lexists(path):
            os.unlink(path)
    except OSError as error:
        raise Failure(f"{path} cannot be changed: {error.strerror}.", fix="Remove the cause, then run this again.") from None


def wanted(options: Options) -> t.Dict[str, Place]:
    """What is to be at each path."""
    places = {name: Place(text=text) for name, text in options["files"].items()}
    main = read_text(os.path.join(options["directory"], MAIN))
    if main and options["worker_connections"] and roomy(main, options["worker_connections"]) != main:
        places[MAIN] = Place(text=roomy(main, options["worker_connections"]))
    places.update((name, Place()) for name in options["absent"])
    return {inside(options["directory"], name): place for name, place in places.items()}


def roomy(text: str, connections: int) -> str:
    """``nginx.conf`` with room for this many connections, unless somebody has chosen a number."""
    debians = re.compile(r"^(\s*worker_connections\s+)768;", re.MULTILINE)
    if debians.search(text) and not re.search(r"^\s*worker_rlimit_nofile\s", text, re.MULTILINE):
        text = re.sub(r"^(worker_processes.*\n)", rf"\g<1>worker_rlimit_nofile {connections * 4};\n", text, count=1, flags=re.MULTILINE)
    return debians.sub(rf"\g<1>{connections};", text)


def inside(directory: str, name: str) -> str:
    path = os.path.normpath(os.path.join(directory, name))
    if not path.startswith(directory.rstrip("/") + "/"):
        raise Failure(f"{name} is not below {directory}.", fix=f"Name files of nginx's configuration by their path below {directory}.")
    return path


def judge(options: Options, after: t.Mapping[str, Place]) -> None:
    """Raise Failure unless nginx would serve with the files as they are to be, and say whose fault it is."""
    decide = partial(_nginx.judge, options["executable"], options["directory"])
    then = decide({path: place.text for path, place in after.items()})
    if then.accepted and not then.shadowed:
        return
    now = decide({})
    if not then.accepted and not now.accepted:
        raise Failure(
            f"nginx's configuration was broken before, without any change from here. nginx says:\n{now.words}",
            fix="Repair the file and line that nginx names (nginx -t tells when it is right), then run this again. Nothing was changed.",
        )
    if not then.accepted:
        raise Failure(
            f"nginx does not accept its configuration with the new files in it. nginx says:\n{then.words}",
            fix="Correct the variables (proxy_*) that the named line comes from, or the site that collides with it. Nothing was changed.",
        )
    if len(then.shadowed) > len(now.shadowed):
        raise Failure(
            "Another site has the name of this one, so nginx would never ask it. nginx says:\n" + "\n".join(then.shadowed),
            fix="Give the app names of its own (app_server_names: [shop.example.com]), or, if the other site is Debian's welcome page, set "
            "proxy_disable_default_site: true. Nothing was changed.",
        )


class Site:
    """Remembers what was there, so that a change that fails midway leaves nothing behind."""

    def __init__(self) -> None:
        self.before: t.Mapping[str, Place] = {}

    def read(self, options: Options) -> Observed:
        after = wanted(options)
        judge(options, after)
        self.before = {path: look(path) for path in after}
        service = options["service"]
        return Observed(
            wanted=after,
            places=self.before,
            running=_nginx.main_process(service) != 0,
            enabled=options["running"] and run(["systemctl", "is-enabled", "--quiet", service]).ok,
        )

    def rescue(self, options: Options, failure: Failure) -> Failure:
        for path, place in self.before.items():
            put(path, place)
        return Failure(failure.what, fix=f"{failure.fix} The files are as they were.", **failure.facts)


def plan(options: Options, observed: Observed) -> t.List[Change]:
    service = options["service"]
    changes = [
        Change(path, observed.places[path].shown, observed.wanted[path].shown, partial(put, path, observed.wanted[path]))
        for path in observed.different
    ]
    if changes and observed.running:
        changes.append(Change(service, "the old configuration", "the new one", partial(take_over, service)))
    if options["running"] and not observed.running:
        changes.append(Change(service, "stopped", "running", partial(must, ["systemctl", "start", service], f"{service} does not start")))
    if options["running"] and not observed.enabled:
        enable = partial(must, ["systemctl", "enable", "--quiet", service], f"{service} cannot be enabled")
        changes.append(Change(f"{service} at boot", "disabled", "enabled", enable))
    return changes


def take_over(service: str) -> None:
    """Reload nginx, or raise Failure with what it wrote about it."""
    written = size(ERROR_LOG)
    if not _nginx.reload(service, PATIENCE):
        raise Failure(
            f"nginx did not take the new configuration over and serves with the old one. {ERROR_LOG} says:\n{tail(ERROR_LOG, written)}",
            fix="Remove the cause, for instance another program on the same port, then run this again.",
        )


def size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def tail(path: str, start: int) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            return "".join(stream.readlines()[-20:]).strip() or "(nothing)"
    except FileNotFoundError:
        return "(there is no such file)"


def report(options: Options, observed: Observed) -> t.Dict[str, t.Any]:
    return {"reloaded": observed.running and bool(observed.different)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "default": {}},
            "absent": {"type": "list", "elements": "str", "default": []},
            "worker_connections": {"type": "int", "default": 0},
            "running": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": "/etc/nginx"},
            "executable": {"type": "str", "default": "nginx"},
            "service": {"type": "str", "default": "nginx.service"},
        },
        supports_check_mode=True,
    )
    site = Site()
    _runner.run(module, site.read, plan, report, site.rescue)


if __name__ == "__main__":
    main()
