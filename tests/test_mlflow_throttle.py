"""A server that throttles, behind ``mlflow.log_metrics``: the training never learns of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults import FaultyProxy, Reply, _pass
from mlflow import MlflowClient
from support import run_script

if TYPE_CHECKING:
    from readback import Experiment

_TRAINING = """
    import time
    import autolog
    autolog.enable(silent=True, batch_seconds=0.05)
    import mlflow
    with mlflow.start_run(run_name="throttled") as run:
        slowest, begin = 0, time.perf_counter()
        for step in range(600):
            start = time.perf_counter()
            mlflow.log_metrics({"m": step / 7, "n": -step}, step=step)
            mlflow.log_metric("o", step, step=step)
            slowest = max(slowest, time.perf_counter() - start)
            time.sleep(0.002)
    assert autolog.flush(60).complete
    print(slowest, *autolog.flush().rejected)
"""


_UNDER_WAY = 0.1
"""Seconds after a refusal in which requests may arrive that left before it was known."""


class _Throttle:
    """Answers 429 to every second request that writes; none is to come before its time is over."""

    def __init__(self, wait: float) -> None:
        self.wait = wait
        self.refused = 0
        self.too_early: list[float] = []
        self._until = 0.0

    def __call__(self, handler: Any, request: Any) -> None:
        now = time.monotonic()
        if "log-batch" not in request.path:
            _pass(handler, request)
        elif now < self._until:
            if self._until - now < self.wait - _UNDER_WAY:
                self.too_early.append(self._until - now)
            handler.send(Reply(429, b"{}", (("Retry-After", f"{self.wait:g}"),)))
        elif self.refused % 2 == 0:
            self.refused += 1
            self._until = now + self.wait
            handler.send(Reply(429, b"{}", (("Retry-After", f"{self.wait:g}"),)))
        else:
            self.refused += 1
            _pass(handler, request)


def test_a_throttled_training_loses_neither_time_nor_values(
    experiment: Experiment, faulty: FaultyProxy, tmp_path: Path
) -> None:
    """Each 429 is waited out as ``Retry-After`` says, no call waits, each value is there once."""
    throttle = _Throttle(1)
    faulty._switch(throttle)
    experiment_id = MlflowClient(experiment.server.url).create_experiment(experiment.name)
    env = {"MLFLOW_TRACKING_URI": faulty.url, "MLFLOW_EXPERIMENT_ID": experiment_id}
    done = run_script(_TRAINING, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    (slowest,) = done.stdout.splitlines()[-1].split()  # and nothing was rejected
    assert float(slowest) < throttle.wait / 2
    assert throttle.refused >= 2
    assert throttle.too_early == []
    run = experiment.only_run()
    assert experiment.values(run, "m", 600) == [step / 7 for step in range(600)]
    assert experiment.values(run, "n", 600) == [-step for step in range(600)]
    assert experiment.values(run, "o", 600) == list(range(600))
