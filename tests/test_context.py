"""Where a run was started: our tags beside those of a run that MLflow's fluent API makes."""

from __future__ import annotations

import getpass
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logged import logged_runs
from readback import Experiment
from support import MlflowServer, run_script
from test_notebook import Notebook

from autolog import context

_BOTH = """
    import json, autolog, mlflow
    with autolog.run("ours"):
        pass
    mlflow.set_tracking_uri("file:./store")
    with mlflow.start_run() as run:
        print(json.dumps(mlflow.get_run(run.info.run_id).data.tags))
"""
"""Logs a run of each kind; prints the tags of MLflow's."""

_OFFLINE = {"AUTOLOG_MODE": "offline", "MLFLOW_ALLOW_FILE_STORE": "true"}
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    **{f"GIT_{who}_NAME": "somebody" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "somebody@example.org" for who in ("AUTHOR", "COMMITTER")},
}


def run_git(folder: Path, *words: str) -> None:
    """Run git there."""
    folder.mkdir(exist_ok=True)
    env = {**os.environ, **_GIT}
    subprocess.run(["git", *words], cwd=folder, env=env, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on the branch ``main``, and a remote that needs a password."""
    folder = tmp_path / "repository"
    run_git(folder, "init", "--initial-branch", "main")
    run_git(folder, "commit", "--allow-empty", "--message", "first")
    run_git(folder, "remote", "add", "origin", "https://user:secret@example.org/team/project.git")
    return folder


def compared(output: str, home: Path) -> dict[str, str]:
    """The tags of our run, which must be those of MLflow's."""
    theirs = json.loads(output.splitlines()[-1])
    del theirs["mlflow.runName"]
    (run,) = logged_runs(home)
    assert run.tags == theirs
    return run.tags


# -- whole programs --------------------------------------------------------------------------------


def test_a_script_in_a_repository(mlflow_server: MlflowServer, repository: Path) -> None:
    """On the server, the run of an unchanged training has the fields of MLflow's own run."""
    experiment = Experiment(mlflow_server)
    source = """
        import autolog
        autolog.enable()
        from sklearn.linear_model import LinearRegression
        LinearRegression().fit([[0.0], [1.0]], [0, 1])
        assert autolog.flush(30).complete
        import mlflow
        with mlflow.start_run(run_name="theirs"):
            pass
    """
    experiment.script(source, repository, MLFLOW_RUN_CONTEXT='{"team": "vision"}')
    runs = experiment.runs(2)
    theirs = runs.pop("theirs")
    ((name, ours),) = runs.items()
    assert re.fullmatch("LinearRegression-[0-9a-f]{6}", name)
    tags = ours.data.tags
    assert tags.pop("mlflow.autologging") == "sklearn"
    for added in ("autolog.run_key", "estimator_class", "estimator_name", "mlflow.runName"):
        del tags[added]
    for added in ("autolog.run_key", "mlflow.runName"):
        del theirs.data.tags[added]
    assert tags == theirs.data.tags
    assert tags["team"] == "vision"
    assert tags["mlflow.source.git.repoURL"] == "https://example.org/team/project.git"
    same = ("experiment_id", "lifecycle_stage", "status", "user_id")
    assert {key: getattr(ours.info, key) for key in same} == {
        key: getattr(theirs.info, key) for key in same
    }


def test_a_module_that_runs_as_a_program(repository: Path, autolog_home: Path) -> None:
    """``python -m`` has the module's file as source, and the user that MLflow's client logs in."""
    package = repository / "project"
    package.mkdir()
    (package / "train.py").write_text(_dedented(_BOTH))
    done = subprocess.run(
        [sys.executable, "-m", "project.train"],
        cwd=repository,
        env={**os.environ, **_OFFLINE, "MLFLOW_TRACKING_USERNAME": "ada"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    tags = compared(done.stdout, autolog_home)
    assert tags["mlflow.source.name"] == str(package / "train.py")
    assert tags["mlflow.source.git.branch"] == "main"
    assert tags["mlflow.user"] == "ada"


def test_a_notebook(repository: Path, autolog_home: Path) -> None:
    """A cell's run is a notebook's, by the name that editor or server gave the kernel."""
    notebook = Notebook(repository, {**_OFFLINE, "IPYNB_FILE": "/home/ada/study.ipynb"})
    try:
        status, printed = notebook.cell(_dedented(_BOTH))
        assert status == "ok", printed
        tags = compared(printed, autolog_home)
        assert (tags["mlflow.source.type"], tags["mlflow.source.name"]) == (
            "NOTEBOOK",
            "study.ipynb",
        )
        status, printed = notebook.cell(
            "import os; from autolog import context; del os.environ['IPYNB_FILE']\n"
            "os.environ['JPY_SESSION_NAME'] = '/home/ada/other.ipynb'\n"
            "print(context.tags()['mlflow.source.name'])"
        )
        assert printed.strip() == "other.ipynb"
    finally:
        notebook.kill()


_REPL_CONTEXT = """
from types import SimpleNamespace
def get_context():
    return SimpleNamespace(
        isInNotebook={notebook}, isInJob={job}, isInCluster=True, aclPathOfAclRoot=None,
        notebookId="17", notebookPath="/Users/ada/study", apiUrl="https://region.example.org",
        workspaceUrl="{host}", workspaceId="42", clusterId="c-1", jobGroupId="g-1",
        jobId="7", idInJob="8", jobTaskType="NORMAL", mlflowGitRelativePath="study",
        mlflowGitRepoUrl="https://example.org/r.git", mlflowGitRepoProvider="example",
        mlflowGitRepoCommit="a" * 40, mlflowGitRepoReference="main",
        mlflowGitRepoReferenceType="branch", mlflowGitRepoStatus=None,
    )
"""


@pytest.mark.parametrize(
    ("notebook", "job", "source"),
    [(True, False, "/Users/ada/study"), (False, True, "jobs/7/run/8"), (False, False, None)],
    ids=["notebook", "job", "neither"],
)
def test_databricks(
    notebook: bool,
    job: bool,
    source: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Databricks' runtime tells is tagged as MLflow tags it; the runtime is a stand-in."""
    runtime: Any = type(sys)("dbruntime")
    told: Any = type(sys)("dbruntime.databricks_repl_context")
    exec(_REPL_CONTEXT.format(notebook=notebook, job=job, host="one.example.org"), vars(told))
    monkeypatch.setitem(sys.modules, "dbruntime", runtime)
    monkeypatch.setitem(sys.modules, "dbruntime.databricks_repl_context", told)
    from mlflow.tracking.context.registry import resolve_tags

    ours = context.tags()
    assert ours == resolve_tags()
    assert ours["mlflow.databricks.cluster.id"] == "c-1"
    assert ours["mlflow.source.name"] == source or source is None


@pytest.mark.parametrize("given", ["{", "[1]"])
def test_a_run_context_that_is_no_object_is_said(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that cannot be used costs no other tag, and is named once."""
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", given)
    assert "mlflow.user" in context.tags()
    assert context.tags()["mlflow.source.type"] == "LOCAL"
    assert capsys.readouterr().err.count("MLFLOW_RUN_CONTEXT is not used") == 1


def test_the_user_of_mlflows_credentials_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who logs in by ``~/.mlflow/credentials`` is the user; a broken file names nobody."""
    from mlflow.tracking.context.registry import resolve_tags

    folder = tmp_path / ".mlflow"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder / "credentials").write_text("[mlflow]\nmlflow_tracking_username = ad%a\n")
    monkeypatch.setattr(context, "_user", context._user.__wrapped__)
    assert context.tags()["mlflow.user"] == "ad%a"
    (folder / "credentials").write_text("[mlflow]\nmlflow_tracking_username = ada\n")
    assert context.tags()["mlflow.user"] == resolve_tags()["mlflow.user"] == "ada"
    (folder / "credentials").write_text("no section")
    assert context.tags()["mlflow.user"] == getpass.getuser()


# -- states of a repository ------------------------------------------------------------------------


def _unborn(folder: Path) -> Path:
    run_git(folder.parent / "unborn", "init")
    return folder.parent / "unborn"


def _detached(folder: Path) -> Path:
    run_git(folder, "checkout", "--detach")
    return folder


def _packed(folder: Path) -> Path:
    run_git(folder, "checkout", "-b", "feature/packed")
    run_git(folder, "commit", "--allow-empty", "--message", "second")
    run_git(folder, "pack-refs", "--all")
    return folder


def _worktree(folder: Path) -> Path:
    run_git(folder, "worktree", "add", "-b", "other", "../linked")
    run_git(folder.parent / "linked", "commit", "--allow-empty", "--message", "there")
    return folder.parent / "linked"


def _nested(folder: Path) -> Path:
    (folder / "deep" / "er").mkdir(parents=True)
    return folder / "deep" / "er"


def _without_remote(folder: Path) -> Path:
    run_git(folder, "remote", "remove", "origin")
    return folder


def _two_remotes(folder: Path) -> Path:
    run_git(folder, "remote", "add", "another", "git@example.org:team/other.git")
    return folder


def _symbolic(folder: Path) -> Path:
    run_git(folder, "symbolic-ref", "refs/heads/alias", "refs/heads/main")
    run_git(folder, "symbolic-ref", "HEAD", "refs/heads/alias")
    return folder


@pytest.mark.parametrize(
    "state",
    [
        lambda folder: folder,
        lambda folder: folder.parent,
        *(
            _unborn,
            _detached,
            _packed,
            _worktree,
            _nested,
            _without_remote,
            _two_remotes,
            _symbolic,
        ),
    ],
)
def test_git_is_read_as_mlflow_has_it(state: Callable[[Path], Path], repository: Path) -> None:
    """Commit, branch and URL of each state of a repository are those that git itself names."""
    from mlflow.utils import git_utils

    main = state(repository) / "train.py"
    main.touch()
    theirs = {
        "mlflow.source.git.commit": git_utils.get_git_commit(str(main)),
        "mlflow.source.git.branch": git_utils.get_git_branch(str(main)),
        "mlflow.source.git.repoURL": git_utils.get_git_repo_url(str(main)),
    }
    told = {tag: value for tag, value in theirs.items() if value is not None}
    assert context._git(str(main)) == (told if "mlflow.source.git.commit" in told else {})


def test_an_environment_is_no_part_of_the_repository_around_it(repository: Path) -> None:
    """A program of ``.venv/bin`` has no commit: MLflow leaves out what git ignores."""
    from mlflow.utils import git_utils

    environment = repository / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "pyvenv.cfg").touch()
    (repository / ".gitignore").write_text(".venv")
    program = environment / "bin" / "launch"
    program.touch()
    assert context._git(str(program)) == {}
    assert git_utils.get_git_commit(str(program)) is None


def test_no_process_is_started(repository: Path) -> None:
    """Context tags start no process, import nothing heavy, and take under a millisecond each."""
    done = run_script(
        """
        import subprocess, sys, time
        subprocess.Popen = None
        from autolog import context
        first = context.tags()
        started = time.process_time()
        for _ in range(100):
            context.tags()
        assert time.process_time() - started < 0.1
        assert first["mlflow.source.git.branch"] == "main"
        assert not {"mlflow", "git", "IPython"} & set(sys.modules)
        """,
        cwd=repository,
    )
    assert done.returncode == 0, done.stderr


def _dedented(source: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in source.splitlines())
