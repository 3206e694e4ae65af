"""``make bench-azureml``: logging to a workspace of Azure ML that answers after 50 milliseconds.

All sides sign in with the real client packages and write to one stand-in of the service, in rounds
that interleave them; medians are reported.
``--quick`` takes few calls and one round: it shows that the program works, not how fast.
``--check`` exits with status 1 when a target is missed; ``--json FILE`` writes the figures with the
machine they are from.
"""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from figures import Figure, Part, arguments, home, measured

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.azureml.standin import StandIn

LATENCY = 0.05
KEYS = 10


class Size(NamedTuple):
    """How much is measured."""

    calls: int
    """Of ours, in a round."""
    slow_calls: int
    """Of the plugin's, each of which waits for the service."""
    rounds: int


FULL = Size(calls=2000, slow_calls=100, rounds=3)
QUICK = Size(calls=100, slow_calls=5, rounds=1)

_LOOP = """
import sys
from time import perf_counter as clock
import mlflow
side, calls, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
log, sent, run_id = mlflow.log_metrics, lambda: True, lambda: run.info.run_id
if side.startswith("ours"):
    import autolog
    autolog.enable(silent=True)
    sent, run_id = lambda: autolog.flush(600).complete, lambda: autolog.last_run().run_id
mlflow.set_experiment("bench")
with mlflow.start_run() as run:
    if side == "ours, autolog":
        log = autolog.log_metrics
    elif side == "async":
        log = lambda values, step: mlflow.log_metrics(values, step=step, synchronous=False)
    log({f"m{i}": 0.5 for i in range(keys)}, step=0)
    assert sent()
    start = clock()
    for step in range(1, calls):
        log({f"m{i}": step / 7 for i in range(keys)}, step=step)
    looped = clock()
    assert sent()
    end = clock()
print(run_id(), (looped - start) / (calls - 1) * 1e6, keys * (calls - 1) / (end - start))
"""


class Measurement(NamedTuple):
    """What one side needed."""

    microseconds: float
    """Of the training thread, a call."""
    rate: float
    """Values a second until all are stored."""
    requests: float
    """To MLflow's API for a thousand values, those that open the run included."""


def loops(size: Size, workspace: StandIn) -> list[Figure]:
    """Ours, by MLflow's calls and by its own, and the plugin's two ways."""
    calls = {"ours, mlflow": size.calls, "ours, autolog": size.calls}
    calls |= {"sync": size.slow_calls, "async": size.slow_calls}
    found: dict[str, list[Measurement]] = {side: [] for side in calls}
    for side, count in list(calls.items()) * size.rounds:
        found[side].append(_measured(side, count, workspace))
    medians = {
        side: Measurement(*map(statistics.median, zip(*rows, strict=True)))
        for side, rows in found.items()
    }
    for side, of in medians.items():
        print(
            f"  {side:14} {of.microseconds:10,.0f} us a call, {of.rate:8,.0f} values a second, "
            f"{of.requests:6.1f} requests for 1,000 values"
        )
    ours, sync, queued = (medians[side] for side in ("ours, mlflow", "sync", "async"))
    thread = f"log_metrics({KEYS})"
    return [
        Figure(
            f"{thread}, the plugin's sync / ours",
            sync.microseconds / ours.microseconds,
            100,
            "x",
            True,
        ),
        Figure(
            f"{thread}, the plugin's async / ours",
            queued.microseconds / ours.microseconds,
            100,
            "x",
            True,
        ),
        Figure("values a second / the plugin's sync", ours.rate / sync.rate, 5, "x", True),
        Figure("values a second / the plugin's async", ours.rate / queued.rate, 5, "x", True),
        Figure("requests / the plugin's sync", ours.requests / sync.requests, 0.2, "x"),
        Figure("requests / the plugin's async", ours.requests / queued.requests, 0.2, "x"),
    ]


def _measured(side: str, calls: int, workspace: StandIn) -> Measurement:
    workspace.reset()
    workspace.faults.slow(LATENCY)
    with home() as environ, tempfile.TemporaryDirectory() as folder:
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _LOOP, side, str(calls), str(KEYS)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={
                **environ,
                **workspace.environ("service principal"),
                "MLFLOW_TRACKING_URI": workspace.uri,
                "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
            },
        ).stdout
    run_id, microseconds, rate = output.split()
    points = workspace.points(run_id)
    assert len(points) == len(set(points)) == KEYS * calls, (side, len(points))
    requests = workspace.count("/mlflow/") / len(points) * 1000
    return Measurement(float(microseconds), float(rate), requests)


def main() -> int:
    """Measure, print, and compare with the targets."""
    options = arguments(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        workspace = StandIn(Path(root))
        workspace.start()
        try:
            name = f"{KEYS} metrics a call, {LATENCY * 1000:.0f} ms of latency"
            parts: list[Part] = [(name, functools.partial(loops, size, workspace))]
            return measured(parts, options)
        finally:
            workspace.stop()


if __name__ == "__main__":
    sys.exit(main())
