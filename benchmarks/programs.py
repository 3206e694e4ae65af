"""The trainings that are measured, each as the text of a program."""

from __future__ import annotations

import functools

from figures import script

_LIGHTNING = """
import logging, time, warnings
import lightning.pytorch as pl
import torch
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.simplefilter("ignore")
torch.manual_seed(0)
torch.set_num_threads(1)

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1)
        )
    def training_step(self, batch, index):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layers(x), y)
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)

data = torch.utils.data.TensorDataset(torch.rand(6400, 64), torch.rand(6400, 1))
loader = torch.utils.data.DataLoader(data, batch_size=64)

def fit(units, logger=False):
    pl.Trainer(
        max_epochs=units, logger=logger, accelerator="cpu", enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=50,
    ).fit(Module(), loader)
"""

_TORCH = """
import time
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
data = torch.utils.data.TensorDataset(torch.rand(6400, 64), torch.rand(6400, 1))
loader = torch.utils.data.DataLoader(data, batch_size=64)

def fit(units, log=lambda metrics, step: None):
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = torch.nn.MSELoss()
    step = 0
    for epoch in range(units):
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            step += 1
            total += loss.item()
            if step % 50 == 0:
                log({"batch_loss": loss.item()}, step)
        log({"epoch_loss": total / len(loader)}, epoch)
"""

_KERAS = """
import os, time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
keras.utils.set_random_seed(0)
x, y = np.random.rand(6400, 64), np.random.rand(6400, 1)

def fit(units, callbacks=()):
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(x, y, epochs=units, batch_size=64, verbose=0, callbacks=list(callbacks))
"""

_SKLEARN = """
import time, warnings
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
warnings.simplefilter("ignore")
generator = np.random.default_rng(0)
x = generator.random((400, 20))
y = (x.sum(axis=1) + generator.random(400) > 10.5).astype(int)

def fit(units, mark=lambda search: search):
    grid = {"logisticregression__C": np.logspace(-3, 3, units)}
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=50))
    mark(GridSearchCV(model, grid, cv=5)).fit(x, y)
"""

TRAININGS = {
    "PyTorch": _TORCH,
    "Lightning": _LIGHTNING,
    "Keras": _KERAS,
    "scikit-learn": _SKLEARN,
}
"""Each defines ``fit(units)``: some epochs, or candidates of a search."""

_TIMED = "\nfit(2)\nstart = time.perf_counter()\nfit({units})\nprint(time.perf_counter() - start)"


@functools.cache
def units_of(framework: str, seconds: float) -> int:
    """How many units of a training take so many seconds, without hooks."""
    units, took = 2, 0.0
    while took < min(seconds, 5) / 2:
        units *= 2
        took = min(seconds_of_training(framework, "", units) for _ in range(2))
    return max(2, round(units * seconds / took)) if took else units


def seconds_of_training(framework: str, before: str, units: int) -> float:
    """Of one training, after a short one, in a process of its own."""
    output = script(before + TRAININGS[framework] + _TIMED.format(units=units))
    return float(output.splitlines()[-1])
