"""A backlog of one run goes in requests side by side, where the server is well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import FaultyProxy, Reply, _pass
from support import MlflowServer, run_script
from trainings import dead_letters, fresh_name, group_of, ship, stored

VALUES = 5000
_TROUBLE = 2.5
"""Seconds after the first request."""
OFFLINE = f"""
    import autolog
    autolog.enable(mode="offline", silent=True)
    for step in range({VALUES}):
        autolog.log_metric("loss", step / 7, step=step)
"""


class Watched:
    """Passes batches on as `behave` does, and counts those that are inside at once."""

    def __init__(self, behave: Any = _pass) -> None:
        self.numbers: list[tuple[float, int]] = []
        """For each batch, when it came, in seconds after the first, and how many were inside."""
        self._behave = behave
        self._inside, self._begun = 0, 0.0
        self._lock = threading.Lock()

    def __call__(self, handler: Any, request: Any) -> None:
        if "log-batch" not in request.path:
            _pass(handler, request)
            return
        with self._counted():
            time.sleep(0.05)  # for the others, which are sent at the same moment
            self._behave(handler, request)

    @property
    def seconds(self) -> float:
        """Since the first batch."""
        return time.monotonic() - self._begun

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            self._begun = self._begun or time.monotonic()
            self.numbers.append((self.seconds, self._inside))
        yield
        with self._lock:
            self._inside -= 1


@pytest.fixture
def backlog(faulty: FaultyProxy, tmp_path: Path) -> str:
    """The name of a run with some batches, of which nothing has been sent."""
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": faulty.url, "MLFLOW_RUN_NAME": name}
    assert run_script(OFFLINE, cwd=tmp_path, env=env).returncode == 0
    return name


def _all() -> list[tuple[str, int, float]]:
    return [("loss", step, step / 7) for step in range(VALUES)]


def _sorted(server: MlflowServer, name: str) -> list[tuple[str, int, float]]:
    return sorted(stored(server, name), key=lambda point: point[1])


def test_batches_of_a_run_go_side_by_side(
    backlog: str, faulty: FaultyProxy, mlflow_server: MlflowServer, autolog_home: Path
) -> None:
    """Three at a time, and each value is stored once."""
    watched = Watched()
    faulty._switch(watched)
    ship(group_of(autolog_home), faulty.url)
    assert max(inside for _, inside in watched.numbers) == 3
    assert _sorted(mlflow_server, backlog) == _all()


def test_a_failed_request_is_followed_by_one_alone(
    backlog: str, faulty: FaultyProxy, mlflow_server: MlflowServer, autolog_home: Path
) -> None:
    """A server in trouble is not asked three times at once whether it is well again."""

    def behave(handler: Any, request: Any) -> None:
        if watched.seconds < _TROUBLE:
            handler.send(Reply(503, b"busy"))
        else:
            _pass(handler, request)

    watched = Watched(behave)
    faulty._switch(watched)
    ship(group_of(autolog_home), faulty.url)
    retries = [inside for after, inside in watched.numbers if 0.2 < after < _TROUBLE - 0.05]
    assert len(retries) >= 2
    assert set(retries) == {1}
    assert watched.numbers[-1][0] > _TROUBLE
    assert _sorted(mlflow_server, backlog) == _all()


def test_a_refused_value_costs_none_that_goes_beside_it(
    backlog: str, faulty: FaultyProxy, mlflow_server: MlflowServer, autolog_home: Path
) -> None:
    """It alone is a dead letter, whichever batches were under way with its own."""
    refused = {"error_code": "INVALID_PARAMETER_VALUE", "message": "not that one"}

    def behave(handler: Any, request: Any) -> None:
        steps = [each["step"] for each in json.loads(request.body).get("metrics", [])]
        if 2500 in steps:
            handler.send(Reply(400, json.dumps(refused).encode()))
        else:
            _pass(handler, request)

    faulty._switch(Watched(behave))
    ship(group_of(autolog_home), faulty.url)
    assert _sorted(mlflow_server, backlog) == [point for point in _all() if point[1] != 2500]
    (letter,) = dead_letters(autolog_home)
    assert [each["step"] for each in letter["metrics"]] == [2500]
