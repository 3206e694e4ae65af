"""What the benchmarks share: figures and their targets, fresh processes, a server, the report."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

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


@contextmanager
def server() -> Iterator[str]:
    """The address of a real server with as many workers as MLflow starts by default."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = MlflowServer(Path(folder), workers=4)
        started.start()
        try:
            yield started.url
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


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--json", type=Path, help="write the figures to a file")
    return parser


def measured(parts: Iterable[Part], options: argparse.Namespace) -> int:
    """Measure each part, and print its figures beside their targets; the exit status."""
    figures: list[Figure] = []
    for name, part in parts:
        print(f"{name} ...", flush=True)
        figures += part()
    for figure in figures:
        verdict = "ok" if figure.is_met else "MISSED"
        sign = ">=" if figure.higher_is_better else "<="
        print(
            f"{figure.name:45} {figure.value:9.2f} {figure.unit:6} "
            f"target {sign} {figure.target:<6.3g} {verdict}"
        )
    if options.json:
        options.json.write_text(json.dumps(_report(figures), indent=1))
    return int(options.check and not all(figure.is_met for figure in figures))


def _report(figures: list[Figure]) -> dict[str, Any]:
    """The figures with the machine and the versions they are from."""
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            **_versions(),
        },
        "figures": [figure._asdict() | {"is_met": figure.is_met} for figure in figures],
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
