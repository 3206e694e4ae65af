"""Lightning: `AutologLogger` as a logger, and what must not change."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
from lightnings import (
    Regression,
    exactly,
    loader,
    only,
    trainer,
)
from logged import LoggedRun

from autolog.callbacks.lightning import AutologLogger

pytestmark = pytest.mark.filterwarnings("ignore")

Logged = Callable[[], list[LoggedRun]]


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
