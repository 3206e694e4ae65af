"""Libraries that log to MLflow leave the same runs, with ``autolog.enable()`` and without.

Each library runs in one fresh process, first without and then with, to a local store and to a
server. What ours adds to a run of theirs is named here to the last key.
"""

from __future__ import annotations

import textwrap
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import mlflow_trainings as trainings
import pytest
from mlflow import MlflowClient
from mlflow_fields import Fields, added, runs_of
from support import run_script

if TYPE_CHECKING:
    from support import MlflowServer

_BOTH = """
import os, warnings
warnings.simplefilter("ignore")
import autolog
import mlflow

{source}
for uri in os.environ["URIS"].split():
    mlflow.set_tracking_uri(uri)
    for side in ("without", "with"):
        EXPERIMENT = os.environ["NAME"] + " " + side
        mlflow.set_experiment(EXPERIMENT)
        if side == "with":
            autolog.enable(silent=True)
        train()
        assert autolog.flush(60).complete
        autolog.disable()
"""

Sides = tuple[list[Fields], list[Fields]]


@pytest.fixture(scope="module")
def uris(mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A local store, whose tables take seconds to make, and a server."""
    return [f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db", mlflow_server.url]


def _sides(source: str, uris: list[str], folder: Path) -> list[Sides]:
    """The runs without ours and with it, of each store."""
    name = f"experiment-{uuid.uuid4().hex[:8]}"
    done = run_script(
        _BOTH.format(source=textwrap.dedent(source)),
        cwd=folder,
        env={"URIS": " ".join(uris), "NAME": name},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "autolog:" not in done.stderr, done.stderr
    return [_read(uri, name) for uri in uris]


def _read(uri: str, name: str) -> Sides:
    mlflow.set_tracking_uri(uri)  # where MLflow 2 looks for the files of a run
    client = MlflowClient()
    return runs_of(client, f"{name} without"), runs_of(client, f"{name} with")


@pytest.mark.parametrize("name", ["XGBOOST", "LIGHTGBM", "FLUENT", "SYSTEM", "MODELS"])
def test_what_we_have_no_hooks_for_is_left_as_it_was(
    name: str, uris: list[str], tmp_path: Path
) -> None:
    """The runs are equal in all fields, the tag by which we know them excepted."""
    for without, with_ours in _sides(getattr(trainings, name), uris, tmp_path):
        assert with_ours == without


_NOTED = ["autolog.data_shapes"]
_CALLED = ["autolog.data_shapes", "mlflow.autologging"]
_TORCH = "amsgrad batch_size betas capturable decoupled_weight_decay differentiable eps foreach"
_OF_TRAINER = ["accumulate_grad_batches", "batch_size", "precision"]

ADDED: dict[str, list[dict[str, list[str]]]] = {
    "SKLEARN": [
        {"metrics": ["n_iter"], "tags": _NOTED},
        {},  # the two candidates of the search
        {},
        {"metrics": ["best_loss", "epoch_loss", "n_iter"], "tags": _NOTED},
        {"metrics": ["n_iter"], "tags": _CALLED},
    ],
    "LIGHTNING": [
        {"metrics": ["epoch_loss", "learning_rate"], "params": _OF_TRAINER},
        {
            "metrics": ["epoch_loss", "learning_rate"],
            "params": sorted(
                [
                    *(*_OF_TRAINER, "dampening", "differentiable", "epochs", "foreach", "fused"),
                    *("maximize", "momentum", "nesterov", "optimizer_name", "weight_decay"),
                ]
            ),
            "tags": ["Mode", "mlflow.autologging"],
            "artifacts": ["model_summary.txt"],
        },
        {
            "metrics": ["epoch_loss", "learning_rate"],
            "params": _OF_TRAINER,
            "tags": ["mlflow.autologging"],
        },
    ],
    "TRANSFORMERS": 2
    * [
        {
            "metrics": ["epoch_loss", "steps_per_second"],
            "params": [*_TORCH.split(), "fused", "lr", "maximize", "optimizer_name"],
            "tags": ["mlflow.autologging"],
        }
    ],
}
"""What ours adds to each of their runs, which are in the order of their names."""


@pytest.mark.parametrize("name", ADDED)
def test_what_our_hooks_add_to_a_run_of_theirs(name: str, uris: list[str], tmp_path: Path) -> None:
    """Nothing of theirs is missing, doubled or changed; what is added is this."""
    for sides in _sides(getattr(trainings, name), uris, tmp_path):
        assert added(*sides) == ADDED[name]


def test_what_our_hooks_add_to_a_run_of_keras(uris: list[str], tmp_path: Path) -> None:
    """The same; the params of an optimizer are another set in each release of Keras."""
    arguments = {"batch_size", "class_weight", "epochs", "initial_epoch", "shuffle"}
    for sides in _sides(trainings.KERAS, uris, tmp_path):
        for more, tags in zip(added(*sides), (_NOTED, _CALLED, _CALLED), strict=True):
            assert more.keys() == {"metrics", "params", "tags"}
            assert more["metrics"] == ["epoch_loss", "learning_rate"]
            assert more["tags"] == tags
            others = {name for name in more["params"] if not name.startswith("optimizer_")}
            others -= {n for n in others if n.startswith(("steps", "validation_"))}
            assert others in (set(), arguments)
