"""MLflow's runs and ours are the same runs, whoever opens them, and with the server away too."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from support import MlflowServer, eventually, start_script

import autolog

if TYPE_CHECKING:
    from faults import FaultyProxy
    from readback import Experiment


# -- runs of ours ----------------------------------------------------------------------------------


def test_a_run_of_ours_is_the_active_run(experiment: Experiment) -> None:
    """MLflow's fluent calls land in it, a nested run is its child, and ``end_run`` ends it."""
    _log_to(experiment)
    with autolog.run("ours"):
        assert mlflow.active_run() is not None
        mlflow.log_metric("m", 1, step=7)
        mlflow.log_param("p", "1")
        mlflow.log_text("hello", "hello.txt")
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("c", 1)
    assert mlflow.active_run() is None
    runs = experiment.runs(2)
    ours, child = runs["ours"], runs["child"]
    assert experiment.parent(child) == ours.info.run_id
    assert ours.data.params == {"p": "1"}
    assert [(p.key, p.step, p.value) for p in experiment.points(ours)] == [("m", 7, 1.0)]
    assert autolog.flush(30).complete
    files = MlflowClient(experiment.server.url).list_artifacts(ours.info.run_id)
    assert [file.path for file in files] == ["hello.txt"]


def test_end_run_ends_whatever_is_active(experiment: Experiment) -> None:
    """The loop that many programs end their runs with comes to an end."""
    _log_to(experiment)
    autolog.log_metric("m", 1)
    assert mlflow.active_run() is not None
    while mlflow.active_run() is not None:
        mlflow.end_run("KILLED")
    assert experiment.only_run().info.status == "KILLED"


def test_the_user_may_start_a_run_beside_ours(experiment: Experiment) -> None:
    """``mlflow.start_run()`` does not fail because a hook has a run open."""
    _log_to(experiment)
    autolog.log_metric("ours", 1)
    with mlflow.start_run(run_name="the user's") as run:
        mlflow.log_metric("m", 1)
        autolog.log_metric("n", 2)
        assert mlflow.active_run().info.run_id == run.info.run_id
    mlflow.log_metric("ours", 2, step=1)
    mlflow.end_run()
    runs = experiment.runs(2)
    (name,) = set(runs) - {"the user's"}
    assert {p.key for p in experiment.points(runs["the user's"])} == {"m", "n"}
    assert [p.value for p in sorted(experiment.points(runs[name]))] == [1.0, 2.0]
    assert experiment.parent(runs["the user's"]) is None


def test_the_line_that_everybody_writes(experiment: Experiment, tmp_path: Path) -> None:
    """``mlflow.log_metric("epoch_loss", loss.item())`` in a plain loop: one run, his series."""
    experiment.script(
        """
        import autolog
        autolog.enable()
        import mlflow, torch
        from torch.utils.data import DataLoader, TensorDataset
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(torch.ones(6, 2)), batch_size=2)
        for epoch in range(3):
            for (x,) in loader:
                optimizer.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
            mlflow.log_metric("epoch_loss", 100 + epoch, step=epoch)
        mlflow.log_param("mine", 1)
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert run.data.params["mine"] == "1"
    assert run.data.params["optimizer_name"] == "SGD"
    assert experiment.values(run, "epoch_loss", 3) == [100.0, 101.0, 102.0]
    assert run.info.status == "FINISHED"


def test_a_crash_is_no_success(experiment: Experiment, tmp_path: Path) -> None:
    """MLflow's own exit handler would end our run FINISHED; the exception says otherwise."""
    experiment.script(
        """
        import mlflow
        import autolog
        autolog.enable()
        autolog.log_metric("m", 1)
        assert mlflow.active_run() is not None
        raise KeyError
        """,
        tmp_path,
        code=1,
    )
    assert experiment.only_run().info.status == "FAILED"


# -- the server is away ----------------------------------------------------------------------------


def test_a_run_begins_without_its_server(
    experiment: Experiment, faulty: FaultyProxy, tmp_path: Path
) -> None:
    """With a dead server the calls return at once; the run gets its id when the server is back."""
    file = tmp_path / "weights.txt"
    file.write_text("0.1")
    faulty.black_hole()
    mlflow.set_tracking_uri(faulty.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = _experiment_id(experiment)
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
    os.environ["MLFLOW_EXPERIMENT_ID"] = _experiment_id(experiment)
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
    os.environ["MLFLOW_EXPERIMENT_ID"] = _experiment_id(experiment)
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
    os.environ["MLFLOW_EXPERIMENT_ID"] = _experiment_id(experiment)
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


# -- the process is gone ---------------------------------------------------------------------------


def test_what_a_killed_process_logged_through_mlflow_is_there(
    experiment: Experiment, tmp_path: Path
) -> None:
    """SIGKILL: every value whose call had returned, once; the run FAILED at its last value."""
    process = start_script(
        """
        import autolog
        autolog.enable()
        import mlflow
        with mlflow.start_run(run_name="killed"):
            for step in range(10**6):
                mlflow.log_metrics({"m": step / 7, "n": step}, step=step)
                print(step, flush=True)
        """,
        cwd=tmp_path,
        env=experiment.env,
    )
    returned = _read_until(process.stdout, 300)
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    returned += process.stdout.read().splitlines()
    last = int(returned[-1])
    run = experiment.only_run()
    points = eventually(lambda: _at_least(experiment.points(run), 2 * (last + 1)))
    steps = sorted(point.step for point in points if point.key == "m")
    assert steps == list(range(len(steps)))
    assert len(steps) in (last + 1, last + 2)  # the call that was under way may have returned too
    run = experiment.only_run()
    assert run.info.status == "FAILED"
    assert run.info.end_time == max(point.timestamp for point in points)


def test_a_forked_child_logs_into_the_run(experiment: Experiment, tmp_path: Path) -> None:
    """Its values are there once, those of its parent too, and only the parent ends the run."""
    experiment.script(
        """
        import os
        import autolog
        autolog.enable()
        import mlflow
        with mlflow.start_run(run_name="forked"):
            mlflow.log_metric("parent", 1)
            pid = os.fork()
            if pid == 0:
                for step in range(100):
                    mlflow.log_metric("child", step, step=step)
                os._exit(0)
            os.waitpid(pid, 0)
            mlflow.log_metric("parent", 2, step=1)
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert experiment.values(run, "parent", 2) == [1.0, 2.0]
    assert experiment.values(run, "child", 100) == list(range(100))
    assert run.info.status == "FINISHED"


# -- MLflow's own autologging ----------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ours", "mlflow's"])
def test_beside_mlflows_autologging_there_is_one_run(
    experiment: Experiment, tmp_path: Path, first: str
) -> None:
    """Both on, in both orders: one run, each value once, and ``epoch_loss`` is there."""
    both = ["autolog.enable()", "mlflow.sklearn.autolog(log_models=False, silent=True)"]
    first_line, second_line = both if first == "ours" else reversed(both)
    experiment.script(
        f"""
        import mlflow
        import autolog
        {first_line}
        {second_line}
        from sklearn.datasets import load_iris
        from sklearn.neural_network import MLPClassifier
        MLPClassifier(max_iter=5, random_state=0).fit(*load_iris(return_X_y=True))
        """,
        tmp_path,
    )
    run = experiment.only_run()
    assert len(experiment.values(run, "epoch_loss", 5)) == 5
    assert "training_accuracy_score" in run.data.metrics
    points: list[Any] = [(point.key, point.step) for point in experiment.points(run)]
    assert len(points) == len(set(points))
    assert run.data.params["max_iter"] == "5"


def _log_to(experiment: Experiment) -> None:
    os.environ.update(experiment.env)
    mlflow.set_tracking_uri(experiment.server.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = _experiment_id(experiment)
    del os.environ["MLFLOW_EXPERIMENT_NAME"]
    autolog.enable(silent=True)


def _experiment_id(experiment: Experiment) -> str:
    return str(MlflowClient(experiment.server.url).create_experiment(experiment.name))


def _read_until(stream: IO[str] | None, count: int) -> list[str]:
    assert stream is not None
    return [stream.readline().strip() for _ in range(count)]


def _at_least(points: set[Any], count: int) -> set[Any]:
    assert len(points) >= count, len(points)
    return points


@pytest.fixture
def experiment(mlflow_server: MlflowServer) -> Experiment:
    """An experiment of the test's own."""
    from readback import Experiment

    return Experiment(mlflow_server)
