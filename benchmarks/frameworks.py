"""``make bench-frameworks``: what logging adds to trainings, with hooks on against hooks off.

Both sides are interleaved in one run, A/B/A: the two A tell how far equal things lie apart there.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

from figures import Figure, Part, benchmark, script
from programs import seconds_of_training, units_of


class Size(NamedTuple):
    """How much is measured."""

    seconds: float
    """Of one training; 0 makes two units of it."""
    rounds: int
    """Of each comparison."""
    steps: int
    """Of plain PyTorch, in each block of a round."""
    fits: int
    """Of scikit-learn, in each block of a round."""


FULL = Size(seconds=20, rounds=3, steps=2000, fits=1000)
QUICK = Size(seconds=0, rounds=1, steps=300, fits=200)

_BLOCKS_A_ROUND = 5
"""Of the short measurements, those of one step or fit."""

_LEAST_PERCENT = 1.0
"""What a training may take longer with hooks on, where equal trainings do not lie further apart."""


_ENABLE = "import autolog\nautolog.enable(silent=True)\n"
_ENABLE_HOOKS = "import autolog\nautolog.enable(mode='offline', silent=True)\n"
"""Nothing is sent, so that no other process wants the processors of the training."""

# -- hooks on against off --------------------------------------------------------------------------


def on_against_off(framework: str, size: Size) -> list[Figure]:
    """How much longer a training of some seconds takes with hooks on, run and all.

    Printed beside it: with the process that sends, whose start takes seconds of a processor where
    the target is a database on this machine.
    """
    units = units_of(framework, size.seconds)
    added, equal = [], []
    for _ in range(size.rounds):
        ways = ("", _ENABLE_HOOKS, "", _ENABLE)
        first, on, last, sending = (
            seconds_of_training(framework, before, units) for before in ways
        )
        off = (first + last) / 2
        added.append(100 * (on / off - 1))
        equal.append(100 * abs(first - last) / off)
        print(
            f"  {framework}: off {first:.2f} s, on {on:.2f} s, off {last:.2f} s; "
            f"sending to a local database as well {sending:.2f} s"
        )
    target = max(_LEAST_PERCENT, *equal)
    return [Figure(f"{framework}, hooks on against off", statistics.median(added), target, "%")]


# -- the cost of a step, of a fit ------------------------------------------------------------------

_BLOCKS = """
import sys, time
import autolog
count, rounds = int(sys.argv[1]), int(sys.argv[2])
def seconds(work):
    start = time.perf_counter()
    work(count)
    return (time.perf_counter() - start) / count
def compared(work):
    work(count)
    for _ in range(rounds):
        first = seconds(work)
        autolog.enable(silent=True, log_models=False)
        on = seconds(work)
        autolog.disable()
        print((on - (first + seconds(work)) / 2) * 1e6, first * 1e6, flush=True)
"""

_STEPS = """
import torch
torch.set_num_threads(1)
layers = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(),
    torch.nn.Linear(128, 1),
)
optimizer = torch.optim.Adam(layers.parameters())
criterion = torch.nn.MSELoss()
x, y = torch.rand(64, 64), torch.rand(64, 1)

class Batches(torch.utils.data.IterableDataset):
    def __init__(self, count):
        self.count = count
    def __iter__(self):
        return iter([(x, y)] * self.count)

def steps(count):
    for inputs, targets in torch.utils.data.DataLoader(Batches(count), batch_size=None):
        optimizer.zero_grad()
        criterion(layers(inputs), targets).backward()
        optimizer.step()
compared(steps)
"""

_ROOT_FITS = """
from sklearn.base import BaseEstimator
class Estimator(BaseEstimator):
    def fit(self, x=None, y=None):
        return self
def fits(count):
    for _ in range(count):
        Estimator().fit()
compared(fits)
"""

_NESTED_FITS = """
from sklearn.base import BaseEstimator
class Inner(BaseEstimator):
    def fit(self, x=None, y=None):
        return self
class Outer(BaseEstimator):
    def fit(self, count):
        inner = Inner()
        for _ in range(count):
            inner.fit()
        return self
compared(lambda count: Outer().fit(count))
"""


def cost_of_one(what: str, program: str, count: int, target: float, rounds: int) -> list[Figure]:
    """Microseconds that hooks add to one of many steps or fits in one process."""
    output = script(_BLOCKS + program, str(count), str(_BLOCKS_A_ROUND * rounds))
    rows = [[float(word) for word in line.split()] for line in output.splitlines()]
    added, bare = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"  {what}: {bare:.1f} us without hooks")
    return [Figure(f"{what}, added", added, target, "us")]


_MODEL_FITS = """
import os, statistics, sys, time
import cloudpickle
import numpy as np
from sklearn.ensemble import RandomForestClassifier
import autolog
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 10))
y = (x.sum(axis=1) + rng.normal(size=400) > 0).astype(int)
def fit():
    model = RandomForestClassifier(40, max_depth=5, random_state=0)
    start = time.perf_counter()
    model.fit(x, y)
    return time.perf_counter() - start
fit()
autolog.enable(silent=True, tracking_uri="http://127.0.0.1:9", log_models=True)
fit()
for _ in range(int(sys.argv[1])):
    autolog.disable()
    off = [fit() for _ in range(5)]
    autolog.enable()
    on = [fit() for _ in range(5)]
    autolog.disable()
    off = statistics.median(off + [fit() for _ in range(5)])
    model = RandomForestClassifier(40, max_depth=5, random_state=0).fit(x, y)
    start = time.perf_counter()
    with open(os.devnull, "wb") as file:
        cloudpickle.dump(model, file)
    serialising = time.perf_counter() - start
    print((statistics.median(on) - serialising) / off, off, serialising, flush=True)
os._exit(0)
"""


def models(rounds: int) -> list[Figure]:
    """A short fit whose model is logged, beside the same with autolog off."""
    rows = [
        [float(word) for word in line.split()]
        for line in script(_MODEL_FITS, str(3 * rounds)).splitlines()
    ]
    ratio, fit, serialising = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"  a fit of {fit * 1000:.0f} ms; pickling its model takes {serialising * 1000:.1f} ms")
    return [
        Figure("a fit with its model logged, without pickling / with autolog off", ratio, 1.2, "")
    ]


_ENABLE_ALL = """
import os, time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras, lightning.pytorch, pytorch_lightning, sklearn.base, torch
import autolog
start = time.perf_counter()
autolog.enable(silent=True, tracking_uri="http://127.0.0.1:9")
print((time.perf_counter() - start) * 1000)
os._exit(0)
"""


def enable(rounds: int) -> list[Figure]:
    """The first ``enable()`` of a process that has all four frameworks loaded."""
    script(_ENABLE_ALL)  # writes the bytecode that an installation has
    took = [float(script(_ENABLE_ALL).split()[-1]) for _ in range(rounds)]
    return [Figure("enable() with four frameworks", statistics.median(took), 50, "ms")]


# -- running it ------------------------------------------------------------------------------------


def parts(size: Size, target: str) -> list[Part]:  # noqa: ARG001 - as a benchmark's parts are
    """What is measured."""

    def cost(what: str, program: str, count: int, limit: float) -> Callable[[], list[Figure]]:
        return functools.partial(cost_of_one, what, program, count, limit, size.rounds)

    measured: list[Part] = [
        ("enable()", functools.partial(enable, size.rounds)),
        ("plain PyTorch", cost("a step of plain PyTorch", _STEPS, size.steps, 10)),
        ("nested fits", cost("a nested fit of scikit-learn", _NESTED_FITS, 50 * size.fits, 4)),
        ("root fits", cost("a root fit of scikit-learn", _ROOT_FITS, size.fits // 4, 1000)),
    ]
    measured.append(("models", functools.partial(models, size.rounds)))
    measured += [
        (f"{name}, on against off", functools.partial(on_against_off, name, size))
        for name in ("Lightning", "Keras", "scikit-learn")
    ]
    return measured


if __name__ == "__main__":
    sys.exit(benchmark(__doc__, parts, FULL, QUICK))
