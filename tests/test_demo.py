"""``make demo``: four frameworks, and what the store then holds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import MlflowServer, run_script

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "examples" / "demo.py"
EPOCHS = {"scikit-learn": 30, "Keras": 5, "Lightning": 5, "PyTorch": 5}


def rows(printed: str) -> dict[str, list[str]]:
    """The cells of the table's rows, by framework."""
    lines = [line.split("│")[1:-1] for line in printed.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line] for line in lines]
    return {row[1]: row for row in cells if row[1]}


@pytest.mark.parametrize(
    "to_server", [False, pytest.param(True, marks=pytest.mark.long)], ids=["default", "server"]
)
def test_the_demo_reads_back_what_it_logged(
    to_server: bool, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    """Each framework has its epochs, a falling loss and params, wherever MLflow puts its runs."""
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url} if to_server else {}
    done = run_script(DEMO.read_text(), cwd=tmp_path, env=env, timeout=170)
    assert done.returncode == 0, done.stderr
    table = rows(done.stdout)
    assert {framework: int(row[2]) for framework, row in table.items()} == EPOCHS
    for _, _, _, first, last, params in table.values():
        assert float(last) < float(first)
        assert int(params.partition(":")[0]) > 5
    place = mlflow_server.url if to_server else f"sqlite:///{tmp_path}/mlflow.db"
    assert done.stdout.rstrip().endswith(place)


def test_make_demo_runs_it() -> None:
    """Beyond its set-up, the target is the script."""
    planned = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--old-file=.venv/.installed", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert planned.stdout.split()[-1] == DEMO.relative_to(ROOT).as_posix()
