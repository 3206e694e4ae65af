"""The same calls of MLflow leave the same runs, with ``autolog.enable()`` and without."""

from __future__ import annotations

import copy
import importlib
import math
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking._model_registry import utils as registry_utils
from mlflow_fields import Fields, runs_of
from support import run_script

import autolog

if TYPE_CHECKING:
    from support import MlflowServer


@pytest.fixture(scope="module")
def database(new_store: Callable[[], str]) -> str:
    """A local sqlite store for all tests of this file."""
    return new_store()


@pytest.fixture(params=["sqlite", "server"])
def uri(
    request: pytest.FixtureRequest, database: str, mlflow_server: MlflowServer
) -> Iterator[str]:
    """A tracking URI that mlflow is set to, of each kind in turn."""
    chosen = database if request.param == "sqlite" else mlflow_server.url
    mlflow.set_tracking_uri(chosen)
    yield chosen
    autolog.disable()


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


def _with_data() -> None:
    with mlflow.start_run(run_name="with data"):
        data = mlflow.data.from_numpy(np.arange(6.0).reshape(3, 2), name="numbers")
        mlflow.log_input(data, context="training", tags={"a": "b"})
        mlflow.log_metric("loss", 0.5)


def _linked() -> None:
    if not hasattr(mlflow, "initialize_logged_model"):
        return  # MLflow 2 knows neither these models nor links
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


_SCENARIOS = (
    _fluent,
    _nested,
    _failing,
    _resumed,
    _after_the_end,
    _client,
    _with_data,
    _linked,
    _threads,
)


def test_the_same_calls_leave_the_same_runs(uri: str) -> None:
    """Metrics with steps, params, tags, status, inputs, models and artifacts, field by field."""
    without = [_left_by(scenario, uri) for scenario in _SCENARIOS]
    autolog.enable(silent=True)
    for scenario, expected in zip(_SCENARIOS, without, strict=True):
        assert _left_by(scenario, uri) == expected


def _left_by(scenario: Callable[[], object], uri: str) -> list[Fields]:
    """What a scenario leaves in an experiment of its own."""
    experiment = f"experiment-{uuid.uuid4().hex[:8]}"
    mlflow.set_experiment(experiment)
    try:
        scenario()
        autolog.flush(30)
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
    return runs_of(MlflowClient(uri), experiment)


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


def test_spark_is_not_searched_for_at_every_call(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session can only be active once the program has imported pyspark; then it counts."""
    mlflow.set_tracking_uri(database)
    autolog.enable(silent=True, mode="offline")
    searched: list[str] = []

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            searched.append(name)

    with monkeypatch.context() as patched, mlflow.start_run():
        patched.setattr(sys, "meta_path", [Finder, *sys.meta_path])
        mlflow.log_metrics({"m": 1.0}, step=0)
    assert [name for name in searched if name.startswith("pyspark")] == []

    package = tmp_path / "pyspark" / "sql"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "utils.py").write_text("class AnalysisException(Exception): ...")
    (package / "__init__.py").write_text(
        """
class SparkSession:
    class conf:
        get = staticmethod(lambda name, default: "sqlite:///of-the-session.db")
    getActiveSession = classmethod(lambda cls: cls)
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("pyspark.sql")
    try:
        assert mlflow.get_registry_uri() == "sqlite:///of-the-session.db"
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "pyspark"]:
            del sys.modules[name]


def test_clients_and_names_from_before_are_covered_and_put_back(
    mlflow_server: MlflowServer,
) -> None:
    """A client made before ``enable()`` writes to the journal, and directly after ``disable()``."""
    mlflow.set_tracking_uri(mlflow_server.url)
    registry = mlflow.tracking._tracking_service.utils._tracking_store_registry
    touched = (vars(registry), vars(mlflow), vars(mlflow.tracking.fluent), vars(registry_utils))
    before = [dict(names) for names in touched]
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    autolog.enable(silent=True)
    client.log_metric(run_id, "m", 1)
    assert autolog.flush().acknowledged == 1
    autolog.disable()
    client.log_metric(run_id, "m", 2, step=1)
    assert autolog.flush().acknowledged == 1
    assert len(client.get_metric_history(run_id, "m")) == 2
    for earlier, later in zip(before, touched, strict=True):
        assert {k for k in later if later[k] is not earlier.get(k)} <= {"_active_experiment_id"}


def test_names_imported_before_are_covered(mlflow_server: MlflowServer) -> None:
    """A function that a program holds since before ``enable()`` writes to the journal too."""
    from mlflow import log_metric, start_run
    from mlflow.tracking import MlflowClient as Held
    from mlflow.tracking._tracking_service.utils import _get_store

    mlflow.set_tracking_uri(mlflow_server.url)
    autolog.enable(silent=True, mode="offline")
    with start_run() as run:
        log_metric("m", 1)
    Held().log_metric(run.info.run_id, "m", 2, step=1)
    _get_store().log_metric(run.info.run_id, Metric("m", 3.0, 1, 2))
    assert autolog.flush().pending == 3


def test_the_store_passes_for_itself(uri: str) -> None:
    """isinstance, pickle, copy and attributes are those of the store; and it is always the same."""
    raw = MlflowClient()._tracking_client.store
    autolog.enable(silent=True)
    store = MlflowClient()._tracking_client.store
    assert store is not raw
    assert isinstance(store, type(raw))
    assert store is MlflowClient()._tracking_client.store
    assert pickle.loads(pickle.dumps(store)) is store
    assert copy.copy(store) is copy.deepcopy(store) is store
    assert store == raw
    assert {store: 1}[raw] == 1
    assert {k for k in vars(store) if vars(store)[k] is not vars(raw).get(k)} == set()
    autolog.disable()
    assert MlflowClient()._tracking_client.store is raw


def test_a_client_is_pickled_and_copied_as_ever(uri: str, tmp_path: Path) -> None:
    """Each copy writes to the journal here, and to the server where autolog is not at work."""
    autolog.enable(silent=True)
    client = MlflowClient()
    store = client._tracking_client.store
    run_id = client.create_run("0").info.run_id
    copies = [copy.copy(client), copy.deepcopy(client), pickle.loads(pickle.dumps(client))]
    for step, each in enumerate(copies):
        assert each._tracking_client.store is store
        each.log_metric(run_id, "m", step, step=step)
    assert autolog.flush(30).acknowledged == 3
    (tmp_path / "client").write_bytes(pickle.dumps((client, store)))
    program = f"""
import pickle, sys
client, store = pickle.loads(open("client", "rb").read())
client.log_metric("{run_id}", "m", 3, step=3)
assert "autolog" not in sys.modules
assert type(store).__name__ in ("RestStore", "SqlAlchemyStore")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    history = client.get_metric_history(run_id, "m")
    assert [(point.step, point.value) for point in history] == [(i, i) for i in range(4)]


def test_a_server_in_the_same_process_writes_to_its_own_store(tmp_path: Path) -> None:
    """It gets what the clients of the process send, and no journal stands behind it."""
    done = run_script(
        """
        import threading
        import autolog
        autolog.enable(silent=True)
        import mlflow
        from mlflow.server import app, handlers
        from werkzeug.serving import make_server
        handlers.initialize_backend_stores("sqlite:///server.db", default_artifact_root="files")
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{server.port}")
        with mlflow.start_run() as run:
            for step in range(50):
                mlflow.log_metric("m", step, step=step)
        receipt = autolog.flush(30)
        store = handlers._get_tracking_store()
        stored = store.get_metric_history(run.info.run_id, "m")
        print(receipt.acknowledged, receipt.pending, len(stored), type(store).__name__)
        server.shutdown()
        """,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "50 0 50 SqlAlchemyStore", done.stderr
