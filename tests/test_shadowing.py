"""People keep a ``callbacks.py``, ``queue.py`` or ``random.py`` beside ``train.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import MlflowServer, SqliteStore, run_script

TRAIN = """
    import importlib
    import os

    name = os.environ["SHADOWING"]
    if "FIRST" in os.environ:
        importlib.import_module(name)

    import autolog

    autolog.enable()
    with autolog.run():
        autolog.log_metric("answer", 42.0)
        autolog.log_params({"depth": 3})
    receipt = autolog.flush(60)
    assert receipt.complete, receipt

    print(importlib.import_module(name).MINE)
"""


@pytest.fixture(params=["callbacks", "queue", "random"])
def shadowing(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a module that stands in the working folder and has nothing but ``MINE``."""
    (tmp_path / f"{request.param}.py").write_text("MINE = 'the module of the user'\n")
    return str(request.param)


@pytest.mark.parametrize("order", ["autolog first", "autolog last"])
def test_a_server_gets_everything(
    shadowing: str, order: str, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    """With a server, to which the shipper posts itself, the value is stored."""
    before = set(mlflow_server.run_ids())
    env = {"FIRST": "the module"} if order == "autolog last" else {}
    _train(tmp_path, shadowing, {**env, "MLFLOW_TRACKING_URI": mlflow_server.url})
    (run_id,) = set(mlflow_server.run_ids()) - before
    assert {(p.key, p.value) for p in mlflow_server.points(run_id)} == {("answer", 42.0)}


def test_a_local_target_gets_everything(
    shadowing: str, tmp_path: Path, new_store: Callable[[], str]
) -> None:
    """With a local store, for which the shipper loads mlflow, the value is stored."""
    store = SqliteStore.of(new_store())
    _train(tmp_path, shadowing, {"MLFLOW_TRACKING_URI": store.uri})
    (run_id,) = store.run_ids()
    assert {(p.key, p.value) for p in store.points(run_id)} == {("answer", 42.0)}


def _train(folder: Path, shadowing: str, env: dict[str, str]) -> None:
    """Run the script, which sees no error of ours and gets its own module."""
    done = run_script(TRAIN, cwd=folder, env={**env, "SHADOWING": shadowing}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == "the module of the user\n"
