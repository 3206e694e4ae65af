"""``make bench-core``: what logging costs, each figure against something else in the same run.

Every comparison runs in rounds that interleave both sides; medians are reported.
``--check`` exits with status 1 when a target is missed; ``--json FILE`` writes the figures with the
machine they are from.
"""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import Figure, Part, arguments, home, measured, script, server
from support import SqliteStore, eventually, free_port

STEPS = 20_000
ROUNDS = 7
METRICS = 100_000


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


def step_cost(up: str, down: str) -> list[Figure]:
    """A call against ``list.append((step, dict))``, and a dead server against a live one."""
    alive, dead = [], []
    for _ in range(3):
        alive += _step_rounds(up)
        dead += _step_rounds(down)
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


def _step_rounds(target: str) -> list[list[float]]:
    output = script(_STEP, target, str(STEPS), str(ROUNDS))
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

CEILING = """
import json, sys, time
import requests
target, count, keys = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
session = requests.Session()
api = target + "/api/2.0/mlflow/"
run = session.post(api + "runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
bodies = [
    json.dumps({"run_id": run, "metrics": [
        {"key": f"m{i % keys}", "value": i / 7, "timestamp": 1795464396110,
         "step": (first + i) // keys}
        for i in range(1000)
    ]}).encode()
    for first in range(0, count, 1000)
]
headers = {"Content-Type": "application/json"}
start = time.perf_counter()
for body in bodies:
    session.post(api + "runs/log-batch", data=body, headers=headers).raise_for_status()
print(time.perf_counter() - start)
"""
"""A client that only posts: target, how many values, how many of them to a step."""


def drain(target: str) -> list[Figure]:
    """100,000 metrics to a server, against a client that only posts bodies encoded before."""
    ratios = []
    for _ in range(3):
        ceiling = float(script(CEILING, target, str(METRICS), "10"))
        ours = float(script(_DRAIN, target, str(METRICS)))
        print(f"  posting encoded bodies {ceiling:.1f} s, log_metrics and flush {ours:.1f} s")
        ratios.append(ceiling / ours)
    return [Figure("drain 100,000 / ceiling", statistics.median(ratios), 0.8, "x", True)]


# -- start -----------------------------------------------------------------------------------------


def start() -> list[Figure]:
    """``import autolog`` and ``enable()``, with no framework, over bare Python."""
    enable = "import autolog; autolog.enable(tracking_uri='http://127.0.0.1:9', silent=True)"
    code = enable + "; import os; os._exit(0)"
    extra = [_seconds(code) - _seconds("import os; os._exit(0)") for _ in range(11)]
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


def memory(target: str) -> list[Figure]:
    """Resident memory of the shipper, for one and for 16 training processes."""
    figures = []
    for processes in (1, 16):
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
            resident = max(_resident(pid) for pid in shippers)
            for training in trainings:
                training.communicate("")
        assert len(shippers) == 1, shippers
        name = f"shipper, {processes} training process{'es' if processes > 1 else ''}"
        figures.append(Figure(name, resident, 40, "MB"))
    return figures


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


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


def size() -> list[Figure]:
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


def small_fit() -> list[Figure]:
    """A 60 ms fit in a process of its own, with the local default, end included."""
    added, visible = [], []
    for _ in range(3):
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


def main() -> int:
    """Measure, print, and compare with the targets."""
    options = arguments(__doc__).parse_args()
    with server() as up:
        down = f"http://127.0.0.1:{free_port()}"
        parts: list[Part] = [
            ("one call", lambda: step_cost(up, down)),
            ("drain", lambda: drain(up)),
            ("start", start),
            ("memory", lambda: memory(up)),
            ("size", size),
            ("fit", small_fit),
        ]
        return measured(parts, options)


if __name__ == "__main__":
    sys.exit(main())
