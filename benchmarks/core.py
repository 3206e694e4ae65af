"""``make bench-core``: what logging costs, each figure against something else in the same run.

Every comparison runs in rounds that interleave both sides; medians are reported.
``--check`` exits with status 1 when a target is missed; ``--json FILE`` writes the figures with the
machine they are from.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import MlflowServer, SqliteStore, eventually, free_port

STEPS = 20_000
ROUNDS = 7
METRICS = 100_000


class Figure(NamedTuple):
    """One line of the report."""

    name: str
    value: float
    target: float
    unit: str
    higher_is_better: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.higher_is_better else self.value <= self.target


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
    output = _script(_STEP, target, str(STEPS), str(ROUNDS))
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

_CEILING = """
import json, sys, time
import requests
target, count = sys.argv[1], int(sys.argv[2])
session = requests.Session()
api = target + "/api/2.0/mlflow/"
run = session.post(api + "runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
bodies = [
    json.dumps({"run_id": run, "metrics": [
        {"key": f"m{i % 10}", "value": i / 7, "timestamp": 1795464396110, "step": (first + i) // 10}
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


def drain(target: str) -> list[Figure]:
    """100,000 metrics to a server, against a client that only posts bodies encoded before."""
    ratios = []
    for _ in range(3):
        ceiling = float(_script(_CEILING, target, str(METRICS)))
        ours = float(_script(_DRAIN, target, str(METRICS)))
        print(f"  posting encoded bodies {ceiling:.1f} s, log_metrics and flush {ours:.1f} s")
        ratios.append(ceiling / ours)
    return [Figure("drain 100,000 / ceiling", statistics.median(ratios), 0.8, "x", True)]


# -- start -----------------------------------------------------------------------------------------


def start() -> list[Figure]:
    """``import autolog`` and ``enable()``, with no framework, over bare Python."""
    enable = "import autolog; autolog.enable(tracking_uri='http://127.0.0.1:9', silent=True)"
    code = enable + "; import os; os._exit(0)"
    extra = [_seconds(code) - _seconds("import os; os._exit(0)") for _ in range(11)]
    loaded = _script(
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
        with _home() as environ:
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
    return [Figure("journal, a value", float(_script(_SIZE)), 13, "bytes")]


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
        with _home() as environ, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
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


@contextmanager
def _server() -> Iterator[str]:
    """The address of a real server with as many workers as MLflow starts by default."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = MlflowServer(Path(folder), workers=4)
        server.start()
        try:
            yield server.url
        finally:
            server.kill()


@contextmanager
def _home() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AUTOLOG_"))}
        yield kept | {"AUTOLOG_DIR": folder}


def _script(code: str, *arguments: str) -> str:
    with _home() as environ:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        ).stdout


def main() -> int:
    """Measure, print, and compare with the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    parser.add_argument("--only", help="measure one part: call, drain, start, memory, size or fit")
    options = parser.parse_args()
    figures: list[Figure] = []
    with _server() as up:
        down = f"http://127.0.0.1:{free_port()}"
        parts: list[tuple[str, Callable[[], list[Figure]]]] = [
            ("call", lambda: step_cost(up, down)),
            ("drain", lambda: drain(up)),
            ("start", start),
            ("memory", lambda: memory(up)),
            ("size", size),
            ("fit", small_fit),
        ]
        for name, part in parts:
            if options.only not in (None, name):
                continue
            print(f"{name} ...", flush=True)
            figures += part()
    for figure in figures:
        verdict = "ok" if figure.is_met else "MISSED"
        sign = ">=" if figure.higher_is_better else "<="
        print(
            f"{figure.name:45} {figure.value:9.2f} {figure.unit:6} "
            f"target {sign} {figure.target:<6g} {verdict}"
        )
    if options.json:
        options.json.write_text(json.dumps(report(figures), indent=1))
    return int(options.check and not all(figure.is_met for figure in figures))


def report(figures: list[Figure]) -> dict[str, Any]:
    """The figures with the machine and the versions they are from."""
    from importlib.metadata import version

    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "mlflow": version("mlflow"),
        },
        "figures": [figure._asdict() | {"is_met": figure.is_met} for figure in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
