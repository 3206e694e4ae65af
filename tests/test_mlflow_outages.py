"""MLflow's own calls where the server is away, busy, or says no."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import psutil
import pytest
from faults import Reply, _pass
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from support import eventually, run_script, start_script

import autolog
from autolog.store import asking

if TYPE_CHECKING:
    from faults import FaultyProxy
    from readback import Experiment


@pytest.fixture
def log_through(experiment: Experiment, faulty: FaultyProxy) -> FaultyProxy:
    """A proxy before the server that MLflow is set to, with ours on."""
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable(silent=True)
    return faulty


# -- runs ------------------------------------------------------------------------------------------


def test_a_run_begins_without_its_server(
    experiment: Experiment, faulty: FaultyProxy, tmp_path: Path
) -> None:
    """With a dead server the calls return at once; the run gets its id when the server is back."""
    file = tmp_path / "weights.txt"
    file.write_text("0.1")
    faulty.black_hole()
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable(silent=True)
    started = time.monotonic()
    with mlflow.start_run(run_name="early") as run:
        for step in range(100):
            mlflow.log_metric("m", step, step=step)
        mlflow.log_param("p", 1)
        mlflow.log_artifact(file)
        with mlflow.start_run(run_name="early child", nested=True):
            mlflow.log_metric("c", 1)
    assert time.monotonic() - started < 6  # one wait of 2 s, and then it is known
    handle = autolog.last_run()
    assert handle is not None
    assert handle.run_id is None

    faulty.pass_on()
    assert autolog.flush(60).complete
    runs = experiment.runs(2)
    assert handle.run_id == runs["early child"].info.run_id
    assert experiment.parent(runs["early child"]) == runs["early"].info.run_id
    assert experiment.values(runs["early"], "m", 100) == list(range(100))
    assert runs["early"].data.params == {"p": "1"}
    assert mlflow.get_run(run.info.run_id).info.run_id == runs["early"].info.run_id
    files = MlflowClient(experiment.server.url).list_artifacts(runs["early"].info.run_id)
    assert [each.path for each in files] == ["weights.txt"]


def test_files_of_a_run_that_a_slow_server_has_created(
    experiment: Experiment, faulty: FaultyProxy, tmp_path: Path
) -> None:
    """While it does not say where they go they wait, and are not put where nobody looks."""
    faulty.slow(2.5)
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable(silent=True)
    with mlflow.start_run(run_name="slow"):
        handle = autolog.last_run()
        assert handle is not None
        eventually(lambda: handle.run_id, 30)
        mlflow.log_text("0.1", "weights.txt")
        faulty.pass_on()
    assert autolog.flush(120).complete
    run = experiment.only_run()
    files = MlflowClient(experiment.server.url).list_artifacts(run.info.run_id)
    assert [each.path for each in files] == ["weights.txt"]
    assert not (tmp_path / "weights.txt").exists()


def test_strict_begins_no_run_without_its_server(
    experiment: Experiment, faulty: FaultyProxy
) -> None:
    """Under ``strict`` a server that does not answer is an error, as it is to MLflow."""
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable(silent=True, strict=True)
    faulty.black_hole()
    with pytest.raises(MlflowException, match="does not answer"):
        mlflow.start_run()
    assert mlflow.active_run() is None


def test_a_server_that_fails_in_the_middle_delays_nobody(
    experiment: Experiment, faulty: FaultyProxy
) -> None:
    """500, 429 and silence cost the calls nothing, and everything arrives once."""
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable(silent=True)
    with mlflow.start_run(run_name="patient"):
        for fault in (lambda: faulty.status(500), lambda: faulty.status(429, 1), faulty.lose_reply):
            fault()
            started = time.monotonic()
            for step in range(50):
                mlflow.log_metrics({"m": step, "n": -step}, step=step)
            assert time.monotonic() - started < 2
        faulty.black_hole()
        started = time.monotonic()
    assert time.monotonic() - started < 4
    faulty.pass_on()
    assert autolog.flush(60).complete
    run = experiment.only_run()
    assert len(experiment.points(run)) == 300
    assert run.info.status == "FINISHED"


def test_a_run_goes_on_without_its_server(experiment: Experiment, log_through: FaultyProxy) -> None:
    """Resumed while nothing answers, whether or not the server has ever had it."""
    with mlflow.start_run(run_name="known") as known:
        mlflow.log_metric("m", 0, step=0)
    assert autolog.flush(30).complete
    log_through.black_hole()
    started = time.monotonic()
    with mlflow.start_run(run_name="local") as local:
        mlflow.log_metric("m", 0, step=0)
    for run, name in ((known, "known"), (local, "local")):
        with mlflow.start_run(run_id=run.info.run_id, tags={"again": name}) as resumed:
            assert resumed.info.status == "RUNNING"
            mlflow.log_metric("m", 1, step=1)
    client = MlflowClient()
    client.update_run(local.info.run_id, name="renamed")
    client.set_terminated(local.info.run_id, "KILLED")
    assert time.monotonic() - started < 9
    log_through.pass_on()
    assert autolog.flush(60).complete
    runs = experiment.runs(2)
    assert {name: run.info.status for name, run in runs.items()} == {
        "known": "FINISHED",
        "renamed": "KILLED",
    }
    for run in runs.values():
        assert experiment.values(run, "m", 2) == [0, 1]
        assert run.data.tags["again"] in ("known", "local")


def test_a_slow_start_of_the_shipper_is_no_silent_server(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Where interpreters start slowly, as from a disk of the network, a run has its real id."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import time; time.sleep(2.2)")
    told = experiment.script(
        """
        import autolog
        import mlflow
        autolog.enable()
        with mlflow.start_run() as run:
            print(run.info.run_id)
        """,
        tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert told.splitlines()[0] == experiment.only_run().info.run_id


def test_a_refused_run_leaves_nothing(
    experiment: Experiment, log_through: FaultyProxy, autolog_home: Path
) -> None:
    """What the caller was told at once is neither in the account nor tried again some day."""
    with pytest.raises(MlflowException, match="987654321"):
        mlflow.start_run(experiment_id="987654321")
    with mlflow.start_run():
        mlflow.log_metric("m", 1)
    assert autolog.flush(30).complete
    assert experiment.only_run().info.status == "FINISHED"
    eventually(lambda: not list(autolog_home.rglob("held/*")))


def test_a_run_left_open_by_disable_is_ended_by_mlflow(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Its end goes to the server directly, and no later end of the process changes that."""
    process = start_script(
        """
        import os, signal
        import autolog
        import mlflow
        autolog.enable()
        mlflow.start_run()
        mlflow.log_metric("m", 1)
        assert autolog.flush(30).complete
        autolog.disable()
        mlflow.end_run()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        cwd=tmp_path,
        env=experiment.env,
    )
    assert process.wait(60) == -signal.SIGKILL
    eventually(lambda: not _shippers(tmp_path), 30)
    assert experiment.only_run().info.status == "FINISHED"


def _shippers(home: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(process.info["cmdline"] or ())
    ]


def test_an_experiment_that_was_promised_is_found_later(
    experiment: Experiment, log_through: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``set_experiment`` without an answer gives an id that every later call understands."""
    monkeypatch.setattr(asking, "_BREAK_SECONDS", 0.0)
    del os.environ["MLFLOW_EXPERIMENT_ID"]
    log_through.black_hole()
    promised = mlflow.set_experiment(experiment.name)
    with mlflow.start_run():
        mlflow.log_metric("m", 1)
    log_through.pass_on()
    assert autolog.flush(60).complete
    run = experiment.only_run()
    found = mlflow.search_runs([promised.experiment_id], output_format="list")
    assert [each.info.run_id for each in found] == [run.info.run_id]
    mlflow.set_experiment_tag("team", "a")
    client = experiment.server.client()
    assert client.get_experiment(run.info.experiment_id).tags["team"] == "a"


# -- reads -----------------------------------------------------------------------------------------


def test_reads_wait_for_a_server_that_is_busy(
    experiment: Experiment, log_through: FaultyProxy
) -> None:
    """A read sees the writes before it also where they were refused with 429 for a while."""
    refused = 0

    def throttle(handler: Any, request: Any) -> None:
        nonlocal refused
        if "log-batch" in request.path and refused < 4:
            refused += 1
            handler.send(Reply(429, b"{}", (("Retry-After", "0"),)))
        else:
            _pass(handler, request)

    with mlflow.start_run() as run:
        log_through._switch(throttle)
        mlflow.log_metric("m", 3)
        assert mlflow.get_run(run.info.run_id).data.metrics == {"m": 3}
    assert refused == 4


def test_a_read_that_comes_too_early_is_said(
    experiment: Experiment,
    faulty: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A server that takes nothing for long holds a read up once, which then says what it lacks."""
    monkeypatch.setattr(asking, "_STANDSTILL_SECONDS", 1.0)
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    autolog.enable()

    def full(handler: Any, request: Any) -> None:
        if "log-batch" in request.path:
            handler.send(Reply(503, b"{}"))
        else:
            _pass(handler, request)

    with mlflow.start_run() as run:
        faulty._switch(full)
        mlflow.log_metric("m", 3)
        started = time.monotonic()
        for _ in range(10):
            assert mlflow.get_run(run.info.run_id).data.metrics == {}
        assert time.monotonic() - started < 6
        faulty.pass_on()
    said = capfd.readouterr().err
    assert said.count(f"{faulty.url} does not have all that was logged yet") == 1
    assert experiment.values(experiment.only_run(), "m", 1) == [3]


def test_hot_reads_do_not_defeat_the_buffer(
    experiment: Experiment, log_through: FaultyProxy
) -> None:
    """Calls that read their run each time, as ``log_metric(run_id=...)``, wait for nobody."""
    with mlflow.start_run(log_system_metrics=True) as run:
        assert autolog.flush(30).complete
        log_through.status(503)
        started = time.monotonic()
        for step in range(200):
            mlflow.log_metric("m", step, step=step, run_id=run.info.run_id)
            mlflow.log_metrics({"n": step}, step=step)
    assert time.monotonic() - started < 4  # the sampling of system metrics ends with the run
    log_through.pass_on()
    assert experiment.values(experiment.only_run(60), "m", 200) == list(range(200))


# -- refusals --------------------------------------------------------------------------------------


_BAD: dict[str, Callable[[MlflowClient, str], object]] = {
    "name": lambda client, run_id: client.log_metric(run_id, "a//b", 1),
    "value": lambda client, run_id: client.log_metric(run_id, "m", "much"),  # type: ignore[arg-type]
    "param": lambda client, run_id: client.log_param(run_id, "p", "other"),
    "tag": lambda client, run_id: client.set_tag(run_id, "a//b", 1),
    "batch": lambda client, run_id: client.log_batch(
        run_id, [Metric("m", math.nan, 1, 0), Metric("a//b", 1, 1, 0)]
    ),
}


def _refusals(run_id: str) -> Iterator[tuple[str, str]]:
    client = MlflowClient()
    client.log_param(run_id, "p", "first")
    for name, call in _BAD.items():
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is the question
            call(client, run_id)
        said = f"{type(caught.value).__name__}: {caught.value}".replace(run_id, "ID")
        yield name, re.sub(r"timestamp=\d+", "timestamp", said)


def test_what_is_refused_without_a_server_is_refused_alike(tmp_path: Path) -> None:
    """Same type and words as a store gives, offline too."""
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    expected = dict(_refusals(MlflowClient().create_run("0").info.run_id))
    autolog.enable(silent=True, mode="offline")
    assert dict(_refusals(MlflowClient().create_run("0").info.run_id)) == expected


def test_what_only_the_server_can_know_is_told_later(
    experiment: Experiment, tmp_path: Path
) -> None:
    """It is in ``status()``, on standard error at the end, and raised by a strict ``flush``."""
    done = run_script(
        """
        import autolog
        import mlflow
        autolog.enable()
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 1, step=0)
            assert autolog.flush(30).complete
            mlflow.tracking._tracking_service.utils._get_store().__wrapped__.delete_run(run.info.run_id)
            mlflow.log_metric("m", 2, step=1)
            receipt = autolog.flush(30)
            assert sum(receipt.rejected.values()) == 1, receipt
            assert autolog.status()["receipt"].rejected == receipt.rejected
        autolog.enable(strict=True)
        try:
            autolog.flush(30)
        except RuntimeError as error:
            print(error)
        """,
        cwd=tmp_path,
        env=experiment.env,
    )
    assert done.returncode == 0, done.stderr
    assert "1 refused" in done.stdout
    assert "1 refused" in done.stderr
