"""Processes that die in every way: what was logged is on the server, and the status is right."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import autolog
from logged import logged_points
from support import MlflowServer, eventually, run_script, start_script
from trainings import arrives, fresh_name, run_named, shippers, stored, train

from autolog.journal.root import journals

if TYPE_CHECKING:
    import subprocess

    from faults import FaultyProxy

SEED = 20260
KILLS = 10

COUNTING = """
    import os, sys, time
    import autolog
    autolog.enable(batch_seconds=0.2)
    with autolog.run("{name}"):
        for step in range({steps}):
            autolog.log_metrics({{"a": step / 2, "b": float(step)}}, step=step)
            os.write(1, b".")
            time.sleep(0.001)
"""


def returned_calls(process: subprocess.Popen[str]) -> int:
    """How many log calls a killed `COUNTING` script had returned from."""
    assert process.stdout is not None
    return len(process.stdout.read())


def values_of(steps: int) -> list[tuple[str, int, float]]:
    """What `COUNTING` logs in so many steps."""
    return sorted(
        point for step in range(steps) for point in (("a", step, step / 2), ("b", step, step))
    )


def has_all_that_returned(server: MlflowServer, name: str, returned: int) -> bool:
    """Whether a run holds what `returned` calls logged, each value once; one more may have."""
    return stored(server, name) in (values_of(returned), values_of(returned + 1))


def failed_at_its_last_record(server: MlflowServer, name: str) -> bool:
    """Whether a run ended FAILED at the time of its last value."""
    info = run_named(server, name).info
    last = max(point.timestamp for point in server.points(info.run_id))
    return bool(info.status == "FAILED" and info.end_time == last)


def test_a_training_killed_at_any_moment_loses_nothing(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """After SIGKILL each value whose call returned is stored once; the run FAILED at its last."""
    chance = random.Random(SEED)
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url}
    for _ in range(KILLS // 5):
        running = []
        for number in range(5):
            folder = tmp_path / str(number)
            folder.mkdir(exist_ok=True)
            name = fresh_name()
            source = COUNTING.format(name=name, steps=100_000)
            running.append((name, start_script(source, cwd=folder, env=env)))
        returned = {}
        for name, process in running:
            assert process.stdout is not None
            calls = chance.randint(1, 400)
            assert len(process.stdout.read(calls)) == calls
            process.kill()
            process.wait(10)
            returned[name] = calls + returned_calls(process)
        for name, calls in returned.items():
            eventually(lambda n=name, c=calls: has_all_that_returned(mlflow_server, n, c), 30)
            eventually(lambda n=name: failed_at_its_last_record(mlflow_server, n))


def test_a_killed_shipper_is_started_again(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """SIGKILL of the shipper, twice, loses and doubles nothing while the training goes on."""
    name, steps = fresh_name(), 3000
    process = start_script(
        COUNTING.format(name=name, steps=steps),
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": mlflow_server.url},
    )
    killed = set()
    for _ in range(2):
        (shipper,) = eventually(lambda: [s for s in shippers(autolog_home) if s.pid not in killed])
        eventually(lambda: stored(mlflow_server, name), 20)
        shipper.kill()
        killed.add(shipper.pid)
    assert process.wait(60) == 0
    arrives(mlflow_server, name, set(values_of(steps)))
    eventually(lambda: run_named(mlflow_server, name).info.status == "FINISHED")


@pytest.fixture
def abandoned(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> tuple[str, int]:
    """The name and the returned calls of a training killed in an outage, with its shipper."""
    faulty.refuse()
    name = fresh_name()
    process = start_script(
        COUNTING.format(name=name, steps=100_000),
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": faulty.url},
    )
    eventually(lambda: shippers(autolog_home))
    assert process.stdout is not None
    assert process.stdout.read(1) == "."
    process.kill()
    process.wait(10)
    for shipper in shippers(autolog_home):
        shipper.kill()
        shipper.wait(10)
    faulty.pass_on()
    return name, 1 + returned_calls(process)


def test_what_both_left_behind_is_sent_by_hand(
    abandoned: tuple[str, int], faulty: FaultyProxy, mlflow_server: MlflowServer, autolog_home: Path
) -> None:
    """With training and shipper killed, `autolog sync` brings each value as it was logged."""
    (journal,) = journals(autolog_home)
    logged = logged_points(journal)
    autolog("sync", env={"MLFLOW_TRACKING_URI": faulty.url}, code=0)
    assert has_all_that_returned(mlflow_server, *abandoned)
    assert mlflow_server.points(run_named(mlflow_server, abandoned[0]).info.run_id) == logged
    assert failed_at_its_last_record(mlflow_server, abandoned[0])


def test_what_both_left_behind_is_sent_by_the_next_training(
    abandoned: tuple[str, int], faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """With training and shipper killed, the next training with that target brings all of both."""
    train(faulty.url, tmp_path)
    eventually(lambda: has_all_that_returned(mlflow_server, *abandoned), 30)
    eventually(lambda: failed_at_its_last_record(mlflow_server, abandoned[0]))


# -- the ways of ending ----------------------------------------------------------------------------

LOGGING = """
    import os, signal, sys
    import autolog
    autolog.enable()
    autolog.log_metrics({"loss": 1.0}, step=0)
    print("ready", flush=True)
"""


@dataclass(frozen=True)
class Ending:
    """The last lines of a script, the signal it gets, and what must come of it."""

    code: str
    exit_code: int
    status: str
    signal: signal.Signals | None = None


LONG_C_CALL = "sum(range(10**11))"  # holds the interpreter: no Python handler would run

ENDINGS = {
    "the last line": Ending("pass", 0, "FINISHED"),
    "sys.exit()": Ending("sys.exit()", 0, "FINISHED"),
    "sys.exit(3)": Ending("sys.exit(3)", 3, "FAILED"),
    "exit(3)": Ending("exit(3)", 3, "FAILED"),
    "exception": Ending("{}['absent']", 1, "FAILED"),
    "os._exit": Ending("os._exit(4)", 4, "FAILED"),
    "abort": Ending("os.abort()", -signal.SIGABRT, "FAILED"),
    "SIGTERM": Ending("signal.pause()", -signal.SIGTERM, "KILLED", signal.SIGTERM),
    "SIGTERM in C": Ending(LONG_C_CALL, -signal.SIGTERM, "KILLED", signal.SIGTERM),
    "Ctrl-C": Ending("signal.pause()", -signal.SIGINT, "KILLED", signal.SIGINT),
}


@pytest.mark.parametrize("way", ENDINGS)
def test_a_run_has_the_status_of_its_process(
    way: str, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """However a process ends, its exit code is what it was, and its open run says how it ended."""
    ending, name = ENDINGS[way], fresh_name()
    source = LOGGING + f"    {ending.code}\n"
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_RUN_NAME": name}
    process = start_script(source, cwd=tmp_path, env=env)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if ending.signal is not None:
        process.send_signal(ending.signal)
    assert process.wait(20) == ending.exit_code
    eventually(lambda: run_named(mlflow_server, name).info.status == ending.status, 20)
    assert stored(mlflow_server, name) == [("loss", 0, 1.0)]


OFFLINE = {"AUTOLOG_MODE": "offline"}


def test_a_traceback_is_what_it_was(tmp_path: Path) -> None:
    """The traceback of an uncaught exception is the same with autolog and without."""
    source = LOGGING + "    def fit():\n        raise RuntimeError('no data')\n    fit()\n"
    without, with_us = (
        run_script(source, cwd=tmp_path, env={**OFFLINE, "AUTOLOG_DISABLED": disabled})
        for disabled in ("1", "0")
    )
    assert "RuntimeError: no data" in without.stderr
    lines = [line for line in with_us.stderr.splitlines() if not line.startswith("autolog: ")]
    assert lines == without.stderr.splitlines()
    assert with_us.returncode == without.returncode == 1
