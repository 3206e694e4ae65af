"""Small PyTorch loops with the means that a person would note down by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

BATCH = 16  # 50 samples: the last batch has 2
X = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
Y = X.sum(1, keepdim=True)
DATA = TensorDataset(X, Y)
VALIDATION = TensorDataset(X[:21] + 1, Y[:21])
SLICES = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


class Hand:
    """What a person would note down: each batch's samples and loss."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._total = self._samples = 0.0

    def note(self, samples: int, loss: Tensor) -> None:
        self._total += samples * loss.item()
        self._samples += samples

    def end_epoch(self) -> None:
        self.epochs.append(self._total / self._samples)
        self._total = self._samples = 0.0


def linear() -> nn.Linear:
    """A model with the same weights each time."""
    torch.manual_seed(5)
    return nn.Linear(4, 1)


def loader(data: TensorDataset = DATA, **options: Any) -> DataLoader[Any]:
    """Batches in the same order each time."""
    return DataLoader(data, batch_size=BATCH, **options)


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    """A plain optimizer."""
    return torch.optim.SGD(model.parameters(), lr=lr)


def train(
    model: nn.Module,
    batches: Any,
    optimizer: torch.optim.Optimizer,
    epochs: int = 2,
    criterion: Callable[..., Tensor] = functional.mse_loss,
) -> list[float]:
    """The loop of every tutorial; gives the means by hand."""
    hand = Hand()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(len(x), loss)
        hand.end_epoch()
    return hand.epochs


def exactly(values: Sequence[float]) -> Any:
    """The promise: within 1e-6 of what a person computes."""
    return pytest.approx(list(values), rel=1e-6)


def by_epoch(means: Sequence[float]) -> list[tuple[int, Any]]:
    """The points that the means of successive epochs must be, `exactly`."""
    return [(epoch, pytest.approx(mean, rel=1e-6)) for epoch, mean in enumerate(means)]
