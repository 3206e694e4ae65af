from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from commands import SECRET, STEPS, autolog, log_offline, rich_user
from support import MlflowServer, eventually, free_port, run_script, start_script

from autolog.journal import progress
from autolog.journal.progress import Progress

if TYPE_CHECKING:
    from readback import Experiment


def test_status_shows_what_waits_and_then_what_is_stored(
    experiment: Experiment, tmp_path: Path
) -> None:
    """--check exits with 1 while something waits, and the table names target, owner and counts."""
    journal = log_offline(experiment, tmp_path)
    waiting = autolog("status", "--check", env=experiment.env, code=1)
    (row,) = [line.split() for line in waiting.stdout.splitlines() if line.startswith(journal.name)]
    assert row == [journal.name, "dead", "0", str(STEPS), "0", "0", "0"]
    assert experiment.server.url in waiting.stdout
    assert progress.load(journal) == Progress()  # it only looked

    autolog("sync", env=experiment.env, code=0)
    stored = autolog("status", "--check", env=experiment.env, code=0)
    (row,) = [line.split() for line in stored.stdout.splitlines() if line.startswith(journal.name)]
    run_id = experiment.only_run().info.run_id
    assert row == [journal.name, "dead", run_id, str(STEPS), "0", "0", "0", "0"]


def test_status_names_a_living_owner_its_shipper_and_its_problem(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A run that logs to a server which is down is seen as such."""
    uri = f"http://127.0.0.1:{free_port()}"
    os.mkfifo(tmp_path / "go")
    source = """
        import autolog
        autolog.enable()
        with autolog.run("train"):
            autolog.log_metrics({"loss": 1.0}, step=0)
            open("go").read()
    """
    training = start_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": uri})

    def refused() -> str:
        shown = autolog("status", env=experiment.env, code=0).stdout
        assert "sends, " in shown, shown
        assert "refused" in shown, shown
        return shown

    shown = eventually(refused, 30)
    assert "alive" in shown
    training.kill()


def test_clean_removes_what_is_stored_and_keeps_the_rest(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Only journals whose values are on the server go, and --force removes others and says so."""
    stored = log_offline(experiment, tmp_path)
    autolog("sync", env=experiment.env, code=0)
    waiting = log_offline(experiment, tmp_path)

    autolog("clean", "--older-than", "1h", code=0)
    assert stored.exists()
    done = autolog("clean", code=0)
    assert not stored.exists()
    assert waiting.exists()
    assert f"{waiting}: kept: {STEPS} values pending" in done.stdout
    done = autolog("clean", "--force", code=0)
    assert not waiting.exists()
    assert f"{waiting}: removed; lost: {STEPS} values pending" in done.stdout


def test_clean_never_removes_the_journal_of_a_living_process(
    experiment: Experiment, tmp_path: Path, autolog_home: Path
) -> None:
    """Not even with --force."""
    os.mkfifo(tmp_path / "go")
    source = """
        import autolog
        autolog.enable(mode="offline")
        autolog.log_metrics({"loss": 1.0}, step=0)
        print("ready", flush=True)
        open("go").read()
    """
    training = start_script(source, cwd=tmp_path, env=experiment.env)
    assert training.stdout is not None
    assert training.stdout.readline() == "ready\n"
    done = autolog("clean", "--force", code=0)
    assert "kept: its process is alive" in done.stdout
    assert list(autolog_home.glob("*/*/meta.json"))
    training.kill()


def test_doctor_is_content_with_a_server_that_answers(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """It names versions, target, kind of credential and journals, and never the credential."""
    env = {**rich_user(tmp_path / "home"), "MLFLOW_TRACKING_URI": mlflow_server.url}
    done = autolog("doctor", env=env, code=0)
    assert f"target: {mlflow_server.url} (MLFLOW_TRACKING_URI)" in done.stdout
    assert "target answers: yes" in done.stdout
    assert str(autolog_home) in done.stdout
    assert "sklearn" in done.stdout
    assert "credential: " in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_doctor_names_each_fault_and_its_remedy(tmp_path: Path) -> None:
    """A dead server, a bad setting and half a credential are all found in one go."""
    env = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "MLFLOW_TRACKING_USERNAME": "u",
        "AUTOLOG_BATCH_SECONDS": "soon",
        "HOME": str(tmp_path),
    }
    done = autolog("doctor", env=env, code=1)
    bad = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
    assert [line.split(":")[0].split(maxsplit=1)[1] for line in bad] == [
        "setting",
        "credential",
        "target answers",
    ]
    assert done.stdout.count("->") == 3
    assert "MLFLOW_TRACKING_PASSWORD" in done.stdout


def test_doctor_finds_another_package_named_autolog(tmp_path: Path) -> None:
    """Two distributions that install the same package overwrite each other's files."""
    other = tmp_path / "site" / "autolog_stranger-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: autolog-stranger\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("autolog\n")
    done = autolog("doctor", env={"PYTHONPATH": str(other.parent)}, code=1)
    assert "pip uninstall autolog-stranger" in done.stdout


def test_doctor_finds_a_package_that_was_written_over(tmp_path: Path) -> None:
    """Without its callbacks, and imported from where it is not installed."""
    import autolog as ours

    broken = tmp_path / "path" / "autolog"
    home = Path(ours.__file__).parent
    shutil.copytree(home, broken, ignore=shutil.ignore_patterns("callbacks", "__pycache__"))
    done = autolog("doctor", env={"PYTHONPATH": str(broken.parent)}, code=1)
    assert "incomplete: no autolog.callbacks." in done.stdout
    assert f"imported from {broken}" in done.stdout


def test_strict_refuses_a_target_that_does_not_answer(tmp_path: Path) -> None:
    """enable() raises at the user's line, with the reason, and imports nothing heavy for it."""
    source = """
        import autolog, sys
        try:
            autolog.enable(strict=True)
        except RuntimeError as error:
            print(error)
        print([name for name in ("mlflow", "requests") if name in sys.modules])
    """
    uri = f"http://u:{SECRET}@127.0.0.1:{free_port()}"
    done = run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": uri})
    said, loaded = done.stdout.splitlines()
    assert "cannot be used" in said
    assert "refused" in said
    assert SECRET not in done.stdout + done.stderr
    assert loaded == "[]"


def test_strict_accepts_a_target_that_answers(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """A live server, and a local database that is yet to be made, pass."""
    source = "import autolog; autolog.enable(strict=True)"
    for uri in (mlflow_server.url, f"sqlite:///{tmp_path}/new.db"):
        done = run_script(source, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": uri})
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "new.db").exists()
