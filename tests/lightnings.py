"""Small Lightning trainings whose losses a person could note down."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

for _name in ("lightning.pytorch", "pytorch_lightning"):
    logging.getLogger(_name).setLevel(logging.ERROR)

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.sum(1, keepdim=True))
BATCH = 16  # 50 samples: the last batch has 2
METHODS = ("fit", "validate", "test", "predict")


def exactly(values: Sequence[float]) -> Any:
    """The promise: within 1e-6 of what a person computes."""
    return pytest.approx(list(values), rel=1e-6)


class Hand:
    """What a person would note down: each batch's samples and loss."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._total = self._samples = 0.0

    def note(self, samples: int, loss: float) -> None:
        self._total += samples * loss
        self._samples += samples

    def end_epoch(self) -> None:
        self.epochs.append(self._total / self._samples)
        self._total = self._samples = 0.0


class _Regression:
    """A module that logs nothing; `hand` knows the means."""

    def __init__(self, lr: float = 0.05, **_: object) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer, self.lr, self.hand = nn.Linear(4, 1), lr, Hand()

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        loss = functional.mse_loss(self.layer(x), y)
        if self.training:  # type: ignore[attr-defined]
            self.hand.note(len(x), loss.item())
        return loss

    def training_step(self, batch: Any, index: int) -> Any:
        return self.loss(batch)

    def on_train_epoch_end(self) -> None:
        self.hand.end_epoch()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.layer.parameters(), lr=self.lr)


class Regression(_Regression, LightningModule):
    pass


class OtherRegression(_Regression, pytorch_lightning.LightningModule):
    pass


class Talkative(Regression):
    """A module that logs in every way there is."""

    def __init__(self, lr: float = 0.05, nested: dict[str, Any] | None = None) -> None:
        super().__init__(lr)
        self.save_hyperparameters()

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("index", float(index))
        return {"loss": loss}

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test_loss", self.loss(batch))


def loader(batch_size: int = BATCH) -> DataLoader[Any]:
    """Batches in the same order each time."""
    return DataLoader(DATA, batch_size=batch_size)


def trainer(space: ModuleType = lightning.pytorch, **options: Any) -> Any:
    """A small trainer."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return space.Trainer(**{"max_epochs": 2, "log_every_n_steps": 2, **quiet, **options})
