from __future__ import annotations

import copy
import datetime as dt
import json
import os
import shutil
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from commands import autolog as command
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightnings import Regression, loader, trainer
from logged import only
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from support import run_script
from torch import nn
from torch.utils.data import DataLoader

import autolog

if TYPE_CHECKING:
    from logged import Logged, LoggedRun
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

def note(flavor, values, name="model"):
    run = autolog.last_run()
    predicted[f"{run.name}/{name}"] = flavor, np.asarray(values).tolist()

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
        self.log("step", float(self.global_step))
        return torch.nn.functional.mse_loss(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

module = Module()
saving = pl.callbacks.ModelCheckpoint("checkpoints", monitor="step", mode="min")
quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False)
pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[saving], **quiet).fit(module, loader)
note("pytorch", module(torch.tensor(X32)).detach())
best = Module.load_from_checkpoint(saving.best_model_path)
note("pytorch", best(torch.tensor(X32)).detach(), "best_model")

import keras

class Scale(keras.layers.Layer):
    def call(self, rows):
        return rows * 2.0

for layers in ([], [Scale()]):
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X32, y, verbose=0)
    note("keras+Scale" if layers else "keras", model.predict(X32, verbose=0))

inputs = [keras.Input((4,), name=name) for name in "ab"]
for given in ([X32, X32], {"a": X32, "b": X32}):
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.add(inputs)))
    model.compile("sgd", "mse")
    model.fit(given, y, verbose=0)
    note("keras", model.predict(given, verbose=0))

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

def data_for(flavor, model):
    if flavor == "sklearn":
        return X
    return {"a": X32, "b": X32} if type(model).__name__ == "Functional" else X32

def predict(flavor, model, data):
    if flavor == "pytorch":
        import torch
        return model(torch.tensor(data)).detach().numpy()
    return model.predict(data) if flavor == "sklearn" else model.predict(data, verbose=0)

for noted, (kind, expected) in json.load(open("predicted.json")).items():
    run_name, name = noted.split("/")
    (run,) = client.search_runs(["0"], f"tags.mlflow.runName = '{run_name}'")
    uri = f"runs:/{run.info.run_id}/{name}"
    flavor, _, custom = kind.partition("+")
    more = {}
    if custom:
        import keras
        scale = type("Scale", (keras.layers.Layer,), {"call": lambda self, rows: rows * 2.0})
        more = {"custom_objects": {"Scale": scale}}
    if flavor == "pytorch":
        more = {"map_location": "cpu"}
    model = importlib.import_module(f"mlflow.{flavor}").load_model(uri, **more)
    data = data_for(flavor, model)
    np.testing.assert_allclose(predict(flavor, model, data), expected, rtol=1e-6)
    if not custom:
        served = mlflow.pyfunc.load_model(uri)
        np.testing.assert_allclose(served.predict(data), expected, rtol=1e-6)
    info = mlflow.models.get_model_info(uri)
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert version.name == "ours", version
    folder = mlflow.artifacts.download_artifacts(uri)
    requirements = open(f"{folder}/requirements.txt").read().replace("-cpu", "").split()
    found = loaded[f"{run_name.rpartition('-')[0]}/{name}"] = {
        "requirements": sorted(line.partition("==")[0] for line in requirements)
    }
    for side in ("inputs", "outputs"):
        schema = getattr(info.signature, side, None)
        if schema is not None:
            found[side] = schema.to_dict()
    if info.saved_input_example_info:
        example = mlflow.models.Model.load(folder).load_input_example(folder)
        parts = example.values() if isinstance(example, dict) else [example]
        for part in parts:
            np.testing.assert_allclose(part, X[:5], rtol=1e-6)
        if not custom:
            np.testing.assert_allclose(served.predict(example), expected[:5], rtol=1e-5)
        found["examples"] = len(parts)
    if hasattr(client, "search_logged_models"):
        source = f"source_run_id = '{run.info.run_id}' AND name = '{name}'"
        (logged,) = client.search_logged_models(["0"], source)
        assert str(logged.status) == "READY", logged
        assert logged.params == run.data.params
        assert {m.key: m.value for m in logged.metrics} == run.data.metrics
        assert logged.model_id in [output.model_id for output in run.outputs.model_outputs]
json.dump(loaded, open(os.environ["FOUND"], "w"))
"""
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journals of a program that has trained in each framework, and sent nothing.

    With what the models predict.
    """
    folder = tmp_path_factory.mktemp("trained")
    environ = {"AUTOLOG_DIR": str(folder / "home"), "AUTOLOG_MODE": "offline"}
    done = run_script(_TRAIN, cwd=folder, env={**environ, "AUTOLOG_LOG_MODELS": "1"}, timeout=150)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


class TestLoading:
    """MLflow loads what was logged, and it predicts the same values."""

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.long), "server"])
    def test_each_flavor(
        self,
        trained: Path,
        kind: str,
        new_store: Callable[[], str],
        request: pytest.FixtureRequest,
        tmp_path: Path,
    ) -> None:
        """In another process, without the classes of the program that trained."""
        server: MlflowServer | None = None
        if kind == "server":
            server = request.getfixturevalue("mlflow_server")
        uri = server.url if server else new_store()
        copy = shutil.copytree(trained / "home", tmp_path / "copy")
        command("sync", copy, "--to", uri, code=0)
        environ = {"MLFLOW_TRACKING_URI": uri, "FOUND": kind}
        done = run_script(_LOAD, cwd=trained, env=environ, timeout=150)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        assert json.loads((trained / kind).read_text()) == EXPECTED


def _tensors(dtype: str, *shapes: tuple[int, ...]) -> list[list[dict[str, Any]]]:
    """MLflow's schemas of one tensor each."""
    return [
        [{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": [*shape]}}] for shape in shapes
    ]


_ROWS, _PREDICTED = _tensors("float32", (-1, 4), (-1, 1))
_KERAS = ["keras", "mlflow", "numpy", "tensorflow"]
_MODULE = {
    "inputs": _ROWS,
    "examples": 1,
    "requirements": ["cloudpickle", "lightning", "mlflow", "numpy", "torch"],
}
EXPECTED = {
    "Pipeline/model": {
        "inputs": _tensors("float64", (-1, 4))[0],
        "outputs": _tensors("int64", (-1,))[0],
        "requirements": ["cloudpickle", "mlflow", "numpy", "scikit-learn", "scipy"],
        "examples": 1,
    },
    "Net/model": {
        "inputs": _ROWS,
        "examples": 1,
        "requirements": ["cloudpickle", "mlflow", "numpy", "torch"],
    },
    "Module/model": _MODULE,
    "Module/best_model": _MODULE,
    "Sequential/model": {
        "inputs": _ROWS,
        "outputs": _PREDICTED,
        "examples": 1,
        "requirements": _KERAS,
    },
    "Functional/model": {
        "inputs": [{"name": name, **_ROWS[0]} for name in "ab"],
        "outputs": _PREDICTED,
        "examples": 2,
        "requirements": _KERAS,
    },
}


class TestBounds:
    """A model that may not, or cannot, be logged costs a line."""

    @pytest.fixture
    def models(self, logged: Logged) -> Callable[[], list[str]]:
        """The artifacts of all runs, where models are logged."""
        autolog.enable(log_models=True)
        return lambda: [path for run in logged() for path, _ in run.uploads]

    @pytest.mark.parametrize(
        ("bound", "words"),
        [
            ({"model_megabytes": 1}, "more than model_megabytes=1"),
            ({"model_seconds": 0}, "longer than model_seconds=0"),
        ],
    )
    def test_over_budget(
        self,
        models: Callable[[], list[str]],
        logged: Logged,
        *,
        autolog_home: Path,
        capsys: pytest.CaptureFixture[str],
        bound: dict[str, Any],
        words: str,
    ) -> None:
        """It is given up at the bound, said once with the setting, and noted in the run."""
        autolog.enable(silent=False, **bound)
        rows = np.zeros((150_000, 2))
        for _ in range(2):
            KNeighborsRegressor().fit(rows, rows[:, 0])
        assert models() == []
        assert capsys.readouterr().err.count(words) == 1
        for run in logged():
            assert words in run.tags["autolog.model"]
        assert list(autolog_home.glob("*/*/files/*")) == []

    def test_what_cannot_be_pickled(
        self,
        models: Callable[[], list[str]],
        logged: Logged,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The training is logged otherwise."""

        class Locked(LinearRegression):
            def __getstate__(self) -> Any:
                raise TypeError("no pickles of me")

        autolog.enable(silent=False)
        Locked().fit([[1.0], [2.0]], [1.0, 2.0])
        assert models() == []
        assert "it cannot be stored (TypeError: no pickles of me)" in capsys.readouterr().err
        (run,) = logged()
        assert run.params["fit_intercept"] == "True"

    def test_a_torch_model_over_budget(
        self, models: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Known from its parameters, before a byte is written."""
        autolog.enable(silent=False, model_megabytes=1)
        net = torch.nn.Linear(1000, 300)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        autolog.watch(net, optimizer)
        net(torch.zeros(2, 1000)).sum().backward()
        optimizer.step()
        autolog.end_run()
        assert models() == []
        assert "more than model_megabytes=1 (here 1)" in capsys.readouterr().err

    def test_in_the_middle_of_a_module(
        self, models: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Whose size is not that of its parameters; what torch says of it is not the reason."""
        autolog.enable(silent=False, model_megabytes=1)
        net = torch.nn.Linear(2, 1)
        net.tables = [torch.zeros(200_000), torch.zeros(200_000)]
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        autolog.watch(net, optimizer)
        net(torch.zeros(2, 2)).sum().backward()
        optimizer.step()
        autolog.end_run()
        assert models() == []
        said = capsys.readouterr().err
        assert "takes more than model_megabytes=1. A higher value" in said
        assert "RuntimeError" not in said

    def test_while_nobody_takes_them(
        self,
        models: Callable[[], list[str]],
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Models that wait are bounded, as values are."""
        monkeypatch.setenv("AUTOLOG_JOURNAL_LIMIT", str(1 << 20))
        autolog.enable(silent=False)
        rows = np.zeros((70_000, 2))
        for _ in range(3):
            KNeighborsRegressor().fit(rows, rows[:, 0])
        assert models() == ["model"]
        assert capsys.readouterr().err.count("take journal_limit=1048576") == 1

    def test_off(self, models: Callable[[], list[str]]) -> None:
        """By option; by its variable the other tests go without."""
        autolog.enable(log_models=False)
        LinearRegression().fit([[1.0], [2.0]], [1.0, 2.0])
        assert models() == []

    def test_of_a_search(self, models: Callable[[], list[str]]) -> None:
        """The search, and its best estimator."""
        GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2).fit(np.eye(4), np.arange(4.0))
        assert sorted(path for path in models() if "." not in path) == ["best_estimator", "model"]


def _are_same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    assert some.keys() == others.keys()
    return all(torch.equal(some[name], others[name]) for name in some)


def _module_in(run: LoggedRun, name: str = "model") -> Any:
    """A module that was logged."""
    return torch.load(run.models[name] / "data" / "model.pth", weights_only=False)


class Scored(Regression):
    """A module that gets worse, or better, by each epoch; with all kinds of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.twin = self.layer[0]
        self.layer[2].bias.requires_grad_(False)
        self.register_buffer("scale", torch.ones(2), persistent=False)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log("score", float(self.current_epoch))

    def on_train_end(self) -> None:
        self.trained = copy.deepcopy(self.state_dict())


class Deed:
    """Does something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("done",)


class Kept:
    """Counts how often one is unpickled."""

    unpickled = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, int]) -> None:
        Kept.unpickled += 1
        self.__dict__.update(state)


class TestLightning:
    """The module as the fit has left it, and the best checkpoint's."""

    @pytest.fixture
    def fit(self, logged: Logged, tmp_path: Path) -> Callable[..., ModelCheckpoint]:
        """Fits a module of which the first epoch is the best; gives the checkpoints of that."""
        autolog.enable(log_models=True, silent=False)

        def fit(module: Any, **options: Any) -> ModelCheckpoint:
            chosen = {"monitor": "score", "mode": "min", **options}
            saving = ModelCheckpoint(tmp_path / "checkpoints", **chosen)
            trainer(callbacks=[saving]).fit(module, loader())
            return saving

        return fit

    @pytest.mark.parametrize("save_weights_only", [False, True])
    def test_the_best(
        self, fit: Callable[..., ModelCheckpoint], logged: Logged, *, save_weights_only: bool
    ) -> None:
        """It has the checkpoint's weights, and the user's module is as it was."""
        module = Scored()
        saving = fit(module, save_weights_only=save_weights_only)
        best = _module_in(only(logged()), "best_model")
        checkpoint = torch.load(saving.best_model_path)["state_dict"]
        assert _are_same(best.state_dict(), checkpoint)
        assert not _are_same(module.trained, checkpoint)
        assert _are_same(module.state_dict(), module.trained)
        assert best.twin.weight is best.layer[0].weight
        assert [p.requires_grad for p in best.parameters()] == [True] * 5 + [False]
        assert best.scale.tolist() == [1, 1]

    def test_the_best_is_the_last(
        self, fit: Callable[..., ModelCheckpoint], logged: Logged
    ) -> None:
        """One model, and a tag that names it."""
        fit(Scored(), mode="max")
        run = only(logged())
        assert list(run.models) == ["model"]
        assert run.tags["autolog.best_model"] == "model"

    def test_nothing_is_monitored(
        self,
        fit: Callable[..., ModelCheckpoint],
        logged: Logged,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Then none is best."""
        fit(Scored(), monitor=None, every_n_epochs=2)
        run = only(logged())
        assert list(run.models) == ["model"]
        assert "autolog.best_model" not in run.tags
        assert "best_model" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("entry", "value", "words"),
        [
            ("state_dict", {"other": torch.ones(1)}, "has other tensors than the module"),
            ("deed", Deed(), "weights_only=True"),
        ],
    )
    def test_a_checkpoint_of_another_kind(
        self,
        fit: Callable[..., ModelCheckpoint],
        logged: Logged,
        *,
        capsys: pytest.CaptureFixture[str],
        entry: str,
        value: object,
        words: str,
    ) -> None:
        """The run has its model, and a line says why not the best."""

        class Changing(Scored):
            def on_save_checkpoint(self, checkpoint: Any) -> None:
                checkpoint[entry] = value

        fit(Changing())
        run = only(logged())
        assert list(run.models) == ["model"]
        assert words in run.tags["autolog.best_model"]
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "best_model" in each]
        assert words in line

    def test_other_objects_of_a_checkpoint(
        self, fit: Callable[..., ModelCheckpoint], logged: Logged
    ) -> None:
        """Whatever else the program keeps in it, the weights are read and the rest is not made."""

        class Keeping(Scored):
            def on_save_checkpoint(self, checkpoint: Any) -> None:
                checkpoint["kept"] = [Path("data"), Fraction(1, 2), Kept(1), {"a": Kept}]

        fit(Keeping())
        assert list(only(logged()).models) == ["model", "best_model"]
        assert not Kept.unpickled

    def test_averaged_weights(self, logged: Logged) -> None:
        """Those that a callback puts into the module when the training is over."""
        autolog.enable(log_models=True)
        averaging = StochasticWeightAveraging(0.05, swa_epoch_start=1)
        module = Regression()
        trainer(max_epochs=4, callbacks=[averaging], enable_checkpointing=False).fit(
            module, loader()
        )
        model = _module_in(only(logged()))
        assert torch.equal(model.layer.weight, module.layer.weight)


class TestExamples:
    """The first rows of the training data, beside the model."""

    @pytest.fixture
    def example(self, logged: Logged) -> Callable[[], Any]:
        """The one that the newest run has."""
        autolog.enable(log_models=True, log_input_examples=True)

        def read() -> Any:
            file = logged()[-1].models["model"] / "input_example.json"
            return json.loads(file.read_text()) if file.exists() else None

        return read

    def test_gaps(self, example: Callable[[], Any]) -> None:
        """As MLflow has them in JSON, which knows no NaN."""
        HistGradientBoostingRegressor().fit(np.array([[1.0], [np.nan], [2.0]]), [1.0, 2.0, 3.0])
        assert example() == [[1.0], [None], [2.0]]

    @pytest.mark.parametrize(("width", "rows"), [(90_000, 2), (200_001, None)])
    def test_wide_rows(self, example: Callable[[], Any], width: int, rows: int | None) -> None:
        """Fewer are taken, or none."""
        DummyRegressor().fit(np.zeros((9, width)), np.zeros(9))
        found = example()
        assert (found and len(found)) == rows

    def test_what_json_cannot_hold(self, example: Callable[[], Any]) -> None:
        """The model is logged without an example."""
        DummyRegressor().fit(np.array([[dt.date.min]], dtype=object), [1.0])
        assert example() is None

    def test_a_batch_that_is_used_again(self, example: Callable[[], Any]) -> None:
        """The rows are those that the loop was given first."""
        batch = torch.zeros(3, 2)
        numbers = [0.0, 1.0, 2.0]
        _train(DataLoader(numbers, collate_fn=lambda each: batch.add_(each[0])))
        assert example() == [[0, 0]] * 3


class TestTorch:
    """What is known of the inputs of a model that was named."""

    @pytest.mark.parametrize(
        ("options", "inputs"),
        [({}, _tensors("float32", (-1, 2))[0]), ({"log_model_signatures": False}, None)],
    )
    def test_signature(
        self, logged: Logged, options: dict[str, Any], inputs: list[dict[str, Any]] | None
    ) -> None:
        """By the first batch of a loader; the outputs are not known."""
        autolog.enable(log_models=True, **options)
        _train(DataLoader(torch.zeros(6, 2), batch_size=2))
        signature = _description(only(logged()))["signature"]
        assert (signature and json.loads(signature["inputs"])) == inputs
        assert not signature or signature["outputs"] is None

    def test_without_a_loader(self, logged: Logged) -> None:
        """There is no signature, and no example."""
        autolog.enable(log_models=True, log_input_examples=True)
        _train([torch.zeros(3, 2)])
        described = _description(only(logged()))
        assert (described["signature"], described["example"]) == (None, None)


def _train(batches: Iterable[torch.Tensor]) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    autolog.watch(net, optimizer)
    for rows in batches:
        net(rows).sum().backward()
        optimizer.step()
    autolog.end_run()


def _description(run: LoggedRun) -> Any:
    """What the other files of the run's model are written from."""
    return json.loads(run.files["model"])


_BESIDE = (
    """
import mlflow
import autolog
autolog.enable()
mlflow.autolog()
"""
    + _DATA
    + """
from sklearn.linear_model import LogisticRegression
LogisticRegression().fit(X, y)

import keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(X32, y, verbose=0)

import torch
import pytorch_lightning as pl
from pytorch_lightning.demos.boring_classes import BoringModel
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
pl.Trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, **quiet).fit(BoringModel())

from xgboost import XGBClassifier
XGBClassifier(n_estimators=2).fit(X, y)

assert autolog.flush(90).complete
client = mlflow.MlflowClient()
for run in client.search_runs(["0"]):
    models = client.search_logged_models(["0"], f"source_run_id = '{run.info.run_id}'")
    assert [model.name for model in models] == ["model"], (run.info.run_name, models)
    assert "autolog.model_key" not in models[0].tags
    print("a run")
"""
)


@pytest.mark.long
@pytest.mark.recent
def test_beside_mlflows_autologging(new_store: Callable[[], str], tmp_path: Path) -> None:
    """Where MLflow logs the model, in any flavor, ours leaves it to it."""
    environ = {"MLFLOW_TRACKING_URI": new_store(), "AUTOLOG_LOG_MODELS": "1"}
    done = run_script(_BESIDE, cwd=tmp_path, env=environ, timeout=170)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("a run") == 4


def test_a_registration_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Said, and raised with strict."""
    autolog.enable(mode="offline")
    autolog.register_model("ours")
    assert "register_model('ours'): no run yet" in capsys.readouterr().err
    autolog.enable(strict=True)
    with pytest.raises(ValueError, match="no run yet; train something first"):
        autolog.register_model("ours")
