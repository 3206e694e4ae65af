"""What the hooks in PyTorch cost a step: off, on and off again, epoch by epoch in one process.

Thread time, so that other programs on the machine do not count. ``--check`` exits with status 1
when the target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autolog

WARM_UP, STEPS = 20, 60
TARGET = 10.0
"""Microseconds a step."""


class Loop:
    """A training of three layers, about 300 microseconds a step on one core."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        x = torch.randn((WARM_UP + STEPS) * 32, 20)
        self._batches = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=32)
        sizes = (20, 64, 64, 1)
        layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
        self._model = nn.Sequential(*(part for each in layers for part in (each, nn.ReLU())))
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9)
        self._criterion = nn.MSELoss()

    def epoch(self) -> float:
        """Train one epoch; the microseconds of this thread for a step, but the first ones."""
        started = 0.0
        for index, (x, y) in enumerate(self._batches):
            if index == WARM_UP:
                started = time.thread_time()
            self._optimizer.zero_grad()
            self._criterion(self._model(x), y).backward()
            self._optimizer.step()
        return (time.thread_time() - started) / STEPS * 1e6


def measure(rounds: int) -> dict[str, float]:
    """Medians over the rounds, in microseconds a step."""
    loop = Loop()
    base, cost, control = [], [], []
    for _ in range(rounds):
        before = loop.epoch()
        autolog.enable(mode="offline", silent=True)
        hooked = loop.epoch()
        autolog.disable()
        after = loop.epoch()
        base.append((before + after) / 2)
        cost.append(hooked - (before + after) / 2)
        control.append(after - before)
    return {
        "a step": statistics.median(base),
        "hooks": statistics.median(cost),
        "off against off": statistics.median(control),
        "off against off, quartiles apart": statistics.quantiles(control, n=4)[2]
        - statistics.quantiles(control, n=4)[0],
    }


def main() -> None:
    """Measure, print and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=250)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        autolog.enable(mode="offline", silent=True, dir=home)
        autolog.disable()
        figures = measure(chosen.rounds)
        autolog.shutdown(0)
    for name, value in figures.items():
        print(f"{name:32} {value:8.1f} us")
    sys.exit(chosen.check and figures["hooks"] > TARGET)


if __name__ == "__main__":
    main()
