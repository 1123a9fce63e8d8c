# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's last words have room for the cause."""

from __future__ import annotations

from ansible_collections.bulletproof.deploy.plugins.module_utils._command import Finished
from ansible_collections.bulletproof.deploy.plugins.module_utils._evidence import condense

GUNICORN = "/opt/shop/releases/1/.release/venv/lib/python3.11/site-packages/gunicorn"


def crash(worker: int, cause: str) -> list[str]:
    return f"""\
[{worker}] [ERROR] Exception in worker process
Traceback (most recent call last):
  File "{GUNICORN}/arbiter.py", line 608, in spawn_worker
    worker.init_process()
  File "<frozen importlib._bootstrap>", line 1206, in _gcd_import
  File "/opt/shop/releases/1/shop/wsgi.py", line 11, in <module>
    app = create_app()
          ^^^^^^^^^^^^
RuntimeError: {cause}
[{worker}] [INFO] Worker exiting""".splitlines()


def test_frames_of_the_server_give_way_and_those_of_the_app_stay():
    assert condense(crash(1, "no metrics")) == [
        "[1] [ERROR] Exception in worker process",
        "Traceback (most recent call last):",
        '  File "/opt/shop/releases/1/shop/wsgi.py", line 11, in <module>',
        "    app = create_app()",
        "RuntimeError: no metrics",
        "[1] [INFO] Worker exiting",
    ]


def test_what_every_worker_wrote_is_there_once():
    told = condense([*crash(1, "no metrics"), *crash(2, "no metrics"), *crash(3, "no disk")])
    assert [line for line in told if line.startswith("RuntimeError")] == ["RuntimeError: no metrics", "RuntimeError: no disk"]
    assert len([line for line in told if "Exception in worker" in line]) == 2, "one announces each cause"


def test_a_traceback_that_was_cut_off_stays():
    assert condense(["Traceback (most recent call last):", '  File "/opt/shop/x.py", line 1']) == [
        "Traceback (most recent call last):",
        '  File "/opt/shop/x.py", line 1',
    ]


def test_the_cause_stays_however_much_is_said_after_it():
    """A master that gives up writes tracebacks of its own. Fails without the look at whether the newest cause is kept."""
    halt = ["Traceback (most recent call last):", f'  File "{GUNICORN}/arbiter.py", line 208, in run', "    self.sleep()", "HaltServer"]
    said = [f"[{worker}] [INFO] Worker exiting" for worker in range(100)]
    told = condense([*crash(1, "no disk"), *crash(2, "no metrics"), *halt, *said])
    assert told[:5] == ["Traceback (most recent call last):", *crash(2, "no metrics")[5:7], "RuntimeError: no metrics", "[...]"]
    assert told[-1] == said[-1]
    assert len(told) < 32


def test_a_traceback_without_end_leaves_its_end():
    deep = [line for n in range(200) for line in (f'  File "/opt/shop/x.py", line {n}', f"    call({n})")]
    told = condense(["Traceback (most recent call last):", *deep, "RecursionError: too deep"])
    assert told[-2:] == ["    call(199)", "RecursionError: too deep"]
    assert len(told) == 25


def test_a_long_output_keeps_the_lines_that_name_what_it_is_about():
    """uv names the package first, and then lists every hash that it would have taken. Fails when only the end is shown."""
    said = [
        "Failed to download `flask==3.0.0`",
        "Hash mismatch",
        *(f"sha256:{number}" for number in range(100)),
        "Computed:",
        "sha256:6da8",
    ]
    told = Finished((), 1, "", "\n".join(said)).last_words().splitlines()
    assert told[:2] == said[:2]
    assert told[-2:] == said[-2:]
    assert (len(told), told[6]) == (20, "[...]")
    assert Finished((), 1, "", "\n".join(said)).last_words(3).splitlines() == said[-3:]
