"""Every public call of MLflow's that writes to a run: same result or exception as without us.

The calls are made with good arguments and bad ones, by `MlflowClient` and by ``mlflow`` itself.
"""

from __future__ import annotations

import functools
import math
import re
import reprlib
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.utils.async_logging import async_logging_queue
from mlflow_fields import runs_of

import autolog

if TYPE_CHECKING:
    from support import MlflowServer

Arguments = dict[str, Any]

_LONG = "x" * 7000
_UNKNOWN = "0" * 32
_IMAGE = np.zeros((4, 4, 3), dtype=np.uint8)
_DATA = mlflow.data.from_numpy(np.arange(6.0).reshape(3, 2), name="numbers")
_INPUT = DatasetInput(_DATA._to_mlflow_entity(), [InputTag("mlflow.data.context", "training")])
_GOOD, _BAD = Metric("good", 1.0, 5, 0), Metric("b//d", 1.0, 5, 0)

_METRIC: list[Arguments] = [
    *({"value": v} for v in (1, 0.5, True, np.float32(0.5), np.array(1.5))),
    *({"value": v} for v in (math.nan, math.inf, -math.inf, 10**400, Decimal("0.5"))),
    *({"value": v} for v in ("much", "1.5", None, np.arange(3), 1 + 2j, [1])),
    *({"step": s} for s in (0, 7, -3, 2.5, "two", 1 << 63, -(1 << 63))),
    *({"key": k} for k in ("a/b", "a b", "a//b", "/a", "..", "", 5, None, "a" * 250, "a" * 251)),
    *({"key": k} for k in ("µ", "a@b", "a:b", "a\nb")),
    *({"synchronous": False, **bad} for bad in ({}, {"value": None}, {"key": "a//b"})),
]
_PARAM: list[Arguments] = [
    *({"value": v} for v in (1, "text", None, "", [1, {"a": 2}], _LONG, "x" * 6001, "µ\n")),
    *({"key": k} for k in ("a/b", "../p", "", None, 5, "a" * 250, "a" * 251)),
    *({"synchronous": False, **bad} for bad in ({}, {"key": "a//b"})),
]
_TAG: list[Arguments] = [
    *({"value": v} for v in (1, "text", None, "", {"a": 2}, _LONG, "x" * 9000)),
    *({"key": k} for k in ("a/b", "a//b", "", None, 5, "a" * 251, "mlflow.note.content")),
    {"key": "mlflow.runName", "value": "renamed"},
    *({"synchronous": False, **bad} for bad in ({}, {"key": "a//b"})),
]
_BATCH: list[Arguments] = [
    {},
    {"metrics": [_GOOD], "params": [Param("p", "1")], "tags": [RunTag("t", "1")]},
    {"metrics": [_GOOD, _BAD]},
    {"metrics": [Metric("m", i / 7, 1_700_000_000_000 + i, i) for i in range(1500)]},
    {"params": [Param(f"p{i}", str(i)) for i in range(150)]},
    {"tags": [RunTag(f"t{i}", str(i)) for i in range(150)]},
    {"params": [Param("q", "1"), Param("q", "2")]},
    {"params": [Param("q", "1"), Param("q", "1")]},
    {"metrics": [Metric("m", "text", 5, 0)]},
    {"metrics": [Metric("m", 1.0, 5, 0.5)]},
    {"metrics": [Metric("m", 1.0, "now", 0)]},
    {"metrics": [Metric("m", 1.0, -5, 0)]},
    {"metrics": [_GOOD, _GOOD]},
    {"tags": [RunTag("a//b", "1")]},
    {"metrics": [_GOOD], "synchronous": False},
    {"metrics": [_GOOD, _BAD], "synchronous": False},
]


def _with(defaults: Arguments, kinds: list[Arguments]) -> list[Arguments]:
    return [{**defaults, **kind} for kind in kinds]


_FILES: dict[str, list[Arguments]] = {
    "log_text": [{"text": "a", "artifact_file": name} for name in ("a.txt", "b/a.txt", "../a", "")],
    "log_dict": [{"dictionary": {"a": 1}, "artifact_file": name} for name in ("a.json", "a.yml")],
    "log_figure": [{"figure": Figure(), "artifact_file": "a.png"}, {"figure": 1}],
    "log_image": [
        {"image": _IMAGE, "artifact_file": "a.png"},
        {"image": _IMAGE, "key": "seen", "step": 2, "timestamp": 5, "synchronous": True},
        {"image": _IMAGE, "key": "a//b"},
        {"image": "none", "artifact_file": "a.png"},
        {"image": _IMAGE},
    ],
    "log_table": [
        {"data": {"x": [1, 2]}, "artifact_file": "table.json"},
        {"data": {"x": [1]}, "artifact_file": "table.csv"},
        {"data": 5, "artifact_file": "table.json"},
    ],
    "log_artifact": [
        {"local_path": "note.txt"},
        {"local_path": "note.txt", "artifact_path": "folder"},
        {"local_path": "none.txt"},
        {"local_path": "notes"},
    ],
}

_OF_RUNS: dict[str, list[Arguments]] = {
    "log_metric": _with({"key": "m", "value": 1, "timestamp": 1_700_000_000_000}, _METRIC),
    "log_param": _with({"key": "p", "value": 1}, _PARAM),
    "set_tag": _with({"key": "t", "value": 1}, _TAG),
    "log_batch": _BATCH,
    "delete_tag": [{"key": key} for key in ("first", "none", "", None)],
    "set_terminated": [
        *({"status": status} for status in (None, "FAILED", "KILLED", "RUNNING", "GONE", 5)),
        {"status": "FINISHED", "end_time": 1_800_000_000_000},
        {"end_time": "late"},
    ],
    "update_run": [
        *({}, {"name": "renamed"}, {"status": "FAILED"}, {"status": "SCHEDULED"}),
        *({"status": "GONE"}, {"status": "FINISHED", "name": "renamed"}, {"name": ""}),
    ],
    "delete_run": [{}],
    "restore_run": [{}],
    "log_inputs": [{"datasets": [_INPUT]}, {}, {"datasets": [_DATA]}, {"datasets": [5]}],
    "log_outputs": [{"models": []}, {"models": [5]}],
    "log_artifacts": [{"local_dir": "notes"}, {"local_dir": "none"}],
    "log_stream": [{"stream": b"bytes", "artifact_file": "a.bin"}],
    **_FILES,
}
"""Methods of a client that take a run's id first: arguments besides."""

_FLUENT: dict[str, list[Arguments]] = {
    "log_metric": _with({"key": "m", "value": 1}, _METRIC),
    "log_param": _with({"key": "p", "value": 1}, _PARAM),
    "set_tag": _with({"key": "t", "value": 1}, _TAG),
    "log_metrics": [
        *({"metrics": m} for m in ({"a": 1, "b": 2.5}, {}, {"a": None}, {"a": 1, "b//": 2}, 5)),
        *({"metrics": {"a": 1}, "step": step} for step in (3, "two", 2.5)),
        {"metrics": {"a": 1}, "dataset": _DATA},
        *({"metrics": m, "synchronous": False} for m in ({"a": 1}, {"a": None})),
    ],
    "log_params": [
        *({"params": p} for p in ({"a": 1, "b": "x"}, {}, {"a//": 1}, {"a": _LONG}, 5)),
        *({"params": p, "synchronous": False} for p in ({"a": 1}, {"a//": 1})),
    ],
    "set_tags": [
        *({"tags": t} for t in ({"a": 1, "b": "x"}, {}, {"a//": 1}, 5)),
        *({"tags": t, "synchronous": False} for t in ({"a": 1}, {"a//": 1})),
    ],
    "delete_tag": [{"key": key} for key in ("first", "none", "")],
    "log_input": [
        {"dataset": _DATA},
        {"dataset": _DATA, "context": "training", "tags": {"a": "b"}},
        {"dataset": 5},
    ],
    "log_inputs": [
        {"datasets": [_DATA], "contexts": ["training"], "tags_list": [{"a": "b"}]},
        {"datasets": [_DATA], "contexts": [], "tags_list": []},
    ],
    "log_outputs": [{"models": []}, {"models": [5]}],
    "log_artifacts": [{"local_dir": "notes"}, {"local_dir": "none"}],
    "log_stream": [{"stream": b"bytes", "artifact_file": "a.bin"}],
    "start_run": [
        *({"nested": True}, {}, {"nested": True, "run_name": "child", "tags": {"a": "1"}}),
        *({"run_id": _UNKNOWN, "nested": True}, {"nested": True, "experiment_id": "987654321"}),
    ],
    "end_run": [{}, {"status": "FAILED"}, {"status": "GONE"}],
    "delete_run": [{"run_id": _UNKNOWN}],
    "restore_run": [{"run_id": _UNKNOWN}],
    **_FILES,
}
"""Functions of ``mlflow`` that write to the active run."""


def _experiments(client: MlflowClient) -> Iterator[Callable[[], object]]:
    """Calls that write to an experiment, each on what the ones before it left."""
    name = f"experiment-{uuid.uuid4().hex[:8]}"
    made = client.create_experiment(name, tags={"a": "1"})
    yield lambda: client.create_experiment(name)
    yield lambda: client.create_experiment("")
    yield lambda: client.set_experiment_tag(made, "b", 2)
    yield lambda: client.set_experiment_tag(made, "b//c", 2)
    yield lambda: client.set_experiment_tag("987654321", "b", 2)
    yield lambda: client.get_experiment(made).tags
    if hasattr(client, "delete_experiment_tag"):
        yield lambda: client.delete_experiment_tag(made, "a")
        yield lambda: client.delete_experiment_tag(made, "none")
    yield lambda: client.rename_experiment(made, f"{name} again")
    yield lambda: client.delete_experiment(made)
    yield lambda: client.create_run(made)
    yield lambda: client.delete_experiment(made)
    yield lambda: client.restore_experiment(made)
    yield lambda: client.get_experiment(made).lifecycle_stage
    yield lambda: client.create_run("987654321")
    yield lambda: client.create_run(made, run_name="r", tags={"a": 1}, start_time=5).info.start_time
    yield lambda: client.create_run(made, tags={"a//b": 1})
    yield lambda: mlflow.set_experiment(name="", experiment_id=None)
    yield lambda: mlflow.set_experiment(f"{name} again").name
    yield lambda: mlflow.set_experiment_tag("c", 3)
    if hasattr(mlflow, "delete_experiment_tag"):
        yield lambda: mlflow.delete_experiment_tag("c")
    yield lambda: mlflow.set_experiment_tags({"d": 4, "e//f": 5})
    yield lambda: client.get_experiment(made).tags


def _models(client: MlflowClient) -> Iterator[Callable[[], object]]:
    """Calls that write to a model of a run, each on what the ones before it left."""
    run = client.create_run("0")
    made = client.create_logged_model("0", name="model", source_run_id=run.info.run_id)
    of_model = {"model_id": made.model_id}
    yield lambda: client.create_logged_model("0", name="a/b", source_run_id=run.info.run_id)
    yield lambda: client.create_logged_model("987654321", name="model")
    yield lambda: client.log_metric(run.info.run_id, "m", 0.5, step=1, **of_model)
    yield lambda: client.log_model_params(made.model_id, {"p": "1"})
    yield lambda: client.log_model_params("m-none", {"p": "1"})
    yield lambda: client.set_logged_model_tags(made.model_id, {"t": 1})
    yield lambda: client.delete_logged_model_tag(made.model_id, "t")
    yield lambda: client.delete_logged_model_tag(made.model_id, "none")
    yield lambda: client.log_model_artifact(made.model_id, "note.txt")
    yield lambda: client.log_model_artifacts(made.model_id, "notes")
    yield lambda: client.finalize_logged_model(made.model_id, "READY").status
    yield lambda: client.finalize_logged_model(made.model_id, "GONE")
    yield lambda: client.get_logged_model(made.model_id).metrics[0].value
    yield lambda: client.delete_logged_model(made.model_id)
    yield lambda: client.get_logged_model(made.model_id)
    with mlflow.start_run():
        yield lambda: mlflow.initialize_logged_model(name="begun").name
        yield lambda: mlflow.create_external_model(name="elsewhere").name
        yield lambda: mlflow.log_model_params({"p": "1"})
        ready = mlflow.initialize_logged_model(name="another").model_id
        yield lambda: mlflow.log_model_params({"p": "1"}, model_id=ready)
        yield lambda: mlflow.finalize_logged_model(ready, "READY").status
        yield lambda: mlflow.set_logged_model_tags(ready, {"t": 1})
        yield lambda: mlflow.delete_logged_model_tag(ready, "t")
        yield lambda: mlflow.set_active_model(model_id=ready).model_id == ready
        yield lambda: mlflow.log_metric("of the active model", 1)
        yield mlflow.clear_active_model
        yield lambda: len(mlflow.get_logged_model(ready).metrics)


# -- comparing -------------------------------------------------------------------------------------


class _PromptQueue(Queue[Any]):
    """MLflow's async mode notices the end of a run when this is found empty, after a second."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get(block, 0.05)


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.long)])
def uri(
    request: pytest.FixtureRequest,
    mlflow_server: MlflowServer,
    new_store: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A tracking URI that mlflow is set to, of each kind in turn; and some files to log."""
    chosen = new_store() if request.param == "sqlite" else mlflow_server.url
    mlflow.set_tracking_uri(chosen)
    monkeypatch.setattr(async_logging_queue, "Queue", _PromptQueue)
    (tmp_path / "note.txt").write_text("note")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("note")
    return chosen


_PASSING = re.compile(
    r"\b(m-)?[0-9a-f]{32}\b|\b\d{13}\b|experiment-[0-9a-f]{8}|/tmp\w+"
    r"|(?<=id)[ =]\d{1,4}\b|experiment \d+"
)
"""What of a message is another at each time: ids, times, names of folders."""


def _outcome(call: Callable[[], object]) -> str:
    """What a call gives or raises."""
    try:
        result = call()
        if hasattr(result, "wait"):
            result = ("operations", result.wait())
        if type(result).__module__.startswith("mlflow"):
            result = type(result).__name__
        outcome = repr(result)
    except Exception as error:  # noqa: BLE001 - which one it is, is the question
        outcome = f"{type(error).__name__}: {error}"
    return _PASSING.sub("<>", outcome)


def _table(
    calls: dict[str, list[Arguments]], owner: object
) -> Iterator[tuple[str, Any, Arguments]]:
    """A label, function and arguments of each call that this release of MLflow has."""
    for name, kinds in calls.items():
        if hasattr(owner, name):
            for number, arguments in enumerate(kinds):
                label = f"{name} {number} {reprlib.repr(arguments)}"
                yield re.sub(r" at 0x\w+|/", "", label), getattr(owner, name), arguments


def _by_client(client: MlflowClient, experiment_id: str) -> Iterator[tuple[str, str]]:
    def new_run(name: str) -> str:
        run = client.create_run(experiment_id, tags={"first": "1"}, run_name=name)
        return str(run.info.run_id)

    for label, method, arguments in _table(_OF_RUNS, client):
        yield label, _outcome(functools.partial(method, new_run(label), **arguments))
    of_each = {name: kinds[:1] for name, kinds in _OF_RUNS.items()}
    for label, method, arguments in _table(of_each, client):
        client.delete_run(deleted := new_run(f"{label} when deleted"))
        client.set_terminated(ended := new_run(f"{label} when ended"))
        for run_id in (deleted, ended, _UNKNOWN, "../r", None):
            kind = {deleted: "deleted", ended: "ended"}.get(str(run_id), str(run_id))
            yield f"{label} of {kind}", _outcome(functools.partial(method, run_id, **arguments))


def _by_mlflow(experiment_id: str) -> Iterator[tuple[str, str]]:
    for label, function, arguments in _table(_FLUENT, mlflow):
        name = f"mlflow.{label}"
        with mlflow.start_run(experiment_id=experiment_id, run_name=name, tags={"first": "1"}):
            yield name, _outcome(functools.partial(function, **arguments))
        while mlflow.active_run() is not None:
            mlflow.end_run()


def _all(uri: str) -> tuple[dict[str, str], list[Any]]:
    """The outcome of every call, and what is stored then."""
    client, name = MlflowClient(uri), f"experiment-{uuid.uuid4().hex[:8]}"
    experiment_id = client.create_experiment(name)
    outcomes = dict(_by_client(client, experiment_id)) | dict(_by_mlflow(experiment_id))
    outcomes |= {f"experiment {i}": _outcome(c) for i, c in enumerate(_experiments(client))}
    if hasattr(client, "create_logged_model"):
        outcomes |= {f"model {i}": _outcome(c) for i, c in enumerate(_models(client))}
    autolog.flush(60)
    return outcomes, runs_of(client, name)


def test_every_write_call_ends_alike(uri: str) -> None:
    """Same result or same exception, with the same words; and the same is stored of it."""
    outcomes, runs = _all(uri)
    autolog.enable(silent=True)
    outcomes_with_ours, runs_with_ours = _all(uri)
    assert outcomes_with_ours == outcomes
    assert runs_with_ours == runs


_WRITES = re.compile(
    r"(log|set|delete|update|create|end|start|finalize|initialize|restore|rename|clear|import)_"
)
_NOT_OF_RUNS = re.compile(
    r"trace|span|prompt|registered_model|model_version|webhook|mcp_|workspace|_dataset|system_metrics"
    r"|tracking_uri|registry_uri|assessment|feedback|expectation|issue|import_checkpoints"
)
"""What does not write to a run goes through the store unchanged."""


_CALLED_AS = {MlflowClient: "client", mlflow: "mlflow"}
_ALSO_OF_CLIENTS = {"create_experiment", "delete_experiment", "restore_experiment"}
"""Functions of ``mlflow`` that do nothing but call the client's method."""


@pytest.mark.parametrize("owner", [MlflowClient, mlflow])
def test_no_write_call_is_forgotten(owner: Any) -> None:
    """Each public write call of this release is among those above."""
    public = getattr(owner, "__all__", None) or dir(owner)
    writes = {name for name in public if _WRITES.match(name) and not _NOT_OF_RUNS.search(name)}
    source = Path(__file__).read_text()
    covered = {*(_FLUENT if owner is mlflow else _OF_RUNS)}
    covered |= {n for n in writes if re.search(rf"\b{_CALLED_AS[owner]}\.{n}\b", source)}
    assert not writes - covered - _ALSO_OF_CLIENTS
