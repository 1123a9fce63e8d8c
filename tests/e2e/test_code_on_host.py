# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection's code comes to a host once a boot, and a host that has lost it is sent it again."""

from __future__ import annotations

from e2e.conftest import NewApp

from lab.hosts import Host

KEPT = "/run/bulletproof-deploy/code"
SENT = "plugins/modules/phase.py"


def test_the_code_comes_once(new_shop: NewApp, host: Host) -> None:
    shop = new_shop("code", [host], app_watch=0)
    shop.deploy("1.0.0")
    host.run(["rm", "-rf", KEPT])
    assert shop.deploy("1.0.0", "--check", "-vvv").output.count(SENT) == 1
    assert host.run(["ls", KEPT], check=False).returncode != 0, "Check mode has left something."
    update = shop.deploy("1.1.0", "-vvv")
    assert update.output.count(SENT) == 1, "Every phase but the first finds the code on the host."
    back = shop.project.must("rollback", "-vvv")
    assert SENT not in back.output
    # One phase, or some of its code, is gone: what cannot begin has done nothing, and comes as a module.
    host.run(["sh", "-c", f"rm {KEPT}/*/__main__.py"])
    again = shop.deploy("1.1.0", "-vvv")
    assert again.output.count(SENT) > 1
    assert shop.version() == "1.1.0"
