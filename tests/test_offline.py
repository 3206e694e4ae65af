from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from commands import autolog
from journals import copy_changed
from support import eventually, start_script

from autolog.journal import layout

if TYPE_CHECKING:
    from readback import Experiment

HALF = 300

_TRAINING = f"""
    import autolog
    autolog.enable(mode="offline")
    with autolog.run("train"):
        for step in range({HALF}):
            autolog.log_metrics({{"loss": step / 8, "acc": step / 4}}, step=step)
        print("half", flush=True)
        open("go").read()
        for step in range({HALF}, {2 * HALF}):
            autolog.log_metrics({{"loss": step / 8, "acc": step / 4}}, step=step)
        print("all", flush=True)
        open("go").read()
"""


class Training:
    """A training that logs offline, half of it when it starts and half when told."""

    def __init__(self, experiment: Experiment, cwd: Path, home: Path) -> None:
        os.mkfifo(cwd / "go")
        # A training that rolls over segments while it is copied.
        env = {**experiment.env, "AUTOLOG_SEGMENT_SIZE": str(1 << 16)}
        self.home, self._go = home, cwd / "go"
        self._process = start_script(_TRAINING, cwd=cwd, env=env)
        self._expect("half")

    def log_the_rest(self) -> None:
        """Have it log its second half."""
        self._go.write_text("")
        self._expect("all")

    def end(self) -> None:
        """Have it end in peace."""
        self._go.write_text("")
        assert self._process.wait(30) == 0

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    @property
    def journal(self) -> Path:
        """Its journal."""
        (control,) = self.home.glob(f"*/*/{layout.CONTROL}")
        return control.parent

    def _expect(self, line: str) -> None:
        stdout: IO[str] | None = self._process.stdout
        assert stdout is not None
        assert stdout.readline() == f"{line}\n"


@pytest.fixture
def training(experiment: Experiment, tmp_path: Path, autolog_home: Path) -> Training:
    """A training that has logged its first half."""
    return Training(experiment, tmp_path, autolog_home)


def _cp(source: Path, copy: Path) -> None:
    subprocess.run(["cp", "-a", f"{source}/.", str(copy)], check=True)


def _elsewhere(tmp_path: Path, experiment: Experiment) -> dict[str, str]:
    """The environment of another machine, which has a journal root of its own."""
    return {**experiment.env, "AUTOLOG_DIR": str(tmp_path / "elsewhere")}


def _points(experiment: Experiment, run_id: str) -> list[tuple[str, int, float]]:
    return sorted((p.key, p.step, p.value) for p in experiment.server.points(run_id))


def _logged(steps: int) -> list[tuple[str, int, float]]:
    return sorted(
        point
        for step in range(steps)
        for point in (("loss", step, step / 8), ("acc", step, step / 4))
    )


def _only_run(experiment: Experiment) -> Any:
    client = experiment.server.client()
    found = client.get_experiment_by_name(experiment.name)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    return run


@pytest.mark.parametrize("transfer", [copy_changed, _cp], ids=["rsync", "cp"])
def test_a_live_folder_copied_and_synced_twice_arrives_once(
    training: Training,
    experiment: Experiment,
    tmp_path: Path,
    transfer: Callable[[Path, Path], None],
) -> None:
    """Two copies of a living run, each synced elsewhere, store a value once, end the run once."""
    copy, env = tmp_path / "copy", _elsewhere(tmp_path, experiment)
    copy.mkdir()

    transfer(training.home, copy)
    autolog("sync", copy, env=env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(HALF)
    assert run.info.status == "RUNNING"

    training.log_the_rest()
    training.end()
    transfer(training.home, copy)
    autolog("sync", copy, env=env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(2 * HALF)
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize("first", ["old segments", "old control page"])
def test_a_copy_whose_files_are_of_different_moments_loses_nothing(
    training: Training, experiment: Experiment, tmp_path: Path, first: str
) -> None:
    """A torn copy gives what it has, is called incomplete where it is, and a later one the rest."""
    copy, env = tmp_path / "copy" / "group" / "journal", _elsewhere(tmp_path, experiment)
    copy.parent.mkdir(parents=True)
    shutil.copytree(training.journal, copy)
    training.log_the_rest()
    _copy_again(training.journal, copy, newer_control=first == "old segments")

    done = autolog("sync", copy, env=env)
    run = _only_run(experiment)
    if first == "old segments":
        assert done.returncode == 1
        assert "incomplete copy" in done.stdout
        assert _points(experiment, run.info.run_id) == _logged(HALF)

    training.end()
    _cp(training.journal, copy)
    autolog("sync", copy, env=env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(2 * HALF)
    assert run.info.status == "FINISHED"


def _copy_again(journal: Path, copy: Path, *, newer_control: bool) -> None:
    controls, segments = [journal / layout.CONTROL], list(journal.glob("*.seg"))
    chosen: Sequence[Path] = controls if newer_control else segments
    for path in chosen:
        shutil.copy(path, copy)


def test_a_copy_of_a_killed_run_is_ended_only_on_request(
    training: Training, experiment: Experiment, tmp_path: Path
) -> None:
    """Whether the owner of a copy still lives is unknown: only --finish ends its run."""
    copy, env = tmp_path / "copy", _elsewhere(tmp_path, experiment)
    training.kill()
    shutil.copytree(training.home, copy)

    autolog("sync", copy, env=env, code=0)
    assert _only_run(experiment).info.status == "RUNNING"

    autolog("sync", "--finish", copy, env=env, code=0)
    run = _only_run(experiment)
    assert run.info.status == "FAILED"
    newest = max(p.timestamp for p in experiment.server.points(run.info.run_id))
    assert run.info.end_time == newest


def test_sync_of_a_living_offline_run_sends_what_it_has_logged_so_far(
    training: Training, experiment: Experiment, tmp_path: Path
) -> None:
    """In the folder itself as well, while the run lives and after its end."""
    autolog("sync", env=experiment.env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(HALF)
    assert run.info.status == "RUNNING"

    training.log_the_rest()
    training.end()
    autolog("sync", env=experiment.env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(2 * HALF)
    assert run.info.status == "FINISHED"


def test_sync_ends_a_run_that_was_killed_offline_on_this_machine(
    training: Training, experiment: Experiment
) -> None:
    """What a killed offline training logged is sent, and its run ends FAILED."""
    training.kill()
    autolog("sync", env=experiment.env, code=0)
    run = _only_run(experiment)
    assert _points(experiment, run.info.run_id) == _logged(HALF)
    assert run.info.status == "FAILED"


def test_offline_starts_no_process_and_asks_no_server(
    training: Training, experiment: Experiment, autolog_home: Path
) -> None:
    """mode="offline" leaves everything to sync."""
    training.log_the_rest()
    training.end()
    assert not list(autolog_home.glob("*/shipper.*"))
    client = experiment.server.client()
    assert eventually(lambda: client.get_experiment_by_name(experiment.name) is None)
