"""The benchmarks run in their quick form and print every figure; how good they are is not asked."""

from __future__ import annotations

import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support import MlflowServer

pytestmark = pytest.mark.long

_BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

_FIGURES = {
    ("core", "one call"): [
        "log_metrics(10) / list.append, median",
        "log_metrics(10) / list.append, p99.9",
        "server dead / server up, median",
    ],
    ("core", "drain"): ["drain 2,000 / ceiling"],
    ("core", "start"): ["import + enable() over bare Python", "heavy modules loaded"],
    ("core", "memory"): ["shipper, 1 training process", "shipper, 2 training processes"],
    ("core", "size"): ["journal, a value"],
    ("frameworks", "plain PyTorch"): ["a step of plain PyTorch, added"],
    ("frameworks", "nested fits"): ["a nested fit of scikit-learn, added"],
    ("frameworks", "root fits"): ["a root fit of scikit-learn, added"],
    ("mlflow_calls", "1 metric a call"): [
        "log_metrics(1) / MLflow's async mode",
        "log_metrics(1) / a store that does nothing",
        "log_metrics(1), stored / posting",
        "log_metrics(1), stored / MLflow's async mode",
    ],
    ("mlflow_calls", "models and files"): [
        "log_model, with ours / without",
        "log_artifact, with ours / without",
    ],
}
"""By benchmark and part, the names of its figures.

Left out, for the seconds that their imports take: all that trains in a process of its own for each
way of logging, ``enable()`` beside four frameworks, a local database made anew, XGBoost, and ten
metrics a call, which is one a call with another number.
"""


@pytest.fixture
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """They find each other, as in a process that runs one of them."""
    monkeypatch.syspath_prepend(_BENCHMARKS)


@pytest.mark.parametrize(("benchmark", "part"), _FIGURES)
@pytest.mark.usefixtures("_benchmarks_importable")
def test_every_figure_is_printed(
    benchmark: str,
    part: str,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A quick run of a part prints and writes a finite number for each of its figures."""
    figures, module = map(importlib.import_module, ("figures", benchmark))
    parts = [each for each in module.parts(module.QUICK, mlflow_server.url) if each[0] == part]
    options = figures.arguments(module.__doc__).parse_args(["--json", f"{tmp_path}/figures.json"])
    assert figures.measured(parts, options) == 0
    written = {
        figure["name"]: figure
        for figure in json.loads((tmp_path / "figures.json").read_text())["figures"]
    }
    assert list(written) == _FIGURES[benchmark, part]
    lines = capsys.readouterr().out.splitlines()
    for name, figure in written.items():
        assert _is_sane(figure)
        assert any(re.match(rf"{re.escape(name)} +{figure['value']:.2f} ", line) for line in lines)


_PEERS = ("autolog", "MLflow async", "TensorBoard", "list.append")
"""Of those that are installed with the tests, one of each kind."""


_LINES = {
    "calls": _PEERS,
    "arrival": _PEERS[:-1],
    "trainings": ("autolog.enable()", "autologged()", "mlflow.sklearn.autolog()"),
    "kills": _PEERS,
    "ends": _PEERS,
    "growth": ("autolog", "TensorBoard", "list.append"),
    "filling": ("1,000", "2,000"),
    "crowd": ("autolog", "MLflow async"),
    "scale": ("PostgreSQL", "SQLite"),
}
"""By measurement, what its table has lines of."""


_NEEDED = {"scale": "psycopg2"}
"""By measurement, a module that comes with the extra `bench` only."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("measurement", _LINES)
@pytest.mark.usefixtures("_benchmarks_importable")
def test_a_measurement_beside_peers_is_kept_and_shown(
    measurement: str,
    mlflow_server: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A quick run keeps its rows, draws a plot and writes a line for each contender."""
    pytest.importorskip(_NEEDED.get(measurement, "peers"))
    from peers import command, report, trainings

    sklearn = {"scikit-learn": trainings.TRAININGS["scikit-learn"]}  # the others import for minutes
    monkeypatch.setattr(trainings, "TRAININGS", sklearn)
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    options = ["--quick", "--only", measurement, "--docs", str(tmp_path), "--contenders", *_PEERS]
    assert command.run(command.parser().parse_args(options), mlflow_server) == 0
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    assert list(kept) == [measurement]
    assert kept[measurement]["rows"]
    assert (tmp_path / "benchmarks" / f"{measurement}.svg").read_text().startswith("<?xml")
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "stale" not in written
    section = written.split(f"### {command.MEASUREMENTS[measurement].TITLE}")[1]
    assert [name for name in _LINES[measurement] if f"\n| {name} |" not in section] == []


@pytest.mark.usefixtures("_benchmarks_importable")
def test_the_plan_is_worked_out_from_the_rows() -> None:
    """Requests of two sizes give what a request and a value cost, and that what all would take."""
    from peers import plan

    case = {"backend": "PostgreSQL", "workers": 2}
    posted = [
        {**case, "case": "posting", "requests": n, "values": n * size, "server": s, "database": d}
        for n, size, s, d in ((100, 10, 0.49, 0.2), (40, 1000, 3.2, 0.88))
    ]
    assert plan.cost_of(posted) == pytest.approx((0.005939, 0.000096061), rel=1e-3)
    store = {"values": 50_000, "bytes": 20_000_000, "connections": 8, "memory": 300.0}
    steady = {"machines": 1, "trainings": 8, "requests": 80, "values": 800, "seconds": 10}
    taken = {"server": 0.4, "database": 0.1, "shippers": 0.1, "late": 0.9}
    rows = [
        *posted,
        {**case, "case": "store", **store, "version": "15.1", "max_connections": 100},
        {**case, "case": "steady", **steady, **taken},
    ]
    text = plan.text(rows)
    assert "| 1,000 x 10 = 10,000 | 1,000 x 1 = 1,000 | 5.94 + 0.96 = 6.90 | 14 | 56 |" in text
    assert "come to 0.06 cores by this arithmetic; 0.05 were measured" in text


@pytest.mark.usefixtures("_benchmarks_importable")
def test_an_audit_counts_what_is_lost_doubled_and_foreign() -> None:
    """A call is lost with one of its values; what was begun and not returned may be there."""
    from peers.contenders import Stored
    from peers.work import Audit, audit, metrics

    points = [(key, step, value) for step in range(4) for key, value in metrics(step).items()]
    assert audit(Stored(points, "RUNNING"), called=4, returned=3) == Audit(3, 0, 0, 0, "RUNNING")
    stored = [*points[1:30], points[5], points[5], ("m0", 0, 0.25)]
    assert audit(Stored(stored, "FAILED"), called=4, returned=3) == Audit(3, 1, 2, 1, "FAILED")


@pytest.mark.usefixtures("_benchmarks_importable")
def test_what_cannot_be_read_is_lost(tmp_path: Path) -> None:
    """A store that its package cannot open has nothing of a run, and the status says so."""
    from peers.contenders import Place, contenders
    from peers.harness import Left, user

    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    place = Place(str(tmp_path), "http://127.0.0.1:9", f"sqlite:///{tmp_path}/mlflow.db", "run")
    with user(contenders()["MLflow sync"]) as person:
        (found,) = person.audits([Left(place, called=3, returned=2)])
    assert (found.calls, found.lost) == (2, 2)
    assert found.status.startswith("cannot be read (")


def _is_sane(figure: dict[str, Any]) -> bool:
    """What is added may be less than nothing in so short a run; a ratio and a size may not."""
    is_added = figure["unit"] in ("", "%", "us")
    return math.isfinite(figure["value"]) and (is_added or figure["value"] > 0)


def test_the_steps_of_torch_are_measured(tmp_path: Path) -> None:
    """``torch_steps.py`` prints what a step takes, and what hooks add to it."""
    command = [sys.executable, _BENCHMARKS / "torch_steps.py", "--rounds", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = dict(re.findall(r"(?m)^(.+?) +(-?[\d.]+) us$", done.stdout))
    assert list(printed) == [
        "a step",
        "hooks",
        "off against off",
        "off against off, quartiles apart",
    ]
    assert float(printed["a step"]) > 0
