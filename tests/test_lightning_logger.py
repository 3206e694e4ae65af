"""Lightning: `AutologLogger` as a logger, and what must not change."""

from __future__ import annotations

import pickle
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning.pytorch
import pytest
from lightnings import Regression, exactly, loader, trainer
from logged import only

import autolog
from autolog.callbacks.lightning import AutologLogger

if TYPE_CHECKING:
    from logged import Logged

pytestmark = pytest.mark.filterwarnings("ignore")

# -- what must not change --------------------------------------------------------------------------


def test_a_module_that_uses_its_loggers(logged: Logged, tmp_path: Path) -> None:
    """Code of the user's that calls methods of all loggers works, and sees none without loggers."""
    seen: list[Any] = []

    class Hands(Regression):
        def on_train_start(self) -> None:
            seen.append((self.logger, len(self.loggers)))
            for logger in self.loggers:
                logger.experiment.log_metrics({"own": 1.0}, 0)
            for logger in self.loggers[1:]:
                logger.log_image("image", [])
                assert (logger.name, logger.version) == (self.logger.name, self.logger.version)

    trainer(logger=False).fit(Hands(), loader())
    csv = lightning.pytorch.loggers.CSVLogger(tmp_path)
    trainer(logger=csv).fit(Hands(), loader())
    assert seen == [(None, 0), (csv, 2)]


# -- AutologLogger ---------------------------------------------------------------------------------


def test_where_a_logger_puts_things(off: Logged, tmp_path: Path) -> None:
    """Name, version and folder are there at once; checkpoints go below them."""
    logger = AutologLogger(str(tmp_path), name="mine", version="v1")
    assert (logger.name, logger.version, logger.save_dir) == ("mine", "v1", str(tmp_path))
    fitted = trainer(logger=logger)
    fitted.fit(Regression(), loader())
    assert Path(fitted.checkpoint_callback.dirpath) == tmp_path / "mine" / "v1" / "checkpoints"
    assert AutologLogger().name == "lightning_logs"
    assert AutologLogger().version != AutologLogger().version


class Pickling(Regression):
    """Pickles its trainer's logger while it trains."""

    pickled = b""

    def on_train_start(self) -> None:
        type(self).pickled = pickle.dumps(self.logger)


def test_a_logger_survives_pickling(off: Logged) -> None:
    """A logger, and its trainer, can be pickled before, during and after use."""
    logger = AutologLogger(prefix="p")
    before = pickle.dumps(logger)
    fitted = trainer(logger=logger)
    fitted.fit(Pickling(), loader())
    copies = [pickle.loads(data) for data in (before, Pickling.pickled, pickle.dumps(logger))]
    copies.append(pickle.loads(pickle.dumps(fitted)).logger)
    assert {(copied.name, copied.version) for copied in copies} == {(logger.name, logger.version)}
    copies[1].log_metrics({"late": 1.0}, 0)
    copies[1].finalize("success")
    assert [set(run.metrics) for run in off()] == [{"epoch_loss", "learning_rate"}, {"p-late"}]


class PicklingTrainer(Regression):
    """Has its trainer pickled while it trains, as starting other processes does."""

    copies: ClassVar[list[Any]] = []

    def on_train_start(self) -> None:
        self.copies.append(pickle.loads(pickle.dumps(self.trainer)))


@pytest.mark.parametrize("form", [True, False, AutologLogger()])
def test_a_trainer_is_pickled_while_it_trains(logged: Logged, form: Any) -> None:
    """What joined it travels along, and trains in a run of its own."""
    PicklingTrainer.copies.clear()
    trainer(logger=form).fit(PicklingTrainer(), loader())
    autolog.disable()
    (copied,) = PicklingTrainer.copies
    copied.fit(model := Regression(), loader())
    assert len({run.start.key for run in logged()}) == 2
    assert logged()[1].values("epoch_loss") == exactly(model.hand.epochs)


class Recording(AutologLogger):
    """Keeps what Lightning told it."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[tuple[int | None, list[str]]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.history.append((step, sorted(metrics)))


class Contracted(Regression):
    """What Lightning's own tests of loggers train."""

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self.loss(batch)
        self.log("train_some_val", loss)
        return {"loss": loss}

    def validation_step(self, batch: Any, index: int) -> None:
        loss = self.loss(batch)
        self.log_dict({"early_stop_on": loss, "val_loss": loss**0.5})

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test_loss", self.loss(batch))


def test_the_records_of_fit_and_test(off: Logged) -> None:
    """Lightning tells the logger what its own tests of loggers expect, and the run has it."""
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    fitted = trainer(logger=(logger := Recording()), log_every_n_steps=1, **options)
    fitted.fit(Contracted(), loader(), loader())
    fitted.test(dataloaders=loader(), verbose=False)
    assert logger.history == [
        (0, ["epoch", "train_some_val"]),
        (0, ["early_stop_on", "epoch", "val_loss"]),
        (1, ["epoch", "test_loss"]),
    ]
    fit, test = off()
    assert fit.start.key == test.start.key
    steps = {key: step for run in (fit, test) for key, ((step, _), *_) in run.metrics.items()}
    assert steps["train_some_val"] == steps["val_loss"] == 0
    assert steps["test_loss"] == 1


def test_the_tuner_leaves_the_logger_alone(off: Logged) -> None:
    """Finding a learning rate or a batch size logs nothing, and the trainer keeps its logger."""

    class Sized(Regression):
        batch_size = 2

        def train_dataloader(self) -> Any:
            return loader(self.batch_size)

    fitted = trainer(logger=(logger := Recording()))
    tuner = lightning.pytorch.tuner.Tuner(fitted)
    tuner.scale_batch_size(model := Sized(), max_trials=2, init_val=4)
    tuner.lr_find(model, num_training=5)
    assert fitted.logger is logger
    assert (logger.history, off()) == ([], [])


def test_a_logger_by_itself(off: Logged) -> None:
    """Metrics open a run, params and other calls do not; each ``finalize`` ends one."""
    logger = AutologLogger()
    logger.log_hyperparams(Namespace(a=1, b=Namespace(c=2)))
    logger.experiment.anything_at_all()
    logger.save()
    logger.finalize("success")
    assert off() == []
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"m": 2.0})
    logger.log_hyperparams({"b": {"c": 2}})
    logger.experiment.set_tags({"t": "x"})
    logger.finalize("failed")
    logger.finalize("success")
    run = only(off())
    assert run.params == {"a": "1", "b/c": "2"}
    assert run.metrics == {"m": [(0, 2.0)]}
    assert run.status == "FAILED"
    assert run.tags["t"] == "x"


def test_two_loggers_of_ours_are_one(off: Logged) -> None:
    """Of two in one trainer the first logs, the other stays silent."""
    trainer(logger=[AutologLogger(), AutologLogger()]).fit(model := Regression(), loader())
    assert only(off()).values("epoch_loss") == exactly(model.hand.epochs)
