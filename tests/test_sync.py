from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from commands import CURVE, STEPS, autolog, curves, log_offline
from faults import FaultyProxy
from journals import encoded, lay_out, losses, run_start, write_meta
from support import eventually, run_script, start_script

from autolog import records
from autolog.cli import main
from autolog.journal import layout
from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK, SHIPPER_SUCCESSOR
from autolog.records import Tags

if TYPE_CHECKING:
    from readback import Experiment


def test_sync_sends_what_is_left_and_a_second_time_nothing(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Sync exits with 0 once everything is stored, and is idempotent."""
    log_offline(experiment, tmp_path)
    autolog("sync", env=experiment.env, code=0)
    again = autolog("sync", env=experiment.env, code=0)
    assert again.stdout == "nothing is left\n"
    assert curves(experiment) == [CURVE]


@pytest.mark.parametrize("level", ["root", "group", "journal"])
def test_sync_takes_a_root_a_group_or_a_journal(
    experiment: Experiment, tmp_path: Path, autolog_home: Path, level: str
) -> None:
    """DIR is whatever holds journals."""
    journal = log_offline(experiment, tmp_path)
    folder = {"root": autolog_home, "group": journal.parent, "journal": journal}[level]
    autolog("sync", folder, env=experiment.env, code=0)
    assert curves(experiment) == [CURVE]


def test_files_are_uploaded_by_sync(experiment: Experiment, tmp_path: Path) -> None:
    """Artifacts logged offline arrive with the metrics."""
    (tmp_path / "notes.txt").write_text("by hand")
    log_offline(experiment, tmp_path, extra='autolog.log_artifact("notes.txt")')
    autolog("sync", env=experiment.env, code=0)
    run = experiment.only_run()
    (file,) = experiment.server.client().list_artifacts(run.info.run_id)
    assert file.path == "notes.txt"


def test_one_bad_journal_blocks_no_other(experiment: Experiment, tmp_path: Path) -> None:
    """An unreadable journal is said, costs the exit status, and nothing else."""
    bad, good = log_offline(experiment, tmp_path), log_offline(experiment, tmp_path)
    (bad / layout.META).write_text('{"format": 1, "owner": ')
    done = autolog("sync", env=experiment.env, code=1)
    assert str(bad) in done.stdout
    assert str(good) not in done.stdout
    assert curves(experiment) == [CURVE]


def test_a_target_that_stays_down_is_given_up_and_its_values_kept(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Sync says how much is left and why; later the same command sends it."""
    with FaultyProxy(experiment.server.url) as proxy:
        proxy.refuse()
        experiment.env["MLFLOW_TRACKING_URI"] = proxy.url
        log_offline(experiment, tmp_path)
        done = autolog("sync", "--timeout", "1", env=experiment.env, code=1)
        assert f"{STEPS} values pending" in done.stdout
        assert "refused" in done.stdout
        proxy.pass_on()
        autolog("sync", env=experiment.env, code=0)
        assert curves(experiment) == [CURVE]


def test_ctrl_c_leaves_at_once(experiment: Experiment, tmp_path: Path) -> None:
    """Also while a server that never answers is waited for."""
    with FaultyProxy(experiment.server.url) as proxy:
        experiment.env["MLFLOW_TRACKING_URI"] = proxy.url
        log_offline(experiment, tmp_path)
        proxy.black_hole()
        process = subprocess.Popen(
            [sys.executable, "-m", "autolog", "sync"],
            env={**os.environ, **experiment.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: proxy.count() > 0, 30)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        process.communicate(timeout=30)
        assert time.monotonic() - started < 3
        assert process.returncode == 1


def test_sync_watches_the_shipper_of_a_living_run(
    experiment: Experiment, tmp_path: Path, autolog_home: Path
) -> None:
    """While a shipper works on the group, sync sends nothing, says who does, and waits for it."""
    os.mkfifo(tmp_path / "go")
    source = f"""
        import autolog
        autolog.enable()
        with autolog.run("train"):
            for step in range({STEPS}):
                autolog.log_metrics({{"loss": step / 8}}, step=step)
            print("ready", flush=True)
            open("go").read()
    """
    training = start_script(source, cwd=tmp_path, env=experiment.env)
    assert training.stdout is not None
    assert training.stdout.readline() == "ready\n"
    (state,) = eventually(lambda: list(autolog_home.glob("*/shipper.json")), 20)
    done = autolog("sync", env=experiment.env, code=0)
    assert curves(experiment) == [CURVE]
    assert training.poll() is None
    pid = json.loads(state.read_text())["pid"]
    second = autolog("sync", "--timeout", "2", "--to", "http://127.0.0.1:9", env=experiment.env)
    assert second.returncode == 1
    assert f"process {pid}" in second.stdout
    assert done.stdout == "nothing is left\n"
    (tmp_path / "go").write_text("")


def test_a_shipper_whose_token_has_expired_gives_way_to_sync(
    experiment: Experiment, tmp_path: Path, autolog_home: Path
) -> None:
    """It would try the old token for an hour; sync has a new one, and need not wait for that."""
    source = f"""
        import autolog
        autolog.enable()
        with autolog.run("train"):
            for step in range({STEPS}):
                autolog.log_metrics({{"loss": step / 8}}, step=step)
    """
    with FaultyProxy(experiment.server.url) as faulty:
        faulty.demand("Bearer new")
        environ = {**experiment.env, "MLFLOW_TRACKING_URI": faulty.url}
        env = {**environ, "MLFLOW_TRACKING_TOKEN": "old", "AUTOLOG_EXIT_TIMEOUT_LOCAL": "0"}
        run_script(source, cwd=tmp_path, env=env)
        (state,) = eventually(lambda: list(autolog_home.glob("*/shipper.json")), 20)
        eventually(lambda: json.loads(state.read_text())["problem"], 20)
        state.with_name(SHIPPER_SUCCESSOR).touch()  # as a sync that was killed leaves it
        refused = len(faulty.requests)
        eventually(lambda: len(faulty.requests) > refused, 20)
        assert is_locked(state.with_name(SHIPPER_LOCK))
        autolog("sync", env={**environ, "MLFLOW_TRACKING_TOKEN": "new"}, code=0)
        assert curves(experiment) == [CURVE]
        assert not is_locked(state.with_name(SHIPPER_LOCK))
        assert not is_locked(state.with_name(SHIPPER_SUCCESSOR))


def test_sync_goes_on_where_a_killed_shipper_stopped(
    experiment: Experiment, tmp_path: Path, autolog_home: Path
) -> None:
    """With owner and shipper both dead, and the server back, sync does the rest."""
    with FaultyProxy(experiment.server.url) as proxy:
        experiment.env["MLFLOW_TRACKING_URI"] = proxy.url
        source = f"""
            import autolog, json, os, pathlib, signal, time
            autolog.enable()
            with autolog.run("train"):
                for step in range({STEPS}):
                    autolog.log_metrics({{"loss": step / 8}}, step=step)
                states = []
                while not states:
                    states = list(pathlib.Path(os.environ["AUTOLOG_DIR"]).glob("*/shipper.json"))
                    time.sleep(0.1)
                os.kill(json.loads(states[0].read_text())["pid"], signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        """
        proxy.status(503)
        experiment.script(source, tmp_path, code=-signal.SIGKILL)
        proxy.pass_on()
        autolog("sync", env=experiment.env, code=0)
    assert curves(experiment) == [CURVE]
    assert experiment.only_run().info.status == "FAILED"


def test_to_sends_everything_the_journal_holds_elsewhere(
    experiment: Experiment, new_store: Callable[[], str], tmp_path: Path
) -> None:
    """A journal that one server has already is sent whole to the one that --to names."""
    other = new_store()
    journal = log_offline(experiment, tmp_path)
    shutil.copytree(journal, tmp_path / "copy" / "group" / journal.name)
    env = {**experiment.env, "AUTOLOG_DIR": str(tmp_path / "elsewhere")}
    autolog("sync", tmp_path / "copy", env=env, code=0)
    autolog("sync", tmp_path / "copy", "--to", other, env=env, code=0)
    autolog("sync", tmp_path / "copy", "--to", other, env=env, code=0)

    from mlflow import MlflowClient

    client = MlflowClient(other)
    found = client.get_experiment_by_name(experiment.name)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == CURVE
    assert curves(experiment) == [CURVE]


def test_a_refused_run_is_sent_once_the_server_takes_it(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A run whose experiment is deleted is set aside with the reason, and sent once restored."""
    client = experiment.server.client()
    deleted = client.create_experiment(experiment.name)
    client.delete_experiment(deleted)
    journal = log_offline(experiment, tmp_path)
    for _ in range(2):
        done = autolog("sync", env=experiment.env, code=1)
        assert f"{STEPS} values pending\n  refused before: " in done.stdout
        assert "was deleted" in done.stdout
    client.restore_experiment(deleted)
    autolog("sync", env=experiment.env, code=0)
    assert curves(experiment) == [CURVE]
    assert experiment.only_run().info.status == "FINISHED"
    assert not list(journal.glob("held/*"))
    autolog("status", "--check", env=experiment.env, code=0)


def test_a_value_that_the_server_refuses_is_left_with_its_words(
    experiment: Experiment, tmp_path: Path
) -> None:
    """One bad name costs itself and the exit status."""
    journal = tmp_path / "group" / "journal"
    bad = encoded(Tags(1, {"x" * 300: "too long a name"}))
    start = records.encode(run_start(experiment=experiment.name))
    lay_out(journal, [[start, *losses(3)[1:], bad]])
    write_meta(journal, target=experiment.server.url)
    done = autolog("sync", journal, env=experiment.env, code=1)
    assert "1 values refused: " in done.stdout
    assert "exceeds the maximum length" in done.stdout
    assert curves(experiment) == [[(0, 0.0), (1, 1.0), (2, 2.0)]]


def test_a_terminal_gets_a_progress_bar(experiment: Experiment, tmp_path: Path) -> None:
    """On a terminal the values are counted on one line."""
    log_offline(experiment, tmp_path)
    shown = _on_a_terminal([sys.executable, "-m", "autolog", "sync"], experiment.env)
    assert "━" in shown
    assert f"{STEPS}/{STEPS}" in shown


def _on_a_terminal(command: list[str], env: dict[str, str]) -> str:
    control, terminal = pty.openpty()
    environ = {**os.environ, **env, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        command, env=environ, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    while select.select([control], [], [], 60)[0]:
        try:
            shown += os.read(control, 65536)
        except OSError:  # what Linux says when the other end is closed
            break
    os.close(control)
    assert process.wait(30) == 0, shown.decode()
    return shown.decode()


@pytest.mark.parametrize("arguments", [["sync", "no/such/folder"], ["clean", "--older-than", "x"]])
def test_a_wrong_argument_is_a_usage_error(arguments: list[str]) -> None:
    """The exit status is 2, and the message names the argument."""
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert arguments[-1] in done.output


def test_a_folder_without_a_journal_is_an_error(tmp_path: Path) -> None:
    """A mistyped DIR is not taken for one with nothing left."""
    done = autolog("sync", tmp_path, code=1)
    assert f"no journal in {tmp_path}" in done.stderr


def test_files_beside_the_user_are_not_imported(tmp_path: Path) -> None:
    """`python -m autolog` in a folder with a queue.py and a json.py runs neither."""
    for name in ("queue.py", "json.py", "click.py"):
        (tmp_path / name).write_text("raise SystemExit('imported the wrong file')")
    autolog("sync", cwd=tmp_path, code=0)
