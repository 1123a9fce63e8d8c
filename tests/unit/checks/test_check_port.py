# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The check type ``port``, on real sockets."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure


def test_open_and_closed(check, tmp_path):
    """Fails with whatever takes a refusal for an answer, and with a file that is there for a socket that listens."""
    path = str(tmp_path / "app.sock")
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        port = tcp.getsockname()[1]
        unix.bind(path)
        unix.listen()
        listening = [check(type="port", port=port), check(type="port", host="localhost", port=port), check(type="port", unix_socket=path)]
        assert [one.verdict for one in listening] == ["pass"] * 3, listening
        assert listening[0].evidence == f"127.0.0.1:{port} is open." and listening[0].name == f"port 127.0.0.1:{port}"
        open_too = check(type="port", port=port, open=False)
        assert open_too.verdict == "fail" and open_too.evidence == f"127.0.0.1:{port} is open; expected closed."
    for where in ({"port": port}, {"unix_socket": path}, {"unix_socket": str(tmp_path / "none")}, {"unix_socket": str(tmp_path / "file")}):
        closed = check(type="port", **where)
        assert (closed.verdict, closed.found) == ("fail", {"open": False}) and "is closed: " in closed.evidence, closed
        assert check(type="port", open=False, **where).verdict == "pass"
    assert check(type="port", host="nonesuch.invalid", port=80).verdict == "unknown"


def test_silence_is_no_proof_of_a_closed_port(check, monkeypatch):
    """Of a full queue as of a firewall that drops, nothing comes back."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _one in range(4)]
        for one in fillers:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        silent = check(type="port", port=port, timeout=0.3)
        assert silent.verdict == "fail" and "no connection within 0.3 s" in silent.evidence
        assert check(type="port", port=port, timeout=0.3, open=False).verdict == "unknown"
        for one in fillers:
            one.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "port, unix_socket: found none"),
        ({"port": 80, "unix_socket": "/x"}, "port, unix_socket: found both"),
        ({"host": "x", "unix_socket": "/x"}, "host: it goes with port"),
        ({"port": 65536}, "from 1 to 65535"),
        ({"unix_socket": "/" + "x" * 200}, "at most 107 bytes"),
    ],
)
def test_mistakes(check, options, said):
    with pytest.raises(Failure) as failure:
        check(type="port", **options)
    assert said in failure.value.message()
