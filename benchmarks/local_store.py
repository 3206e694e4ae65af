"""``make bench-local``: how fast a local sqlite file takes values, with ours and through MLflow.

Each side fills a copy of the same new database, in rounds that interleave them; medians are
reported. MLflow's gives way as our shipper does, so that what else runs takes the same from both.
``--quick`` takes few values and one round: it shows that the program works, not how fast.
``--check`` exits with status 1 when a target is missed; ``--json FILE`` writes the figures with the
machine they are from.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from figures import Figure, arguments, home, measured, peak_megabytes, script
from support import SqliteStore


class Size(NamedTuple):
    """How much is measured."""

    values: int
    """That each side stores in a round: ten a step, 1000 a batch."""
    rounds: int


FULL = Size(values=48_000, rounds=5)
QUICK = Size(values=16_000, rounds=1)
PROCESSES = (1, 16)

_NEW = """
import sys
from autolog.exporters import exporter_for
exporter_for(sys.argv[1], {}).check()
"""

_MLFLOW = """
import os, sys, time
from autolog.shipper import live
os.setsid()
live.give_way()
from mlflow.entities import Metric
from mlflow.tracking._tracking_service.utils import _get_store
store = _get_store(sys.argv[1])
run_id = store.create_run("0", "me", 1, [], "bench").info.run_id
batches = [
    [Metric(f"m{i % 10}", i / 7, 1795464396110, (first + i) // 10) for i in range(1000)]
    for first in range(0, int(sys.argv[2]), 1000)
]
start = time.perf_counter()
for batch in batches:
    store.log_batch(run_id, batch, [], [])
print(time.perf_counter() - start)
"""

_TRAINING = """
import sys
import autolog
autolog.enable(tracking_uri=sys.argv[1], silent=True)
with autolog.run("bench"):
    autolog.log_metrics({"ready": 1.0}, step=0)
    assert autolog.flush(120).complete
    print(autolog.status()["shippers"].popitem()[1].pid, flush=True)
    sys.stdin.readline()
    for step in range(int(sys.argv[2]) // 10):
        autolog.log_metrics({f"m{i}": step * i / 7 for i in range(10)}, step=step)
    assert autolog.flush(600).complete
    print("stored", flush=True)
    sys.stdin.readline()
"""
"""Waits for a word before it logs, and for another before it ends."""


class Filled(NamedTuple):
    """One side, once."""

    seconds: float
    memory: float = 0.0
    """MB that the shipper took at most."""
    libraries: int = 0
    """Of MLflow's, that the shipper has loaded."""


@contextlib.contextmanager
def _database(new: Path) -> Iterator[SqliteStore]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield SqliteStore(Path(shutil.copy(new, Path(folder) / "mlflow.db")))


def _by_mlflow(new: Path, values: int) -> Filled:
    with _database(new) as store:
        seconds = float(script(_MLFLOW, store.uri, str(values)))
        _require(store, values)
    return Filled(seconds)


def _by_ours(new: Path, values: int, processes: int) -> Filled:
    """From the first value that is logged until all are stored; every process logs its part."""
    with _database(new) as store, home() as environ:
        command = [sys.executable, "-c", _TRAINING, store.uri, str(values // processes)]
        pipe = subprocess.PIPE
        trainings = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ)
            for _ in range(processes)
        ]
        (shipper,) = {int(training.stdout.readline()) for training in trainings}
        begin = time.perf_counter()
        for training in trainings:
            training.stdin.write("log\n")
            training.stdin.flush()
        said = [training.stdout.readline() for training in trainings]
        seconds = time.perf_counter() - begin
        assert said == ["stored\n"] * processes, said
        filled = Filled(seconds, peak_megabytes(shipper), _libraries(shipper))
        for training in trainings:
            training.communicate("end\n")
        _require(store, values + processes)
    return filled


def _require(store: SqliteStore, values: int) -> None:
    stored = sum(len(store.points(run_id)) for run_id in store.run_ids())
    assert stored == values, f"{stored} of {values} values are stored"


def _libraries(pid: int) -> int:
    """What MLflow cannot be imported without, and would be mapped into the process."""
    mapped = Path(f"/proc/{pid}/maps").read_text()
    return sum(name in mapped for name in ("sqlalchemy", "numpy", "pandas", "google"))


def rates(size: Size) -> list[Figure]:
    """Values a second, ours by the number of training processes, against MLflow's store."""
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder) / "new.db"
        script(_NEW, SqliteStore(new).uri)
        sides = {"mlflow": functools.partial(_by_mlflow, new, size.values)}
        sides |= {str(n): functools.partial(_by_ours, new, size.values, n) for n in PROCESSES}
        filled: dict[str, list[Filled]] = {side: [] for side in sides}
        for side, fill in list(sides.items()) * size.rounds:
            filled[side].append(fill())
            print(f"  {side}: {size.values / filled[side][-1].seconds:,.0f} values a second")
    figures = []
    for n in PROCESSES:
        pairs = zip(filled["mlflow"], filled[str(n)], strict=True)
        ratio = statistics.median(mlflow.seconds / ours.seconds for mlflow, ours in pairs)
        processes = f"{n} training process{'es' if n > 1 else ''}"
        peak = max(ours.memory for ours in filled[str(n)])
        libraries = max(ours.libraries for ours in filled[str(n)])
        figures += [
            Figure(f"{processes} / SqlAlchemyStore.log_batch", ratio, 4, "x", True),
            Figure(f"shipper, {processes}", peak, 40, "MB"),
            Figure(f"MLflow's libraries in it, {processes}", libraries, 0, ""),
        ]
    return figures


def main() -> int:
    """Measure, print, and compare with the targets."""
    options = arguments(__doc__).parse_args()
    size = QUICK if options.quick else FULL
    return measured([("a local sqlite file", functools.partial(rates, size))], options)


if __name__ == "__main__":
    sys.exit(main())
