from __future__ import annotations

import contextlib
import logging
import pickle
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.tuner import Tuner
from logged import LoggedRun, logged_runs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import autolog
from autolog.callbacks.lightning import AutologLogger

Logged = Callable[[], list[LoggedRun]]

X = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
DATA = TensorDataset(X, X.sum(1, keepdim=True))
BATCH = 16  # 50 samples: the last batch has 2
METHODS = ("fit", "validate", "test", "predict")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Lightning says nothing."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


@pytest.fixture
def off(autolog_home: Path) -> Logged:
    """The runs so far, with autolog not enabled."""
    autolog.enable(mode="offline", silent=True)
    autolog.disable()
    return lambda: logged_runs(autolog_home)


def only(runs: list[LoggedRun]) -> LoggedRun:
    """The one run that there must be."""
    (run,) = runs
    return run


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


def test_a_step_that_is_skipped(logged: Logged) -> None:
    """A batch for which the module returns no loss does not count."""

    class Skipping(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            return None if index == 1 else self.loss(batch)

    trainer().fit(model := Skipping(), loader())
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


@pytest.mark.recent
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


# -- runs ------------------------------------------------------------------------------------------


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
    """Ctrl-C ends the run KILLED; what Lightning does then, an exit in newer releases, follows."""

    class Interrupted(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            raise KeyboardInterrupt

    with contextlib.suppress(SystemExit):
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


# -- what must not change --------------------------------------------------------------------------


@pytest.mark.parametrize("logger", [True, False, pytest.param("csv", marks=pytest.mark.recent)])
def test_nothing_of_the_trainer_changes(off: Logged, tmp_path: Path, logger: Any) -> None:
    """Checkpoints go where they went, and loggers and callbacks are as before the fit."""

    def outcome() -> list[Any]:
        options = {"default_root_dir": tmp_path, "logger": logger}
        if logger == "csv":
            options["logger"] = lightning.pytorch.loggers.CSVLogger(tmp_path, version="fixed")
        fitted = trainer(**options)
        before = [id(each) for each in [*fitted.loggers, *fitted.callbacks]]
        fitted.fit(model := Talkative(), loader(), loader())
        assert [id(each) for each in [*fitted.loggers, *fitted.callbacks]] == before
        assert "log_metrics" not in vars(fitted._logger_connector)
        pickle.dumps(fitted)
        checkpoint = torch.load(fitted.checkpoint_callback.best_model_path, weights_only=False)
        path = fitted.checkpoint_callback.best_model_path.replace("version_1", "version_0")
        weights = [p.detach().numpy().tobytes() for p in model.parameters()]
        logged = {key: value.item() for key, value in fitted.logged_metrics.items()}
        return [path, weights, checkpoint["callbacks"].keys(), logged, torch.get_rng_state()]

    without = outcome()
    for path in tmp_path.rglob("*.ckpt"):
        path.unlink()
    autolog.enable()
    assert str(outcome()) == str(without)
    assert len(off()) == 1


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


def test_disable_puts_everything_back(autolog_home: Path) -> None:
    """After ``disable()`` the methods are the very same; trainers made meanwhile log nothing."""
    spaces = (lightning.pytorch, pytorch_lightning)
    before = [vars(space.Trainer)[name] for space in spaces for name in METHODS]
    autolog.enable(mode="offline", silent=True)
    autolog.enable(mode="offline", silent=True)
    made = trainer()
    assert vars(lightning.pytorch.Trainer)["fit"] is not before[0]
    autolog.disable()
    assert [vars(space.Trainer)[name] for space in spaces for name in METHODS] == before
    made.fit(Regression(), loader())
    assert logged_runs(autolog_home) == []


def test_trainers_made_before(autolog_home: Path) -> None:
    """A trainer that was made before ``enable()`` logs as well."""
    made = trainer()
    autolog.enable(mode="offline", silent=True)
    made.fit(Regression(), loader())
    assert len(logged_runs(autolog_home)) == 1


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
    assert [set(run.metrics) for run in off()] == [{"epoch_loss"}, {"p-late"}]


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
