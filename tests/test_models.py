from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import autolog as command
from support import run_script

if TYPE_CHECKING:
    from support import MlflowServer

_DATA = """
import numpy as np
X = np.random.default_rng(0).normal(size=(60, 4))
y = (X.sum(axis=1) > 0).astype(int)
X32 = X.astype("float32")
"""

_TRAIN = (
    """
import json, sys
import autolog
autolog.enable(log_input_examples=True, registered_model_name="ours")
"""
    + _DATA
    + """
predicted = {}

def note(flavor, values):
    run = autolog.last_run()
    predicted[run.name] = flavor, np.asarray(values).tolist()

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

class Mine(LogisticRegression):
    pass

fitted = make_pipeline(FunctionTransformer(lambda rows: rows * 2), Mine()).fit(X, y)
note("sklearn", fitted.predict(X))

import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, rows):
        return self.layer(rows)

net = Net()
compiled = torch.compile(net, backend="eager")
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
autolog.watch(compiled, optimizer)
loader = torch.utils.data.DataLoader(list(zip(X32, y.astype("float32")[:, None])), batch_size=20)
for _ in range(2):
    for rows, targets in loader:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(compiled(rows), targets).backward()
        optimizer.step()
note("pytorch", net(torch.tensor(X32)).detach())
autolog.end_run()

import lightning.pytorch as pl

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, rows):
        return self.layer(rows)

    def training_step(self, batch, _):
        return torch.nn.functional.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

module = Module()
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
pl.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet).fit(module, loader)
note("pytorch", module(torch.tensor(X32)).detach())

import keras

class Scale(keras.layers.Layer):
    def call(self, rows):
        return rows * 2.0

for layers in ([], [Scale()]):
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X32, y, verbose=0)
    note("keras+Scale" if layers else "keras", model.predict(X32, verbose=0))

json.dump(predicted, open("predicted.json", "w"))
"""
)

_LOAD = (
    """
import importlib, json, os, sys
import mlflow
"""
    + _DATA
    + """
client = mlflow.MlflowClient()
loaded = {}

def predict(flavor, model):
    if flavor == "pytorch":
        import torch
        return model(torch.tensor(X32)).detach().numpy()
    return model.predict(X) if flavor == "sklearn" else model.predict(X32, verbose=0)

for name, (kind, expected) in json.load(open("predicted.json")).items():
    (run,) = client.search_runs(["0"], f"tags.mlflow.runName = '{name}'")
    uri = f"runs:/{run.info.run_id}/model"
    flavor, _, custom = kind.partition("+")
    more = {}
    if custom:
        import keras
        scale = type("Scale", (keras.layers.Layer,), {"call": lambda self, rows: rows * 2.0})
        more = {"custom_objects": {"Scale": scale}}
    if flavor == "pytorch":
        more = {"map_location": "cpu"}
    model = importlib.import_module(f"mlflow.{flavor}").load_model(uri, **more)
    np.testing.assert_allclose(predict(flavor, model), expected, rtol=1e-6)
    if not custom:
        served = mlflow.pyfunc.load_model(uri)
        given = X if flavor == "sklearn" else X32
        np.testing.assert_allclose(served.predict(given), expected, rtol=1e-6)
    info = mlflow.models.get_model_info(uri)
    loaded[name] = {
        "signature": str(info.signature),
        "inputs": info.signature and info.signature.inputs.to_dict(),
        "requirements": sorted(
            line.partition("==")[0] for line in
            open(mlflow.pyfunc.get_model_dependencies(uri)).read().split()
        ),
        "registered": [
            (v.name, v.run_id == run.info.run_id)
            for v in client.search_model_versions(f"run_id = '{run.info.run_id}'")
        ],
    }
json.dump(loaded, open(sys.argv[1], "w"))
"""
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journals of a program that has trained in each framework, and sent nothing.

    With what the models predict.
    """
    folder = tmp_path_factory.mktemp("trained")
    environ = {"AUTOLOG_DIR": str(folder / "home"), "AUTOLOG_MODE": "offline"}
    run_script(_TRAIN, cwd=folder, env={**environ, "AUTOLOG_LOG_MODELS": "1"}, timeout=150)
    return folder


class TestLoading:
    """MLflow loads what was logged, and it predicts the same values."""

    @pytest.mark.parametrize("kind", ["sqlite", "server"])
    def test_each_flavor(
        self,
        trained: Path,
        kind: str,
        new_store: Callable[[], str],
        request: pytest.FixtureRequest,
    ) -> None:
        """In another process, without the classes of the program that trained."""
        server: MlflowServer | None = None
        if kind == "server":
            server = request.getfixturevalue("mlflow_server")
        uri = server.url if server else new_store()
        command("sync", trained / "home", "--to", uri, code=0)
        run_script(_LOAD, kind, cwd=trained, env={"MLFLOW_TRACKING_URI": uri}, timeout=150)
        loaded = json.loads((trained / kind).read_text())
        assert loaded == {}
