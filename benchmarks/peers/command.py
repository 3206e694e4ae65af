"""``make bench``: autolog side by side with every peer.

Each contender runs in fresh processes on the same work, in interleaved rounds, those that send
against the same ``mlflow server``. The results go into ``docs/``: ``benchmarks.json``, and from
it the tables and plots of ``benchmarks.md``. ``--only`` measures some of it anew and keeps the
rest; with no name it only writes the page.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from figures import print_figures, server

from peers import arrival, calls, crowd, ends, filling, growth, kills, scale, trainings
from peers.contenders import contenders
from peers.harness import Bench
from peers.report import Measurement, Report

if TYPE_CHECKING:
    from support import MlflowServer

MEASUREMENTS: dict[str, Measurement] = {
    "calls": calls,
    "arrival": arrival,
    "trainings": trainings,
    "kills": kills,
    "ends": ends,
    "growth": growth,
    "filling": filling,
    "crowd": crowd,
    "scale": scale,
}
_DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
    """Start a server and measure; the exit status."""
    options = parser().parse_args()
    with server() if options.only else contextlib.nullcontext() as started:
        return run(options, started)


def run(options: argparse.Namespace, started: MlflowServer | None) -> int:
    """Measure, keep, print and write; the exit status. A server is needed to measure anything."""
    report = Report(options.docs, MEASUREMENTS)
    chosen = [each for name, each in contenders().items() if name in options.contenders]
    for contender in [each for each in chosen if not each.is_installed]:
        print(f"{contender.name} is left out: {contender.package} is not installed")
        chosen.remove(contender)
    if started is not None:
        bench = Bench(chosen, started, options.quick)
        for name in options.only:
            print(f"{name} ...", flush=True)
            report.keep(name, MEASUREMENTS[name].measure(bench), chosen)
    figures = report.figures()
    print_figures(figures)
    report.write()
    return int(options.check and not all(figure.is_met for figure in figures))


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", nargs="*", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    options.add_argument(
        "--contenders", nargs="+", choices=contenders(), default=list(contenders())
    )
    options.add_argument("--docs", type=Path, default=_DOCS, help="where the page is")
    options.add_argument("--quick", action="store_true", help="measure little, once")
    options.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    return options
