"""A real Jupyter kernel: cells that fail, cells that run again, and the end of the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import eventually

pytest.importorskip("ipykernel")
manager = pytest.importorskip("jupyter_client.manager")

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager
    from readback import Experiment

_TIMEOUT = 90


class Notebook:
    """A kernel, and a client that runs cells in it."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.kernel: KernelManager = manager.KernelManager(kernel_name="python3")
        self.kernel.start_kernel(cwd=str(folder), env={**os.environ, **env})
        self._client = self.kernel.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=_TIMEOUT)

    def cell(self, source: str) -> tuple[str, str]:
        """Run a cell; its status and what it printed, output and errors."""
        printed = []

        def output(message: dict[str, dict[str, str]]) -> None:
            printed.append(message["content"].get("text", ""))

        reply = self._client.execute_interactive(source, timeout=_TIMEOUT, output_hook=output)
        return str(reply["content"]["status"]), "".join(printed)

    def shut_down(self) -> None:
        """End the kernel as the menu does, and wait until it is gone."""
        self._client.stop_channels()
        self.kernel.shutdown_kernel()

    def kill(self) -> None:
        """End the kernel as a crash does."""
        self._client.stop_channels()
        self.kernel.shutdown_kernel(now=True)


@pytest.fixture
def open_notebook(experiment: Experiment, tmp_path: Path) -> Iterator[Callable[[], Notebook]]:
    """Opens notebooks that log to the experiment; none outlives the test."""
    opened: list[Notebook] = []

    def start() -> Notebook:
        opened.append(Notebook(tmp_path, experiment.env))
        return opened[-1]

    yield start
    for notebook in opened:
        if notebook.kernel.is_alive():
            notebook.kill()


def test_cells_share_a_run_until_one_fails(
    open_notebook: Callable[[], Notebook], experiment: Experiment
) -> None:
    """Cells log to one run; a cell's error ends it FAILED, the next opens another."""
    notebook = open_notebook()
    assert notebook.cell("import autolog; autolog.enable(); autolog.enable()")[0] == "ok"
    assert notebook.cell("autolog.log_metric('m', 1.0, step=0)")[0] == "ok"
    assert notebook.cell("autolog.log_metric('m', 2.0, step=1)")[0] == "ok"
    status, printed = notebook.cell("raise ValueError('in a cell')")
    assert status == "error"
    assert "an internal error" not in printed
    failed = experiment.only_run()
    assert failed.info.status == "FAILED"
    assert experiment.values(failed, "m", 2) == [1.0, 2.0]

    assert notebook.cell("autolog.log_metric('m', 3.0, step=0)")[0] == "ok"
    assert notebook.cell("1 +")[0] == "error"
    assert {run.info.status for run in experiment.runs(2).values()} == {"FAILED"}

    assert notebook.cell("autolog.log_metric('m', 4.0, step=0)")[0] == "ok"
    notebook.shut_down()
    runs = experiment.runs(3)
    last = next(run for run in runs.values() if run.info.status != "FAILED")
    assert last.info.status == "FINISHED"
    assert experiment.values(last, "m", 1) == [4.0]


def test_a_cell_that_runs_again_is_logged_again(
    open_notebook: Callable[[], Notebook], experiment: Experiment
) -> None:
    """Each pass of a training cell is a run of its own, with enable() in the cell or before it."""
    cell = """
        import autolog
        autolog.enable()
        from sklearn.linear_model import SGDClassifier
        model = SGDClassifier(max_iter=3, tol=None).fit([[0.0], [1.0]], [0, 1])
    """
    notebook = open_notebook()
    for _ in range(3):
        status, printed = notebook.cell("\n".join(line.strip() for line in cell.splitlines()))
        assert status == "ok", printed
    runs = experiment.runs(3)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert {run.data.params["max_iter"] for run in runs.values()} == {"3"}


def test_disable_leaves_the_notebook_as_it_was(
    open_notebook: Callable[[], Notebook], experiment: Experiment
) -> None:
    """While a run is open cells are watched; after its end nothing of ours is in the shell."""
    notebook = open_notebook()
    status, printed = notebook.cell(
        "callbacks = get_ipython().events.callbacks['post_run_cell']\n"
        "before = list(callbacks)\n"
        "import autolog\n"
        "autolog.log_metric('m', 1.0)\n"
        "assert len(callbacks) == len(before) + 1\n"
        "autolog.end_run()\n"
        "assert callbacks == before\n"
    )
    assert status == "ok", printed
    assert experiment.only_run().info.status == "FINISHED"


def test_a_kernel_that_crashes_leaves_a_failed_run(
    open_notebook: Callable[[], Notebook], experiment: Experiment
) -> None:
    """SIGKILL of the kernel: every value is there, and the run ends FAILED."""
    notebook = open_notebook()
    status, printed = notebook.cell(
        "import autolog\nfor i in range(100): autolog.log_metric('m', i, step=i)\n"
        "assert autolog.flush(30).complete\nautolog.log_metric('m', 100, step=100)"
    )
    assert status == "ok", printed
    notebook.kill()
    run = experiment.only_run()
    assert run.info.status == "FAILED"
    assert experiment.values(run, "m", 101) == list(range(101))


def test_an_interrupted_cell_ends_its_run_killed(
    open_notebook: Callable[[], Notebook], experiment: Experiment, tmp_path: Path
) -> None:
    """The stop button ends the open run KILLED."""
    notebook = open_notebook()
    assert notebook.cell("import autolog; autolog.log_metric('m', 1.0)")[0] == "ok"
    notebook._client.execute("open('busy', 'w').close()\nwhile True: pass")
    eventually((tmp_path / "busy").exists, 30)
    notebook.kernel.interrupt_kernel()
    assert experiment.only_run().info.status == "KILLED"
