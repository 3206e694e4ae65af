"""Lightning: settings and outcomes, the summary of the model, and checkpoints as artifacts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightnings import OtherRegression, Regression, Talkative, loader, trainer
from logged import only
from torch import nn
from trainings import fresh_name

import autolog
from autolog.callbacks.lightning import AutologLogger

if TYPE_CHECKING:
    from logged import Logged
    from support import MlflowServer

pytestmark = pytest.mark.filterwarnings("ignore")

VALIDATIONS = [5.0, 3.0, 4.0, 3.5, 3.2, 3.1]
"""What a model's validations give, epoch by epoch: the best is that of epoch 1."""


class _Validated:
    """Has the validation losses of `VALIDATIONS`."""

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", VALIDATIONS[self.trainer.current_epoch])  # type: ignore[attr-defined]


class Validated(_Validated, Regression):
    pass


class OtherValidated(_Validated, OtherRegression):
    pass


# -- schedules and learning rate -------------------------------------------------------------------


class Scheduled(Regression):
    """Two optimizers' worth of schedules, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        first = torch.optim.SGD(self.layer.parameters(), lr=0.4)
        second = torch.optim.Adam(self.layer.parameters(), lr=0.1)
        halving = torch.optim.lr_scheduler.StepLR(first, step_size=1, gamma=0.5)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(second, max_lr=0.1, total_steps=40)
        return [first, second], [halving, {"scheduler": one_cycle, "interval": "step"}]

    def training_step(self, batch: Any, index: int) -> None:
        first, _ = self.optimizers()
        first.zero_grad()
        self.manual_backward(self.loss(batch))
        first.step()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.lr_schedulers()[0].step()


def test_schedules(logged: Logged) -> None:
    """Kind and settings of each schedule are params; its rate is a metric, as an epoch began."""
    trainer(max_epochs=3).fit(Scheduled(), loader())
    run = only(logged())
    expected = {
        "lr_scheduler_name": "StepLR",
        "lr_scheduler_step_size": "1",
        "lr_scheduler_gamma": "0.5",
        "lr_scheduler_interval": "epoch",
        "lr_scheduler_name.1": "OneCycleLR",
        "lr_scheduler_total_steps.1": "40",
        "lr_scheduler_interval.1": "step",
        "lr": "0.4",
    }
    assert run.params.items() >= expected.items()
    assert run.metrics["learning_rate"] == [(0, 0.4), (1, 0.2), (2, 0.1)]


def test_a_schedule_that_monitors(logged: Logged) -> None:
    """The metric that a schedule looks at is a param too."""

    class Plateau(Talkative):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.2, patience=7)
            watched = {"scheduler": plateau, "monitor": "train_loss"}
            return {"optimizer": optimizer, "lr_scheduler": watched}

    trainer().fit(Plateau(), loader())
    expected = {
        "lr_scheduler_name": "ReduceLROnPlateau",
        "lr_scheduler_factor": "0.2",
        "lr_scheduler_patience": "7",
        "lr_scheduler_monitor": "train_loss",
    }
    assert only(logged()).params.items() >= expected.items()


# -- callbacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "module"),
    [(lightning.pytorch, Validated), (pytorch_lightning, OtherValidated)],
    ids=["lightning.pytorch", "pytorch_lightning"],
)
def test_early_stopping_and_checkpoints(
    logged: Logged, tmp_path: Path, space: ModuleType, module: Any
) -> None:
    """Settings are params, outcomes metrics and tags, under MLflow's names where it has them."""
    stopping = space.callbacks.EarlyStopping("val_loss", patience=3, min_delta=0.01)
    saving = space.callbacks.ModelCheckpoint(
        tmp_path / "saved", monitor="val_loss", save_top_k=2, save_last=True
    )
    options = {"callbacks": [stopping, saving], "max_epochs": 9, "num_sanity_val_steps": 0}
    trainer(space, **options).fit(module(), loader(), loader())
    run = only(logged())
    settings = {
        "monitor": "val_loss",
        "mode": "min",
        "patience": "3",
        "min_delta": "0.01",
        "checkpoint_monitor": "val_loss",
        "checkpoint_mode": "min",
        "checkpoint_save_top_k": "2",
        "checkpoint_save_last": "True",
    }
    assert run.params.items() >= settings.items()
    outcomes = {
        "stopped_epoch": 4.0,
        "restored_epoch": 1.0,
        "best_score": 3.0,
        "wait_count": 3.0,
        "best_model_score": 3.0,
    }
    assert {name: run.metrics[name] for name in outcomes} == {
        name: [(4, value)] for name, value in outcomes.items()
    }
    assert run.tags["best_model_path"] == saving.best_model_path
    assert run.tags["last_model_path"] == str(tmp_path / "saved" / "last.ckpt")


def test_the_best_epoch_where_validations_are_rare(logged: Logged) -> None:
    """The epoch of the best score is right where MLflow's ``stopped_epoch - patience`` is not."""
    stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=1)
    options = {"callbacks": [stopping], "max_epochs": 6, "check_val_every_n_epoch": 2}
    trainer(**options, num_sanity_val_steps=0).fit(Validated(), loader(), loader())
    run = only(logged())
    assert (run.values("stopped_epoch"), run.values("restored_epoch")) == ([3.0], [1.0])


@pytest.mark.parametrize(
    "options",
    [
        {"stopping_threshold": 6.0},
        {"divergence_threshold": 4.0},
        {"patience": 1, "mode": "max", "min_delta": float("inf")},
        {"monitor": "nan"},
    ],
    ids="threshold diverged patience nan".split(),
)
def test_a_stop_in_the_first_epoch(logged: Logged, options: dict[str, Any]) -> None:
    """``stopped_epoch`` is 0 then, whatever the reason was."""

    class Measured(Validated):
        def on_validation_epoch_end(self) -> None:
            self.log("nan", float("nan"))

    given = {"monitor": "val_loss", **options}
    stopping = lightning.pytorch.callbacks.EarlyStopping(**given)
    trainer(callbacks=[stopping], num_sanity_val_steps=0).fit(Measured(), loader(), loader())
    run = only(logged())
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0]
    assert run.metrics["stopped_epoch"] == [(0, 0.0)]


def test_stops_in_one_run(logged: Logged) -> None:
    """Epochs of a later fit are told as the run counts them, as its steps are."""
    model = Validated()
    with autolog.run("mine"):
        for _ in range(2):
            stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=1)
            options = {"callbacks": [stopping], "max_epochs": 5, "num_sanity_val_steps": 0}
            trainer(**options).fit(model, loader(), loader())
    run = only(logged())
    assert run.metrics["stopped_epoch"] == [(2, 2.0), (5, 5.0)]
    assert run.metrics["restored_epoch"] == [(2, 1.0), (5, 4.0)]


def test_a_stop_by_somebody_else(logged: Logged) -> None:
    """It has no ``stopped_epoch``, nor has a later training that nobody stops."""

    class Leaving(Validated):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            self.trainer.should_stop = True

    idle, stopping = (
        lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=1) for _ in range(2)
    )
    options = {"num_sanity_val_steps": 0, "max_epochs": 5}
    trainer(callbacks=[idle], **options).fit(Leaving(), loader(), loader())
    trainer(callbacks=[stopping], **options).fit(Validated(), loader(), loader())
    stopping.patience = 99
    trainer(callbacks=[stopping], **options).fit(Validated(), loader(), loader())
    assert [run.values("stopped_epoch") for run in logged()] == [[], [2.0], []]


def test_a_training_that_runs_through(logged: Logged) -> None:
    """Without a stop there is no epoch of one, and without a monitor no score."""
    stopping = lightning.pytorch.callbacks.EarlyStopping("val_loss", patience=9)
    trainer(callbacks=[stopping]).fit(Validated(), loader(), loader())
    names = only(logged()).metrics.keys()
    assert names >= {"best_score", "wait_count"}
    assert not names & {"stopped_epoch", "restored_epoch", "best_model_score"}


def test_outcomes_of_a_failed_training(logged: Logged, tmp_path: Path) -> None:
    """A training that fails later says where its best model is as well."""

    class Failing(Validated):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise ZeroDivisionError

    saving = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, monitor="val_loss")
    for logger in (True, False):
        with pytest.raises(ZeroDivisionError):
            trainer(max_epochs=3, callbacks=[saving], logger=logger).fit(
                Failing(), loader(), loader()
            )
    for run in logged():
        assert run.status == "FAILED"
        assert run.values("best_model_score") == [3.0]
        assert run.tags["best_model_path"].endswith(".ckpt")


# -- the model -------------------------------------------------------------------------------------


def test_the_summary_of_the_model(logged: Logged) -> None:
    """Every layer with its params, made without a prediction; layers not made yet count as 0."""

    class Deep(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.example_input_array = torch.zeros(1, 4)
            self.unused = nn.ModuleDict({"frozen": nn.Linear(3, 2), "lazy": nn.LazyLinear(1)})
            self.unused["frozen"].requires_grad_(False)

        def forward(self, x: Any) -> None:
            raise AssertionError("nobody asked for this")

    trainer(limit_train_batches=1).fit(Deep(), loader())
    lines = only(logged()).texts["model_summary.txt"].splitlines()
    assert lines[0].split() == ["Name", "Type", "Params", "Mode"]
    assert ["layer", "Linear", "5", "train"] in [line.split() for line in lines]
    assert ["unused.frozen", "Linear", "8", "train"] in [line.split() for line in lines]
    assert ["unused.lazy", "LazyLinear", "0", "train"] in [line.split() for line in lines]
    assert lines[-3:] == ["5 trainable params", "8 non-trainable params", "13 params in all"]


# -- checkpoints as artifacts ----------------------------------------------------------------------


def _saved(
    log_model: Any, folder: Path, save_top_k: int, space: ModuleType = lightning.pytorch
) -> Any:
    """A trainer that has saved checkpoints."""
    saving = space.callbacks.ModelCheckpoint(
        folder, "{epoch}", monitor="val_loss", save_top_k=save_top_k, save_last=True
    )
    options = {"callbacks": [saving], "logger": AutologLogger(log_model=log_model)}
    model = Validated() if space is lightning.pytorch else OtherValidated()
    saved = trainer(space, max_epochs=4, **options)
    saved.fit(model, loader(), loader())
    return saved


@pytest.mark.parametrize(
    ("log_model", "save_top_k", "expected"),
    [
        (False, 1, set()),
        (True, 1, {"epoch=1", "last"}),
        (True, -1, {"epoch=0", "epoch=1", "epoch=2", "epoch=3", "last"}),
        ("all", 1, {"epoch=0", "epoch=1", "last"}),
    ],
)
def test_checkpoints_as_artifacts(
    off: Logged, tmp_path: Path, log_model: Any, save_top_k: int, expected: set[str]
) -> None:
    """Off, the best and the last, or all, in the folders of Lightning's ``MLFlowLogger``."""
    _saved(log_model, tmp_path, save_top_k)
    run = only(off())
    files = {path: data for path, data in run.files.items() if path.endswith(".ckpt")}
    assert set(files) == {f"{stem}/{stem}.ckpt" for stem in expected}
    for stem in expected:
        kept = tmp_path / f"{stem}.ckpt"
        assert not kept.exists() or kept.read_bytes() == files[f"{stem}/{stem}.ckpt"]
        metadata = json.loads(run.texts[f"{stem}/metadata.yaml"])
        assert metadata["original_filename"] == f"{stem}.ckpt"
        assert metadata["Checkpoint"]["monitor"] == "val_loss"
    if log_model:
        assert json.loads(run.texts["epoch=1/metadata.yaml"])["score"] == 3.0
        assert run.texts["epoch=1/aliases.txt"] == "['latest', 'best']"


@pytest.mark.parametrize("logger", [True, False])
def test_checkpoints_of_any_trainer(logged: Logged, tmp_path: Path, logger: bool) -> None:
    """``enable(checkpoint=True)`` logs the best and the last, also where a training fails."""

    class Failing(Validated):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise ZeroDivisionError

    autolog.enable(checkpoint=True)
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path, "{epoch}", monitor="val_loss", save_last=True
    )
    with pytest.raises(ZeroDivisionError):
        trainer(logger=logger, max_epochs=3, callbacks=[saving]).fit(Failing(), loader(), loader())
    run = only(logged())
    for stem in ("epoch=1", "last"):
        assert run.files[f"{stem}/{stem}.ckpt"] == (tmp_path / f"{stem}.ckpt").read_bytes()


@pytest.fixture(params=["here", "elsewhere"])
def is_written_into(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    in_memory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Whether Lightning is certain to save into a file that is there, and not beside it."""
    if request.param == "elsewhere":
        monkeypatch.setattr(tempfile, "tempdir", str(in_memory))
    return Path(tempfile.gettempdir()).stat().st_dev != tmp_path.stat().st_dev


@pytest.mark.parametrize("space", [lightning.pytorch, pytorch_lightning])
def test_a_checkpoint_is_logged_as_it_was_saved(
    off: Logged, tmp_path: Path, space: ModuleType, is_written_into: bool
) -> None:
    """Under ``log_model="all"`` each version of ``last.ckpt`` is, and nothing is twice.

    Also where Lightning writes a later one into the very file of the one before: where temporary
    files are on another filesystem (and in its oldest release anywhere).
    """
    saved, last = _saved("all", tmp_path, -1, space), tmp_path / "last.ckpt"
    content, inode = last.read_bytes(), last.stat().st_ino
    saved.save_checkpoint(last, weights_only=True)
    if is_written_into:
        assert last.stat().st_ino == inode
    versions = [data for path, data in only(off()).uploads if path == "last/last.ckpt"]
    assert len(set(versions)) == len(versions) == 4
    assert versions[-1] == content != last.read_bytes()


@pytest.mark.parametrize("options", [{"log_model": "best"}, {"resume": True}])
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    """They are refused at once, with the values that there are."""
    with pytest.raises(ValueError, match="use "):
        AutologLogger(**options)


@pytest.mark.recent  # MLFlowLogger of Lightning 2.1 puts them elsewhere
def test_lightnings_own_logger_logs_the_same_files(
    off: Logged, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    """What ``MLFlowLogger(log_model=True)`` stores, ours does: same folders, same names."""
    store = tmp_path / "store"
    own = lightning.pytorch.loggers.MLFlowLogger(
        fresh_name(),
        tracking_uri=mlflow_server.url,
        artifact_location=str(store),
        log_model=True,
    )
    saving = lightning.pytorch.callbacks.ModelCheckpoint(
        tmp_path / "saved", "{epoch}", monitor="val_loss", save_top_k=2, save_last=True
    )
    options = {"callbacks": [saving], "logger": [own, AutologLogger(log_model=True)]}
    trainer(max_epochs=4, **options).fit(Validated(), loader(), loader())
    (folder,) = store.glob("*/artifacts")
    theirs = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    ours = only(off()).files.keys() - {"model_summary.txt"}
    assert ours == theirs
