"""Regular steps written down and told later add up to what they do when each is told at once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged import logged_runs, only
from torch import Tensor
from torch.nn import MSELoss, functional
from torch_loops import VALIDATION, linear, loader, sgd, train

import autolog
from autolog.callbacks.torch import tape
from autolog.callbacks.torch.tape import Tape

_WAYS = (
    "regular",
    *("regular",) * 5,
    "two losses",
    "losses in a list",
    "loss module",
    "loss module that sums",
    "loss module and more",
    "accumulated",
    "divided",
    "twice on a batch",
    "scaled",
    "closure",
    "closure after a loss",
    "raising",
    "paused",
    "validation",
    "another optimizer",
    "without a loss",
    "break",
)


class Loop:
    """One epoch in which each batch is trained in a way of its own."""

    def __init__(self) -> None:
        self.model, self.other = linear(), linear()
        self.optimizer, self.second = sgd(self.model), sgd(self.other)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        self.batches, self.held_out = loader(), loader(VALIDATION)

    def epoch(self, ways: list[str]) -> None:
        for way, (x, y) in zip(ways, self.batches, strict=False):
            self.optimizer.zero_grad()
            if way == "break":
                break
            getattr(self, way.replace(" ", "_"))(x, y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(self.model(x), y)

    def regular(self, x: Tensor, y: Tensor) -> None:
        self.loss(x, y).backward()
        self.optimizer.step()

    def two_losses(self, x: Tensor, y: Tensor) -> None:
        self.loss(x, y).backward()
        self.regular(x, y)

    def losses_in_a_list(self, x: Tensor, y: Tensor) -> None:
        torch.autograd.backward([self.loss(x, y), self.model.weight.sum()])
        self.optimizer.step()

    def loss_module(self, x: Tensor, y: Tensor) -> None:
        MSELoss()(self.model(x), y).backward()
        self.optimizer.step()

    def loss_module_that_sums(self, x: Tensor, y: Tensor) -> None:
        MSELoss(reduction="sum")(self.model(x), y).backward()
        self.optimizer.step()

    def loss_module_and_more(self, x: Tensor, y: Tensor) -> None:
        (MSELoss()(self.model(x), y) + self.model.weight.sum()).backward()
        self.optimizer.step()

    def accumulated(self, x: Tensor, y: Tensor) -> None:
        self.loss(x, y).backward()

    def divided(self, x: Tensor, y: Tensor) -> None:
        (self.loss(x, y) / 2).backward()

    def scaled(self, x: Tensor, y: Tensor) -> None:
        self.scaler.scale(self.loss(x, y)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def twice_on_a_batch(self, x: Tensor, y: Tensor) -> None:
        self.regular(x, y)
        self.regular(x, y)

    def closure(self, x: Tensor, y: Tensor) -> None:
        def evaluate() -> Tensor:
            loss = self.loss(x, y)
            loss.backward()
            return loss

        self.optimizer.step(evaluate)  # type: ignore[arg-type]

    def closure_after_a_loss(self, x: Tensor, y: Tensor) -> None:
        def evaluate() -> Tensor:
            self.loss(x, y).backward()
            loss = self.loss(x, y)
            loss.backward()
            return loss

        self.loss(x, y).backward()
        self.optimizer.step(evaluate)  # type: ignore[arg-type]

    def raising(self, x: Tensor, y: Tensor) -> None:
        def failing() -> float:
            raise KeyError

        self.loss(x, y).backward()
        with contextlib.suppress(KeyError):
            self.optimizer.step(failing)

    def paused(self, x: Tensor, y: Tensor) -> None:
        self.loss(x, y).backward()
        with autolog.pause():
            functional.mse_loss(self.other(x), y).backward()
            self.second.step()
        self.optimizer.step()

    def validation(self, x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            for each in self.held_out:
                MSELoss()(self.model(each[0]), each[1])
        self.regular(x, y)

    def another_optimizer(self, x: Tensor, y: Tensor) -> None:
        functional.mse_loss(self.other(x), y).backward()
        self.second.step()
        self.regular(x, y)

    def without_a_loss(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.step()


def _logged(home: Path, epochs: list[list[str]]) -> list[dict[str, Any]]:
    autolog.enable(mode="offline", silent=True, log_every_n_steps=3)
    known = len(logged_runs(home))
    loop = Loop()
    for ways in epochs:
        loop.epoch(ways)
    autolog.disable()
    runs = logged_runs(home)[known:]
    for run in runs:
        run.metrics.pop("steps_per_second", None)
    return [run.metrics for run in runs]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(epochs=st.lists(st.lists(st.sampled_from(_WAYS), max_size=5), max_size=3))
def test_a_tape_changes_nothing(autolog_home: Path, epochs: list[list[str]]) -> None:
    """Whatever comes between regular steps, the same values are logged as without a tape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tape, "begin", lambda *_: None)
        expected = _logged(autolog_home, epochs)
    assert _logged(autolog_home, epochs) == expected


@pytest.mark.parametrize("room", [1, 2, 3, 256])
def test_a_tape_that_is_full(
    room: int, autolog_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are told when so many are on the tape, and none is lost or doubled by that."""
    monkeypatch.setattr(tape, "_ROOM", room)
    autolog.enable(mode="offline", silent=True)
    model = linear()
    expected = train(model, loader(), sgd(model), 3)
    assert only(logged_runs(autolog_home)).values("epoch_loss") == pytest.approx(expected, rel=1e-6)
