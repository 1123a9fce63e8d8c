# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sends the artefact to hosts that do not have the release, then lets the module stage it."""

from __future__ import annotations

import base64
import os
import re
import typing as t

from ansible_collections.bulletproof.deploy.plugins.action import phase
from ansible_collections.bulletproof.deploy.plugins.plugin_utils import _forks

# Bytes. Sending a file by itself takes three commands over SSH; what is smaller than the code of a module is quicker sent with it.
SMALL = 256 * 1024

_forks.load(*_forks.THEN)


def environment_text(variables: t.Mapping[str, t.Any]) -> str:
    """Variables as a file that systemd reads (systemd.exec(5), EnvironmentFile=): quoted, so that every value arrives as it is."""

    def quoted(value: t.Any) -> str:
        return '"' + re.sub(r'(["\\$`])', r"\\\1", str(value)) + '"'

    return "".join(f"{name}={quoted(variables[name])}\n" for name in sorted(variables))


class ActionModule(phase.ActionModule):
    """See the documentation of the module of the same name."""

    TRANSFERS_FILES = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        try:
            return super().run(tmp, task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def phase_options(self) -> t.Dict[str, t.Any]:
        options = super().phase_options()
        told = {"APP_NAME": options.get("app"), "APP_VERSION": options.get("version"), "APP_RELEASE": options.get("release")}
        # One text, as all that may have secrets in it; and as systemd reads it.
        options["environment"] = environment_text({**told, **(options.get("environment") or {})})
        if options.get("present") or self._task.check_mode:
            return options
        if os.path.getsize(options["artefact"]) <= SMALL:
            with open(options["artefact"], "rb") as stream:
                options["artefact_content"] = base64.b64encode(stream.read()).decode()
        else:
            self._make_tmp_path()
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, os.path.basename(str(options["artefact"])))
            options["artefact"] = self._transfer_file(str(options["artefact"]), remote)
        return options
