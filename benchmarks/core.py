"""``make bench-core``: what logging costs, each figure against something else in the same run.

Every comparison runs in rounds that interleave both sides; medians are reported.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from figures import Figure, Part, benchmark, home, peak_megabytes, script, seconds_of_posting
from support import SqliteStore, eventually, free_port


class Size(NamedTuple):
    """How much is measured."""

    steps: int
    """Calls of ``log_metrics``, in a round."""
    rounds: int
    """In a process that calls it."""
    values: int
    """Drained to the server."""
    starts: int
    """Of Python."""
    trainings: int
    """Processes that share a shipper."""
    repeats: int
    """Of what else is compared."""


FULL = Size(steps=20_000, rounds=7, values=100_000, starts=11, trainings=16, repeats=3)
QUICK = Size(steps=1000, rounds=1, values=2000, starts=1, trainings=2, repeats=1)


# -- one call of ten metrics -----------------------------------------------------------------------

_STEP = """
import os, sys, time
from time import perf_counter_ns as clock
import autolog
target, steps, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
autolog.enable(tracking_uri=target, silent=True)

def ours(n, v):
    log, times = autolog.log_metrics, []
    for i in range(n):
        start = clock()
        log({"m0": v, "m1": v, "m2": v, "m3": v, "m4": v,
             "m5": v, "m6": v, "m7": v, "m8": v, "m9": v}, step=i)
        times.append(clock() - start)
    return times

def floor(n, v):
    kept, times = [], []
    for i in range(n):
        start = clock()
        kept.append((i, {"m0": v, "m1": v, "m2": v, "m3": v, "m4": v,
                         "m5": v, "m6": v, "m7": v, "m8": v, "m9": v}))
        times.append(clock() - start)
    return times

def quantiles(times):
    times.sort()
    return times[len(times) // 2], times[int(len(times) * 0.999)]

with autolog.run("bench"):
    ours(2000, 0.5)
    time.sleep(1.5)
    for _ in range(rounds):
        print(*quantiles(floor(steps, 0.5)), *quantiles(ours(steps, 0.5)), flush=True)
    shipper = autolog.status()["shippers"].popitem()[1].pid
    if shipper is not None:
        os.kill(shipper, 9)  # or it would go on sending through the next measurement
    os._exit(0)
"""


def step_cost(size: Size, up: str, down: str) -> list[Figure]:
    """A call against ``list.append((step, dict))``, and a dead server against a live one."""
    alive, dead = [], []
    for _ in range(size.repeats):
        alive += _step_rounds(size, up)
        dead += _step_rounds(size, down)
    median_floor, tail_floor, median_ours, tail_ours = map(
        statistics.median, zip(*alive, strict=True)
    )
    median_dead = statistics.median(row[2] for row in dead)
    print(
        f"  list.append {median_floor:.0f} ns, p99.9 {tail_floor:.0f} ns; "
        f"log_metrics {median_ours:.0f} ns, p99.9 {tail_ours:.0f} ns; dead {median_dead:.0f} ns"
    )
    return [
        Figure("log_metrics(10) / list.append, median", median_ours / median_floor, 12, "x"),
        Figure("log_metrics(10) / list.append, p99.9", tail_ours / tail_floor, 5, "x"),
        Figure("server dead / server up, median", median_dead / median_ours, 1.2, "x"),
    ]


def _step_rounds(size: Size, target: str) -> list[list[float]]:
    output = script(_STEP, target, str(size.steps), str(size.rounds))
    return [[float(word) for word in line.split()] for line in output.splitlines()]


# -- draining to a server --------------------------------------------------------------------------

_DRAIN = """
import sys, time
import autolog
target, count = sys.argv[1], int(sys.argv[2])
autolog.enable(tracking_uri=target, silent=True)
with autolog.run("drain") as run:
    autolog.log_metric("ready", 1.0)
    autolog.flush(60)
    start = time.perf_counter()
    for step in range(count // 10):
        autolog.log_metrics({f"m{i}": step * i / 7 for i in range(10)}, step=step)
    receipt = autolog.flush(600)
    assert receipt.pending == 0, receipt
    print(time.perf_counter() - start)
"""


def drain(size: Size, target: str) -> list[Figure]:
    """Many values to a server, against a client that only posts bodies encoded before."""
    ratios = []
    for _ in range(size.repeats):
        ceiling = seconds_of_posting(target, size.values, keys=10)
        ours = float(script(_DRAIN, target, str(size.values)))
        print(f"  posting encoded bodies {ceiling:.1f} s, log_metrics and flush {ours:.1f} s")
        ratios.append(ceiling / ours)
    return [Figure(f"drain {size.values:,} / ceiling", statistics.median(ratios), 0.8, "x", True)]


# -- start -----------------------------------------------------------------------------------------


def start(size: Size) -> list[Figure]:
    """``import autolog`` and ``enable()``, with no framework, over bare Python."""
    enable = "import autolog; autolog.enable(tracking_uri='http://127.0.0.1:9', silent=True)"
    code = enable + "; import os; os._exit(0)"
    bare = "import os; os._exit(0)"
    extra = [_seconds(code) - _seconds(bare) for _ in range(size.starts)]
    loaded = script(
        enable + "\nimport sys\n"
        "print(*{'mlflow', 'requests', 'numpy', 'torch', 'sklearn', 'keras'} & set(sys.modules))",
    ).strip()
    return [
        Figure("import + enable() over bare Python", 1000 * statistics.median(extra), 200, "ms"),
        Figure(f"heavy modules loaded {loaded}".strip(), len(loaded.split()), 0, ""),
    ]


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - begin


# -- the shipper's memory, the journal's size ------------------------------------------------------

_MEMORY = """
import sys, time
import autolog
autolog.enable(tracking_uri=sys.argv[1], silent=True)
with autolog.run("memory"):
    for step in range(2000):
        autolog.log_metrics({f"m{i}": step * i / 7 for i in range(10)}, step=step)
    autolog.flush(120)
    print(autolog.status()["shippers"].popitem()[1].pid, flush=True)
    sys.stdin.read()
"""


def memory(size: Size, target: str) -> list[Figure]:
    """Resident memory of the shipper, for one training process and for many."""
    figures = []
    for processes in (1, size.trainings):
        with home() as environ:
            trainings = [
                subprocess.Popen(
                    [sys.executable, "-c", _MEMORY, target],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environ,
                )
                for _ in range(processes)
            ]
            shippers = {int(training.stdout.readline()) for training in trainings}
            resident = max(peak_megabytes(pid) for pid in shippers)
            for training in trainings:
                training.communicate("")
        assert len(shippers) == 1, shippers
        name = f"shipper, {processes} training process{'es' if processes > 1 else ''}"
        figures.append(Figure(name, resident, 40, "MB"))
    return figures


_SIZE = """
import autolog
autolog.enable(tracking_uri="http://127.0.0.1:9", silent=True, mode="offline")
with autolog.run("size"):
    journal = next(iter(autolog.session.get().journals.values()))
    autolog.log_metrics({f"m{i}": 0.5 for i in range(10)}, step=0)
    before = journal.tail
    for step in range(10_000):
        autolog.log_metrics({f"m{i}": 0.5 for i in range(10)}, step=step)
    print((journal.tail - before) / 100_000)
"""


def journal_size() -> list[Figure]:
    """Bytes that a value takes in the journal, in steps of ten metrics."""
    return [Figure("journal, a value", float(script(_SIZE)), 13, "bytes")]


# -- a small fit -----------------------------------------------------------------------------------

_FIT = """
import sys, time
{enable}
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
x, y = load_digits(return_X_y=True)
LogisticRegression(max_iter=25).fit(x, y)
"""


def small_fit(size: Size) -> list[Figure]:
    """A 60 ms fit in a process of its own, with the local default, end included."""
    added, visible = [], []
    for _ in range(size.repeats):
        with home() as environ, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            without = _timed_fit("", folder, environ)
            begin = time.time()
            added.append(_timed_fit("import autolog; autolog.enable()", folder, environ) - without)
            visible.append(_seconds_until_run(Path(folder) / "mlflow.db", begin))
    return [
        Figure("60 ms fit, seconds added", statistics.median(added), 2.5, "s"),
        Figure("run in the store after start", statistics.median(visible), 6, "s"),
    ]


def _timed_fit(enable: str, folder: str, environ: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FIT.format(enable=enable)],
        check=True,
        cwd=folder,
        env=environ,
        capture_output=True,
    )
    return time.perf_counter() - begin


def _seconds_until_run(database: Path, begin: float) -> float:
    """When the run became visible: looked for every 50 ms."""
    eventually(lambda: _has_run(database), timeout=60)
    return time.time() - begin


def _has_run(database: Path) -> bool:
    try:
        return bool(SqliteStore(database).run_ids())
    except sqlite3.OperationalError:  # no file yet, or no table in it yet
        return False


# -- running it ------------------------------------------------------------------------------------


def parts(size: Size, target: str) -> list[Part]:
    """What is measured."""
    down = f"http://127.0.0.1:{free_port()}"
    return [
        ("one call", lambda: step_cost(size, target, down)),
        ("drain", lambda: drain(size, target)),
        ("start", lambda: start(size)),
        ("memory", lambda: memory(size, target)),
        ("size", journal_size),
        ("fit", lambda: small_fit(size)),
    ]


if __name__ == "__main__":
    sys.exit(benchmark(__doc__, parts, FULL, QUICK))
