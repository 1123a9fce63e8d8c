# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What HAProxy on a lab host says of itself."""

from __future__ import annotations

import csv

from lab.hosts import Host

ASK = """
import socket, sys
haproxy = socket.socket(socket.AF_UNIX)
haproxy.connect("/run/haproxy/admin.sock")
haproxy.sendall(b"show stat\\n")
sys.stdout.write(haproxy.makefile().read())
"""


def statistics(balancer: Host) -> list[dict[str, str]]:
    """A row for each frontend, backend and server, as ``show stat`` tells it: pxname, svname, status and more."""
    return list(csv.DictReader(balancer.run(["python3", "-c", ASK]).stdout.lstrip("# ").splitlines()))
