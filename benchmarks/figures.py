"""What the benchmarks share: figures and their targets, fresh processes, a server, the report.

Each has parts, which measure a few figures. ``--quick`` measures little and once: it shows that
the program works, not how fast. ``--check`` exits with status 1 when a target is missed.
``--json FILE`` writes the figures with the machine they are from.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import MlflowServer

_PACKAGES = (
    "mlflow",
    "lightning",
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "scikit-learn",
    "torch",
    "wandb",
)


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


Part = tuple[str, Callable[[], list[Figure]]]
"""A name and what measures some figures."""
Size = TypeVar("Size")
"""How much a benchmark measures."""


@contextmanager
def server(workers: int = 4, database: Any = None) -> Iterator[MlflowServer]:
    """A real server, by default with as many workers as MLflow starts, over SQLite.

    `database` is one in its place, with its ``uri``.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = MlflowServer(Path(folder), workers)
        started.store = database or started.store
        try:
            started.start(timeout=180)
            yield started
        finally:
            started.kill()


@contextmanager
def home() -> Iterator[dict[str, str]]:
    """The environment of a process that keeps its journals to itself."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # Bytecode is kept, as pip keeps it when it installs.
        others = ("MLFLOW_", "AUTOLOG_", "PYTHONDONTWRITEBYTECODE")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(others)}
        yield kept | {"AUTOLOG_DIR": folder}


def script(code: str, *arguments: str) -> str:
    """What a program prints that runs in a process and with a home of its own."""
    with home() as environ:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        ).stdout


def seconds_of_process(program: str, target: str, **environ: str) -> float:
    """How long a program takes that logs to `target`, from its start to its end."""
    with home() as own, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            check=True,
            cwd=folder,
            env={**own, "MLFLOW_TRACKING_URI": target, **environ},
            capture_output=True,
            text=True,
        )
        return time.perf_counter() - begin


_POSTING = """
import json, sys, time
import requests
target, count, keys, batch = sys.argv[1], *map(int, sys.argv[2:])
session = requests.Session()
api = target + "/api/2.0/mlflow/"
run = session.post(api + "runs/create", json={"experiment_id": "0"}).json()["run"]["info"]["run_id"]
bodies = [
    json.dumps({"run_id": run, "metrics": [
        {"key": f"m{i % keys}", "value": i / 7, "timestamp": 1795464396110,
         "step": (first + i) // keys}
        for i in range(batch)
    ]}).encode()
    for first in range(0, count, batch)
]
headers = {"Content-Type": "application/json"}
print("ready", flush=True)
sys.stdin.readline()
latencies = []
for body in bodies:
    start = time.perf_counter()
    session.post(api + "runs/log-batch", data=body, headers=headers).raise_for_status()
    latencies.append(time.perf_counter() - start)
print(json.dumps(latencies), flush=True)
"""


class Posted(NamedTuple):
    """What clients took that only post bodies encoded before."""

    seconds: float
    """From the word to begin to the last reply."""
    latencies: list[float]
    """Seconds of each request."""


def posting(target: str, values: int, keys: int, *, batch: int = 1000, clients: int = 1) -> Posted:
    """Post so many values to a run of each client, `keys` of them to a step, `batch` a request."""
    with home() as environ:
        command = [sys.executable, "-c", _POSTING, target, *map(str, (values, keys, batch))]
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ)
            for _ in range(clients)
        ]
        assert [client.stdout.readline() for client in started] == ["ready\n"] * clients
        begin = time.perf_counter()
        for client in started:
            client.stdin.write("begin\n")
            client.stdin.flush()
        lines = [client.stdout.readline() for client in started]
        seconds = time.perf_counter() - begin
        for client in started:
            client.communicate()
    return Posted(seconds, [each for line in lines for each in json.loads(line)])


def seconds_of_posting(target: str, values: int, keys: int) -> float:
    """What a single client takes."""
    return posting(target, values, keys).seconds


def peak_megabytes(pid: int) -> float:
    """Memory that a process had resident at most; 0 of one that has ended and is not collected."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def benchmark(
    description: str | None, parts: Callable[[Size, str], list[Part]], full: Size, quick: Size
) -> int:
    """The command line of a benchmark that has a server; the exit status."""
    options = arguments(description).parse_args()
    with server() as started:
        return measured(parts(quick if options.quick else full, started.url), options)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure little, once: it shows that the program works, not how fast",
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    return parser


def measured(parts: Iterable[Part], options: argparse.Namespace) -> int:
    """Measure each part, and print its figures beside their targets; the exit status."""
    figures: list[Figure] = []
    for name, part in parts:
        print(f"{name} ...", flush=True)
        figures += part()
    print_figures(figures)
    if options.json:
        options.json.write_text(json.dumps(_report(figures), indent=1))
    return int(options.check and not all(figure.is_met for figure in figures))


def print_figures(figures: list[Figure]) -> None:
    """Each beside its target."""
    for figure in figures:
        verdict = "ok" if figure.is_met else "MISSED"
        sign = ">=" if figure.higher_is_better else "<="
        print(
            f"{figure.name:45} {figure.value:9.2f} {figure.unit:6} "
            f"target {sign} {figure.target:<6.3g} {verdict}"
        )


def _report(figures: list[Figure]) -> dict[str, Any]:
    """The figures with the machine and the versions they are from."""
    return {
        "machine": machine(),
        "figures": [figure._asdict() | {"is_met": figure.is_met} for figure in figures],
    }


def machine() -> dict[str, Any]:
    """This machine, and the versions of what is measured on it."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **_versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
