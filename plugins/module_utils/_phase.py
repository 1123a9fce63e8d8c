# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every phase of a run has in common: whose run it is, the lock, one at a time on a host, and the audit log."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible_collections.bulletproof.deploy.plugins.module_utils import _audit, _lock, _runner, _state, _unfinished
from ansible_collections.bulletproof.deploy.plugins.module_utils._failure import Failure
from ansible_collections.bulletproof.deploy.plugins.module_utils._layout import Layout
from ansible_collections.bulletproof.deploy.plugins.module_utils._mutex import exclusive

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Longer than a switch may take: the next phase of the same run may come while the timer's revert is still at work.
PATIENCE = 120.0

APP: t.Dict[str, t.Any] = {
    "app": {"type": "str", "required": True},
    "root": {"type": "path", "required": True},
}
RUN: t.Dict[str, t.Any] = {
    **APP,
    "run": {"type": "str", "required": True},
    "who": {"type": "str", "default": "unknown"},
    "reason": {"type": "str", "default": "deploy"},
    "lease": {"type": "int", "default": 300},
    "lock_wait": {"type": "int", "default": 0},
}


def layout_of(options: _runner.Options) -> Layout:
    return Layout(options["app"], options["root"])


def lock(options: _runner.Options) -> None:
    """Take the run's lock on this host, or renew it; Failure while somebody else has it."""
    _lock.hold(layout_of(options), options["run"], options["who"], options["reason"], options["lease"], options["lock_wait"])


def settle(layout: Layout, run: str) -> None:
    """Finish what a dead run left armed, without waiting for the timer: this run now holds the lock, so that one is over."""
    state = _state.load(layout)
    if state.way_back is not None and state.way_back.run != run:
        _unfinished.settle(layout, f"run {run} took over from run {state.way_back.run}, which was never committed", now_or_never=True)


@contextlib.contextmanager
def renewing(options: _runner.Options) -> t.Iterator[None]:
    """Keep the run's lease alive while something takes as long as it takes: this process lives, and so does the run."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(options["lease"] / 4):
            _lock.renew(layout_of(options), options["run"], options["lease"])

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def hold(options: _runner.Options, phase: str) -> t.Iterator[None]:
    """Be the one run that works on this app on this host, for one phase, and write down how it ended."""
    layout = layout_of(options)
    began = time.monotonic()
    result, more = "ok", {}
    try:
        lock(options)
        # This process lives, and so does the run, however long this takes.
        with renewing(options), exclusive(layout.private, "host", PATIENCE):
            settle(layout, options["run"])
            yield
    except BaseException as error:
        result = "failed"
        # The rest is the application's log, which is kept elsewhere.
        more = {"error": error.what.splitlines()[0] if isinstance(error, Failure) else repr(error)}
        raise
    finally:
        subject = {name: options[name] for name in ("release", "waived") if options.get(name)}
        _audit.append(layout, options["run"], options["who"], phase, result, time.monotonic() - began, **subject, **more)


def run(
    module: AnsibleModule,
    phase: str,
    read: t.Callable[[_runner.Options], _runner.Observed],
    plan: t.Callable[[_runner.Options, _runner.Observed], t.Sequence[_runner.Change]],
    report: t.Callable[[_runner.Options, _runner.Observed], t.Dict[str, t.Any]],
    rescue: t.Optional[t.Callable[[_runner.Options, Failure], Failure]] = None,
) -> None:
    """A module that is one phase of a run. See ``_runner.run``; the guard is the run's lock."""
    _runner.run(module, read, plan, report, rescue, guard=hold(module.params, phase))


def query(module: AnsibleModule, phase: str, ask: t.Callable[[_runner.Options], t.Dict[str, t.Any]]) -> None:
    """A phase that only looks: no plan, never changed."""
    run(module, phase, ask, lambda options, observed: [], lambda options, observed: observed)
