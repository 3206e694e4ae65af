"""The same calls of MLflow leave the same runs, with ``autolog.enable()`` and without."""

from __future__ import annotations

import json
import math
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

import autolog

if TYPE_CHECKING:
    from support import MlflowServer

_OURS = "autolog.run_key"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A local sqlite store for all tests of this file."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(params=["sqlite", "server"])
def uri(
    request: pytest.FixtureRequest, database: str, mlflow_server: MlflowServer
) -> Iterator[str]:
    """A tracking URI that mlflow is set to, of each kind in turn."""
    chosen = database if request.param == "sqlite" else mlflow_server.url
    mlflow.set_tracking_uri(chosen)
    yield chosen
    autolog.disable()


def _left_by(scenario: Callable[[], object]) -> list[Any]:
    name = f"experiment-{uuid.uuid4().hex[:8]}"
    mlflow.set_experiment(name)
    try:
        scenario()
        autolog.flush(30)
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
    experiment = MlflowClient().get_experiment_by_name(name)
    assert experiment is not None
    found = MlflowClient().search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    names = {run.info.run_id: run.info.run_name for run in found}
    return sorted((_shown(run, names) for run in found), key=json.dumps)


def _shown(run: Any, names: dict[str, str]) -> dict[str, Any]:
    """All that a person can see of a run, but for what differs from call to call."""
    client, text = MlflowClient(), repr
    tags = {k: v for k, v in run.data.tags.items() if k != _OURS}
    if "mlflow.parentRunId" in tags:
        tags["mlflow.parentRunId"] = names[tags["mlflow.parentRunId"]]
    history = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    for points in history.values():
        stamps = [point.timestamp for point in points]
        assert stamps == sorted(stamps)
    return {
        "info": (run.info.run_name, run.info.status, run.info.user_id, run.info.lifecycle_stage),
        "has_end": run.info.end_time is not None,
        "latest": {key: text(value) for key, value in sorted(run.data.metrics.items())},
        "history": {
            key: [(p.step, text(p.value), bool(getattr(p, "model_id", None))) for p in points]
            for key, points in sorted(history.items())
        },
        "params": dict(sorted(run.data.params.items())),
        "tags": dict(sorted(tags.items())),
        "datasets": [
            (given.dataset.name, given.dataset.digest, given.dataset.schema, given.dataset.profile)
            for given in run.inputs.dataset_inputs
        ],
        "models": len(run.inputs.model_inputs),
        "outputs": len(run.outputs.model_outputs) if run.outputs else 0,
        "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
    }


# -- the scenarios ---------------------------------------------------------------------------------


def _fluent() -> None:
    with mlflow.start_run(run_name="fluent", tags={"a": "1"}, description="what it is") as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({"layers": [64, 10], "name": "x" * 300})
        mlflow.log_param("lr", 0.1)
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.log_metrics({"acc": step / 5, "nan": math.nan}, step=step)
        mlflow.log_metric("numpy", np.float32(0.5))
        mlflow.log_metric("no step", 1)
        mlflow.log_metric("run id", 2.0, run_id=run.info.run_id)
        mlflow.log_metric("later", 3.0, synchronous=False).wait()
        mlflow.log_params({"later": 3}, synchronous=False).wait()
        mlflow.set_tag("b", 2)
        mlflow.set_tags({"c": 3, "b": 4})
        mlflow.delete_tag("a")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_dict({"a": 1}, "a.json")
        mlflow.log_table({"x": [1, 2]}, "table.json")


def _nested() -> None:
    with mlflow.start_run(run_name="parent"):
        for name in "ab":
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_metric("m", 1)
        mlflow.log_metric("m", 2)


def _failing() -> None:
    with pytest.raises(KeyError), mlflow.start_run(run_name="failing"):
        mlflow.log_metric("m", 1)
        raise KeyError


def _resumed() -> None:
    with mlflow.start_run(run_name="resumed") as run:
        mlflow.log_metric("m", 1, step=0)
        mlflow.log_param("p", 1)
    with mlflow.start_run(run_id=run.info.run_id, tags={"again": "yes"}):
        mlflow.log_metric("m", 2, step=1)
        with pytest.raises(MlflowException, match="Changing param values"):
            mlflow.log_param("p", 2)


def _after_the_end() -> None:
    with mlflow.start_run(run_name="after the end") as run:
        mlflow.log_metric("m", 1)
    MlflowClient().log_metric(run.info.run_id, "m", 2, step=1)
    MlflowClient().set_tag(run.info.run_id, "late", "yes")


def _client() -> None:
    client = MlflowClient()
    name = mlflow.set_experiment(experiment_id=_current_experiment()).name
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id, run_name="client", tags={"t": "1"})
    run_id = run.info.run_id
    client.log_batch(
        run_id,
        [Metric("loss", i / 7, 1_700_000_000_000 + i, i) for i in range(1500)],
        [Param(f"p{i}", str(i)) for i in range(150)],
        [RunTag(f"t{i}", str(i)) for i in range(150)],
    )
    client.log_metric(run_id, "inf", math.inf)
    client.set_tag(run_id, "mlflow.runName", "renamed")
    assert client.get_run(run_id).info.run_name == "renamed"
    client.update_run(run_id, name="renamed again")
    client.set_terminated(run_id, "KILLED", end_time=1_800_000_000_000)
    assert client.get_run(run_id).info.end_time == 1_800_000_000_000
    left_open = client.create_run(experiment.experiment_id, run_name="left open")
    client.log_metric(left_open.info.run_id, "m", 1)
    deleted = client.create_run(experiment.experiment_id, run_name="deleted")
    client.log_metric(deleted.info.run_id, "m", 1)
    client.delete_run(deleted.info.run_id)


def _current_experiment() -> str:
    return str(mlflow.tracking.fluent._get_experiment_id())


def _linked() -> None:
    with mlflow.start_run(run_name="linked"):
        data = mlflow.data.from_numpy(np.arange(6.0).reshape(3, 2), name="numbers")
        mlflow.log_input(data, context="training")
        model = mlflow.initialize_logged_model(name="model")
        mlflow.log_metric("loss", 0.5, step=1, dataset=data, model_id=model.model_id)
        mlflow.log_metrics({"loss": 0.25, "acc": 1}, step=2, model_id=model.model_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
    found = mlflow.get_logged_model(model.model_id)
    assert sorted((m.key, m.value) for m in found.metrics or ()) == [
        ("acc", 1.0),
        ("loss", 0.25),
        ("loss", 0.5),
    ]


def _threads() -> None:
    with mlflow.start_run(run_name="threads") as run:
        client = MlflowClient()

        def work(number: int) -> None:
            for step in range(20):
                client.log_metric(run.info.run_id, f"m{number}", step / 3, step=step)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


_SCENARIOS = (_fluent, _nested, _failing, _resumed, _after_the_end, _client, _linked, _threads)


def test_the_same_calls_leave_the_same_runs(uri: str) -> None:
    """Metrics with steps, params, tags, status, inputs, models and artifacts, field by field."""
    without = {scenario.__name__: _left_by(scenario) for scenario in _SCENARIOS}
    autolog.enable(silent=True)
    for scenario in _SCENARIOS:
        assert _left_by(scenario) == without[scenario.__name__]


# -- what is refused -------------------------------------------------------------------------------

_CALLS: dict[str, Callable[[MlflowClient, str], object]] = {
    "metric name": lambda c, r: c.log_metric(r, "a//b", 1),
    "metric name type": lambda c, r: c.log_metric(r, 5, 1),  # type: ignore[arg-type]
    "metric name length": lambda c, r: c.log_metric(r, "a" * 300, 1),
    "metric text": lambda c, r: c.log_metric(r, "m", "much"),  # type: ignore[arg-type]
    "metric none": lambda c, r: c.log_metric(r, "m", None),  # type: ignore[arg-type]
    "metric array": lambda c, r: c.log_metric(r, "m", np.arange(3)),  # type: ignore[arg-type]
    "timestamp": lambda c, r: c.log_metric(r, "m", 1, timestamp=-5),
    "step text": lambda c, r: c.log_metric(r, "m", 1, step="two"),  # type: ignore[arg-type]
    "param name": lambda c, r: c.log_param(r, "../p", 1),
    "param changed": lambda c, r: [c.log_param(r, "p", 1), c.log_param(r, "p", 2)],
    "params changed": lambda c, r: [
        c.log_batch(r, params=[Param("q", "1")]),
        c.log_batch(r, [Metric("m", 1.0, 5, 0)], [Param("q", "2"), Param("new", "1")]),
    ],
    "params twice": lambda c, r: c.log_batch(r, params=[Param("q", "1"), Param("q", "2")]),
    "tag name": lambda c, r: c.set_tag(r, "a//b", 1),
    "batch metric": lambda c, r: c.log_batch(
        r, [Metric("good", 1.0, 5, 0), Metric("b//d", 1.0, 5, 0)]
    ),
    "no such run": lambda c, _: c.log_metric("0" * 32, "m", 1),
    "no such run param": lambda c, _: c.log_param("0" * 32, "p", 1),
    "no such run tag": lambda c, _: c.set_tag("0" * 32, "t", 1),
    "deleted run": lambda c, r: [c.delete_run(r), c.log_metric(r, "m", 1)],
    "status": lambda c, r: c.set_terminated(r, "GONE"),
    "experiment": lambda c, _: c.create_run("987654321"),
    "delete no tag": lambda c, r: c.delete_tag(r, "none"),
    "get no run": lambda c, _: c.get_run("0" * 32),
    "long param": lambda c, r: c.log_param(r, "long", "x" * 7000),
    "good": lambda c, r: c.log_metric(r, "m", np.array(1.5)),  # type: ignore[arg-type]
}


def _outcomes() -> dict[str, str]:
    """What each of the calls gives or raises, and what is stored of it then."""
    client, outcomes = MlflowClient(), {}
    for name, call in _CALLS.items():
        run_id = client.create_run("0").info.run_id
        try:
            outcome = repr(call(client, run_id))
        except Exception as error:  # noqa: BLE001 - which one it is, is the question
            outcome = f"{type(error).__name__}: {error}"
        data = client.get_run(run_id).data
        tags = {k: v for k, v in data.tags.items() if k not in (_OURS, "mlflow.runName")}
        said = re.sub(r"\d{13}", "<now>", outcome.replace(run_id, "<run>"))
        outcomes[name] = f"{said} {data.metrics} {data.params} {tags}"
    return outcomes


def test_what_mlflow_refuses_is_refused_alike(uri: str) -> None:
    """Same exception, same words, or same result; and nothing that was refused is stored."""
    without = _outcomes()
    autolog.enable(silent=True)
    assert _outcomes() == without


# -- reads and identity ----------------------------------------------------------------------------


def test_hot_reads_do_not_defeat_the_buffer(mlflow_server: MlflowServer) -> None:
    """``log_metric(run_id=...)`` reads its run each time, and still is a matter of microseconds."""
    mlflow.set_tracking_uri(mlflow_server.url)
    autolog.enable(silent=True, mode="offline")
    with mlflow.start_run() as run:
        mlflow.log_metric("m", 0.0, step=0)
        for step in range(1, 50):
            mlflow.log_metric("m", step, step=step, run_id=run.info.run_id)
    receipt = autolog.flush()
    assert (receipt.logged, receipt.pending) == (50, 50)


def test_clients_and_names_from_before_are_covered_and_put_back(
    mlflow_server: MlflowServer,
) -> None:
    """A client made before ``enable()`` writes to the journal, and directly after ``disable()``."""
    mlflow.set_tracking_uri(mlflow_server.url)
    registry = mlflow.tracking._tracking_service.utils._tracking_store_registry
    before = dict(vars(registry)), dict(vars(mlflow)), dict(vars(mlflow.tracking.fluent))
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    autolog.enable(silent=True)
    client.log_metric(run_id, "m", 1)
    assert autolog.flush().acknowledged == 1
    autolog.disable()
    client.log_metric(run_id, "m", 2, step=1)
    assert autolog.flush().acknowledged == 1
    assert len(client.get_metric_history(run_id, "m")) == 2
    after = vars(registry), vars(mlflow), vars(mlflow.tracking.fluent)
    for earlier, later in zip(before, after, strict=True):
        assert {k for k in later if later[k] is not earlier.get(k)} <= {"_active_experiment_id"}


def test_the_store_passes_for_itself(uri: str) -> None:
    """isinstance, pickle, copy and attributes are those of the store; and it is always the same."""
    import copy
    import pickle

    raw = MlflowClient()._tracking_client.store
    autolog.enable(silent=True)
    store = MlflowClient()._tracking_client.store
    assert store is not raw
    assert isinstance(store, type(raw))
    assert store is MlflowClient()._tracking_client.store
    assert pickle.loads(pickle.dumps(store)) is store
    assert copy.copy(store) is copy.deepcopy(store) is store
    assert pickle.loads(pickle.dumps(MlflowClient()))._tracking_client.store is store
    assert store == raw
    assert {store: 1}[raw] == 1
