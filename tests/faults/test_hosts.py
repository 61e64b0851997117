"""Several machines on one store that are killed, suspended, disconnected or have wrong clocks. No run is
trained twice, none is lost, and each ends bit-identical to an undisturbed one."""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from app.store.run import Run
from app.store.run_store import RunStore
from app.training.trainer import train_run
from model.config import RunConfig
from tests.support.hosts import LEASE, LONG, SHORT, Host, ended, finished, separate_hosts
from tests.support.runs import outcome, small_text, wait_until
from tests.support.stores import refreshed

TEXT = small_text(2000)
ENDLESS = LONG.replace(steps=1_000_000)


@pytest.fixture
def context() -> ForkServerContext:
    return separate_hosts()


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "store")


def add(store: RunStore, name: str, config: RunConfig = LONG) -> Run:
    return store.create(name, config, TEXT, "small.txt")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunConfig], dict[str, Any]]:
    """The outcome of a run of given settings that one process trains from beginning to end."""

    @cache
    def of(config: RunConfig) -> dict[str, Any]:
        run = add(RunStore(tmp_path_factory.mktemp("undisturbed")), "run", config)
        with threadpool_limits(1):
            assert train_run(run, lambda: False)
        return outcome(run)

    return of


def in_training_by(run: Run, host: Host) -> bool:
    return (run.status.state, run.status.host) == ("training", host.name)


def wait_for_training(run: Run, host: Host, step: int = 0) -> None:
    wait_until(lambda: in_training_by(run, host) and run.status.step > step, f"{host.name} trains {run.name}")


@pytest.mark.slow
def test_run_of_a_killed_host_is_taken_over_exactly(store: RunStore, context, undisturbed):
    run = add(store, "run")
    first = Host(context, store, "first")
    with ended(first):
        wait_for_training(run, first, 200)
        second = Host(context, store, "second")
        with ended(second):
            time.sleep(1.5 * LEASE)
            assert in_training_by(run, first), "a run whose host is alive was taken over"
            first.process.kill()
            wait_for_training(run, second)
            wait_until(lambda: finished(run), "the run is finished")
    assert outcome(run) == undisturbed(LONG)


@pytest.mark.slow
def test_suspended_host_writes_nothing_and_trains_another_run(store: RunStore, context, undisturbed):
    run = add(store, "run")
    first = Host(context, store, "first")
    with ended(first):
        wait_for_training(run, first, 200)
        first.signal(signal.SIGSTOP)
        second = Host(context, store, "second")
        with ended(second):
            wait_for_training(run, second, run.status.step + 200)
            first.signal(signal.SIGCONT)
            wait_until(lambda: "the lease of run 'run' was lost" in first.log, "the first host notices")
            assert in_training_by(run, second)
            other = add(store, "other", SHORT)
            wait_until(lambda: finished(other), "the first host trains another run")
            assert other.status.host == "first"
            wait_until(lambda: finished(run), "the run is finished")
    assert run.status.host == "second"
    assert outcome(run) == undisturbed(LONG)
    assert outcome(other) == undisturbed(SHORT)


FROZEN_AT_FIRST_UPDATE = """
import os, signal
from model.training import Training

update = Training.update

def freeze(training):
    Training.update = update
    os.kill(os.getpid(), signal.SIGSTOP)
    update(training)

Training.update = freeze
"""


@pytest.mark.slow
def test_hosts_that_lose_a_run_alive_count_no_death(store: RunStore, context, undisturbed):
    run, hosts = add(store, "run"), []
    with contextlib.ExitStack() as stack:
        for number in range(4):
            host = Host(context, store, f"host-{number}", setup=FROZEN_AT_FIRST_UPDATE if number < 3 else "")
            stack.enter_context(ended(host))
            hosts.append(host)
            wait_until(lambda host=host: in_training_by(run, host), f"{host.name} has the run")
            if number < 3:
                wait_until(lambda host=host: is_suspended(host), f"{host.name} is suspended in an update")
        wait_until(lambda: finished(run) or run.status.state == "failed", "the run has ended")
        assert (run.status.deaths, run.status.died_at) == (0, 0)
        for host in hosts[:3]:
            host.signal(signal.SIGCONT)
            wait_until(lambda host=host: "writes nothing more to it" in host.log, f"{host.name} notices")
    assert run.status.host == hosts[3].name
    assert outcome(run) == undisturbed(LONG)


NO_EXCHANGE = """
import filelock._soft._exclusive._recovery as recovery
recovery.exchange_names = lambda source, target: False  # as on NFS, which cannot exchange two names
"""


@pytest.mark.slow
def test_run_is_taken_over_on_a_volume_without_name_exchange(store: RunStore, context, undisturbed):
    run = add(store, "run", LONG)
    first = Host(context, store, "first")
    with ended(first):
        wait_for_training(run, first, 100)
        others = [Host(context, store, name, setup=NO_EXCHANGE) for name in ("second", "third")]
        with ended(*others):
            time.sleep(1.5 * LEASE)
            assert in_training_by(run, first), "a run whose host is alive was taken over"
            first.process.kill()
            wait_until(lambda: finished(run), "the run is finished")
            assert "continues from step" in others[0].log + others[1].log
    assert outcome(run) == undisturbed(LONG)


FREEZE = """
import os, signal, sys
from app.store.claims import Claim

honest, seen = Claim.check, [0]

def check(claim):
    honest(claim)
    callers = {{sys._getframe(depth).f_code.co_name for depth in (1, 2)}}
    if "{kind}" in callers:
        seen[0] += 1
        if seen[0] == 40:
            os.kill(os.getpid(), signal.SIGSTOP)

Claim.check = check
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replacing", "append"])
def test_host_suspended_between_check_and_change_changes_nothing(store: RunStore, context, undisturbed, kind):
    run = add(store, "run")
    first = Host(context, store, "first", setup=FREEZE.format(kind=kind))
    with ended(first):
        wait_until(lambda: is_suspended(first), "the first host is suspended in the middle of a change")
        second = Host(context, store, "second")
        with ended(second):
            wait_for_training(run, second, run.status.step + 500)
            first.signal(signal.SIGCONT)
            wait_until(lambda: "this worker writes nothing more to it" in first.log, "the first host notices")
            if kind != "append":  # the change itself fails; an appended line goes to a file that was replaced
                assert "another process has taken over run 'run'" in first.log
            wait_until(lambda: finished(run), "the run is finished")
    assert outcome(run) == undisturbed(LONG)


def is_suspended(host: Host) -> bool:
    stat = Path(f"/proc/{host.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
def test_run_is_taken_over_exactly_with_clocks_hours_apart(store: RunStore, context, undisturbed):
    run = add(store, "run")
    first = Host(context, store, "first", ahead=-7200)
    with ended(first):
        wait_for_training(run, first, 200)
        second = Host(context, store, "second", ahead=7200)
        with ended(second):
            time.sleep(1.5 * LEASE)
            assert in_training_by(run, first), first.log
            first.process.kill()
            wait_for_training(run, second)
            wait_until(lambda: finished(run), "the run is finished")
    assert "lost" not in first.log
    assert outcome(run) == undisturbed(LONG)


@pytest.mark.slow
def test_run_trained_last_is_the_default_whatever_the_clocks_of_its_host(store: RunStore, context):
    early, late = add(store, "early", ENDLESS), add(store, "late", ENDLESS)
    ahead, behind = Host(context, store, "ahead", ahead=3600), Host(context, store, "behind", ahead=-3600)
    with ended(ahead, behind):
        wait_until(lambda: {early.status.state, late.status.state} == {"training"}, "both runs are trained")
        first, last = (early, late) if early.status.host == "ahead" else (late, early)
        for run in (first, last):
            wait_until(lambda run=run: trained_step(run) > 0, "it has a trained checkpoint")
        ahead.signal(signal.SIGTERM)
        ahead.join()
        step = trained_step(last)
        wait_until(lambda: trained_step(last) > step, "the other goes on")
        assert refreshed(store).current.run == last.name


def trained_step(run: Run) -> int:
    latest = run.latest()
    return latest.newest.step if latest else 0


@pytest.mark.slow
def test_twenty_workers_train_forty_runs_once_each(store: RunStore, context, undisturbed):
    configs = [SHORT, SHORT.replace(hidden=10), SHORT.replace(hidden=14), SHORT.replace(sequence_length=8)]
    runs = [add(store, f"run-{number:02}", configs[number % 4]) for number in range(40)]
    hosts = [Host(context, store, f"host-{n:02}", lease=30.0, until_idle=True) for n in range(20)]
    with ended(*hosts):
        wait_until(lambda: all(finished(run) for run in runs), "all runs are finished")
        for host in hosts:
            host.join()
    for run, config in zip(runs, configs * 10, strict=True):
        assert outcome(run) == undisturbed(config)
    messages = Counter(line for host in hosts for line in host.log.splitlines())
    assert [messages[f"run {run.name} starts"] for run in runs] == [1] * 40
    assert not [line for line in messages if "continues from step" in line or "lost" in line]
    assert len({run.status.host for run in runs}) > 1
    assert store.leases.held() == set()
