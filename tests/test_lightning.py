from __future__ import annotations

import contextlib
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightnings import OtherRegression, Regression, Talkative, exactly, loader, trainer
from logged import Logged, logged_runs, only
from torch import Tensor, nn
from torch.nn import functional

import autolog
from autolog.callbacks.lightning import AutologLogger

pytestmark = pytest.mark.filterwarnings("ignore")

# -- epoch_loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "module"),
    [(lightning.pytorch, Regression), (pytorch_lightning, OtherRegression)],
    ids=["lightning.pytorch", "pytorch_lightning"],
)
@pytest.mark.parametrize("explicit", [False, True])
def test_a_module_that_logs_nothing(
    autolog_home: Path,
    space: ModuleType,
    module: Any,
    explicit: bool,
) -> None:
    """Every form in both name spaces logs ``epoch_loss`` by itself, weighted by samples."""
    autolog.enable(mode="offline", silent=True)
    options = {}
    if explicit:
        autolog.disable()
        options["logger"] = AutologLogger()
        assert isinstance(options["logger"], space.loggers.Logger)
    trainer(space, **options).fit(model := module(), loader())
    run = only(logged_runs(autolog_home))
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1]
    assert (run.model, run.status) == (module.__name__, "FINISHED")
    assert run.tags["mlflow.autologging"] == "lightning"


def test_gradient_accumulation(logged: Logged) -> None:
    """What Lightning divides for gradient accumulation is multiplied back."""
    trainer(accumulate_grad_batches=3).fit(model := Regression(), loader())
    assert only(logged()).values("epoch_loss") == exactly(model.hand.epochs)


class Manual(Regression):
    """Two optimizers, stepped by hand."""

    def __init__(self, *, returns: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.other, self.returns = nn.Linear(4, 1), returns

    def configure_optimizers(self) -> Any:
        return [super().configure_optimizers(), torch.optim.Adam(self.other.parameters())]

    def training_step(self, batch: Any, index: int) -> Any:
        total = 0.0
        for layer, optimizer in zip((self.layer, self.other), self.optimizers(), strict=True):
            optimizer.zero_grad()
            loss = functional.mse_loss(layer(batch[0]), batch[1])
            self.manual_backward(loss)
            optimizer.step()
            total += loss.item()
        self.hand.note(len(batch[0]), loss.item() if self.returns else total)
        return loss if self.returns else None


@pytest.mark.parametrize("returns", [True, False])
def test_manual_optimisation(logged: Logged, returns: bool) -> None:
    """The loss is what the step returns, else the sum of what it propagated back."""
    trainer().fit(model := Manual(returns=returns), loader())
    run = only(logged())
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert (run.params["optimizer_name"], run.params["optimizer_name.1"]) == ("SGD", "Adam")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions(logged: Logged, precision: str) -> None:
    """Losses of other precisions are summed up as exactly as they are."""

    class Narrow(Regression):
        def loss(self, batch: Any) -> Tensor:
            x, y = batch
            out = self.layer(x)
            loss = functional.mse_loss(out, y)
            self.hand.note(len(x), loss.item())
            self.dtypes = {out.dtype, loss.dtype}
            return loss

    trainer(precision=precision, accumulate_grad_batches=2).fit(model := Narrow(), loader())
    assert model.dtypes != {torch.float32}
    run = only(logged())
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert run.params["precision"] == precision


def test_a_step_that_is_skipped(logged: Logged) -> None:
    """A batch for which the module returns no loss does not count."""

    class Skipping(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            return None if index == 1 else self.loss(batch)

    trainer().fit(model := Skipping(), loader())
    assert only(logged()).values("epoch_loss") == exactly(model.hand.epochs)


class Untrained(Regression):
    """A module without an optimizer, for which Lightning makes one that has no params."""

    def configure_optimizers(self) -> None:
        return None


def test_a_module_without_an_optimizer(logged: Logged) -> None:
    """It has no learning rate, and everything else."""
    trainer().fit(model := Untrained(), loader())
    run = only(logged())
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert (run.params["epochs"], run.params["batch_size"]) == ("2", "16")
    assert "layer" in run.texts["model_summary.txt"]
    assert "learning_rate" not in run.metrics
    assert not {"optimizer_name", "lr"} & run.params.keys()


class Naming(Regression):
    """Logs names of ours, at the last moment there is."""

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.log_dict({"epoch_loss": 42.0, "learning_rate": 7.0})


@pytest.mark.parametrize("saves", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_names_that_the_module_logs(logged: Logged, explicit: bool, saves: bool) -> None:
    """They are the module's, from the first epoch to the last."""
    logger = AutologLogger() if explicit else False
    trainer(logger=logger, enable_checkpointing=saves).fit(Naming(), loader())
    run = only(logged())
    assert run.metrics["epoch_loss"] == [(3, 42.0), (7, 42.0)]
    assert run.metrics["learning_rate"] == [(3, 7.0), (7, 7.0)]


@pytest.mark.parametrize("fails", [True, False])
def test_an_epoch_is_logged_before_its_checkpoint(logged: Logged, fails: bool) -> None:
    """So it is not missing from a run that goes on from there; nor is one that fails at its end."""
    seen: list[int] = []

    class Looking(lightning.pytorch.Callback):
        def on_save_checkpoint(self, *_: object) -> None:
            seen.append(len(only(logged()).values("epoch_loss")))

    class Failing(Regression):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            if fails and self.current_epoch:
                raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError):
        trainer(callbacks=[Looking()]).fit(model := Failing(), loader())
    assert seen == ([1] if fails else [1, 2])
    assert [step for step, _ in only(logged()).metrics["epoch_loss"]] == [0, 1]
    assert only(logged()).values("epoch_loss") == exactly(model.hand.epochs)


def test_resumed_training(logged: Logged, tmp_path: Path) -> None:
    """A fit from a checkpoint goes on at its epoch."""
    first = trainer()
    first.fit(Regression(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    trainer(max_epochs=4).fit(Regression(), loader(), ckpt_path=tmp_path / "last.ckpt")
    assert [step for step, _ in logged()[1].metrics["epoch_loss"]] == [2, 3]


def test_log_every_n_steps(autolog_home: Path) -> None:
    """``log_every_n_steps=2`` of autolog logs every second step's own loss at its number."""
    autolog.enable(mode="offline", silent=True, log_every_n_steps=2)
    losses: list[tuple[int, float]] = []

    class Noting(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            losses.append((len(batch[0]), (loss := self.loss(batch)).item()))
            return loss

    trainer(accumulate_grad_batches=2, max_epochs=1).fit(Noting(), loader())
    samples = sum(size for size, _ in losses[2:])
    mean = sum(size * loss for size, loss in losses[2:]) / samples
    ((step, value),) = only(logged_runs(autolog_home)).metrics["batch_loss"]
    assert (step, value) == (2, pytest.approx(mean, rel=1e-6))


# -- the same in every form ------------------------------------------------------------------------


def _fit(**options: Any) -> None:
    hyper_parameters = {"nested": {"depth": 2, "deeper": {"width": 8}}}
    trainer(**options).fit(Talkative(**hyper_parameters), loader(), loader(20))


def test_every_form_logs_the_same(off: Logged, tmp_path: Path) -> None:
    """Names, steps and values are those that Lightning gives to loggers, whatever the form."""
    explicit = AutologLogger(str(tmp_path / "explicit"))
    _fit(logger=explicit)
    autolog.enable()
    for logger in (True, False, lightning.pytorch.loggers.CSVLogger(tmp_path), [AutologLogger()]):
        _fit(logger=logger)
    runs = off()
    assert len(runs) == 5
    for run in runs:
        assert run.metrics == runs[0].metrics
        assert run.params == runs[0].params
        assert run.status == "FINISHED"
    steps = {key: [step for step, _ in points] for key, points in runs[0].metrics.items()}
    assert steps["epoch_loss"] == [0, 1]
    assert steps["train_loss_step"] == [1, 3, 5, 7]
    assert steps["val_loss_epoch"] == steps["train_loss_epoch"] == [3, 7]


FORMS = {
    "`AutologLogger`": AutologLogger,
    "`enable()`": lambda: True,
    "beside your logger": lambda: lightning.pytorch.loggers.CSVLogger("logs"),
    "`logger=False`": lambda: False,
}


class Logging(Regression):
    """Logs ``m`` from one method, in one way."""

    def __init__(self, method: str, how: dict[str, bool]) -> None:
        super().__init__()
        self.method, self.how = method, how

    def say(self, method: str) -> None:
        if method == self.method:
            self.log("m", 1.0, **self.how)

    def training_step(self, batch: Any, index: int) -> Any:
        self.say("training_step")
        return self.loss(batch)

    def validation_step(self, batch: Any, index: int) -> None:
        self.say("validation_step")

    def test_step(self, batch: Any, index: int) -> None:
        self.say("test_step")

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.say("on_train_epoch_end")


def _table_of_steps() -> list[dict[str, str]]:
    """The rows of the table in the documentation, by column."""
    text = (Path(__file__).parent.parent / "docs/frameworks/lightning.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    head = next(row for row in cells if row[:2] == ["in", "`on_step`"])
    rows = [row for row in cells[cells.index(head) + 2 :] if len(row) == len(head)]
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_table_of_names_and_steps(autolog_home: Path) -> None:
    """What the documentation says of ``self.log`` is so, in every form of use."""
    rows = _table_of_steps()
    assert len(rows) == 14
    for row in rows:
        ways = {name: row[f"`{name}`"] for name in ("on_step", "on_epoch")}
        how = {name: way == "True" for name, way in ways.items() if way != "default"}
        for form, logger in FORMS.items():
            given = logger()
            is_explicit = isinstance(given, AutologLogger)
            autolog.enable(mode="offline", silent=True)
            if is_explicit:
                autolog.disable()
            before = len(logged_runs(autolog_home))
            fitted = trainer(logger=given, enable_checkpointing=False)
            fitted.fit(model := Logging(row["in"].strip("`"), how), loader(), loader(20))
            fitted.test(model, loader(), verbose=False)
            steps = [
                step
                for run in logged_runs(autolog_home)[before:]
                for step, _ in run.metrics.get(row["name"].strip("`"), [])
            ]
            assert " ".join(map(str, steps)) == row[form], (row, form)


def test_params(logged: Logged) -> None:
    """Hyper-parameters of the module, flattened, and what is known of fit and optimizer."""
    _fit(gradient_clip_val=0.5)
    params = only(logged()).params
    assert params["nested/deeper/width"] == "8"
    assert params["epochs"] == "2"
    assert params["batch_size"] == "16"
    assert params["optimizer_name"] == "SGD"
    assert params["lr"] == "0.05"
    assert params["gradient_clip_val"] == "0.5"
    assert "autolog.changed_params" not in only(logged()).tags


@pytest.mark.recent  # Lightning 2.1 logs all hyper-parameters
def test_hyper_parameters_that_the_user_keeps_back(logged: Logged) -> None:
    """``save_hyperparameters(logger=False)`` and ``enable_autolog_hparams=False`` are obeyed."""

    class Secretive(Regression):
        def __init__(self, width: int = 3, *, logger: bool) -> None:
            super().__init__()
            self.save_hyperparameters("width", logger=logger)

    for given in (False, True):
        trainer(logger=given).fit(Secretive(logger=False), loader())
        trainer(logger=given, enable_autolog_hparams=False).fit(Secretive(logger=True), loader())
    assert len(logged()) == 4
    assert all("width" not in run.params for run in logged())
    assert all(len(run.values("epoch_loss")) == 2 for run in logged())
