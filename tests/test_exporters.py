"""Both exporters against real stores: MLflow's server, its sqlite store and its folder store."""

from __future__ import annotations

import math
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from autolog.batching import Batch, Metric
from autolog.exporters import (
    Exporter,
    Rejected,
    Retryable,
    RunRefused,
    TagsRefused,
    exporter_for,
    refusal,
)
from autolog.exporters.local import LocalExporter
from autolog.exporters.rest import RestExporter
from autolog.exporters.store import StoreExporter
from autolog.records import RunStart, Status


@dataclass(frozen=True)
class Backend:
    """A real store, our way to it and MLflow's own."""

    kind: str
    uri: str
    exporter: Exporter
    client: MlflowClient


@pytest.fixture(scope="module")
def sqlite_uri(new_store: Callable[[], str]) -> str:
    """One sqlite store for this module."""
    return new_store()


@pytest.fixture(params=["server", "sqlite", "folder"])
def backend(
    request: pytest.FixtureRequest,
    mlflow_server: Any,
    sqlite_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Backend:
    """Each kind of store in turn."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = (tmp_path / "mlruns").as_uri()
    uri = {"server": mlflow_server.url, "sqlite": sqlite_uri, "folder": folder}[request.param]
    return Backend(request.param, uri, exporter_for(uri, {}), MlflowClient(uri))


def _start(**changes: Any) -> RunStart:
    start = RunStart(
        1, uuid.uuid4().hex, "Net-1", None, None, {}, None, None, True, 1_700_000_000_000
    )
    return replace(start, **changes)


def _points(backend: Backend, run_id: str, key: str) -> list[tuple[float, int, int]]:
    history = backend.client.get_metric_history(run_id, key)
    return sorted((m.value, m.timestamp, m.step) for m in history)


_VALUES = [0.1, -0.0, 1e-320, 1e300, 1 / 3, math.inf, -math.inf, 2.0**53 + 2]


def test_every_value_reads_back_as_given(backend: Backend) -> None:
    """Values, steps, times and names are on the server bit by bit as they were given."""
    run_id = backend.exporter.open_run(_start(), None)
    metrics = tuple(
        Metric(key, value, 1_700_000_000_000 + n, 2**53 + 1 + n)
        for key in ("loss", "Verlust/größe 1", "損失")
        for n, value in enumerate(_VALUES)
    )
    backend.exporter.export(Batch(run_id, metrics=metrics))
    for key in ("loss", "Verlust/größe 1", "損失"):
        assert _points(backend, run_id, key) == sorted(
            (_as_stored(backend, m.value), m.timestamp, m.step) for m in metrics if m.key == key
        )


def _as_stored(backend: Backend, value: float) -> float:
    """MLflow's databases hold the largest float for infinity."""
    if math.isinf(value) and backend.kind != "folder":
        return math.copysign(sys.float_info.max, value)
    return value


def test_not_a_number_reads_back_as_such(backend: Backend) -> None:
    """NaN is stored as NaN, and points after it are stored too."""
    run_id = backend.exporter.open_run(_start(), None)
    metrics = (Metric("loss", math.nan, 5, 1), Metric("loss", 0.5, 6, 2))
    backend.exporter.export(Batch(run_id, metrics=metrics))
    history = backend.client.get_metric_history(run_id, "loss")
    first, second = sorted(history, key=lambda metric: metric.step)
    assert math.isnan(first.value)
    assert second.value == 0.5


def test_params_and_tags_read_back(backend: Backend) -> None:
    """Params and tags are stored as text, a later tag replaces an earlier one."""
    run_id = backend.exporter.open_run(_start(), None)
    backend.exporter.export(Batch(run_id, params=(("größe", "1\n2"), ("quote", "\"'\\"))))
    backend.exporter.export(Batch(run_id, tags=(("stage", "first"),)))
    backend.exporter.export(Batch(run_id, tags=(("stage", "second"),)))
    data = backend.client.get_run(run_id).data
    assert data.params == {"größe": "1\n2", "quote": "\"'\\"}
    assert data.tags["stage"] == "second"


def test_a_new_run_is_what_its_start_says(backend: Backend) -> None:
    """A run is created with its name, start, tags, key and parent in the default experiment."""
    parent_id = backend.exporter.open_run(_start(), None)
    start = _start(tags={"mlflow.user": "ada", "team": "x"})
    run = backend.client.get_run(backend.exporter.open_run(start, parent_id))
    assert run.info.run_name == "Net-1"
    assert run.info.start_time == start.timestamp
    assert run.info.experiment_id == "0"
    assert run.info.status == "RUNNING"
    expected = {
        "mlflow.user": "ada",
        "team": "x",
        "autolog.run_key": start.key,
        "mlflow.parentRunId": parent_id,
    }
    assert expected.items() <= run.data.tags.items()


def test_a_run_is_created_once(backend: Backend) -> None:
    """Opened again, as after a lost reply or by the next shipper, a run is the same run."""
    start = _start(experiment=f"once {uuid.uuid4().hex}")
    run_id = backend.exporter.open_run(start, None)
    assert exporter_for(backend.uri, {}).open_run(start, None) == run_id
    experiment = backend.client.get_experiment_by_name(str(start.experiment))
    assert experiment is not None
    assert len(backend.client.search_runs([experiment.experiment_id])) == 1


def test_an_adopted_run_is_used_as_it_is(backend: Backend) -> None:
    """A run that somebody else created is taken by its id and not changed."""
    run = backend.client.create_run("0", tags={"whose": "theirs"})
    run_id = run.info.run_id
    assert backend.exporter.open_run(_start(run_id=run_id, owned=False), None) == run_id
    assert "autolog.run_key" not in backend.client.get_run(run_id).data.tags


def test_a_tag_the_server_refuses_does_not_cost_the_run(
    backend: Backend,
) -> None:
    """A run with one impossible tag is created, and its tags are left to who opens it."""
    start = _start(tags={"good": "1", "bad": "\ud800"})
    with pytest.raises(TagsRefused) as caught:
        backend.exporter.open_run(start, None)
    run = backend.client.get_run(caught.value.run_id)
    assert run.data.tags["autolog.run_key"] == start.key
    assert run.data.tags.keys().isdisjoint(start.tags)
    assert backend.exporter.open_run(start, None) == caught.value.run_id


@pytest.mark.parametrize("run_id", ["0" * 32, "no such run"])
def test_an_unknown_run_is_refused(backend: Backend, run_id: str) -> None:
    """A run that the server does not know is refused as a run, at each verb."""
    batch = Batch(run_id, metrics=(Metric("loss", 1.0, 1, 1),))
    with pytest.raises(RunRefused):
        backend.exporter.open_run(_start(run_id=run_id), None)
    with pytest.raises(RunRefused):
        backend.exporter.export(batch)
    with pytest.raises(RunRefused):
        backend.exporter.end_run(run_id, Status.FINISHED, 1)


def test_a_deleted_run_is_refused(backend: Backend) -> None:
    """A run that was deleted on the server is neither written to nor created a second time."""
    start = _start()
    run_id = backend.exporter.open_run(start, None)
    backend.client.delete_run(run_id)
    with pytest.raises(RunRefused):
        backend.exporter.export(Batch(run_id, metrics=(Metric("loss", 1.0, 1, 1),)))
    with pytest.raises(RunRefused):
        backend.exporter.open_run(start, None)
    with pytest.raises(RunRefused):
        backend.exporter.open_run(_start(run_id=run_id), None)


def test_a_deleted_experiment_refuses_its_runs(backend: Backend) -> None:
    """An experiment that was deleted on the server is not created a second time."""
    name = f"deleted {uuid.uuid4().hex}"
    backend.client.delete_experiment(backend.client.create_experiment(name))
    with pytest.raises(RunRefused, match="deleted"):
        backend.exporter.open_run(_start(experiment=name), None)


def test_an_experiment_is_found_or_created(backend: Backend) -> None:
    """A named experiment is created by its first run, found by the next; an id is used as it is."""
    name = f"größe/{uuid.uuid4().hex}"
    runs = [backend.exporter.open_run(_start(experiment=name), None) for _ in range(2)]
    ids = {backend.client.get_run(run).info.experiment_id for run in runs}
    experiment = backend.client.get_experiment_by_name(name)
    assert experiment is not None
    assert ids == {experiment.experiment_id}
    by_id = backend.exporter.open_run(_start(experiment_id=experiment.experiment_id), None)
    assert backend.client.get_run(by_id).info.experiment_id == experiment.experiment_id


def test_two_processes_may_create_an_experiment_at_once(mlflow_server: Any) -> None:
    """Who comes second to create an experiment uses the one that is there."""
    name = f"race {uuid.uuid4().hex}"
    barrier = Barrier(4)

    def create(_: int) -> str:
        exporter = exporter_for(mlflow_server.url, {})
        barrier.wait()
        return exporter.open_run(_start(experiment=name), None)

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(create, range(4)))
    client = MlflowClient(mlflow_server.url)
    assert len({client.get_run(run).info.experiment_id for run in runs}) == 1


def test_a_run_ends_with_status_and_time(backend: Backend) -> None:
    """Status and end time are set, and may be set again."""
    run_id = backend.exporter.open_run(_start(), None)
    for _ in range(2):
        backend.exporter.end_run(run_id, Status.KILLED, 1_700_000_005_000)
    info = backend.client.get_run(run_id).info
    assert (info.status, info.end_time) == ("KILLED", 1_700_000_005_000)
    assert info.run_name == "Net-1"


@pytest.mark.recent
@pytest.mark.parametrize("backend", ["server", "sqlite"], indirect=True)
def test_a_batch_sent_twice_is_stored_once(backend: Backend) -> None:
    """After a lost reply a batch may be sent again: databases hold each point once.

    A folder has no network whose reply could be lost.
    """
    run_id = backend.exporter.open_run(_start(), None)
    metrics = tuple(
        Metric("loss", value, 5, n) for n, value in enumerate([0.5, math.inf, math.nan])
    )
    for batch in [
        Batch(run_id, metrics=metrics),
        Batch(run_id, metrics=metrics[:2]),
        Batch(run_id, params=(("a", "1"),)),
    ] * 2:
        backend.exporter.export(batch)
    assert len(backend.client.get_metric_history(run_id, "loss")) == 3
    assert backend.client.get_run(run_id).data.params == {"a": "1"}


@pytest.mark.parametrize(
    "bad",
    [
        Batch("", metrics=(Metric("a//b", 1.0, 1, 1), Metric("good", 1.0, 1, 1))),
        Batch("", metrics=(Metric("x" * 251, 1.0, 1, 1),)),
        Batch("", metrics=(Metric("a,b", 1.0, 1, 1),)),
        Batch("", params=(("", "empty name"), ("good", "1"))),
        Batch("", tags=(("../up", "1"),)),
        Batch("", params=(("surrogate", "\ud800"),)),
    ],
    ids=["path", "long", "comma", "empty", "up", "surrogate"],
)
def test_what_mlflow_never_takes_is_rejected(backend: Backend, bad: Batch) -> None:
    """A bad name or text rejects its batch, whose good half can then be stored."""
    run_id = backend.exporter.open_run(_start(), None)
    with pytest.raises(Rejected):
        backend.exporter.export(replace(bad, run_id=run_id))
    if len(bad) > 1:
        backend.exporter.export(replace(bad.halves()[1], run_id=run_id))
        data = backend.client.get_run(run_id).data
        assert "good" in {**data.metrics, **data.params}


def test_a_changed_param_does_not_pass_unseen(backend: Backend) -> None:
    """Another value for a param is refused, by a folder store as an error of its own."""
    run_id = backend.exporter.open_run(_start(), None)
    backend.exporter.export(Batch(run_id, params=(("lr", "0.1"),)))
    with pytest.raises(Retryable if backend.kind == "folder" else Rejected) as caught:
        backend.exporter.export(Batch(run_id, params=(("lr", "0.2"),)))
    assert getattr(caught.value, "suspect", True)
    assert backend.client.get_run(run_id).data.params == {"lr": "0.1"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("c/d", "c"), ("e", "\u00e4" * 250)])
@pytest.mark.parametrize("backend", ["folder"], indirect=True)
def test_what_cannot_be_a_path_is_rejected_by_a_folder_store(
    backend: Backend, names: tuple[str, str]
) -> None:
    """There a name is a file: one below a file, in the place of a folder, or too long, is none."""
    run_id = backend.exporter.open_run(_start(), None)
    good, bad = [Batch(run_id, metrics=(Metric(n, 1.0, 1, 1),)) for n in names]
    backend.exporter.export(good)
    with pytest.raises(Rejected, match="no name for a folder store"):
        backend.exporter.export(bad)
    assert backend.client.get_run(run_id).data.metrics == {names[0]: 1.0}


@pytest.mark.recent
def test_a_folder_store_needs_mlflows_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLflow refuses folder stores the data are kept, and the reason names the way out."""
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    exporter = exporter_for((tmp_path / "refused").as_uri(), {})
    with pytest.raises(Retryable, match="MLFLOW_ALLOW_FILE_STORE"):
        exporter.open_run(_start(), None)


@pytest.mark.recent
@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/none/mlflow.db", "postgresql+nodriver://h/db", "no-such-scheme://x"]
)
def test_a_store_that_cannot_be_opened_keeps_the_data(uri: str) -> None:
    """A missing folder, driver or plugin is a matter of configuration, asked for again later."""
    with pytest.raises(Retryable):
        exporter_for(uri, {}).open_run(_start(), None)


def test_a_server_of_mlflows_own_client_that_is_down_raises_no_suspicion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through MLflow's client too, nobody listening is never blamed on what was sent."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Retryable) as caught:
        StoreExporter("http://127.0.0.1:9").open_run(_start(run_id="r"), None)
    assert not caught.value.suspect


def test_artifacts_of_a_new_sqlite_store_lie_beside_it(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the sender's working directory is, artifacts go to `mlruns` next to the database."""
    monkeypatch.chdir(tmp_path)
    name = f"artifacts {uuid.uuid4().hex}"
    exporter_for(sqlite_uri, {}).open_run(_start(experiment=name), None)
    experiment = MlflowClient(sqlite_uri).get_experiment_by_name(name)
    assert experiment is not None
    beside = Path(sqlite_uri.removeprefix("sqlite:///")).parent / "mlruns"
    assert str(beside) in experiment.artifact_location


@pytest.mark.parametrize(
    ("target", "environ", "kind"),
    [
        ("http://h:5000", {}, RestExporter),
        ("HTTPS://h", {"MLFLOW_TRACKING_AWS_SIGV4": "false"}, RestExporter),
        ("https://h", {"MLFLOW_TRACKING_AWS_SIGV4": "true"}, StoreExporter),
        ("https://h", {"MLFLOW_TRACKING_AUTH": "kubernetes"}, StoreExporter),
        ("sqlite:////tmp/a b/x.db", {}, LocalExporter),
        ("sqlite:////tmp/x.db", {"MLFLOW_ENABLE_WORKSPACES": "true"}, StoreExporter),
        ("sqlite:////tmp/x.db?timeout=5", {}, StoreExporter),
        ("sqlite:////tmp/50%.db", {}, StoreExporter),
        ("sqlite+pysqlite:////tmp/x.db", {}, StoreExporter),
        ("sqlite:///x.db", {}, StoreExporter),
        ("sqlite:///:memory:", {}, StoreExporter),
        ("file:///tmp/mlruns", {}, StoreExporter),
        ("databricks://profile", {}, StoreExporter),
    ],
)
def test_the_target_decides_who_sends(
    target: str, environ: Mapping[str, str], kind: type[Exporter]
) -> None:
    """Plain HTTP and plain sqlite files go without mlflow; all that is special needs it."""
    assert isinstance(exporter_for(target, environ), kind)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_PARAMETER_VALUE", Rejected),
        (400, "BAD_REQUEST", Rejected),
        (404, "RESOURCE_DOES_NOT_EXIST", Rejected),
        (404, "ENDPOINT_NOT_FOUND", Retryable),
        (400, None, Retryable),
        (503, "TEMPORARILY_UNAVAILABLE", Retryable),
        (500, "INTERNAL_ERROR", Retryable),
    ],
)
def test_what_a_status_means(status: int, code: str | None, kind: type[Exception]) -> None:
    """Only MLflow's own 400 and 404 are final."""
    assert type(refusal(status, code, "words")) is kind


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sending_to_a_server_takes_little_memory(mlflow_server: Any) -> None:
    """A process that only sends over HTTP loads no mlflow and stays within 40 MB."""
    program = f"""
import sys, uuid
from autolog.batching import Batch, Metric
from autolog.exporters import exporter_for
from autolog.records import RunStart
exporter = exporter_for({mlflow_server.url!r}, {{}})
start = RunStart(1, uuid.uuid4().hex, "x", None, None, {{}}, None, None, True, 1)
run_id = exporter.open_run(start, None)
for n in range(3):
    points = tuple(Metric("loss", 0.1 * i, 1, 1000 * n + i) for i in range(1000))
    exporter.export(Batch(run_id, metrics=points))
assert "mlflow" not in sys.modules
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) <= 40 * 1024
