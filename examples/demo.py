"""One small model in each of the four frameworks, logged by nothing but ``autolog.enable()``.

Runs go where MLflow would put them: ``sqlite:///mlflow.db`` here, or the server that
``MLFLOW_TRACKING_URI`` names.
"""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")

import autolog  # noqa: E402 - the two lines above keep TensorFlow quiet

autolog.enable()

import keras  # noqa: E402 - a user imports as usual, before or after enable()
import lightning.pytorch as pl  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_digits  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from autolog import RunHandle  # noqa: E402

EPOCHS = 5


def train_sklearn() -> None:
    """A scaled multi-layer perceptron on breast cancer."""
    x, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=30, random_state=0))
    model.fit(x, y)


def train_keras() -> None:
    """A dense network on digits, with a validation split."""
    x, y = load_digits(return_X_y=True)
    model = keras.Sequential(
        [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x / 16, y, epochs=EPOCHS, validation_split=0.2, verbose=0)


class Digits(pl.LightningModule):
    """A linear classifier of digits that logs nothing itself."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.model = torch.nn.Linear(64, 10)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """The loss of a batch; Lightning goes on from there."""
        x, y = batch
        return torch.nn.functional.cross_entropy(self.model(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all weights."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def train_lightning() -> None:
    """The linear classifier, by Lightning's Trainer."""
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Digits(), _loader(*load_digits(return_X_y=True)))


def train_torch() -> None:
    """A plain PyTorch loop on breast cancer."""
    x, y = load_breast_cancer(return_X_y=True)
    loader = _loader(StandardScaler().fit_transform(x), y)
    model = torch.nn.Sequential(torch.nn.Linear(30, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        for inputs, labels in loader:
            optimizer.zero_grad()
            criterion(model(inputs), labels).backward()
            optimizer.step()


def _loader(x: object, y: object) -> DataLoader[tuple[torch.Tensor, ...]]:
    inputs, labels = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    return DataLoader(TensorDataset(inputs, labels), batch_size=64, shuffle=True)


def show(runs: dict[str, RunHandle]) -> None:
    """Print what the store holds of each run."""
    table = Table("run", "framework", "epochs", "first epoch_loss", "last epoch_loss", "params")
    for framework, run in runs.items():
        losses, params = run.metrics()["epoch_loss"], run.params()
        some = ", ".join(f"{key}={value[:20]}" for key, value in sorted(params.items())[:3])
        table.add_row(
            run.name,
            framework,
            str(len(losses)),
            f"{losses[0].value:.4f}",
            f"{losses[-1].value:.4f}",
            f"{len(params)}: {some}, ...",
        )
    Console(width=130).print(table)


def main() -> None:
    """Train, then read back."""
    trainings = {
        "scikit-learn": train_sklearn,
        "Keras": train_keras,
        "Lightning": train_lightning,
        "PyTorch": train_torch,
    }
    runs: dict[str, RunHandle] = {}
    for framework, train in trainings.items():
        train()
        run = autolog.last_run()
        assert run is not None
        runs[framework] = run
    print(autolog.flush())
    show(runs)
    uri = autolog.config()["tracking_uri"].value
    look = f"open {uri}" if str(uri).startswith("http") else f"mlflow ui --backend-store-uri {uri}"
    print(f"To look at them: {look}")


if __name__ == "__main__":
    main()
