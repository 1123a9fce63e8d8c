# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tests can fail: each protection is taken out of a copy of the collection, and its test has to notice.

``make proofs`` runs them all, one after the other; ``make proofs OPTIONS=timer`` those with that in their name.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PLACE = REPOSITORY / ".cache" / "proofs"
# Where Ansible and Python look for the collection: both are the copy itself.
COLLECTIONS = (Path(".cache/collections"), Path(".cache/installed"))


@dataclass(frozen=True)
class Proof:
    """A protection: where it stands, what stands there without it, and the test that has to fail then."""

    name: str
    file: str
    protected: str
    without: str
    test: str


TIMER = "    _systemd.start([layout.safety_net_timer], timeout=SYSTEMCTL)\n"
PROOFS = (
    Proof("timer", "_transition.py", TIMER, "", "fault/test_controller_dies.py::test_the_lease_is_waited_for_when_nobody_helps"),
    Proof("boot-unit", "_agent.py", '"boot": boot', '"boot": expire', "fault/test_reboot.py::test_a_quiet_host"),
    Proof(
        "revert-at-boot",
        "_unfinished.py",
        'revert(layout, f"the host restarted before run {state.way_back.run} was committed")',
        "_transition.flip(layout, state.live)",
        "fault/test_reboot.py::test_between_switch_and_commit",
    ),
    Proof(
        "half-built-at-a-boot",
        "_unfinished.py",
        "    _prune.sweep(layout)\n",
        "",
        "fault/test_reboot.py::test_a_quiet_host",
    ),
    Proof(
        "timer-at-boot",
        "../../roles/systemd_gunicorn/templates/safety-net.timer.j2",
        "WantedBy=timers.target\n",
        "",
        "fault/test_reboot.py::test_power_cut_while_armed_and_back_after_the_lease",
    ),
    Proof(
        "lock",
        "_lock.py",
        "held.run != wanted.run and held.alive(time.time())",
        "held.run != wanted.run and False",
        "fault/test_locks.py::test_a_lock_that_is_held",
    ),
    Proof(
        "lease-of-the-lock",
        "_lock.py",
        "held.run != wanted.run and held.alive(time.time())",
        "held.run != wanted.run",
        "fault/test_locks.py::test_a_run_that_died_is_taken_over_and_undone",
    ),
    Proof(
        "settle",
        "_phase.py",
        '            settle(layout, options["run"])\n',
        "",
        "fault/test_locks.py::test_a_run_that_died_is_taken_over_and_undone",
    ),
    Proof(
        "staging-rescue",
        "_phases/stage.py",
        '        shutil.rmtree(layout.release(f".building-{release}"), ignore_errors=True)\n        state = ',
        "        state = ",
        "fault/test_disk.py::test_full_while_staging",
    ),
    Proof("disk-check", "_phases/preflight.py", "        *disk(options),\n", "", "fault/test_disk.py::test_too_little_to_begin_with"),
    Proof(
        "replaced-workers",
        "_verify.py",
        ', "max_replaced": manifest.health["replaced"]',
        "",
        "fault/test_bad_versions.py::test_a_bad_version[1.2.0-workers-crash-after-5s]",
    ),
    Proof(
        "watch-ends-early",
        "_phases/watch.py",
        "checks, to_the_end=False)",
        "checks)",
        "e2e/test_revert.py::test_a_version_that_fails_later_is_seen_and_goes_back[blue_green]",
    ),
    Proof(
        "commit-of-a-stranger",
        "_phases/commit.py",
        'if not committed and not state.armed_by(options["run"]):',
        "if False:",
        "fault/test_connection.py::test_the_connection_is_cut_until_the_lease_has_ended",
    ),
    Proof(
        "rescue-of-the-playbook",
        "_phases/revert.py",
        'if observed.state.armed_by(options["run"]) and',
        "if False and",
        "fault/test_connection.py::test_the_module_is_killed_on_the_host",
    ),
    Proof(
        "fleet-judge",
        "../../roles/switch/tasks/judge.yml",
        "when: not switch_fleet.go_on",
        "when: false",
        "e2e/test_rolling.py::test_a_failure_in_the_last_batch_takes_all_back_newest_first",
    ),
    Proof(
        "fleet-way-back",
        "../../roles/switch/tasks/go_back_batch.yml",
        "when: inventory_hostname in __switch_batch\n",
        "when: false\n",
        "e2e/test_rolling.py::test_a_failure_in_the_last_batch_takes_all_back_newest_first",
    ),
    Proof(
        "fleet-newest-first",
        "../../roles/switch/tasks/go_back.yml",
        "switch_batches | reverse",
        "switch_batches",
        "e2e/test_rolling.py::test_a_failure_in_the_last_batch_takes_all_back_newest_first",
    ),
    Proof(
        "fleet-minority",
        "../plugin_utils/_fleet.py",
        "len(left) <= allow and",
        "not left and",
        "e2e/test_rolling.py::test_a_minority_is_left_behind_and_the_next_deploy_takes_it_along",
    ),
    Proof(
        "fleet-agreement",
        "../plugin_utils/_fleet.py",
        "if len(serving) > 1:",
        "if False:",
        "e2e/test_rolling.py::test_a_minority_is_left_behind_and_the_next_deploy_takes_it_along",
    ),
    Proof(
        "fleet-commit",
        "../../roles/switch/tasks/commit_together.yml",
        "    revocable: true\n",
        "",
        "e2e/test_rolling.py::test_a_host_that_cannot_commit_takes_the_commit_of_the_others_back",
    ),
    Proof(
        "fleet-stays",
        "_unfinished.py",
        "if not state.way_back.good:",
        "if True:",
        "e2e/test_rolling.py::test_between_the_two_steps_of_a_commit_only_its_run_goes_back",
    ),
    Proof(
        "fleet-asks",
        "_peers.py",
        "checks = _checks(layout, state)",
        "checks: t.List[_verify.Check] = []",
        "e2e/test_rolling.py::test_a_run_that_dies_in_the_midst_of_the_commit_leaves_hosts_that_agree",
    ),
    Proof(
        "fleet-asks-again",
        "_unfinished.py",
        "if not now_or_never and",
        "if False and",
        "e2e/test_rolling.py::test_a_host_that_cannot_ask_the_others_waits_until_it_can",
    ),
    Proof(
        "fleet-knows-whom-to-ask",
        "../../roles/switch/tasks/commit_together.yml",
        "switch_fleet.peers | dict2items | rejectattr('key', 'equalto', inventory_hostname) | items2dict",
        "{}",
        "e2e/test_two_hosts.py::test_a_controller_that_dies_as_it_commits_leaves_hosts_that_agree",
    ),
    Proof(
        "fleet-renewal",
        "../plugin_utils/_batches.py",
        "if waiting and not check:",
        "if False:",
        "e2e/test_rolling.py::test_a_run_that_died_between_batches_is_taken_up",
    ),
    Proof(
        "fleet-locks-of-a-rollback",
        "../../roles/switch/tasks/renew.yml",
        "{{ switch_back and inventory_hostname not in __switch_step.moved }}",
        "{{ false }}",
        "e2e/test_rolling.py::test_they_roll_back_in_batches",
    ),
    Proof(
        "row-steps-aside",
        "_transition.py",
        "        _doors.away(layout, place.slot, other.slot)\n",
        "",
        "e2e/test_instances.py::test_a_version_that_does_not_answer_never_sees_a_user[1.2.0-always-500]",
    ),
    Proof(
        "row-verified-first",
        "_phases/switch.py",
        """            Change("verify on its socket", None, place.release, partial(self._verify, "verify", layout, place, manifest, users)),\n""",
        "",
        "e2e/test_instances.py::test_a_version_that_does_not_answer_never_sees_a_user[1.2.0-always-500]",
    ),
    Proof(
        "row-canary",
        "_phases/switch.py",
        "            if canary:\n",
        "            if False:\n",
        "e2e/test_instances.py::test_a_canary_that_fails_goes_back_before_the_others_have_moved",
    ),
    Proof(
        "row-good-only",
        "_transition.py",
        "            _doors.lead(layout, [slot for slot in position.slots if slot in good])\n",
        "            pass\n",
        "unit/core/test_doors.py::test_on_the_way_back_users_are_sent_only_to_what_was_before",
    ),
    Proof(
        "patience-where-users-are",
        "_verify.py",
        '{"patience": PATIENCE} if users else {}',
        "{}",
        "e2e/test_direct.py::test_a_release_that_answers_wrongly_is_not_waited_for",
    ),
    Proof(
        "live-restarts-on-a-changed-unit",
        "_transition.py",
        "if not again and serves_from",
        "if serves_from",
        "e2e/test_direct.py::test_a_changed_unit_takes_effect_although_the_release_is_live",
    ),
    Proof(
        "one-migrator-sqlite",
        "_database/alembic.py",
        "with one_at_a_time.of_file(app.database, wait):",
        "with contextlib.nullcontext():",
        "integration/database/test_alembic.py::test_two_at_once_and_one_that_is_killed[sqlite]",
    ),
    Proof(
        "one-migrator-postgresql",
        "_database/alembic.py",
        "        one_at_a_time.of_session(connection, app.database, wait)\n",
        "",
        "integration/database/test_alembic.py::test_two_at_once_and_one_that_is_killed[postgresql]",
    ),
    Proof(
        "retries-of-a-migration",
        "_database/alembic.py",
        "attempts > app.retries",
        "attempts > 0",
        "integration/database/test_alembic.py::test_a_lock_that_somebody_holds",
    ),
    Proof(
        "classification",
        "_database/alembic.py",
        'if contracting == "allow" or seen.empty:',
        "if True:",
        "integration/database/test_alembic.py::test_what_contracts",
    ),
    Proof(
        "proof-of-a-stamp",
        "_database/migrating.py",
        "            if problem is not None:",
        "            if False:",
        "integration/database/test_alembic.py::test_a_schema_without_a_revision[sqlite]",
    ),
    Proof(
        "check-mode-makes-no-database",
        "_database/alembic_driver.py",
        '            cargs[0] = ":memory:"\n',
        "",
        "integration/database/test_alembic.py::test_up_again_and_down[sqlite]",
    ),
    Proof(
        "record-after-the-backup",
        "_database/backups.py",
        """    os.rename(partial, final)
    try:
        sync_directory(directory)
        record = json.dumps(asdict(backup), indent=2, sort_keys=True) + "\\n"
        write_atomically(f"{final}.json", record, like.st_mode & 0o666, (like.st_uid, like.st_gid))
""",
        """    try:
        sync_directory(directory)
        record = json.dumps(asdict(backup), indent=2, sort_keys=True) + "\\n"
        write_atomically(f"{final}.json", record, like.st_mode & 0o666, (like.st_uid, like.st_gid))
        os.rename(partial, final)
""",
        "integration/database/test_postgres.py::test_a_backup_that_is_killed_is_none[custom]",
    ),
    Proof(
        "time-limit-of-a-lock",
        "_database/alembic_driver.py",
        'for name in ("lock_timeout", "statement_timeout"):',
        'for name in ("statement_timeout",):',
        "integration/database/test_alembic.py::test_a_lock_that_somebody_holds",
    ),
    Proof(
        "time-limit-of-a-statement",
        "_database/alembic_driver.py",
        'for name in ("lock_timeout", "statement_timeout"):',
        'for name in ("lock_timeout",):',
        "integration/database/test_alembic.py::test_an_asynchronous_engine_and_several_version_locations[postgresql]",
    ),
    Proof(
        "database-of-env-py",
        "_database/alembic_driver.py",
        "if where != expected:",
        "if False:",
        "integration/database/test_alembic.py::test_what_is_refused_before_anything_is_changed",
    ),
    Proof(
        "a-migration-that-does-not-commit",
        "_database/alembic.py",
        'if failure is None and mode != "stamp" and len(now) < len(steps):',
        "if False:",
        "integration/database/test_alembic.py::test_what_is_refused_before_anything_is_changed",
    ),
    Proof(
        "sqlite-migrates-in-a-transaction",
        "_database/alembic_driver.py",
        "        elif word not in READS:\n",
        "        elif False:\n",
        "integration/database/test_alembic.py::test_a_migration_that_fails_midway[sqlite]",
    ),
    Proof(
        "sqlite-commits-before-a-pragma",
        "_database/alembic_driver.py",
        "        if OUTSIDE.match(bare):\n            self._commit_early()\n",
        "",
        "integration/database/test_alembic.py::test_what_cannot_be_in_a_transaction_is_not",
    ),
    Proof(
        "sql-file-in-a-transaction",
        "_database/sql_files.py",
        '                    connection.execute("BEGIN IMMEDIATE")\n',
        "                    pass\n",
        "integration/database/test_sql_migrate.py::test_killed_at_any_point_the_next_run_needs_no_help[sqlite]",
    ),
    Proof(
        "env-link",
        "_dotenv/desired.py",
        "os.O_RDONLY | os.O_NOFOLLOW",
        "os.O_RDONLY",
        "integration/environment/test_env_file.py::test_what_is_no_file_of_its_own_is_refused",
    ),
    Proof(
        "env-values-hidden",
        "../modules/env_file.py",
        "            module.params[option] = {name: HIDDEN for name in module.params[option]}\n",
        "            pass\n",
        "integration/environment/test_env_file.py::test_no_value_is_anywhere_but_in_the_file",
    ),
    Proof(
        "env-one-at-a-time",
        "../modules/env_file.py",
        "LOCK_WAIT):\n        yield",
        "LOCK_WAIT):\n        pass\n    yield",
        "integration/environment/test_env_file.py::test_two_at_once_lose_nothing",
    ),
    Proof(
        "env-rules-before-writing",
        "../modules/env_file.py",
        "        if errors:\n",
        "        if False:\n",
        "integration/environment/test_env_file.py::test_rules_are_looked_at_before_anything_is_written",
    ),
    Proof(
        "env-comment-of-old-systemd",
        "_dotenv/dialects.py",
        "_COMMENT_THAT_GOES_ON if comments_go_on else _COMMENT",
        "_COMMENT",
        "integration/environment/test_systemd.py::test_systemd_reads_what_we_read",
    ),
    Proof(
        "transaction-of-a-file-postgresql",
        "_database/sql_files.py",
        'postgres.rows(session, "BEGIN")',
        "pass",
        "integration/database/test_sql_migrate.py::test_killed_at_any_point_the_next_run_needs_no_help[postgresql]",
    ),
    Proof(
        "death-is-noticed-sql",
        "_database/sql_files.py",
        'settings["client_connection_check_interval"] = 2000',
        "pass",
        "integration/database/test_sql_migrate.py::test_killed_at_any_point_the_next_run_needs_no_help[postgresql]",
    ),
    Proof(
        "death-is-noticed-alembic",
        "_database/alembic_driver.py",
        "SELECT set_config('client_connection_check_interval', '2000', false)",
        "SELECT 1",
        "integration/database/test_alembic.py::test_killed_at_any_point_the_next_run_needs_no_help[postgresql]",
    ),
    Proof(
        "processes-end-first",
        "_processes.py",
        "    stop(layout, [instance for instance in now if not right or instance not in wanted])\n",
        "",
        "unit/core/test_processes.py::test_all_of_before_end_before_one_of_the_next_begins",
    ),
    Proof(
        "processes-are-waited-for",
        "_processes.py",
        "        if not left:\n",
        "        if left or not left:\n",
        "unit/core/test_processes.py::test_what_cannot_even_be_killed_has_no_successor",
    ),
    Proof(
        "processes-go-back",
        "_transition.py",
        "    _processes.run(layout, position)\n",
        "",
        "unit/core/test_processes.py::test_going_back_and_booting_bring_them_along",
    ),
    Proof(
        "processes-after-a-boot",
        "_transition.py",
        "    _processes.run(layout, position)\n",
        "",
        "e2e/test_processes.py::test_a_rollback_and_a_restart_of_the_host_bring_back_the_right_ones",
    ),
    Proof(
        "processes-are-watched",
        "_processes.py",
        """    return [{**common, "name": f"process {instance}", "unit": unit(layout, instance)} for instance in of(manifest)]""",
        "    return []",
        "e2e/test_processes.py::test_one_that_crashes_takes_its_release_back",
    ),
    Proof(
        "singleton-at-home",
        "_processes.py",
        """if singletons or not one["singleton"]""",
        "if True",
        "unit/core/test_processes.py::test_a_singleton_runs_at_home_alone",
    ),
    Proof(
        "singleton-stays-home",
        "_phases/switch.py",
        "    return replace(back, singletons=home)\n",
        "    return back\n",
        "unit/core/test_processes.py::test_a_rollback_keeps_the_home",
    ),
    Proof(
        "singleton-second-home",
        "_processes.py",
        "    if here:\n",
        "    if here and False:\n",
        "unit/core/test_processes.py::test_two_homes_are_refused_before_anything_is_touched",
    ),
    Proof(
        "drain-lease",
        "_balancers/pool.py",
        "            _systemd.start([timer(pool.app)], timeout=SYSTEMCTL)\n",
        "            pass\n",
        "integration/load_balancer/test_load_balancer.py::test_the_lease_of_a_dead_controller_also_over_a_restart[haproxy]",
    ),
    Proof(
        "drain-leaves-the-last",
        "_balancers/pool.py",
        "        if leave_last and member.name not in out and not others_well(pool, out, member):\n",
        "        if False:\n",
        "unit/balancers/test_absences.py::test_of_two_at_once_one_stays",
    ),
    Proof(
        "drain-done-again",
        "_balancers/leases.py",
        " and held.complete else wanted",
        " else wanted",
        "unit/balancers/test_absences.py::test_what_an_absence_becomes",
    ),
    Proof(
        "balancer-asks-to-close",
        "_balancers/nginx.py",
        "        if (-e {CLOSING}) {{",
        "        if (-e {CLOSING}-none) {{",
        "integration/load_balancer/test_load_balancer.py::test_nobody_is_cut_off_in_an_idle_connection[nginx]",
    ),
    Proof(
        "balancer-unreachable",
        "../../roles/load_balancer/tasks/member.yml",
        "  ignore_unreachable: true\n",
        "",
        "integration/load_balancer/test_load_balancer.py::test_a_load_balancer_that_is_gone_is_its_own_fault[haproxy]",
    ),
    Proof(
        "dead-connections",
        "../plugin_utils/_early.py",
        "            connection.reset()\n",
        "            pass\n",
        "fault/test_connection.py::test_a_connection_that_openssh_kept_and_that_leads_nowhere",
    ),
    Proof(
        "links-of-log-files",
        "_places.py",
        "os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK",
        "unit/core/test_host_files.py::test_a_link_is_not_followed[file]",
    ),
    Proof(
        "judged-before-written",
        "_phases/host_files.py",
        "        if not said.ok:\n",
        "        if False:\n",
        "unit/core/test_host_files.py::test_a_text_that_is_refused_replaces_nothing",
    ),
)


def without(proof: Proof) -> Path:
    """A copy of the repository in which the protection is missing."""
    copy = PLACE / proof.name
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
    for place in COLLECTIONS:
        (copy / place / "ansible_collections" / "bulletproof").mkdir(parents=True)
        (copy / place / "ansible_collections" / "bulletproof" / "deploy").symlink_to(copy)
    # The lab is the same one: its keys, what it knows.
    (copy / ".cache" / "lab").symlink_to(REPOSITORY / ".cache" / "lab")
    file = copy / "plugins" / "module_utils" / proof.file
    text = file.read_text()
    if text.count(proof.protected) != 1:
        sys.exit(f"{proof.name}: {proof.file} does not have exactly once: {proof.protected!r}. Say anew what the protection is.")
    file.write_text(text.replace(proof.protected, proof.without))
    return copy


def noticed(proof: Proof) -> bool:
    """Whether the test fails without the protection."""
    # The case may not be in the sample.
    argv = [sys.executable, "-m", "pytest", f"tests/{proof.test}", "--matrix", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        argv,
        cwd=without(proof),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    (PLACE / f"{proof.name}.log").write_text(done.stdout)
    failed = re.search(r"^FAILED tests/" + re.escape(proof.test), done.stdout, re.MULTILINE)
    return done.returncode == 1 and failed is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="a part of a name: only those")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    chosen = [proof for proof in PROOFS if not options.names or any(name in proof.name for name in options.names)]
    unnoticed = []
    for proof in chosen:
        began = time.monotonic()
        good = noticed(proof)
        if not good:
            unnoticed.append(proof.name)
        what = "noticed" if good else f"NOT NOTICED, see {PLACE / proof.name}.log"
        print(f"{proof.name:24} {time.monotonic() - began:4.0f} s  without it {proof.test}: {what}", flush=True)
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} protections are missed by their test.")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
