"""The public functions do what their docstrings say, against a real MLflow server."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from readback import Experiment
from support import MlflowServer, eventually, run_script

import autolog

_HEAVY = (
    "mlflow requests numpy pandas sklearn torch keras tensorflow lightning pytorch_lightning azure"
    " sqlalchemy urllib3 click rich"
).split()


@pytest.fixture
def experiment(
    mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Experiment]:
    """A fresh experiment on the shared server, which this process logs to."""
    fresh = Experiment(mlflow_server)
    for name, value in fresh.env.items():
        monkeypatch.setenv(name, value)
    return fresh


# -- what is public ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", autolog.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """Each name of ``__all__`` exists, is listed by dir() and says what it does."""
    thing = getattr(autolog, name)
    assert name in dir(autolog)
    assert len(inspect.getdoc(thing) or "") > 20
    if inspect.isfunction(thing):
        signature = inspect.signature(thing, eval_str=True)
        assert signature.return_annotation is not inspect.Signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt function is reported as Python does."""
    with pytest.raises(AttributeError, match="log_metricks"):
        autolog.log_metricks  # noqa: B018 - the access is the test


_USER_CODE = """
from pathlib import Path
import autolog
from autolog import Point, Receipt, RunHandle

autolog.enable(
    tracking_uri=Path("mlruns"), experiment="e", mode="thread", strict=True, silent=True,
    exclusive=False, extra_tags={"team": "a"}, log_every_n_steps=10, batch_seconds=0.5,
    exit_timeout=5, dir="journals",
)
with autolog.run("name", experiment="e", tags={"n": 1}) as run:
    autolog.log_metrics({"a": 1, "b": 2.0}, step=3)
    autolog.log_metric("c", 1.0)
    autolog.log_params({"lr": 0.1, "name": None})
    autolog.set_tags({"t": True})
    autolog.log_artifact(Path("x.txt"), "folder")
    autolog.log_artifacts("folder")
    with autolog.pause():
        pass
handle: RunHandle | None = autolog.last_run()
points: dict[str, list[Point]] = run.metrics(timeout=5)
params: dict[str, str] = run.params()
where: tuple[str | None, str | None, str] = (run.run_id, run.url, run.status)
autolog.end_run("FAILED")
receipt: Receipt = autolog.flush(timeout=1.0)
pending: int = receipt.pending if not receipt.complete else 0
autolog.shutdown(2.0)
origin: str = autolog.config()["mode"].origin
on: object = autolog.status()["enabled"]
autolog.disable()
"""


def test_user_code_passes_mypy_strict(tmp_path: Path) -> None:
    """Every public function is typed for the user: a program that calls them all checks clean."""
    script = tmp_path / "typed.py"
    script.write_text(_USER_CODE)
    bad = tmp_path / "untyped.py"
    bad.write_text("import autolog\nautolog.log_metrics(3, step='x')\n")
    # A cache of its own that lasts: checking autolog itself takes a while.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"),
            *("--no-error-summary", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"),
            *(str(script), str(bad)),
        ],
        capture_output=True,
        text=True,
        timeout=170,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if "untyped.py" not in line] == []
    assert sum('has incompatible type "' in line for line in lines) == 2, done.stdout + done.stderr


def test_import_and_enable_load_nothing_heavy_and_listen_on_nothing(tmp_path: Path) -> None:
    """A fresh process with autolog on has loaded no mlflow and no framework, and has no socket."""
    source = f"""
        import contextlib, json, os, sys
        import autolog
        first = set(sys.modules)
        autolog.enable(mode="offline")
        autolog.log_metric("m", 1.0)
        loaded = [n for n in {_HEAVY!r} if n in sys.modules]
        opened = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed by another thread meanwhile
                opened.append(os.readlink(f"/proc/self/fd/{{fd}}"))
        sockets = [where for where in opened if where.startswith("socket:")]
        late = [n for n in ("autolog.api", "autolog.session", "multiprocessing") if n in first]
        print(json.dumps([loaded, sockets, late]))
    """
    done = run_script(source, cwd=tmp_path)
    assert json.loads(done.stdout) == [[], [], []], done.stderr


# -- enable, disable, config, pause ------------------------------------------------------------


def test_config_names_the_origin_of_each_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, variable, default, and a variable that cannot be used, are told apart."""
    monkeypatch.setenv("AUTOLOG_SILENT", "1")
    monkeypatch.setenv("AUTOLOG_BATCH_SECONDS", "soon")
    autolog.enable(mode="offline", tracking_uri="sqlite:///here.db")
    shown = autolog.config()
    assert shown["mode"] == ("offline", "argument")
    assert shown["silent"] == (True, "AUTOLOG_SILENT")
    assert shown["strict"] == (False, "default")
    assert shown["batch_seconds"].value == 1.0
    assert "AUTOLOG_BATCH_SECONDS='soon'" in shown["batch_seconds"].origin
    assert shown["tracking_uri"] == (f"sqlite:///{Path.cwd()}/here.db", "argument")
    assert shown["experiment"] == (None, "mlflow's default")


def test_enable_again_changes_only_what_is_given() -> None:
    """Options of the first call stay unless the second one names them."""
    autolog.enable(mode="offline", silent=True, extra_tags={"a": "1"})
    autolog.enable(silent=False)
    shown = autolog.config()
    assert shown["mode"].value == "offline"
    assert shown["silent"].value is False
    assert shown["extra_tags"].value == {"a": "1"}


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sometimes"},
        {"batch_seconds": -1},
        {"batch_seconds": "x"},
        {"log_every_n_steps": 0},
        {"log_every_n_steps": 1.5},
        {"extra_tags": "tag"},
        {"tracking_uri": 7},
        {"experiment": 7},
    ],
    ids=str,
)
def test_an_unusable_option_is_an_error_that_names_it(options: dict[str, object]) -> None:
    """``enable`` raises `SettingError` with option and value, and changes nothing."""
    before = autolog.config()
    with pytest.raises(ValueError, match=rf"{next(iter(options))}=.+: .+"):
        autolog.enable(**options)  # type: ignore[arg-type]
    assert autolog.config() == before


def test_a_password_is_shown_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    """User name and password of a tracking URI stand neither in config(), status() nor output."""
    autolog.enable(tracking_uri="http://me:hunter2@127.0.0.1:9/x", mode="offline")
    with autolog.run("r"):
        autolog.log_metric("m", 1.0)
    shown = f"{autolog.config()} {autolog.status()} {autolog.last_run()!r}"
    said = capfd.readouterr()
    assert "127.0.0.1:9" in shown + said.err
    assert "hunter2" not in shown + said.err + said.out
    journal = Path(autolog.status()["journals"][0])
    for file in journal.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()


def test_pause_silences_hooks_only(experiment: Experiment) -> None:
    """In ``with pause():`` a fit is not logged, explicit calls are; afterwards fits are again."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(max_iter=3, tol=None)
    autolog.enable()
    with autolog.pause():
        model.fit([[0.0], [1.0]], [0, 1])
        assert autolog.last_run() is None
        autolog.log_metric("explicit", 1.0, step=0)
    autolog.end_run()
    model.fit([[0.0], [1.0]], [0, 1])
    autolog.disable()
    model.fit([[0.0], [1.0]], [0, 1])
    runs = experiment.runs(2)
    explicit = next(run for name, run in runs.items() if name.startswith("run-"))
    assert experiment.values(explicit, "explicit", 1) == [1.0]
    assert sum(name.startswith("SGDClassifier") for name in runs) == 1


def test_disabled_accepts_every_call_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, autolog_home: Path, tmp_path: Path
) -> None:
    """``AUTOLOG_DISABLED=1``: no hook, no file, no output; a run's handle is empty."""
    monkeypatch.setenv("AUTOLOG_DISABLED", "1")
    autolog.enable()
    with autolog.run("r", tags={"a": "b"}) as run:
        autolog.log_metrics({"a": 1})
        autolog.log_params({"a": 1})
        autolog.set_tags({"a": 1})
        autolog.log_artifact(tmp_path / "absent")
    assert (run.run_id, run.url, run.name, run.status) == (None, None, "", "")
    assert (run.metrics(), run.params(), run.tags()) == ({}, {}, {})
    assert autolog.last_run() is None
    assert autolog.flush().complete
    assert autolog.status()["enabled"] is False
    assert not autolog_home.exists()


# -- runs ----------------------------------------------------------------------------------------


def test_everything_explicit_works_without_enable(experiment: Experiment, tmp_path: Path) -> None:
    """Metrics, params, tags, a file and a folder reach the server; the handle reads them back."""
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "more.txt").write_text("more")
    with autolog.run("whole", tags={"who": "me"}) as run:
        autolog.log_metrics({"a": 1.0, "b": 2.0}, step=5)
        autolog.log_metric("a", 3.0, step=6)
        autolog.log_params({"lr": 0.1, "name": None})
        autolog.set_tags({"stage": 1})
        autolog.set_tags({"stage": 2})
        autolog.log_artifact(tmp_path / "note.txt", "notes")
        autolog.log_artifacts(tmp_path / "folder")
        assert run.status == "RUNNING"
    receipt = autolog.flush(60)
    assert receipt.complete
    assert receipt.logged == receipt.acknowledged == 10
    assert run.status == "FINISHED"
    assert [(p.step, p.value) for p in run.metrics()["a"]] == [(5, 1.0), (6, 3.0)]
    assert run.params() == {"lr": "0.1", "name": "None"}
    assert run.tags().items() >= {"who": "me", "stage": "2"}.items()
    stored = experiment.only_run()
    assert run.run_id == stored.info.run_id
    assert run.url == (
        f"{experiment.server.url}/#/experiments/{stored.info.experiment_id}/runs/{run.run_id}"
    )
    files = experiment.server.client()
    assert [f.path for f in files.list_artifacts(run.run_id, "notes")] == ["notes/note.txt"]
    assert [f.path for f in files.list_artifacts(run.run_id, "deep")] == ["deep/more.txt"]


def test_a_nested_run_is_a_child_run(experiment: Experiment) -> None:
    """The server knows the inner run as child of the outer one, and each call has its own place."""
    with autolog.run("outer"):
        autolog.log_metric("m", 1.0, step=0)
        with autolog.run("inner"):
            autolog.log_metric("m", 2.0, step=0)
        autolog.log_metric("m", 3.0, step=1)
    runs = experiment.runs(2)
    assert experiment.parent(runs["inner"]) == runs["outer"].info.run_id
    assert experiment.parent(runs["outer"]) is None
    assert experiment.values(runs["outer"], "m", 2) == [1.0, 3.0]
    assert experiment.values(runs["inner"], "m", 1) == [2.0]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_the_users_exception_passes_and_sets_the_status(
    error: type[BaseException], status: str, experiment: Experiment
) -> None:
    """What leaves ``with run():`` is the very same exception; open inner runs end with it."""
    mine = error("mine")
    with pytest.raises(error) as caught, autolog.run("outer"), autolog.run("inner"):
        raise mine
    assert caught.value is mine
    assert {run.info.status for run in experiment.runs(2).values()} == {status}


def test_end_run_ends_the_current_run(experiment: Experiment) -> None:
    """``end_run`` takes MLflow's three words; the next call opens another run."""
    autolog.end_run()
    autolog.log_metric("m", 1.0)
    first = autolog.last_run()
    with pytest.raises(ValueError, match="status='DONE': use one of FINISHED, FAILED, KILLED"):
        autolog.end_run("DONE")
    autolog.end_run("FAILED")
    autolog.log_metric("m", 2.0)
    autolog.end_run()
    second = autolog.last_run()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == ("FAILED", "FINISHED")
    runs = experiment.runs(2)
    assert runs[first.name].info.status == "FAILED"
    assert experiment.values(runs[second.name], "m", 1) == [2.0]


def test_run_goes_to_the_experiment_it_names(experiment: Experiment) -> None:
    """``run(experiment=)`` makes the experiment where it is absent, for this run only."""
    other = Experiment(experiment.server)
    with autolog.run("there", experiment=other.name):
        pass
    with autolog.run("here"):
        pass
    assert list(other.runs(1)) == ["there"]
    assert list(experiment.runs(1)) == ["here"]


def test_steps_count_up_where_none_is_given(experiment: Experiment) -> None:
    """Each name has its own next step, behind the newest one that was given."""
    with autolog.run("r"):
        for _ in range(3):
            autolog.log_metric("a", 1.0)
        autolog.log_metrics({"a": 1.0, "b": 1.0})
        autolog.log_metric("b", 1.0, step=10)
        autolog.log_metrics({"a": 1.0, "b": 1.0})
    run = experiment.only_run()
    steps = sorted((p.key, p.step) for p in experiment.points(run))
    assert steps == [("a", n) for n in range(5)] + [("b", n) for n in (0, 10, 11)]


def test_timestamps_never_go_back(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back during a run does not move its points back in time."""
    import time

    real = time.time_ns
    shifts = iter([0, 0, 5_000, -3_600_000, -3_600_000, 0])
    with autolog.run("r"):
        for step in range(6):
            shift = next(shifts)
            monkeypatch.setattr(time, "time_ns", lambda shift=shift: real() + shift * 1_000_000)
            autolog.log_metric("m", step, step=step)
        monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
    monkeypatch.undo()
    run = experiment.only_run()
    times = [p.timestamp for p in sorted(experiment.points(run), key=lambda p: p.step)]
    assert times == sorted(times)
    assert times[2] - times[1] >= 4_000
    assert run.info.end_time >= times[-1] >= run.info.start_time


def test_flush_gives_up_in_time_and_says_what_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody at the other end ``flush`` returns by its timeout, and the receipt tells."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    autolog.log_metrics({"a": 1.0, "b": 2.0})
    receipt = autolog.flush(0.3)
    assert (receipt.complete, receipt.pending) == (False, 2)
    assert "2 pending" in str(receipt)
    run = autolog.last_run()
    assert run is not None
    with pytest.raises(TimeoutError, match="its values are safe: autolog sync"):
        run.metrics(timeout=0.1)


def test_strict_makes_what_is_pending_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``AUTOLOG_STRICT=1`` flush raises on pending values, and enable on a dead target."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOLOG_STRICT", "1")
    autolog.log_metrics({"a": 1.0, "b": 2.0})
    with pytest.raises(RuntimeError, match="2 pending"):
        autolog.flush(0.1)
    with pytest.raises(RuntimeError, match="http://127.0.0.1:9 cannot be used"):
        autolog.enable()
    assert autolog.status()["enabled"] is False


def test_strict_is_content_with_a_server_that_stores_all(experiment: Experiment) -> None:
    """With strict a run whose values all arrive, doubles included, ends without an error."""
    autolog.enable(strict=True)
    with autolog.run("strict"):
        autolog.log_metrics({"a": 1.0}, step=0)
        autolog.set_tags({"stage": 1})
        autolog.set_tags({"stage": 2})
    assert autolog.flush(30).complete
    assert experiment.only_run().data.tags["stage"] == "2"


def test_shutdown_ends_runs_and_a_later_call_still_counts(experiment: Experiment) -> None:
    """``shutdown`` ends what is open and waits; logging after it opens a new run."""
    autolog.enable()
    autolog.log_metric("m", 1.0)
    assert autolog.shutdown(60).complete
    assert autolog.status()["open_runs"] == []
    assert autolog.status()["enabled"] is False
    first = experiment.only_run()
    assert first.info.status == "FINISHED"
    autolog.log_metric("m", 2.0)
    assert autolog.shutdown(60).complete
    assert len(experiment.runs(2)) == 2


@pytest.mark.parametrize("uri", ["server", "local"])
def test_mode_thread_sends_without_a_process(
    uri: str, experiment: Experiment, new_store: Callable[[], str], tmp_path: Path
) -> None:
    """``mode="thread"`` delivers by the end of the program from this process alone."""
    target = experiment.server.url if uri == "server" else new_store()
    done = run_script(
        f"""
        import autolog, psutil
        autolog.enable(mode="thread", tracking_uri={target!r})
        with autolog.run("threaded") as run:
            autolog.log_metrics({{"a": 1.0}}, step=0)
        assert autolog.flush(60).complete
        assert psutil.Process().children() == []
        print([p.value for p in run.metrics()["a"]])
        """,
        cwd=tmp_path,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[1.0]"


def test_mode_offline_keeps_everything_and_waits_for_nothing(
    autolog_home: Path, tmp_path: Path
) -> None:
    """Offline nothing is sent and no process started; flush returns at once, strict or not."""
    done = run_script(
        """
        import time, autolog, psutil
        autolog.enable(mode="offline", strict=True)
        started = time.monotonic()
        with autolog.run("kept"):
            autolog.log_metrics({"a": 1.0, "b": 2.0}, step=0)
        receipt = autolog.flush(60)
        assert time.monotonic() - started < 5
        assert (receipt.pending, receipt.acknowledged) == (2, 0), receipt
        assert psutil.Process().children() == []
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert f"autolog sync {autolog_home}" in done.stderr
    assert not (tmp_path / "mlflow.db").exists()


def test_silent_prints_nothing(experiment: Experiment, tmp_path: Path) -> None:
    """``silent`` keeps start, receipt and warnings off the terminal."""
    source = """
        import autolog
        autolog.enable(silent=SILENT)
        autolog.log_metrics({"a": 1.0, "b": "bad"})
        autolog.flush(30)
    """
    loud = run_script(source.replace("SILENT", "False"), cwd=tmp_path, env=experiment.env)
    quiet = run_script(source.replace("SILENT", "True"), cwd=tmp_path, env=experiment.env)
    assert loud.stderr.count("autolog: ") >= 3
    assert (quiet.stdout, quiet.stderr) == ("", "")


def test_status_shows_what_is_on_and_open(experiment: Experiment) -> None:
    """``status`` has switch, open runs, receipt, errors, journals and the state of the shipper."""
    autolog.enable()
    with autolog.run("open"):
        shown = autolog.status()
        assert shown["enabled"] is True
        assert shown["open_runs"] == ["open"]
        assert shown["internal_errors"] == {}
        assert Path(shown["journals"][0]).is_dir()
        eventually(lambda: all(s.pid for s in autolog.status()["shippers"].values()), 20)
