"""What is logged is what MLflow's client reads back, whatever it is; else it is told to the user.

Told means: an error at the call, or a dead letter with the server's reason. Nothing is different on
the server without a word.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import autolog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import open_journal, run_start
from support import Point

from autolog import guard, params_file
from autolog.batching import MLFLOW
from autolog.journal import layout
from autolog.journal.writer import Journal
from autolog.recorder import run as recorder
from autolog.recorder.run import Run
from autolog.targets import Target
from autolog.values import BadValue, shortened

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from readback import Experiment

PAIRS = ("params", "tags")
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
NAMES = st.one_of(
    st.sampled_from(["loss", "val/acc", "a b", "größe", "損失/x", "lr:0", "A", "a"]),
    st.text("abc/. _-:é損", min_size=1, max_size=12),
    st.text(st.characters(), max_size=6),
    st.integers(249, 251).map(lambda length: "n" * length),
)
VALUES = st.floats() | st.sampled_from(
    [math.nan, math.inf, -math.inf, 5e-324, -2.2e-308, -0.0, 1e308, sys.float_info.max]
)
STEPS = st.integers(-3, 10) | INT64 | st.sampled_from([1 << 63, -(1 << 63) - 1, 1 << 70])
TEXTS = st.one_of(
    st.text(st.characters(), max_size=40),
    st.text(st.characters(max_codepoint=31), max_size=5),
    st.sampled_from(["", "\0", "'", '"\\', "%s", "\ud800", "null", "x" * 5999]),
    st.sampled_from([5999, 6000, 6001, 8000, 8001, 30_000]).map(lambda length: "é" * length),
)
TIMESTAMPS = st.integers(0, 1 << 42) | INT64


@dataclass
class Told:
    """A run, what it was given, and what was refused at the call."""

    run: Run
    points: set[Point] = field(default_factory=set)
    """As a database holds them."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Every value in its order."""
    refused: int = 0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """As the public function; good names come in one call, any other one alone."""
        if self._is_taken(lambda: self.run.log_metrics(metrics, step)):
            now = self.run._newest
            self.points |= {as_stored(key, step, now, value) for key, value in metrics.items()}

    def write_points(self, points: list[Point]) -> None:
        """As MLflow's clients, without their checks."""
        self.run.write_points(
            recorder.Point(p.key, p.value, p.timestamp, p.step, None) for p in points
        )
        self.points |= {as_stored(*point) for point in points}

    def log_params(self, key: str, text: str) -> None:
        """As the public function, unless the name has a value."""
        if key not in self.params and self._is_taken(lambda: self.run.log_params({key: text})):
            self.params[key] = text.encode("utf-8", "backslashreplace").decode()

    def write_params(self, key: str, text: str) -> None:
        """As MLflow's clients, without their checks."""
        if key not in self.params:
            self.run.write_params({key: text})
            self.params[key] = text

    def set_tags(self, key: str, text: str) -> None:
        """As the public function."""
        if self._is_taken(lambda: self.run.set_tags({key: text})):
            text = text.encode("utf-8", "backslashreplace").decode()
            self.tags.setdefault(key, []).append(text)

    def write_tags(self, key: str, text: str) -> None:
        """As MLflow's clients, without their checks."""
        self.run.write_tags({key: text})
        self.tags.setdefault(key, []).append(text)

    def _is_taken(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except BadValue:
            self.refused += 1
            return False
        return True


POINT = st.builds(Point, NAMES, INT64 | st.integers(0, 9), TIMESTAMPS, VALUES)
CALLS = st.one_of(
    st.tuples(
        st.just(Told.log_metrics), st.dictionaries(NAMES, VALUES, min_size=1, max_size=1), STEPS
    ),
    st.tuples(
        st.just(Told.log_metrics),
        st.dictionaries(st.sampled_from(["loss", "val/acc", "é"]), VALUES, min_size=1),
        STEPS,
    ),
    st.tuples(st.just(Told.write_points), st.lists(POINT, min_size=1, max_size=4)),
    *(
        st.tuples(st.just(verb), NAMES, TEXTS)
        for verb in (Told.log_params, Told.write_params, Told.set_tags, Told.write_tags)
    ),
)


def logged(journal: Journal, experiment: Experiment, examples: int) -> list[Told]:
    """So many runs, each of calls that hypothesis makes."""
    told: list[Told] = []

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(CALLS, min_size=4, max_size=12), st.dictionaries(NAMES, TEXTS, max_size=2))
    def log(calls: list[Any], tags: dict[str, str]) -> None:
        number = next(journal.ids)
        start = run_start(
            number,
            key=uuid.uuid4().hex,
            experiment=experiment.name,
            name=f"run {number}",
            tags=tags,
            timestamp=time.time_ns() // 1_000_000,
        )
        one = Told(Run(journal, Target(experiment.server.url), start))
        told.append(one)
        for verb, *arguments in calls:
            verb(one, *arguments)
        one.run.end()

    log()
    return told


@pytest.fixture(params=["server", "sqlite"])
def backend(
    request: pytest.FixtureRequest, experiment: Experiment, new_store: Callable[[], str]
) -> str:
    """Where journals are sent."""
    return experiment.server.url if request.param == "server" else new_store()


def check(backend: str, experiment: Experiment, folder: Path, examples: int) -> None:
    """Log, send as a user would, read back."""
    from mlflow import MlflowClient

    guard.strict = True
    journal = open_journal(folder / "given")
    told = logged(journal, experiment, examples)
    assert sum(one.refused for one in told) > 0
    shutil.copytree(journal.folder, folder / "sent")
    autolog("sync", folder / "sent", "--to", backend, timeout=60 + 3 * examples)
    client = MlflowClient(backend)
    found = client.get_experiment_by_name(experiment.name)
    assert found is not None
    runs = client.search_runs([found.experiment_id], max_results=10_000)
    run_ids = {run.data.tags["autolog.run_key"]: run.info.run_id for run in runs}
    assert run_ids.keys() == {one.run.key for one in told}
    letters = list(dead_letters(folder / "sent"))
    assert letters
    for one in told:
        run_id = run_ids[one.run.key]
        check_run(client, one, run_id, [each for each in letters if each["run_id"] == run_id])


def check_run(client: MlflowClient, told: Told, run_id: str, letters: list[dict[str, Any]]) -> None:
    """Everything is stored as given or in a dead letter, and nothing else is stored."""
    data = client.get_run(run_id).data
    stored = {
        as_stored(metric.key, metric.step, metric.timestamp, metric.value)
        for key in data.metrics
        for metric in client.get_metric_history(run_id, key)
    }
    refused = {
        as_stored(metric["key"], metric["step"], metric["timestamp"], metric["value"])
        for letter in letters
        for metric in letter["metrics"]
    }
    assert stored | refused == told.points
    assert not stored & refused
    check_texts(told, client.get_run(run_id), letters, whole_texts(client, run_id))


def check_texts(
    told: Told, run: Any, letters: list[dict[str, Any]], whole: dict[str, dict[str, str]]
) -> None:
    """Params and tags are stored, shortened and whole in ``params.json``, or in a dead letter."""
    params, tags = run.data.params, run.data.tags
    first = {key: shortened(text, MLFLOW.tag_length) for key, text in told.run.start.tags.items()}
    refused = {(kind, *pair) for each in letters for kind in PAIRS for pair in each[kind].items()}
    for key, text in told.params.items():
        short = shortened(text, MLFLOW.param_length)
        assert (params.get(key) == short) != (("params", key, short) in refused)
        assert short == text or whole["whole"][key] == text
    for key, texts in told.tags.items():
        *earlier, newest = (shortened(text, MLFLOW.tag_length) for text in texts)
        assert tags.get(key) == newest or ("tags", key, newest) in refused
        assert tags.get(key) in (newest, None, *earlier, first.get(key))
        assert newest == texts[-1] or whole["tags"][key] == texts[-1]
    for key, text in told.run.start.tags.items():
        assert tags.get(key) == first[key] or key in told.tags or whole["tags"][key] == text
    assert params.keys() <= told.params.keys()
    known = told.tags.keys() | told.run.start.tags.keys()
    assert all(key.startswith(("autolog.", "mlflow.")) for key in tags.keys() - known)


def whole_texts(client: MlflowClient, run_id: str) -> dict[str, dict[str, str]]:
    """What ``params.json`` has, where there is one."""
    if not client.list_artifacts(run_id):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, params_file.NAME, folder))
        content: dict[str, dict[str, str]] = json.loads(path.read_text())
        return content


def as_stored(key: str, step: int, timestamp: int, value: float) -> Point:
    """A point as a database has it: one NaN, no negative zero, the largest float for infinity."""
    largest = sys.float_info.max
    number = math.nan if math.isnan(value) else max(-largest, min(value, largest)) + 0.0
    return Point(key, step, timestamp, number)


def dead_letters(folder: Path) -> Iterator[dict[str, Any]]:
    """What the server refused, with its words."""
    for line in (folder / layout.REJECTED).read_text().splitlines():
        letter = json.loads(line)
        assert letter["reason"]
        yield letter


def test_what_is_logged_is_read_back_or_told(
    backend: str, experiment: Experiment, tmp_path: Path
) -> None:
    """Names, numbers and texts of every kind, on a server and in a local file."""
    check(backend, experiment, tmp_path, examples=20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_what_is_logged_is_read_back_or_told_many_times(
    backend: str, experiment: Experiment, tmp_path: Path
) -> None:
    """The same, with more of them."""
    check(backend, experiment, tmp_path, examples=150)
