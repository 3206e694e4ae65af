"""Models in a workspace, which knows no logged models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from support import run_script

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn

_DATA = """
    import os, sys
    import numpy as np
    X = np.random.default_rng(0).normal(size=(60, 4))
    y = (X.sum(axis=1) > 0).astype(int)
"""

_TRAIN = f"""{_DATA}
    import autolog
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    class Mine(LogisticRegression):
        pass

    autolog.enable(workspace=os.environ["WORKSPACE"], experiment="models")
    with autolog.run("two"):
        make_pipeline(FunctionTransformer(lambda rows: rows * 2), Mine()).fit(X, y)
        autolog.register_model("first")
    LogisticRegression(C=0.5).fit(X, y)
    receipt = autolog.flush(90)
    assert receipt.complete, receipt
    autolog.register_model("second")
    receipt = autolog.flush(60)
    assert receipt.complete and not receipt.rejected, receipt
"""

_LOAD = f"""{_DATA}
    import json, mlflow
    mlflow.set_tracking_uri(os.environ["WORKSPACE"])
    client = mlflow.MlflowClient()
    found = {{}}
    for run in client.search_runs([client.get_experiment_by_name("models").experiment_id]):
        uri = f"runs:/{{run.info.run_id}}/model"
        model, served = mlflow.sklearn.load_model(uri), mlflow.pyfunc.load_model(uri)
        found[run.info.run_name.partition("-")[0]] = {{
            "right": bool((model.predict(X) == y).mean() > 0.9),
            "alike": bool((model.predict(X) == served.predict(X)).all()),
            "versions": [
                (version.name, version.source == f"{{run.info.artifact_uri}}/model")
                for version in client.search_model_versions(f"run_id='{{run.info.run_id}}'")
            ],
        }}
    json.dump(found, open("found.json", "w"))
"""


def test_models_are_there_and_registered(workspace: StandIn, tmp_path: Path) -> None:
    """In the run's folder, from where Azure's own plugin loads them, and in the registry."""
    environ = {
        **workspace.environ("service principal"),
        "WORKSPACE": workspace.uri,
        "AUTOLOG_LOG_MODELS": "1",
    }
    for program in (_TRAIN, _LOAD):
        done = run_script(program, cwd=tmp_path, env=environ, timeout=150)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    expected = {"right": True, "alike": True}
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "two": {**expected, "versions": [["first", True]]},
        "LogisticRegression": {**expected, "versions": [["second", True]]},
    }
