"""Settings from arguments and variables, and the target: MLflow's own rules, without MLflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readback import Experiment
from support import run_script

from autolog import credentials, environment, settings, targets
from autolog.settings import SettingError
from autolog.targets import Target


def _old_store(folder: Path) -> None:
    (folder / "mlruns" / "0").mkdir(parents=True)
    (folder / "mlruns" / "0" / "meta.yaml").write_text("name: Default\n")


def _empty_mlruns(folder: Path) -> None:
    (folder / "mlruns" / ".trash").mkdir(parents=True)
    (folder / "mlruns" / "models").mkdir()


def _database(folder: Path) -> None:
    (folder / "mlflow.db").touch()


PLACES = {
    "empty folder": lambda folder: None,
    "mlruns with experiments": _old_store,
    "mlruns without experiments": _empty_mlruns,
    "mlflow.db": _database,
}
SETTINGS = [
    {},
    {"MLFLOW_TRACKING_URI": "http://example.com:5000"},
    {"MLFLOW_TRACKING_URI": "elsewhere/mlruns"},
    {"MLFLOW_TRACKING_URI": "sqlite:///elsewhere.db"},
    {"MLFLOW_TRACKING_URI": "databricks"},
    {"MLFLOW_TRACKING_URI": ""},
]


def test_the_target_is_mlflows_own(tmp_path: Path) -> None:
    """In every folder and environment: what mlflow.get_tracking_uri() says, made absolute."""
    for name, make in PLACES.items():
        folder = tmp_path / name
        folder.mkdir()
        make(folder)
    done = run_script(
        f"""
        import json, os, sys
        from pathlib import Path
        from autolog import targets
        def asked(uri):
            answers = {{}}
            for place in {sorted(PLACES)!r}:
                os.chdir(Path({str(tmp_path)!r}) / place)
                for number, variables in enumerate({SETTINGS!r}):
                    os.environ.pop("MLFLOW_TRACKING_URI", None)
                    os.environ.update(variables)
                    answers[f"{{place}} {{number}}"] = uri()
            return answers
        ours = asked(lambda: targets.current().uri)
        assert "mlflow" not in sys.modules
        import mlflow
        theirs = asked(lambda: targets.absolute(mlflow.get_tracking_uri()))
        print(json.dumps([ours, theirs]))
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)
    assert ours == theirs
    assert ours["mlruns with experiments 0"].startswith("file:///")
    assert ours["empty folder 0"] == f"sqlite:///{tmp_path}/empty folder/mlflow.db"
    assert ours["empty folder 4"] == "databricks"


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("http://host/x", "http://host/x"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("sqlite:///x.db", "sqlite:///{cwd}/x.db"),
        ("mlruns", "file://{cwd}/mlruns"),
        ("/var/mlruns", "file:///var/mlruns"),
        ("file:mlruns", "file://{cwd}/mlruns"),
        ("file:///var/mlruns", "file:///var/mlruns"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("postgresql://u:p@h/db", "postgresql://u:p@h/db"),
    ],
)
def test_a_tracking_uri_means_the_same_from_every_folder(given: str, absolute: str) -> None:
    """Relative paths are made absolute, everything else stays as it is."""
    assert targets.absolute(given) == absolute.format(cwd=Path.cwd())


def test_a_public_uri_has_no_password() -> None:
    """What may be shown and stored keeps host and path only."""
    target = Target("https://me:secret@host:5000/path")
    assert target.public_uri == "https://host:5000/path"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("disabled", "TRUE", True),
        ("strict", "off", False),
        ("mode", "thread", "thread"),
        ("batch_seconds", "0.5", 0.5),
        ("log_every_n_steps", "10", 10),
        ("journal_limit", "1048576", 1048576),
        ("dir", "~/logs", Path.home() / "logs"),
    ],
)
def test_each_setting_has_a_variable(name: str, text: str, value: object) -> None:
    """``AUTOLOG_<NAME>`` sets it; an argument wins over it."""
    chosen, origins = settings.resolve({}, {f"AUTOLOG_{name.upper()}": text})
    assert getattr(chosen, name) == value
    assert origins[name] == f"AUTOLOG_{name.upper()}"
    _, origins = settings.resolve({name: value}, {f"AUTOLOG_{name.upper()}": text})
    assert origins[name] == "argument"


@pytest.mark.parametrize(
    ("name", "text"),
    [("mode", "fast"), ("strict", "maybe"), ("batch_seconds", "nan"), ("journal_limit", "1")],
)
def test_a_bad_variable_is_left_out_and_a_bad_argument_refused(name: str, text: str) -> None:
    """A typo in a job's environment stops no training; one in the code is an error."""
    chosen, origins = settings.resolve({}, {f"AUTOLOG_{name.upper()}": text})
    default, _ = settings.resolve({}, {})
    assert getattr(chosen, name) == getattr(default, name)
    assert f"AUTOLOG_{name.upper()}={text!r}" in origins[name]
    with pytest.raises(SettingError, match=f"{name}={text!r}"):
        settings.resolve({name: text}, {})


def test_no_other_file_of_autolog_reads_the_environment() -> None:
    """``os.environ`` has one reader, so that all that decides about a process is found there."""
    folder = Path(settings.__file__).parent
    readers = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    }
    assert readers == {"environment.py"}


# -- against a server ----------------------------------------------------------------------------


def test_variables_of_mlflow_are_honoured(experiment: Experiment, tmp_path: Path) -> None:
    """MLFLOW_RUN_NAME names the run, MLFLOW_EXPERIMENT_ID its experiment."""
    number = experiment.server.client().create_experiment(experiment.name)
    del experiment.env["MLFLOW_EXPERIMENT_NAME"]
    experiment.script(
        """
        import autolog
        autolog.log_metric("m", 1.0)
        """,
        tmp_path,
        MLFLOW_EXPERIMENT_ID=number,
        MLFLOW_RUN_NAME="called this",
    )
    assert experiment.only_run().info.run_name == "called this"


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "AZUREML_RUN_ID"])
def test_a_run_named_by_the_environment_is_adopted_and_not_ended(
    variable: str, experiment: Experiment, tmp_path: Path
) -> None:
    """Trainings and calls go to that run, which stays open; ``run()`` is its child."""
    client = experiment.server.client()
    number = client.create_experiment(experiment.name)
    adopted = client.create_run(number, run_name="the job").info.run_id
    experiment.script(
        """
        import autolog
        from sklearn.linear_model import SGDClassifier
        autolog.enable()
        autolog.log_metric("explicit", 1.0, step=0)
        SGDClassifier(max_iter=3, tol=None).fit([[0.0], [1.0]], [0, 1])
        autolog.end_run("FAILED")
        with autolog.run("part"):
            pass
        """,
        tmp_path,
        **{variable: adopted},
    )
    runs = client.search_runs([number])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "the job": "RUNNING",
        "part": "FINISHED",
    }
    part = next(run for run in runs if run.info.run_name == "part")
    assert Experiment.parent(part) == adopted
    job = client.get_run(adopted)
    assert experiment.values(job, "explicit", 1) == [1.0]
    assert job.data.params["max_iter"] == "3"


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_mlflow_is_told_in_the_program_is_honoured(
    when: str, experiment: Experiment, tmp_path: Path
) -> None:
    """set_tracking_uri and set_experiment count, before enable() and after it."""
    told = f"""
        import mlflow
        mlflow.set_tracking_uri({experiment.server.url!r})
        mlflow.set_experiment({experiment.name!r})
    """
    done = run_script(
        f"""
        import autolog
        {told if when == "before" else ""}
        autolog.enable()
        {told if when == "after" else ""}
        with autolog.run("here"):
            autolog.log_metric("m", 1.0)
        shown = autolog.config()
        print(shown["tracking_uri"].value, shown["experiment"].origin)
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [experiment.server.url, "mlflow.set_experiment"]
    assert list(experiment.runs(1)) == ["here"]


def test_enable_sets_target_and_experiment_for_mlflow_too(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Arguments of enable() win over what mlflow was told before; what it is told later wins."""
    later = Experiment(experiment.server)
    done = run_script(
        f"""
        import autolog, mlflow
        mlflow.set_tracking_uri("sqlite:///local.db")
        mlflow.set_experiment("local")
        autolog.enable(tracking_uri={experiment.server.url!r}, experiment={experiment.name!r})
        with mlflow.start_run(run_name="theirs"):
            pass
        with autolog.run("ours"):
            pass
        mlflow.set_experiment({later.name!r})
        with autolog.run("later"):
            pass
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(experiment.runs(2)) == ["ours", "theirs"]
    assert list(later.runs(1)) == ["later"]


def test_an_active_mlflow_run_takes_what_is_logged_and_is_left_to_its_owner(
    experiment: Experiment, tmp_path: Path
) -> None:
    """Calls inside ``mlflow.start_run`` go to the innermost active run, and none after its end."""
    experiment.script(
        """
        import autolog, mlflow
        autolog.enable()
        with mlflow.start_run(run_name="first"):
            autolog.log_metric("m", 1.0, step=0)
            with mlflow.start_run(run_name="nested", nested=True):
                autolog.log_metric("m", 2.0, step=0)
            autolog.log_metric("m", 3.0, step=1)
            autolog.end_run("FAILED")
            autolog.flush(30)
        with mlflow.start_run(run_name="second"):
            autolog.log_metric("m", 4.0, step=0)
        autolog.log_metric("m", 5.0, step=0)
        """,
        tmp_path,
        MLFLOW_RUN_NAME="",
    )
    runs = experiment.runs(4)
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    own = next(name for name in runs if name.startswith("run-"))
    values = {
        name: experiment.values(run, "m", 2 if name == "first" else 1) for name, run in runs.items()
    }
    assert values == {"first": [1.0, 3.0], "nested": [2.0], "second": [4.0], own: [5.0]}


@pytest.mark.parametrize(
    "name",
    ["KUBERNETES_SERVICE_HOST", "AZUREML_RUN_ID", "SLURM_JOB_ID", "DATABRICKS_RUNTIME_VERSION"],
)
def test_a_job_of_a_platform_goes_away_with_its_process(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each platform is known by its variable."""
    assert not environment.is_ephemeral()
    monkeypatch.setenv(name, "7")
    assert environment.is_ephemeral()


def test_a_container_goes_away_with_its_first_process(tmp_path: Path) -> None:
    """The first process and its children are known to end with it, others are not."""
    script = tmp_path / "inside.py"
    script.write_text("from autolog import environment; print(environment.is_ephemeral())")
    python = f"{sys.executable} {script}"
    mark = "mount -t tmpfs none /run && touch /run/.containerenv"
    commands = f"{mark} && {python}; sh -c '{python}; true'; exec {python}"
    inside = [
        shutil.which("unshare") or "false",
        "--mount",
        "--pid",
        "--fork",
        "sh",
        "-c",
        commands,
    ]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no container can be made here")
    assert done.stdout.split() == ["True", "False", "True"]


def test_the_environment_of_this_test_run_is_clean() -> None:
    """No variable of the machine decides what these tests see."""
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_server_has_time_to_store_what_is_large() -> None:
    """Half a minute, and a second for each 5 MB; MLflow's client reads it at each request."""
    credentials.await_storing(3_000_000_000)
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 630
    credentials.await_storing(1000)
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 30
