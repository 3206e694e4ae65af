"""Lightning: which run a training goes into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from lightnings import (
    Regression,
    Talkative,
    exactly,
    loader,
    only,
    trainer,
)
from logged import LoggedRun
from torch import nn
from torch.nn import functional

import autolog
from autolog.callbacks.lightning import AutologLogger

pytestmark = pytest.mark.filterwarnings("ignore")

Logged = Callable[[], list[LoggedRun]]


@pytest.mark.parametrize("options", [{}, {"logger": False}, {"logger": AutologLogger()}])
def test_exceptions_pass(logged: Logged, options: dict[str, Any]) -> None:
    """The user's exception reaches him as it is, and the run is FAILED."""

    class Failing(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        trainer(**options).fit(Failing(), loader())
    assert only(logged()).status == "FAILED"
    assert only(logged()).metrics == {}


def test_ctrl_c(logged: Logged) -> None:
    """Ctrl-C ends the run KILLED; Lightning's own exit follows."""

    class Interrupted(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        trainer().fit(Interrupted(), loader())
    assert only(logged()).status == "KILLED"


def test_what_leaves_no_run(logged: Logged) -> None:
    """Tuner, sanity check, ``fast_dev_run``, ``barebones`` and ``predict`` leave nothing."""

    class Unlucky(Talkative):
        def on_train_start(self) -> None:
            raise AssertionError("never trained")

        def predict_step(self, batch: Any, index: int) -> Any:
            return self.layer(batch[0])

    Tuner(tuned := trainer()).lr_find(Talkative(), loader(), num_training=5)
    trainer(fast_dev_run=True).fit(Talkative(), loader(), loader())
    lightning.pytorch.Trainer(barebones=True, max_epochs=1).fit(Regression(), loader())
    tuned.predict(Unlucky(), loader())
    assert logged() == []


@pytest.mark.parametrize("logger", [True, False])
def test_an_evaluation_by_itself(logged: Logged, logger: bool) -> None:
    """``test`` outside of a fit is a run of its own, named after the model."""
    (result,) = trainer(logger=logger).test(Talkative(), loader(), verbose=False)
    run = only(logged())
    assert run.values("test_loss") == [result["test_loss"]]
    assert (run.model, run.status) == ("Talkative", "FINISHED")
    assert run.params["lr"] == "0.05"


def test_fits_inside_one_run(logged: Logged) -> None:
    """Inside ``autolog.run()`` a later fit of the same model continues its epoch axis."""
    model = Regression()
    with autolog.run("mine"):
        for _ in range(2):
            trainer().fit(model, loader())
    run = only(logged())
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]


def test_a_trainer_that_goes_on(logged: Logged) -> None:
    """A trainer fitted again counts its own epochs, which are not counted twice."""
    model, again = Regression(), trainer(max_epochs=1)
    with autolog.run("mine"):
        for epochs in (1, 3):
            again.fit_loop.max_epochs = epochs
            again.fit(model, loader())
    assert [step for step, _ in only(logged()).metrics["epoch_loss"]] == [0, 1, 2]


def test_the_plain_hooks_are_silent(logged: Logged) -> None:
    """The hooks for plain PyTorch, on at the same time, log again only after Lightning is done."""
    trainer().fit(Regression(), loader())
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader():
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
    assert [run.tags["mlflow.autologging"] for run in logged()] == ["lightning", "torch"]
