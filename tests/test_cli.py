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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from commands import autolog
from faults import FaultyProxy
from journals import KEY, encoded, lay_out, losses, run_start, write_meta
from readback import Experiment
from support import MlflowServer, eventually, free_port, run_script, start_script

from autolog import records
from autolog.cli import main
from autolog.journal import layout, progress
from autolog.journal.progress import Progress
from autolog.records import Artifact, Tags

STEPS = 50
SECRET = "s3cr3t-t0k3n"


@pytest.fixture
def experiment(mlflow_server: MlflowServer) -> Experiment:
    """An experiment of the test's own."""
    return Experiment(mlflow_server)


def _log_offline(experiment: Experiment, cwd: Path, *, extra: str = "", **env: str) -> Path:
    """Log `STEPS` values offline, and leave; the journal."""
    source = f"""
        import autolog
        autolog.enable(mode="offline")
        with autolog.run("train"):
            for step in range({STEPS}):
                autolog.log_metrics({{"loss": step / 8}}, step=step)
            {extra}
    """
    before = set(Path(os.environ["AUTOLOG_DIR"]).glob("*/*/meta.json"))
    experiment.script(source, cwd, **env)
    (meta,) = set(Path(os.environ["AUTOLOG_DIR"]).glob("*/*/meta.json")) - before
    return meta.parent


def _stored(
    experiment: Experiment, server: MlflowServer | None = None
) -> list[list[tuple[int, float]]]:
    """The loss curves of every run on the server, with their status checked."""
    server = server or experiment.server
    found = server.client().get_experiment_by_name(experiment.name)
    if found is None:
        return []
    runs = server.client().search_runs([found.experiment_id])
    return [sorted((p.step, p.value) for p in server.points(run.info.run_id)) for run in runs]


_CURVE = [(step, step / 8) for step in range(STEPS)]


# -- sync ------------------------------------------------------------------------------------------


def test_sync_sends_what_is_left_and_a_second_time_nothing(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Sync exits with 0 once everything is stored, and is idempotent."""
    _log_offline(experiment, tmp_path)
    autolog("sync", env=experiment.env, code=0)
    again = autolog("sync", env=experiment.env, code=0)
    assert again.stdout == "nothing is left\n"
    assert _stored(experiment) == [_CURVE]


@pytest.mark.parametrize("level", ["root", "group", "journal"])
def test_sync_takes_a_root_a_group_or_a_journal(
    experiment: Experiment, tmp_path: Path, autolog_home: Path, level: str
) -> None:
    """DIR is whatever holds journals."""
    journal = _log_offline(experiment, tmp_path)
    folder = {"root": autolog_home, "group": journal.parent, "journal": journal}[level]
    autolog("sync", folder, env=experiment.env, code=0)
    assert _stored(experiment) == [_CURVE]


def test_files_are_uploaded_by_sync(experiment: Experiment, tmp_path: Path) -> None:
    """Artifacts logged offline arrive with the metrics."""
    (tmp_path / "notes.txt").write_text("by hand")
    _log_offline(experiment, tmp_path, extra='autolog.log_artifact("notes.txt")')
    autolog("sync", env=experiment.env, code=0)
    run = experiment.only_run()
    (file,) = experiment.server.client().list_artifacts(run.info.run_id)
    assert file.path == "notes.txt"


def test_one_bad_journal_blocks_no_other(experiment: Experiment, tmp_path: Path) -> None:
    """An unreadable journal is said, costs the exit status, and nothing else."""
    bad, good = _log_offline(experiment, tmp_path), _log_offline(experiment, tmp_path)
    (bad / layout.META).write_text('{"format": 1, "owner": ')
    done = autolog("sync", env=experiment.env, code=1)
    assert str(bad) in done.stdout
    assert str(good) not in done.stdout
    assert _stored(experiment) == [_CURVE]


def test_a_target_that_stays_down_is_given_up_and_its_values_kept(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Sync says how much is left and why; later the same command sends it."""
    with FaultyProxy(experiment.server.url) as proxy:
        proxy.refuse()
        experiment.env["MLFLOW_TRACKING_URI"] = proxy.url
        _log_offline(experiment, tmp_path)
        done = autolog("sync", "--timeout", "1", env=experiment.env, code=1)
        assert f"{STEPS} values pending" in done.stdout
        assert "refused" in done.stdout
        proxy.pass_on()
        autolog("sync", env=experiment.env, code=0)
        assert _stored(experiment) == [_CURVE]


def test_ctrl_c_leaves_at_once(experiment: Experiment, tmp_path: Path) -> None:
    """Also while a server that never answers is waited for."""
    with FaultyProxy(experiment.server.url) as proxy:
        experiment.env["MLFLOW_TRACKING_URI"] = proxy.url
        _log_offline(experiment, tmp_path)
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
    assert _stored(experiment) == [_CURVE]
    assert training.poll() is None
    pid = json.loads(state.read_text())["pid"]
    second = autolog("sync", "--timeout", "2", "--to", "http://127.0.0.1:9", env=experiment.env)
    assert second.returncode == 1
    assert f"process {pid}" in second.stdout
    assert done.stdout == "nothing is left\n"
    (tmp_path / "go").write_text("")


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
    assert _stored(experiment) == [_CURVE]
    assert experiment.only_run().info.status == "FAILED"


def test_to_sends_everything_the_journal_holds_elsewhere(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A journal that one server has already is sent whole to the one that --to names."""
    other = f"sqlite:///{tmp_path}/other.db"
    journal = _log_offline(experiment, tmp_path)
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
    assert sorted((point.step, point.value) for point in history) == _CURVE
    assert _stored(experiment) == [_CURVE]


def test_a_refused_run_is_sent_once_the_server_takes_it(
    experiment: Experiment, tmp_path: Path
) -> None:
    """A run whose experiment is deleted is set aside with the reason, and sent once restored."""
    client = experiment.server.client()
    deleted = client.create_experiment(experiment.name)
    client.delete_experiment(deleted)
    journal = _log_offline(experiment, tmp_path)
    for _ in range(2):
        done = autolog("sync", env=experiment.env, code=1)
        assert f"{STEPS} values pending, refused before" in done.stdout
        assert "was deleted" in done.stdout
    client.restore_experiment(deleted)
    autolog("sync", env=experiment.env, code=0)
    assert _stored(experiment) == [_CURVE]
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
    assert _stored(experiment) == [[(0, 0.0), (1, 1.0), (2, 2.0)]]


def test_a_terminal_gets_a_progress_bar(experiment: Experiment, tmp_path: Path) -> None:
    """On a terminal the values are counted on one line."""
    _log_offline(experiment, tmp_path)
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


# -- whom a journal may make us talk to ------------------------------------------------------------


@pytest.fixture
def user(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with every kind of credential for his own server."""
    home = tmp_path / "home"
    (home / ".mlflow").mkdir(parents=True)
    saved = f"[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = {SECRET}\n"
    (home / ".mlflow" / "credentials").write_text(saved)
    (home / ".netrc").write_text(f"machine 127.0.0.1 login u password {SECRET}\n")
    (home / ".netrc").chmod(0o600)
    return {
        "HOME": str(home),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_TRACKING_TOKEN": SECRET,
    }


def _foreign_journal(tmp_path: Path, target: str) -> Path:
    journal = tmp_path / "received" / "group" / "journal"
    lay_out(journal, [losses(3)])
    write_meta(journal, target=target)
    shutil.copy(journal / layout.OWNER_LOCK, journal / "copy")
    (journal / "copy").replace(journal / layout.OWNER_LOCK)
    return journal


def test_a_journal_gets_no_credential_for_the_target_it_names(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """A server that only the journal names is sent no header from environment or files."""
    autolog("sync", _foreign_journal(tmp_path, faulty.url), env=user, code=0)
    assert faulty.count("log-batch") > 0
    for request in faulty.requests:
        assert "authorization" not in {name.lower() for name in request.headers}
        assert SECRET not in str(request.headers)


def test_a_named_target_gets_the_credential(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """--to and MLFLOW_TRACKING_URI name it."""
    journal = _foreign_journal(tmp_path, faulty.url)
    autolog("sync", journal, "--to", faulty.url, env=user, code=0)
    assert all("Authorization" in request.headers for request in faulty.requests)


def test_an_unnamed_target_that_wants_a_credential_is_answered_with_the_remedy(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """401 from a server that only the journal names: the command that names it is said."""
    faulty.status(401)
    started = time.monotonic()
    done = autolog("sync", _foreign_journal(tmp_path, faulty.url), env=user, code=1)
    assert time.monotonic() - started < 30
    assert f"--to {faulty.url}" in done.stdout


def test_a_foreign_journal_may_not_choose_a_database(tmp_path: Path, user: dict[str, str]) -> None:
    """A file, a database or a plugin has to be named by the user."""
    database = tmp_path / "theirs.db"
    journal = _foreign_journal(tmp_path, f"sqlite:///{database}")
    done = autolog("sync", journal, env=user, code=1)
    assert f"--to sqlite:///{database}" in done.stdout
    assert not database.exists()
    autolog("sync", journal, "--to", f"sqlite:///{database}", env=user, code=0)
    assert database.exists()


def test_the_own_journals_may_choose_a_database(experiment: Experiment, tmp_path: Path) -> None:
    """A run logged to a local database is synced there from any folder."""
    database = f"sqlite:///{tmp_path}/mine.db"
    _log_offline(experiment, tmp_path, MLFLOW_TRACKING_URI=database)
    (tmp_path / "elsewhere").mkdir()
    autolog("sync", cwd=tmp_path / "elsewhere", code=0)

    from mlflow import MlflowClient

    found = MlflowClient(database).get_experiment_by_name(experiment.name)
    assert found is not None
    assert len(MlflowClient(database).search_runs([found.experiment_id])) == 1


def test_a_hostile_journal_reaches_nothing_outside_itself(
    faulty: FaultyProxy, tmp_path: Path, user: dict[str, str]
) -> None:
    """Names with .. and links upload no file of the user's and write none, named target or not."""
    secret = tmp_path / "home" / "id_rsa"
    secret.write_text("PRIVATE KEY")
    before = _everything_in(tmp_path / "home")
    for number, (names, links) in enumerate(_attacks(secret)):
        journal = tmp_path / f"received{number}" / "group" / "journal"
        bodies = [*losses(2), *(encoded(Artifact(1, name, "x.txt")) for name in names)]
        bodies.append(_unchecked(records.RUN, key=f"../../../{'a' * 20}", run=2))
        lay_out(journal, [bodies])
        write_meta(journal, target=faulty.url)
        for name, place in links.items():
            (journal / name).parent.mkdir(parents=True, exist_ok=True)
            (journal / name).symlink_to(place)
        uploads = [[KEY, name, "x.txt"] for name in names]
        state = Progress(uploads=uploads, run_ids={KEY: "f" * 32})
        if layout.PROGRESS not in links:
            state.store(journal)
        autolog("sync", journal, "--timeout", "5", "--to", faulty.url, env=user)
    assert "PRIVATE KEY" not in str([request.body for request in faulty.requests])
    assert _everything_in(tmp_path / "home") == before


def _attacks(secret: Path) -> Iterator[tuple[list[str], dict[str, Path]]]:
    home = secret.parent
    yield [f"../../../../home/{secret.name}", str(secret), "a/../../../x"], {}
    yield [secret.name], {layout.FILES: home}
    yield ["link"], {f"{layout.FILES}/link": secret}
    yield [], {layout.HELD: home}
    yield [], {layout.PROGRESS: secret, f"{layout.PROGRESS}.partial": secret}
    yield [], {layout.REJECTED: secret, "../shipper.json": secret, "../shipper.lock": secret}
    yield [], {"../shipper.json.partial": secret, "../shipper.log": secret}


def _unchecked(kind: int, **changes: Any) -> bytes:
    body = records.encode(run_start(**changes))
    assert body[0] == kind
    return body


def _everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


# -- status ----------------------------------------------------------------------------------------


def test_status_shows_what_waits_and_then_what_is_stored(
    experiment: Experiment, tmp_path: Path
) -> None:
    """--check exits with 1 while something waits, and the table names target, owner and counts."""
    journal = _log_offline(experiment, tmp_path)
    waiting = autolog("status", "--check", env=experiment.env, code=1)
    (row,) = [line.split() for line in waiting.stdout.splitlines() if line.startswith(journal.name)]
    assert row == [journal.name, "dead", "0", str(STEPS), "0", "0"]
    assert experiment.server.url in waiting.stdout
    assert progress.load(journal) == Progress()  # it only looked

    autolog("sync", env=experiment.env, code=0)
    stored = autolog("status", "--check", env=experiment.env, code=0)
    (row,) = [line.split() for line in stored.stdout.splitlines() if line.startswith(journal.name)]
    run_id = experiment.only_run().info.run_id
    assert row == [journal.name, "dead", run_id, str(STEPS), "0", "0", "0"]


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


# -- clean -----------------------------------------------------------------------------------------


def test_clean_removes_what_is_stored_and_keeps_the_rest(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Only journals whose values are on the server go, and --force removes others and says so."""
    stored = _log_offline(experiment, tmp_path)
    autolog("sync", env=experiment.env, code=0)
    waiting = _log_offline(experiment, tmp_path)

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


# -- doctor ----------------------------------------------------------------------------------------


def test_doctor_is_content_with_a_server_that_answers(
    mlflow_server: MlflowServer, tmp_path: Path, user: dict[str, str], autolog_home: Path
) -> None:
    """It names versions, target, kind of credential and journals, and never the credential."""
    env = {**user, "MLFLOW_TRACKING_URI": mlflow_server.url}
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


# -- strict ----------------------------------------------------------------------------------------


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
