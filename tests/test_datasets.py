"""Datasets of a run: described as MLflow describes them, without reading what costs something."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import keras_trainings
import lightnings
import mlflow
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
import torch
import torch_loops
from classifiers import X, Y, only
from faults import FaultyProxy, Reply, _pass
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import autolog
from autolog import recorder
from autolog.callbacks import datasets
from autolog.callbacks.datasets import EVAL, TRAIN, Used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logged import Logged, LoggedRun
    from support import MlflowServer

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(0)
LARGE = RNG.normal(size=(5000, 3))
LABELS = np.array(["cat", "dog"])[RNG.integers(0, 2, 5000)]


def described(logged: Logged, features: Any, targets: Any = None) -> dict[str, Any]:
    """What a training with such data logs of it."""
    with recorder.get().begin_training(described, flavor="test", name="test") as training:
        datasets.log(training, lambda: [Used(TRAIN, features, targets)])
    (found,) = logged()[-1].inputs
    dataset: dict[str, Any] = found["dataset"]
    return dataset


def profile_of(dataset: dict[str, Any]) -> Any:
    """Sizes, as logged."""
    return json.loads(dataset["profile"])


def contexts(run: LoggedRun) -> list[str]:
    """What each dataset of a run is used for."""
    return [tag["value"] for each in run.inputs for tag in each["tags"]]


ARRAYS: dict[str, tuple[Any, Any]] = {
    "numbers": (LARGE, RNG.integers(0, 3, 5000)),
    "by columns, without targets": (np.asfortranarray(LARGE), None),
    "NaN and two zeros": (np.array([[np.nan, -0.0, 0.0]], "f4"), np.array([True])),
    "texts": (LARGE.astype("f2"), LABELS),
    "objects": (LARGE[:20] > 0, LABELS[:20].astype(object)),
    "dates": (np.array(["2020-01-01", "2021-01-01"], "M8[D]"), np.array([1j, 2])),
    "several": ({"right": LARGE, "left": LARGE[:, 0]}, {"a": LABELS}),
    "one number": (np.array(7.0), None),
}


_OLDER = pytest.mark.recent
"""Where older releases of pandas or MLflow say something else."""


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=_OLDER if "NaN" in kind else ()) for kind in ARRAYS],
)
def test_arrays(logged: Logged, kind: str) -> None:
    """Every field is that of MLflow's own description."""
    features, targets = ARRAYS[kind]
    theirs = mlflow.data.from_numpy(features, targets=targets).to_dict()
    assert {"schema": None, **described(logged, features, targets)} == theirs


FRAMES = {
    "kinds": pd.DataFrame(
        {
            "text": ["a", "b"],
            "missing text": ["a", None],
            "number": [1.5, np.nan],
            "flag": [True, False],
            "small": np.array([1, 2], "u1"),
            "day": pd.to_datetime(["2020-01-01", None]),
            "kind": pd.Categorical(["x", "y"]),
            "nullable": pd.array([1, None], "Int64"),
        }
    ),
    "long": pd.DataFrame({"b": LARGE.ravel(), "t": LABELS.repeat(3), "a": range(15000)}),
    "without names": pd.DataFrame(LARGE),
    "mixed": pd.DataFrame({"a": [1, "b"], "n": [1, 2]}),
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=_OLDER if kind == "kinds" else ()) for kind in FRAMES],
)
def test_frames(logged: Logged, kind: str) -> None:
    """The same of frames, whose targets MLflow leaves out."""
    theirs = mlflow.data.from_pandas(FRAMES[kind]).to_dict()
    assert {"schema": None, **described(logged, FRAMES[kind], LABELS)} == theirs


def test_wide_frames_are_read_less_far(logged: Logged) -> None:
    """The digest is of some of the cells, and a frame of very many columns has no schema."""
    numbers = np.zeros((2000, 2000))
    frame = pd.DataFrame(numbers)
    numbers[-1, -1] = 1
    other = described(logged, pd.DataFrame(numbers))
    assert other == described(logged, frame)
    assert "schema" not in other
    assert profile_of(other) == {"num_rows": 2000, "num_elements": 4_000_000}


def test_what_lies_in_memory_is_read_where_it_is(logged: Logged) -> None:
    """Tensors on the host, sparse matrices and series have the digest of the same numpy array."""
    small = np.where(LARGE > 1, LARGE, 0)
    wanted = mlflow.data.from_numpy(small).to_dict()
    for same in (
        torch.from_numpy(small).requires_grad_(),
        tf.constant(small),
        scipy.sparse.csr_matrix(small),
    ):
        found = described(logged, same)
        assert (found["digest"], found["schema"]) == (wanted["digest"], wanted["schema"])
    by_series = described(logged, LARGE, pd.Series(LABELS))
    assert by_series["digest"] == mlflow.data.from_numpy(LARGE, targets=LABELS).digest
    column = described(logged, scipy.sparse.csc_matrix(small))
    assert column["schema"] == wanted["schema"]


def test_what_is_somewhere_else_is_not_read(logged: Logged) -> None:
    """Of a tensor on a device there is type and shape."""
    found = described(logged, torch.zeros(5, 2, device="meta"), [1, 2, 3])
    (spec,) = json.loads(json.loads(found["schema"])["mlflow_tensorspec"]["features"])
    assert spec["tensor-spec"] == {"dtype": "float32", "shape": [-1, 2]}
    assert profile_of(found) == {"features_shape": [5, 2], "targets_shape": [3]}


class Photos(Dataset[Any]):
    shape, dtype, device = (9, 2), "float32", "cpu"

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("it is not iterated")


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def _failing() -> Iterator[Any]:
    raise AssertionError("it is not iterated")
    yield


def test_what_would_have_to_be_iterated(logged: Logged) -> None:
    """A pipeline is what it says of itself; others have their class, and a length if they know."""
    pipeline = tf.data.Dataset.from_tensor_slices(({"a": LARGE}, LABELS)).batch(16)
    theirs = mlflow.data.from_tensorflow(pipeline.map(lambda x, y: (x["a"], y)))
    found = described(logged, pipeline)
    assert profile_of(found) == theirs.profile
    assert found["schema"] == json.dumps(theirs.schema.to_dict()).replace(r"\"0\"", r"\"0/a\"")

    found = described(logged, DataLoader(Subset(Photos(), [1, 2]), batch_size=2))
    assert found["name"] == "Photos"
    kind = "torch.utils.data.dataset.Subset"
    assert profile_of(found) == {"type": kind, "num_rows": 2, "batch_size": 2}
    found = described(logged, DataLoader(Photos()))
    assert profile_of(found) == {"features_shape": [9, 2], "batch_size": 1}

    found = described(logged, _failing())
    assert (found["name"], profile_of(found)) == ("dataset", {"type": "builtins.generator"})
    assert profile_of(described(logged, Hostile())) == {"type": f"{__name__}.Hostile"}
    assert profile_of(described(logged, [[1, 2]] * 7)) == {"features_shape": [7, 2]}


def test_scikit_learn(logged: Logged) -> None:
    """The data of the outermost fit, once; nothing with the setting off."""
    GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2).fit(X, Y)
    run = only(logged())
    assert contexts(run) == [TRAIN]
    assert profile_of(run.inputs[0]["dataset"])["features_shape"] == list(X.shape)
    assert sum(len(each.inputs) for each in logged()) == 1
    autolog.enable(log_datasets=False)
    Ridge().fit(X, Y)
    assert logged()[-1].inputs == []


def test_keras(logged: Logged) -> None:
    """What a fit trains on, and what it validates with."""
    x, y = keras_trainings.X, keras_trainings.Y
    keras_trainings.fit(keras_trainings.eager_model(), validation_data=(x[:5], y[:5]), epochs=1)
    (run,) = logged()
    assert contexts(run) == [TRAIN, EVAL]
    theirs = [mlflow.data.from_numpy(x, targets=y), mlflow.data.from_numpy(x[:5], targets=y[:5])]
    assert [each["dataset"] for each in run.inputs] == [each.to_dict() for each in theirs]


def test_lightning(logged: Logged) -> None:
    """What is behind the loaders of a fit, of several validations too."""
    model = lightnings.Talkative()
    model.validation_step = lambda batch, index, dataloader_idx=0: None  # type: ignore[method-assign,misc,assignment]
    validations = [lightnings.loader(8), DataLoader(TensorDataset(lightnings.X))]
    lightnings.trainer(max_epochs=1).fit(model, lightnings.loader(), validations)
    (run,) = logged()
    assert contexts(run) == [TRAIN, EVAL, EVAL]
    found = [profile_of(each["dataset"]) for each in run.inputs]
    assert [each["batch_size"] for each in found] == [lightnings.BATCH, 8, 1]
    assert found[0]["targets_shape"] == [50, 1]


def test_torch(logged: Logged) -> None:
    """What is behind the loader of the first step, also where only its iterator is kept."""
    model = torch_loops.linear()
    torch_loops.train(model, torch_loops.loader(), torch_loops.sgd(model))
    model = torch_loops.linear()
    torch_loops.train(model, iter(torch_loops.loader()), torch_loops.sgd(model), epochs=1)
    theirs = mlflow.data.from_numpy(torch_loops.X.numpy(), targets=torch_loops.Y.numpy())
    for run in logged():
        assert contexts(run) == [TRAIN]
        assert run.inputs[0]["dataset"]["digest"] == theirs.digest


_REFUSALS = {
    "refused": Reply(400, b'{"error_code": "BAD_REQUEST", "message": "no inputs"}'),
    "unknown": Reply(404, b""),
}


@pytest.mark.parametrize("answer", _REFUSALS)
def test_a_server_that_takes_none(
    faulty: FaultyProxy, mlflow_server: MlflowServer, answer: str
) -> None:
    """It has the rest of the run; nothing is refused, for nobody has asked for more."""

    def refuse(handler: Any, request: Any) -> None:
        if "log-inputs" in request.path:
            handler.send(_REFUSALS[answer])
        else:
            _pass(handler, request)

    faulty._switch(refuse)
    autolog.enable(tracking_uri=faulty.url, mode="thread", silent=True)
    Ridge().fit(X, Y)
    receipt = autolog.flush(30)
    assert receipt.complete, receipt
    assert not receipt.rejected
    assert faulty.count("log-inputs") == 1
    run = autolog.last_run()
    assert run is not None
    assert mlflow_server.client().get_run(run.run_id).info.status == "FINISHED"


def test_a_server_that_takes_them(mlflow_server: MlflowServer) -> None:
    """They are there as MLflow's client reads them, and count as no values."""
    autolog.enable(tracking_uri=mlflow_server.url, mode="thread", silent=True, log_datasets=True)
    Ridge().fit(X, Y)
    receipt = autolog.flush(30)
    assert receipt.complete, receipt
    run = autolog.last_run()
    assert run is not None
    (found,) = mlflow_server.client().get_run(run.run_id).inputs.dataset_inputs
    assert dict(found.dataset) == mlflow.data.from_numpy(X, targets=Y).to_dict()
