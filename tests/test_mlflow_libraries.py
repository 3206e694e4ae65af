"""Libraries that log to MLflow leave the same runs, with ``autolog.enable()`` and without.

Libraries that bear each other share a fresh process, in which all train without ours, and then
with it. What ours adds to a run of theirs is named here to the last key.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
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
import json, os, warnings
warnings.simplefilter("ignore")
import autolog
import mlflow

given = json.loads(os.environ["GIVEN"])
programs = {name: {"__name__": "__main__"} for name in given["sources"]}
for name, program in programs.items():
    exec(given["sources"][name], program)
mlflow.set_tracking_uri(given["uri"])
for side in ("without", "with"):
    for name, program in programs.items():
        program["EXPERIMENT"] = f"{given['experiment']} {name} {side}"
        mlflow.set_experiment(program["EXPERIMENT"])
        if side == "with":
            autolog.enable(silent=True)
        program["train"]()
        assert autolog.flush(60).complete
        autolog.disable()
"""

pytestmark = pytest.mark.timeout(300)  # a process trains several libraries, twice each

Sides = tuple[list[Fields], list[Fields]]


@pytest.fixture(params=["server", pytest.param("local", marks=pytest.mark.long)])
def uri(
    request: pytest.FixtureRequest, mlflow_server: MlflowServer, new_store: Callable[[], str]
) -> str:
    """Where the libraries log to."""
    return mlflow_server.url if request.param == "server" else new_store()


def _sides(names: Sequence[str], uri: str, folder: Path) -> dict[str, Sides]:
    """By library, the runs without ours and with it."""
    experiment = f"experiment-{uuid.uuid4().hex[:8]}"
    sources = {name: getattr(trainings, name) for name in names}
    given = {"experiment": experiment, "sources": sources, "uri": uri}
    done = run_script(_BOTH, cwd=folder, env={"GIVEN": json.dumps(given)}, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "autolog:" not in done.stderr, done.stderr
    return {name: _read(uri, f"{experiment} {name}") for name in names}


def _read(uri: str, name: str) -> Sides:
    mlflow.set_tracking_uri(uri)  # where MLflow 2 looks for the files of a run
    client = MlflowClient()
    return runs_of(client, f"{name} without"), runs_of(client, f"{name} with")


def test_what_we_have_no_hooks_for_is_left_as_it_was(uri: str, tmp_path: Path) -> None:
    """The runs are equal in all fields, the tag by which we know them excepted."""
    names = ["XGBOOST", "LIGHTGBM", "FLUENT", "SYSTEM", "MODELS"]
    for name, (without, with_ours) in _sides(names, uri, tmp_path).items():
        assert without
        assert with_ours == without, name


_NOTED = ["autolog.data_shapes"]
_CALLED = ["autolog.data_shapes", "mlflow.autologging"]
_TORCH = "amsgrad batch_size betas capturable decoupled_weight_decay differentiable eps foreach"
_DATA = {"datasets": ["dataset"]}
"""One, for they validate with what they train on."""
_OF_TRAINER = ["accumulate_grad_batches", "batch_size", "precision"]

ADDED: dict[str, list[dict[str, list[str]]]] = {
    "SKLEARN": [
        {"metrics": ["n_iter"], "tags": _NOTED},
        {},  # the two candidates of the search
        {},
        {"metrics": ["best_loss", "epoch_loss", "n_iter"], "tags": _NOTED},
        {"metrics": ["f1_score", "n_iter"], "tags": _CALLED},  # MLflow does not see this f1_score
    ],
    "LIGHTNING": [
        {"metrics": ["epoch_loss", "learning_rate"], "params": _OF_TRAINER, **_DATA},
        {
            "metrics": ["epoch_loss", "learning_rate"],
            "params": sorted(
                [
                    *(*_OF_TRAINER, "dampening", "differentiable", "epochs", "foreach", "fused"),
                    *("maximize", "momentum", "nesterov", "optimizer_name", "weight_decay"),
                ]
            ),
            "tags": ["Mode", "mlflow.autologging"],
            **_DATA,
            "artifacts": ["model_summary.txt"],
        },
        {
            "metrics": ["epoch_loss", "learning_rate"],
            "params": _OF_TRAINER,
            "tags": ["mlflow.autologging"],
            **_DATA,
        },
    ],
    "TRANSFORMERS": 2
    * [
        {
            "metrics": ["epoch_loss", "steps_per_second"],
            "params": [*_TORCH.split(), "fused", "lr", "maximize", "optimizer_name"],
            "tags": ["mlflow.autologging"],
            **_DATA,
        }
    ],
}
"""What ours adds to each of their runs, which are in the order of their names."""


@pytest.mark.parametrize("names", [["SKLEARN"], ["TRANSFORMERS", "LIGHTNING"]])
def test_what_our_hooks_add_to_a_run_of_theirs(names: list[str], uri: str, tmp_path: Path) -> None:
    """Nothing of theirs is missing, doubled or changed; what is added is this."""
    for name, sides in _sides(names, uri, tmp_path).items():
        assert added(*sides) == ADDED[name], name


def test_what_our_hooks_add_to_a_run_of_keras(uri: str, tmp_path: Path) -> None:
    """The same; the params of an optimizer are another set in each release of Keras."""
    arguments = {"batch_size", "class_weight", "epochs", "initial_epoch", "shuffle"}
    sides = _sides(["KERAS"], uri, tmp_path)["KERAS"]
    tags_and_data = [(_NOTED, {}), (_CALLED, _DATA), (_CALLED, {})]
    for more, (tags, data) in zip(added(*sides), tags_and_data, strict=True):
        assert more.keys() == {"metrics", "params", "tags", *data}  # a callback logs none
        assert more["metrics"] == ["epoch_loss", "learning_rate"]
        assert more["tags"] == tags
        others = {name for name in more["params"] if not name.startswith("optimizer_")}
        others -= {n for n in others if n.startswith(("steps", "validation_"))}
        assert others in (set(), arguments)
