"""The exporter that writes MLflow's sqlite file itself, held against MLflow's own store."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric as MlflowMetric
from mlflow.tracking import MlflowClient
from support import eventually

from autolog.batching import Batch, Metric
from autolog.exporters import Exporter, Rejected, Retryable, RunRefused, local, schema
from autolog.exporters.local import LocalExporter
from autolog.exporters.store import StoreExporter
from autolog.records import Link, RunStart, Status

NOW = 1_500_000_000_000


def start(**changes: Any) -> RunStart:
    """A run that begins, with a key of its own."""
    key = uuid.uuid4().hex
    return replace(RunStart(1, key, "Net-1", None, None, {}, None, None, True, NOW), **changes)


class Nobody:
    """Stands where MLflow's own store would be asked, and says that it was."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def asked(*arguments: object) -> None:
            raise AssertionError(f"{name}{arguments} was left to MLflow")

        return asked


def alone(uri: str) -> LocalExporter:
    """An exporter that has nobody to leave anything to."""
    exporter = LocalExporter(uri, {})
    exporter._mlflow = Nobody()
    return exporter


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it: that takes seconds, a copy does not."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    StoreExporter(f"sqlite:///{file}").check()
    return file


@pytest.fixture
def database(empty: Path, tmp_path: Path) -> str:
    """The URI of a database of the test's own."""
    return copy(empty, tmp_path)


def copy(empty: Path, folder: Path) -> str:
    """The URI of a copy in a folder."""
    folder.mkdir(exist_ok=True)
    return f"sqlite:///{shutil.copy(empty, folder / 'mlflow.db')}"


@contextlib.contextmanager
def opened(uri: str) -> Iterator[sqlite3.Connection]:
    """A database as sqlite sees it."""
    file = uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=10)) as found:
        yield found


def count(uri: str, table: str, run_id: str) -> int:
    """How many rows of a table a run has."""
    with opened(uri) as found:
        query = f"SELECT count(*) FROM {table} WHERE run_uuid = ?"
        return int(found.execute(query, (run_id,)).fetchone()[0])


def points(run_id: str, steps: range) -> Batch:
    """A value of ``loss`` for each step."""
    return Batch(run_id, metrics=tuple(Metric("loss", n / 7, NOW + n, n) for n in steps))


# -- the same rows ---------------------------------------------------------------------------------


def contents(uri: str) -> dict[str, list[str]]:
    """Every table, each cell with its type; ids of chance, places and the present left out."""
    folder = str(Path(uri.removeprefix("sqlite:///")).parent)
    found: dict[str, list[str]] = {}
    with opened(uri) as read:
        tables = read.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in read.execute(f"PRAGMA table_info({table})")]
            cells = ", ".join(f"typeof({column}), {column}" for column in columns)
            rows = map(repr, read.execute(f"SELECT {cells} FROM {table}").fetchall())
            found[table] = sorted(_without_chance(row.replace(folder, "HERE")) for row in rows)
    return found


def _without_chance(row: str) -> str:
    row = re.sub(r"[0-9a-f]{32}", "ID", row)
    return re.sub(r"\b(1[6-9]|2\d)\d{11}\b", "TODAY", row)


def _dataset(name: str, *tags: dict[str, str], **changes: str | None) -> dict[str, Any]:
    source = {"source_type": "local", "source": "{}", "schema": "größe", "profile": None}
    return {"dataset": {"name": name, "digest": "d1", **source, **changes}, "tags": list(tags)}


_CONTEXT = {"key": "mlflow.data.context", "value": "train"}


def _fill(exporter: Exporter, model_id: str | None) -> None:
    """Everything that is in a journal, and what comes twice after a kill."""
    named = exporter.open_run(start(experiment="größe/1", tags={"mlflow.user": "ada"}), None)
    child = start(tags={"mlflow.note.content": "a\nb", "mlflow.runName": "Net-1", "": ""})
    run_id = exporter.open_run(child, named)
    assert exporter.open_run(child, named) == run_id
    assert exporter.open_run(start(run_id=run_id, owned=False), None) == run_id
    values = [0.5, math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-320, 1.7e308, 3.0, 2.0**53 + 2]
    metrics = [
        Metric(key, value, NOW + n // 3, n // 2)
        for key in ("loss", "Verlust/größe 1", "損失:a")
        for n, value in enumerate(values)
    ]
    exporter.export(Batch(run_id, metrics=tuple(metrics)))
    for late in (
        Metric("loss", 9.0, NOW, 2**62),
        Metric("loss", math.nan, NOW, 2**62),
        Metric("loss", 1.0, NOW + 1, 2**62),
        Metric("loss", 99.0, NOW + 9, -5),
        Metric("nan", math.nan, 0, 0),
        Metric("nan", -1.0, 0, 0),
    ):
        exporter.export(Batch(run_id, metrics=(late,)))
    exporter.export(
        Batch(run_id, metrics=(*metrics[2:4], Metric("loss", 0.1, NOW, 99), metrics[0]))
    )
    exporter.export(Batch(run_id, params=(("größe", "1\n2"), ("quote", "\"'\\"), ("none", ""))))
    exporter.export(Batch(run_id, params=(("quote", "\"'\\"), ("more", "x" * 6000))))
    exporter.export(Batch(run_id, tags=(("stage", "first"), ("long", "y" * 8000))))
    exporter.export(Batch(run_id, tags=(("stage", "\0 second"), ("mlflow.runName", "renamed"))))
    for inputs in (
        {"datasets": [_dataset("a", _CONTEXT), _dataset("b"), _dataset("a")]},
        {"datasets": [_dataset("a", {"key": "other", "value": ""}), _dataset("a", digest="d2")]},
        {"models": [{"model_id": model_id}] * 2} if model_id else {},
    ):
        exporter.log_inputs(run_id, json.dumps(inputs))
    exporter.log_inputs(named, json.dumps({"datasets": [_dataset("c", schema=None)]}))
    if model_id:
        # MLflow 2 took a dataset of another experiment for it.
        exporter.log_inputs(named, json.dumps({"datasets": [_dataset("a")]}))
        links = Link(model_id, "a", "d1"), Link(model_id), Link(None, "a", "d1")
        linked = tuple(
            Metric("linked", value, NOW, n, links[n % 3]) for n, value in enumerate(values)
        )
        exporter.export(Batch(run_id, metrics=linked))
        exporter.export(
            Batch(run_id, metrics=(*linked[2:5], Metric("linked", 5, NOW, 50, links[0])))
        )
    exporter.end_run(run_id, Status.KILLED, NOW + 5)
    exporter.end_run(run_id, Status.RUNNING, NOW + 6)
    exporter.end_run(run_id, Status.FINISHED, NOW + 7)


def _model(uri: str) -> str | None:
    """A logged model, where this MLflow has them."""
    create = getattr(MlflowClient(uri), "create_logged_model", None)
    return str(create("0", "net").model_id) if create else None


def test_the_rows_are_those_that_mlflow_leaves(empty: Path, tmp_path: Path) -> None:
    """Whatever is in a journal, every table holds afterwards what MLflow's own store puts there."""
    ours, theirs = copy(empty, tmp_path / "ours"), copy(empty, tmp_path / "theirs")
    _fill(alone(ours), _model(ours))
    _fill(StoreExporter(theirs), _model(theirs))
    left, right = contents(ours), contents(theirs)
    for table in right:
        assert left[table] == right[table], table
    written = {table for table, rows in left.items() if rows}
    assert {"metrics", "latest_metrics", "params", "tags", "input_tags"} <= written


def test_a_point_that_comes_twice_is_stored_once(database: str) -> None:
    """Of a batch that is sent again, or that has a point twice, each point is there once."""
    exporter = alone(database)
    run_id = exporter.open_run(start(), None)
    metrics = tuple(
        Metric("loss", value, NOW, n) for n, value in enumerate([0.5, math.inf, math.nan])
    )
    for batch in (metrics, metrics * 2, metrics[1:]):
        exporter.export(Batch(run_id, metrics=batch))
    assert count(database, "metrics", run_id) == 3
    assert count(database, "latest_metrics", run_id) == 1


def test_what_mlflow_refuses_is_refused_in_its_words(database: str) -> None:
    """A param that changes, a run that is unknown or deleted: the same reason and code."""
    ours, theirs = alone(database), StoreExporter(database)
    run_id, deleted = (ours.open_run(start(), None) for _ in range(2))
    ours.export(Batch(run_id, params=(("lr", "0.1"), ("n", "5"))))
    MlflowClient(database).delete_run(deleted)
    changed = Batch(run_id, params=(("lr", "0.2"), ("new", "1"), ("n", "5")))
    for refused in (
        lambda exporter: exporter.log_batch(changed),
        lambda exporter: exporter.log_batch(points("0" * 32, range(1))),
        lambda exporter: exporter.log_batch(points(deleted, range(1))),
        lambda exporter: exporter.update_run("0" * 32, Status.FAILED, NOW),
        lambda exporter: exporter.update_run(deleted, Status.FAILED, NOW),
        lambda exporter: exporter.log_inputs(deleted, "{}"),
    ):
        said = []
        for exporter in (ours, theirs):
            with pytest.raises(Rejected) as caught:
                refused(exporter)
            said.append((caught.value.reason, caught.value.code))
        assert said[0] == said[1]
    assert count(database, "params", run_id) == 2
    with pytest.raises(RunRefused, match="deleted"):
        ours.open_run(start(run_id=deleted), None)


def test_what_is_not_taken_as_it_is_goes_to_mlflow(database: str) -> None:
    """Names and texts that MLflow shortens or refuses, and a link to no model, are its to judge."""
    nobody, exporter = alone(database), LocalExporter(database, {})
    run_id = exporter.open_run(start(), None)
    for left in (
        Batch(run_id, params=(("long", "x" * 7000),)),
        Batch(run_id, tags=(("mlflow.runName", ""),)),
        Batch(run_id, metrics=(Metric("a//b", 1.0, NOW, 1),)),
        Batch(run_id, metrics=(Metric("loss", 1.0, -1, 1),)),
        Batch(run_id, metrics=(Metric("loss", 1.0, NOW, 2**63),)),
        Batch(run_id, metrics=(Metric("loss", 1.0, NOW, 1, Link("m-none")),)),
        Batch(run_id, params=(("text", "\ud800"),)),
    ):
        with pytest.raises(AssertionError, match="left to MLflow"):
            nobody.export(left)
    for incomplete in ('{"datasets": [{}]}', '{"datasets": [{"dataset": {"name": 5}}]}'):
        with pytest.raises(AssertionError, match="left to MLflow"):
            nobody.log_inputs(run_id, incomplete)
    assert count(database, "metrics", run_id) == 0
    exporter.export(Batch(run_id, params=(("long", "x" * 7000),)))
    assert len(MlflowClient(database).get_run(run_id).data.params["long"]) == 6000


# -- which databases -------------------------------------------------------------------------------


_STEP = """
import sys
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.store.tracking.dbmodels.initial_models import Base
from autolog.exporters import schema
config = _get_alembic_config(sys.argv[1])
engine = create_sqlalchemy_engine(sys.argv[1])
Base.metadata.create_all(engine)
steps = [step.revision for step in ScriptDirectory.from_config(config).walk_revisions()][::-1]
for step in steps[steps.index("0584bdc529eb"):]:
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, step)
    print(step, flush=True)
    sys.stdin.readline()
"""


def test_every_revision_up_to_this_mlflow_is_known(tmp_path: Path) -> None:
    """At each step of MLflow's migrations since 2.18 a run is written, and stays as it was."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-W", "ignore", "-c", _STEP, uri]
    pipe = subprocess.PIPE
    runs = []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as migration:
        assert migration.stdin is not None
        assert migration.stdout is not None
        for line in migration.stdout:
            exporter = alone(uri)
            run_id = exporter.open_run(start(experiment=line), None)
            exporter.export(points(run_id, range(3)))
            exporter.log_inputs(run_id, json.dumps({"datasets": [_dataset("a", _CONTEXT)]}))
            exporter.end_run(run_id, Status.FINISHED, NOW)
            exporter.close()
            runs.append(run_id)
            migration.stdin.write("\n")
            migration.stdin.flush()
    assert migration.returncode == 0
    with opened(uri) as found:
        assert schema._revisions(found) <= schema._REVISIONS
        schema.require_known(found)
    client = MlflowClient(uri)
    for run_id in runs:
        run = client.get_run(run_id)
        assert run.data.metrics == {"loss": 2 / 7}
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = 'ffffffffffff'",
        "INSERT INTO alembic_version VALUES ('ffffffffffff')",
        "ALTER TABLE metrics ADD COLUMN unit TEXT",
        "ALTER TABLE runs RENAME COLUMN user_id TO owner",
        "ALTER TABLE input_tags RENAME TO old_input_tags",
        "CREATE TRIGGER mine AFTER INSERT ON params BEGIN SELECT 1; END",
        "DROP TABLE tags; CREATE TABLE tags (key, value, run_uuid, PRIMARY KEY (run_uuid, key))",
    ],
)
def test_a_schema_that_is_not_known_is_left_to_mlflow(database: str, change: str) -> None:
    """Another revision, column, key or table, or a trigger: nothing is written by us."""
    with opened(database) as altered:
        altered.executescript(change)
        before = list(altered.iterdump())
        with pytest.raises(AssertionError, match="left to MLflow"):
            alone(database).open_run(start(experiment="new"), None)
        assert list(altered.iterdump()) == before


def test_mlflow_is_left_no_more_at_once_than_it_takes(database: str) -> None:
    """A batch that is too large for MLflow's own store goes there in parts."""
    with opened(database) as altered:
        altered.execute("CREATE TRIGGER mine AFTER INSERT ON params BEGIN SELECT 1; END")
    exporter = LocalExporter(database, {})
    run_id = exporter.open_run(start(), None)
    exporter.export(points(run_id, range(2500)))
    assert count(database, "metrics", run_id) == 2500


def test_a_migration_between_two_calls_is_seen(database: str) -> None:
    """A database that changes to another revision is MLflow's from then on, in MLflow's words."""
    exporter = LocalExporter(database, {})
    run_id = exporter.open_run(start(), None)
    with opened(database) as altered:
        altered.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(Retryable, match=r"(?s)Detected out-of-date database schema.*ffffffffffff"):
        exporter.export(points(run_id, range(1)))
    assert count(database, "metrics", run_id) == 0


@pytest.mark.recent
def test_experiments_of_other_workspaces_are_left_to_mlflow(database: str) -> None:
    """A database that several workspaces share has experiments of the same name."""
    with opened(database) as altered:
        altered.execute("INSERT INTO experiments (name, workspace) VALUES ('Default', 'team')")
    with pytest.raises(AssertionError, match="left to MLflow"):
        alone(database).open_run(start(), None)


_FIRST = """
import sys, uuid
from autolog.batching import Batch, Metric
from autolog.exporters import exporter_for
from autolog.records import RunStart
exporter = exporter_for(sys.argv[1], {})
start = RunStart(1, uuid.uuid4().hex, "x", "new", None, {}, None, None, True, 1)
run_id = exporter.open_run(start, None)
for n in range(5):
    points = tuple(Metric("loss", 0.1 * i, 1, 1000 * n + i) for i in range(1000))
    exporter.export(Batch(run_id, metrics=points))
assert "mlflow" not in sys.modules, "mlflow was imported"
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(run_id, peak.split()[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_empty_file_gets_its_tables_from_mlflow_and_its_rows_without(tmp_path: Path) -> None:
    """The process that sends never loads mlflow, and takes 35 MB at most."""
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", _FIRST, uri]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    run_id, peak = done.stdout.split()
    assert count(uri, "metrics", run_id) == 5000
    assert int(peak) <= 35 * 1024
    assert {file.name for file in tmp_path.iterdir()} - {"mlruns"} == {"mlflow.db"}


def test_a_file_that_is_replaced_is_the_one_that_is_written(empty: Path, tmp_path: Path) -> None:
    """A database that was deleted and made anew gets what comes then."""
    uri = copy(empty, tmp_path)
    exporter = alone(uri)
    exporter.open_run(start(), None)
    Path(copy(empty, tmp_path / "new").removeprefix("sqlite:///")).replace(tmp_path / "mlflow.db")
    run_id = exporter.open_run(start(), None)
    assert [run.info.run_id for run in MlflowClient(uri).search_runs(["0"])] == [run_id]


# -- others at the same file -----------------------------------------------------------------------


def test_a_lock_of_another_is_waited_for_and_ours_is_let_go(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another writes, or reads on, a batch is put off whole; we hold no lock meanwhile."""
    monkeypatch.setattr(local, "_LOCK_SECONDS", 0.1)
    exporter = alone(database)
    run_id = exporter.open_run(start(), None)
    for begin in ("BEGIN IMMEDIATE", "BEGIN; SELECT * FROM runs"):
        with opened(database) as other:
            other.executescript(begin)
            with pytest.raises(Retryable, match="database is locked") as caught:
                exporter.export(points(run_id, range(1000)))
            assert not caught.value.suspect
            with opened(database) as third:
                third.execute("PRAGMA busy_timeout = 0")
                if begin != "BEGIN IMMEDIATE":
                    third.execute("BEGIN IMMEDIATE")
        assert count(database, "metrics", run_id) == 0
    exporter.export(points(run_id, range(1000)))
    assert count(database, "metrics", run_id) == 1000


def test_mlflows_server_and_others_use_the_file_meanwhile(mlflow_server: Any) -> None:
    """A server reads and writes the file that two of us write to, and nobody loses a value."""
    uri = mlflow_server.store.uri
    client = mlflow_server.client()
    theirs = client.create_run("0").info.run_id

    def write(first: int) -> str:
        exporter = LocalExporter(uri, {})
        run_id = exporter.open_run(start(), None)
        for n in range(first, first + 20):
            batch = points(run_id, range(50 * n, 50 * n + 50))
            eventually(partial(_is_sent, exporter, batch))
        return run_id

    def serve(_: int) -> str:
        for n in range(20):
            client.log_batch(theirs, [MlflowMetric("loss", n + i / 9, NOW, n) for i in range(9)])
            assert client.search_runs(["0"])
        return str(theirs)

    with ThreadPoolExecutor(3) as pool:
        ours = [pool.submit(write, first) for first in (0, 1000)]
        served = pool.submit(serve, 0)
    assert len(client.get_metric_history(served.result(), "loss")) == 180
    for run in ours:
        assert len(client.get_metric_history(run.result(), "loss")) == 1000


def _is_sent(exporter: Exporter, batch: Batch) -> bool:
    try:
        exporter.export(batch)
    except Retryable:
        return False
    return True


_SENDING = """
import sys
from autolog.batching import Batch, Metric
from autolog.exporters import exporter_for
exporter = exporter_for(sys.argv[1], {})
for n in range(10**6):
    points = tuple(Metric("loss", i / 7, 1, 100 * n + i) for i in range(100))
    exporter.export(Batch(sys.argv[2], metrics=points))
    print(n, flush=True)
"""


def test_a_kill_leaves_whole_batches(database: str) -> None:
    """SIGKILL in the middle of whatever leaves a sound file, whose batches are whole."""
    exporter = alone(database)
    run_id = exporter.open_run(start(), None)
    command = [sys.executable, "-c", _SENDING, database, run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sending:
        assert sending.stdout is not None
        acknowledged = [sending.stdout.readline() for _ in range(20)]
        sending.send_signal(signal.SIGKILL)
        acknowledged += sending.stdout.readlines()
    stored = count(database, "metrics", run_id)
    assert stored % 100 == 0
    assert 0 <= stored - 100 * len(acknowledged) <= 100
    exporter.export(Batch(run_id, metrics=tuple(Metric("loss", i / 7, 1, i) for i in range(100))))
    with opened(database) as found:
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert count(database, "metrics", run_id) == stored
