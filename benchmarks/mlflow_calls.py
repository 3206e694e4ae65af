"""``make bench-mlflow``: what MLflow's own calls cost, through the journal and without it.

All sides write to one real ``mlflow server``, in rounds that interleave them; medians are reported.
"""

from __future__ import annotations

import functools
import statistics
import sys
from typing import NamedTuple

from figures import Figure, Part, benchmark, script, seconds_of_posting, seconds_of_process


class Size(NamedTuple):
    """How much is measured."""

    calls: int
    """Of ``mlflow.log_metrics`` until all is stored, in a round."""
    slow_calls: int
    """The same where the time of a call is compared with that of MLflow's async mode."""
    rounds: int
    trees: int
    """Of an XGBoost model."""
    logs: int
    """Models and files logged in a round."""


FULL = Size(calls=5000, slow_calls=500, rounds=3, trees=2000, logs=5)
QUICK = Size(calls=200, slow_calls=20, rounds=1, trees=20, logs=1)


# -- a loop of log_metrics -------------------------------------------------------------------------

_LOOP = """
import sys
from time import perf_counter as clock
import mlflow
from mlflow import MlflowClient
side, target, keys, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = [f"m{i}" for i in range(keys)]
mlflow.set_tracking_uri(target)

class Nothing:
    def log_batch(self, **_):
        pass
    def get_run(self, run_id):
        return run

def loop(count, first=0, **options):
    start = clock()
    for step in range(first, first + count):
        mlflow.log_metrics({name: step / 7 for name in names}, step=step, **options)
    return (clock() - start) / count

if side == "ours":
    import autolog
    autolog.enable(silent=True)
    options, sent = {}, lambda: autolog.flush(600).complete
elif side == "async":
    options, sent = {"synchronous": False}, lambda: mlflow.flush_async_logging() or True
else:
    options, sent = {}, lambda: True
with mlflow.start_run() as run:
    if side == "nothing":
        from mlflow.tracking._tracking_service import utils
        store = Nothing()
        utils._tracking_store_registry.get_store = lambda *_: store
    loop(20, **options)
    assert sent()
    start = clock()
    took = loop(calls, 20, **options)
    assert sent()
    end = clock()
    if side == "nothing":
        del utils._tracking_store_registry.get_store
if side != "nothing":
    history = MlflowClient(target).get_metric_history(run.info.run_id, names[-1])
    assert len(history) == 20 + calls, len(history)
print(took * 1e6, calls * keys / (end - start))
"""


def loops(keys: int, size: Size, target: str) -> list[Figure]:
    """Training thread's time a call, and values a second until the server has them all.

    The time is that of a loop of equal length on every side: in a longer one of ours, the server
    that stores its values takes the same cores.
    """
    calls = {"ours": size.slow_calls, "async": size.slow_calls, "sync": size.slow_calls // 10}
    calls["nothing"] = size.slow_calls
    costs: dict[str, list[float]] = {side: [] for side in calls}
    rates: dict[str, list[float]] = {side: [] for side in [*calls, "posting"]}
    for _ in range(size.rounds):
        for side, count in calls.items():
            output = script(_LOOP, side, target, str(keys), str(count)).split()[-2:]
            costs[side].append(float(output[0]))
            rates[side].append(float(output[1]))
        many = script(_LOOP, "ours", target, str(keys), str(size.calls)).split()
        rates["ours"][-1] = float(many[-1])
        count = size.calls * keys
        rates["posting"].append(count / seconds_of_posting(target, count, keys))
    cost = {side: statistics.median(times) for side, times in costs.items()}
    rate = {side: statistics.median(values) for side, values in rates.items()}
    shown = ", ".join(f"{side} {microseconds:.0f}" for side, microseconds in cost.items())
    print(f"  {keys} a call, us a call: {shown} (a store that does nothing)")
    del rate["nothing"]
    shown = ", ".join(f"{side} {values:,.0f}" for side, values in rate.items())
    print(f"  {keys} a call, values a second until all are stored: {shown}")
    name = f"log_metrics({keys})"
    figures = [
        Figure(f"{name} / MLflow's async mode", cost["ours"] / cost["async"], 1 / 3, "x"),
        Figure(f"{name} / a store that does nothing", cost["ours"] / cost["nothing"], 2, "x"),
        Figure(f"{name}, stored / posting", rate["ours"] / rate["posting"], 0.8, "x", True),
    ]
    if keys == 1:
        faster = rate["ours"] / rate["async"]
        figures.append(Figure(f"{name}, stored / MLflow's async mode", faster, 50, "x", True))
    return figures


# -- a training that logs itself -------------------------------------------------------------------

_BOOST = """
import numpy as np
import xgboost
data = xgboost.DMatrix(np.random.default_rng(0).random((500, 10)), np.arange(500) % 2)
options = {"max_depth": 3, "nthread": 1, "objective": "binary:logistic"}
xgboost.train(options, data, int(TREES), [(data, "train"), (data, "again")], verbose_eval=False)
"""
_AUTOLOG = "import mlflow\nmlflow.xgboost.autolog(log_models=False, silent=True)\n"
_ENABLE = "import autolog\nautolog.enable(silent=True)\n"


def boosting(size: Size, target: str) -> list[Figure]:
    """Seconds that ``mlflow.xgboost.autolog()`` adds to a process, with ours and without."""
    sides = {"bare": "", "without": _AUTOLOG, "with": _ENABLE + _AUTOLOG}
    took: dict[str, list[float]] = {side: [] for side in sides}
    for side, before in list(sides.items()) * size.rounds:
        took[side].append(
            seconds_of_process(before + _BOOST.replace("TREES", str(size.trees)), target)
        )
    seconds = {side: statistics.median(times) for side, times in took.items()}
    added = {side: seconds[side] - seconds["bare"] for side in ("without", "with")}
    print(
        f"  {size.trees} rounds of XGBoost {seconds['bare']:.1f} s, MLflow's autologging "
        f"{added['without']:+.1f} s, with ours {added['with']:+.1f} s"
    )
    name = "xgboost.autolog(), added with ours"
    return [Figure(name, added["with"], added["without"], "s")]


# -- models and files ------------------------------------------------------------------------------

_FILES = """
import os, sys, tempfile, time
import mlflow
import numpy as np
from sklearn.linear_model import LinearRegression
import autolog
target, logs = sys.argv[1], int(sys.argv[2])
mlflow.set_tracking_uri(target)
x = np.arange(20.0).reshape(10, 2)
model = LinearRegression().fit(x, x[:, 0])
os.chdir(tempfile.mkdtemp())
open("weights.bin", "wb").write(bytes(1_000_000))

def log_model():
    with mlflow.start_run():
        for step in range(100):
            mlflow.log_metric("m", step, step=step)
        start = time.perf_counter()
        mlflow.sklearn.log_model(model, name="model", pip_requirements=["scikit-learn"])
        return time.perf_counter() - start

def log_artifact():
    with mlflow.start_run():
        mlflow.log_metric("m", 1)
        start = time.perf_counter()
        mlflow.log_artifact("weights.bin")
        return time.perf_counter() - start

for work in (log_model, log_artifact):
    work()
    for _ in range(logs):
        first = work()
        autolog.enable(silent=True)
        ours = work()
        autolog.disable()
        print(work.__name__, first, ours, work())
"""


def files(size: Size, target: str) -> list[Figure]:
    """``log_model`` and ``log_artifact`` of MLflow's, with ours on against off, A/B/A."""
    rows = [line.split() for line in script(_FILES, target, str(size.logs)).splitlines()]
    figures = []
    for work in ("log_model", "log_artifact"):
        times = [[float(word) for word in row[1:]] for row in rows if row[:1] == [work]]
        first, ours, last = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"  {work}: {first * 1000:.0f} ms, with ours {ours * 1000:.0f} ms, {last * 1000:.0f}")
        figures.append(Figure(f"{work}, with ours / without", 2 * ours / (first + last), 1.1, "x"))
    return figures


# -- running it ------------------------------------------------------------------------------------


def parts(size: Size, target: str) -> list[Part]:
    """What is measured."""
    return [
        ("10 metrics a call", functools.partial(loops, 10, size, target)),
        ("1 metric a call", functools.partial(loops, 1, size, target)),
        ("XGBoost", functools.partial(boosting, size, target)),
        ("models and files", functools.partial(files, size, target)),
    ]


if __name__ == "__main__":
    sys.exit(benchmark(__doc__, parts, FULL, QUICK))
