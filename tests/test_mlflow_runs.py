"""MLflow's runs and ours are the same runs, whoever opens them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mlflow
import pytest
from mlflow import MlflowClient
from support import eventually, start_script

import autolog

if TYPE_CHECKING:
    from readback import Experiment


# -- runs of ours ----------------------------------------------------------------------------------


def test_a_run_of_ours_is_the_active_run(experiment: Experiment) -> None:
    """MLflow's fluent calls land in it, a nested run is its child, and ``end_run`` ends it."""
    log_to(experiment)
    with autolog.run("ours"):
        active = mlflow.active_run()
        assert active is not None
        mlflow.log_metric("m", 1, step=7)
        mlflow.log_param("p", "1")
        mlflow.log_text("hello", "hello.txt")
        with mlflow.start_run(run_name="child", nested=True):
            mlflow.log_metric("c", 1)
    assert mlflow.active_run() is None
    runs = experiment.runs(2)
    ours, child = runs["ours"], runs["child"]
    assert active.info.run_id == ours.info.run_id
    last = mlflow.last_active_run()
    assert last is not None
    assert last.info.run_id == ours.info.run_id
    assert experiment.parent(child) == ours.info.run_id
    assert ours.data.params == {"p": "1"}
    assert [(p.key, p.step, p.value) for p in experiment.points(ours)] == [("m", 7, 1.0)]
    assert autolog.flush(30).complete
    files = MlflowClient(experiment.server.url).list_artifacts(ours.info.run_id)
    assert [file.path for file in files] == ["hello.txt"]


def test_end_run_ends_whatever_is_active(experiment: Experiment) -> None:
    """The loop that many programs end their runs with comes to an end."""
    log_to(experiment)
    autolog.log_metric("m", 1)
    assert mlflow.active_run() is not None
    while mlflow.active_run() is not None:
        mlflow.end_run("KILLED")
    assert experiment.only_run().info.status == "KILLED"


def test_the_user_may_start_a_run_beside_ours(experiment: Experiment) -> None:
    """``mlflow.start_run()`` does not fail because a hook has a run open."""
    log_to(experiment)
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


@pytest.mark.parametrize("first", ["enable", "start_run"])
def test_a_run_left_open_ends_when_the_program_does(
    experiment: Experiment, tmp_path: Path, first: str
) -> None:
    """As MLflow ends it, with every value; also of its own asynchronous mode."""
    lines = ["autolog.enable()", "mlflow.start_run()"]
    first_line, second_line = lines if first == "enable" else reversed(lines)
    experiment.script(
        f"""
        import autolog
        import mlflow
        {first_line}
        {second_line}
        for step in range(50):
            mlflow.log_metric("m", step, step=step)
        """,
        tmp_path,
        MLFLOW_ENABLE_ASYNC_LOGGING="true",
    )
    run = experiment.only_run()
    assert run.info.status == "FINISHED"
    assert experiment.values(run, "m", 50) == list(range(50))


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


def _read_until(stream: IO[str] | None, count: int) -> list[str]:
    assert stream is not None
    return [stream.readline().strip() for _ in range(count)]


def _at_least(points: set[Any], count: int) -> set[Any]:
    assert len(points) >= count, len(points)
    return points


def log_to(experiment: Experiment) -> None:
    """Have this process log there, with ours on."""
    os.environ.update(experiment.env)
    mlflow.set_tracking_uri(experiment.server.url)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.id()
    del os.environ["MLFLOW_EXPERIMENT_NAME"]
    autolog.enable(silent=True)
