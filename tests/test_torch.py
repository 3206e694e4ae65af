from __future__ import annotations

import copy
import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged import LoggedRun, logged_runs
from support import run_script
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import autolog
from autolog.callbacks import tensors
from autolog.callbacks.tensors import Rings, Scalars

Logged = Callable[[], list[LoggedRun]]

BATCH = 16  # 50 samples: the last batch has 2
X = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
Y = X.sum(1, keepdim=True)
DATA = TensorDataset(X, Y)
VALIDATION = TensorDataset(X[:21] + 1, Y[:21])
SLICES = [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


@pytest.fixture(params=["host", "ring"])
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as it is, once with every loss going through a device ring."""

    def append(self: Scalars, scalar: Tensor) -> None:
        self._values.append(float("nan"))
        self._rings.put(scalar, self, len(self) - 1)

    if request.param == "ring":
        monkeypatch.setattr(Scalars, "append", append)


class SimpleBatch:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


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


def only(runs: list[LoggedRun]) -> LoggedRun:
    """The one run that there must be."""
    (run,) = runs
    return run


def exactly(values: Sequence[float]) -> Any:
    """The promise: within 1e-6 of what a person computes."""
    return pytest.approx(list(values), rel=1e-6)


# -- epoch_loss ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everywhere")
def test_a_plain_loop(logged: Logged) -> None:
    """The loop of every tutorial is a run with a point per epoch, steps from 0."""
    model = linear()
    expected = train(model, loader(), torch.optim.Adam(model.parameters()), 3)
    run = only(logged())
    assert run.values("epoch_loss") == exactly(expected)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2]
    assert run.metrics.keys() == {"epoch_loss", "learning_rate", "steps_per_second"}
    assert run.model == "Adam"
    assert run.tags["mlflow.autologging"] == "torch"


def test_params(logged: Logged) -> None:
    """The params are optimizer, its hyper-parameters before any schedule, and batch size."""
    model = linear()
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.5}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.5)
    train(model, loader(), optimizer, 1)
    params = only(logged()).params
    assert params["optimizer_name"] == "SGD"
    assert params["lr"] == "0.1"
    assert params["momentum"] == "0.9"
    assert params["weight_decay"] == "[0, 0.5]"
    assert params["batch_size"] == "16"
    assert not {"params", "initial_lr"} & params.keys()


def test_learning_rate(logged: Logged) -> None:
    """``learning_rate`` is what the last step of the epoch used, before the schedule moves."""
    model, batches = linear(), loader()
    optimizer = sgd(model, 0.4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        train(model, batches, optimizer, 1)
        schedule.step()
    assert only(logged()).values("learning_rate") == [0.4, 0.2, 0.1]


@pytest.mark.usefixtures("everywhere")
def test_gradient_accumulation(logged: Logged) -> None:
    """``loss / k`` with a step every k batches logs the losses themselves, the short group too."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for _ in range(2):
        batches = loader()
        for index, (x, y) in enumerate(batches):
            loss = functional.mse_loss(model(x), y)
            (loss / 3).backward()
            hand.note(len(x), loss)
            if index % 3 == 2 or index + 1 == len(batches):
                optimizer.step()
                optimizer.zero_grad()
        hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_parts_of_a_loss(logged: Logged) -> None:
    """A loss that is propagated back in parts is logged whole."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for x, y in loader():
        optimizer.zero_grad()
        first, second = functional.mse_loss(model(x), y), model.weight.square().sum()
        torch.autograd.backward(first)
        second.backward()
        optimizer.step()
        hand.note(len(x), first + second)
    hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_a_gradient_penalty_is_no_loss(logged: Logged) -> None:
    """``torch.autograd.grad`` and gradients of vectors leave the loss alone."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for x, y in loader():
        optimizer.zero_grad()
        inputs = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(inputs).sum(), inputs, create_graph=True)
        model(x).backward(torch.zeros(len(x), 1))
        model(x).sum().backward(torch.tensor(0.0))
        loss = functional.mse_loss(model(x), y) + slope.square().mean()
        loss.backward()
        optimizer.step()
        hand.note(len(x), loss)
    hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_two_optimizers(logged: Logged) -> None:
    """A GAN has a mean per optimizer, their sum as ``epoch_loss``, and is one run."""
    generator, critic = linear(), nn.Linear(1, 1)
    first, second = sgd(critic, 0.01), torch.optim.Adam(generator.parameters())
    hands = Hand(), Hand()
    for _ in range(2):
        for x, y in loader():
            first.zero_grad()
            loss = (critic(generator(x).detach()) - critic(y)).square().mean()
            loss.backward()
            first.step()
            hands[0].note(len(x), loss)
            second.zero_grad()
            loss = critic(generator(x)).square().mean()
            loss.backward()
            second.step()
            hands[1].note(len(x), loss)
        for hand in hands:
            hand.end_epoch()
    run = only(logged())
    assert run.values("epoch_loss.0") == exactly(hands[0].epochs)
    assert run.values("epoch_loss.1") == exactly(hands[1].epochs)
    assert run.values("epoch_loss") == exactly(
        [sum(pair) for pair in zip(hands[0].epochs, hands[1].epochs, strict=True)]
    )
    assert (run.params["optimizer_name"], run.params["optimizer_name.1"]) == ("SGD", "Adam")


def test_an_optimizer_inside_of_each_step(logged: Logged) -> None:
    """Optimising something else for each batch, as an attack does, leaves ``epoch_loss`` alone."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for x, y in loader():
        noise = torch.zeros_like(x, requires_grad=True)
        attack = torch.optim.SGD([noise], lr=0.1)
        for _ in range(2):
            (-functional.mse_loss(model(x + noise), y)).backward()
            attack.step()
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x + noise.detach()), y)
        loss.backward()
        optimizer.step()
        del attack
        hand.note(len(x), loss)
    hand.end_epoch()
    run = next(run for run in logged() if "epoch_loss" in run.metrics)
    assert run.values("epoch_loss") == exactly(hand.epochs)


def test_closures(logged: Logged) -> None:
    """An optimizer that evaluates its closure many times a step logs the first loss of each."""
    model, hand = linear(), Hand()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    for x, y in loader():
        evaluated: list[Tensor] = []

        def closure(x: Tensor = x, y: Tensor = y, seen: list[Tensor] = evaluated) -> Tensor:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            seen.append(loss)
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        hand.note(len(x), evaluated[0])
    hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_a_gradient_scaler(logged: Logged) -> None:
    """The factor of a gradient scaler is no part of the loss, nor is the divisor before it."""
    model, hand = linear(), Hand()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for index, (x, y) in enumerate(loader()):
        loss = functional.mse_loss(model(x), y)
        scaler.scale(loss / 2).backward()
        hand.note(len(x), loss)
        if index % 2:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_an_optimizer_that_wraps_another(logged: Logged) -> None:
    """A ``step`` that calls another one is one step."""

    class Lookahead(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    model = linear()
    expected = train(model, loader(), Lookahead(model.parameters(), lr=0.05))
    assert only(logged()).values("epoch_loss") == exactly(expected)


def test_an_exception_in_a_step(logged: Logged) -> None:
    """A step that raised, and that the user's loop survived, does not silence the rest."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)

    def failing() -> float:
        raise FloatingPointError

    for index, (x, y) in enumerate(loader()):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        hand.note(len(x), loss)
        if index == 1:
            with pytest.raises(FloatingPointError):
                optimizer.step(failing)
        else:
            optimizer.step()
    hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


@pytest.mark.filterwarnings("error:Dynamo does not know")
@pytest.mark.parametrize("what", ["model", "step", "everything"])
def test_compiled(logged: Logged, what: str) -> None:
    """A compiled model, optimizer step or whole training step logs the same means."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    compiled: Any = torch.compile(model, backend="eager") if what == "model" else model
    make_step = torch.compile(optimizer.step, backend="eager") if what == "step" else optimizer.step

    def whole(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(compiled(x), y)
        loss.backward()
        make_step()
        return loss

    step = torch.compile(whole, backend="eager") if what == "everything" else whole
    for _ in range(2):
        for x, y in loader():
            hand.note(len(x), step(x, y))
        hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


# -- loaders ---------------------------------------------------------------------------------------


def test_break(logged: Logged) -> None:
    """A loop left by ``break`` logs the mean of what it had, at the latest when hooks go."""
    model, hand, batches = linear(), Hand(), loader()
    optimizer = sgd(model)
    for _ in range(2):
        for index, (x, y) in enumerate(batches):
            if index == 2:
                break
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(len(x), loss)
        hand.end_epoch()
    autolog.disable()
    run = only(logged())
    assert run.values("epoch_loss") == exactly(hand.epochs)
    assert run.status == "FINISHED"


def test_loaders_made_anew(logged: Logged) -> None:
    """A loader of its own for each epoch changes nothing; epochs count on."""
    model = linear()
    optimizer = sgd(model)
    expected = [train(model, loader(), optimizer, 1)[0] for _ in range(3)]
    run = only(logged())
    assert run.values("epoch_loss") == exactly(expected)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2]


def test_a_loader_that_looks_ahead(logged: Logged) -> None:
    """A wrapper that fetches one batch ahead, as accelerate's, gives the same means."""

    class Ahead(DataLoader[Any]):
        def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
            source = super().__iter__()
            held = next(source)
            for following in source:
                yield held
                held = following
            yield held

    model = linear()
    expected = train(model, Ahead(DATA, batch_size=BATCH), sgd(model))
    assert only(logged()).values("epoch_loss") == exactly(expected)


def test_zipped_loaders(logged: Logged) -> None:
    """Two loaders in ``zip``: the second one's samples weigh, and both end the epoch."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for _ in range(2):
        for (x, y), (z, _other) in zip(loader(), loader(DATA), strict=True):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x + z), y)
            loss.backward()
            optimizer.step()
            hand.note(len(z), loss)
        hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


@pytest.mark.parametrize("persistent", [False, True])
def test_worker_processes(logged: Logged, persistent: bool) -> None:
    """Batches from worker processes, kept or not, are weighted as any; workers log nothing."""
    model = linear()
    batches = loader(num_workers=1, persistent_workers=persistent)
    expected = train(model, batches, sgd(model))
    assert only(logged()).values("epoch_loss") == exactly(expected)


@pytest.mark.parametrize(
    "collate",
    [
        lambda x, y: {"id": "text", "x": x, "y": y},
        lambda x, y: [["text"], (x, y)],
        SimpleBatch,
    ],
    ids=["dict", "nested", "object"],
)
def test_batches_of_any_shape(logged: Logged, collate: Callable[[Tensor, Tensor], Any]) -> None:
    """The samples of a batch are counted in dicts, nested lists and objects too."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    batches = DataLoader(
        DATA,
        batch_size=BATCH,
        collate_fn=lambda rows: collate(*map(torch.stack, zip(*rows, strict=True))),
    )
    for (x, y), _ in zip(SLICES, batches, strict=True):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        hand.note(len(x), loss)
    hand.end_epoch()
    autolog.disable()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


# -- validation ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_val_loss(logged: Logged, mode: str) -> None:
    """A loss module on a loader without training gives ``val_loss`` at the epoch before it."""
    model, criterion, hand = linear(), nn.MSELoss(), Hand()
    optimizer, batches, validation = sgd(model), loader(), loader(VALIDATION)
    for _ in range(2):
        train(model, batches, optimizer, 1, criterion)
        with getattr(torch, mode)():
            for x, y in validation:
                hand.note(len(x), criterion(model(x), y))
        hand.end_epoch()
    autolog.disable()
    run = only(logged())
    assert run.values("val_loss") == exactly(hand.epochs)
    assert [step for step, _ in run.metrics["val_loss"]] == [0, 1]


def test_two_datasets_are_validated(logged: Logged) -> None:
    """A test set in the same epoch gets a name of its own; training data is no validation."""
    model, criterion = linear(), nn.MSELoss()
    training, validation, test = loader(), loader(VALIDATION), loader(TensorDataset(X[:3], Y[:3]))
    train(model, training, sgd(model), 1, criterion)
    with torch.no_grad():
        for batches in (validation, training, loader(DATA), test):
            means = [(criterion(model(x), y), len(x)) for x, y in batches]
    run = only(logged())
    assert run.values("val_loss.1") == exactly([means[0][0].item()])
    assert run.metrics.keys() >= {"epoch_loss", "val_loss", "val_loss.1"}
    assert "val_loss.2" not in run.metrics
    assert len(run.values("val_loss")) == 1


def test_folds_of_one_dataset(logged: Logged) -> None:
    """Parts of one dataset for training and validation are told apart by their samplers."""
    model, criterion = linear(), nn.MSELoss()
    train(model, loader(sampler=SubsetRandomSampler(range(30))), sgd(model), 1, criterion)
    held_out = loader(sampler=SubsetRandomSampler(range(30, 50)))
    with torch.no_grad():
        for x, y in held_out:
            criterion(model(x), y)
    assert len(only(logged()).values("val_loss")) == 1


# -- runs ------------------------------------------------------------------------------------------


def test_nothing_opens_a_run_by_itself(logged: Logged) -> None:
    """Making, iterating, stepping without a loss, and losses without a step leave no run."""
    model = linear()
    optimizer = sgd(model)
    optimizer.step()
    for x, y in loader():
        functional.mse_loss(model(x), y).backward()
    assert logged() == []


def test_two_models_one_after_another(logged: Logged) -> None:
    """Another optimizer on another model ends the run and opens the next."""
    expected = [train(model := linear(), loader(), sgd(model, lr)) for lr in (0.1, 0.01)]
    first, second = logged()
    assert first.values("epoch_loss") == exactly(expected[0])
    assert second.values("epoch_loss") == exactly(expected[1])
    assert (first.status, second.status) == ("FINISHED", None)
    assert second.metrics["epoch_loss"][0][0] == 0


def test_an_optimizer_changed_in_the_middle(logged: Logged) -> None:
    """Another optimizer on the same model goes on in the same run and on the same axis."""
    model, batches = linear(), loader()
    expected = train(model, batches, torch.optim.Adam(model.parameters()), 2)
    gc.collect()
    expected += train(model, batches, sgd(model), 2)
    run = only(logged())
    assert run.values("epoch_loss") == exactly(expected)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]
    assert "epoch_loss.0" not in run.metrics
    assert run.params["optimizer_name.1"] == "SGD"


def test_optimizers_in_turn(logged: Logged) -> None:
    """Two optimizers that train in turn on passes of their own end up in one run."""
    models = linear(), nn.Linear(4, 1)
    optimizers = [sgd(model) for model in models]
    for _ in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, loader(), optimizer, 1)
    assert len(logged()) == 2
    assert len(logged()[1].values("epoch_loss")) == 7


def test_collected_models_end_their_run(logged: Logged) -> None:
    """When model and optimizer are gone, the next pass over any loader ends the run."""
    train(model := linear(), loader(), sgd(model))
    del model
    gc.collect()
    for _ in loader():
        break
    assert only(logged()).status == "FINISHED"


def test_an_epoch_whose_model_is_gone(logged: Logged) -> None:
    """A loop left by ``break`` in a function that is over has its epoch all the same."""
    model = linear()
    optimizer = sgd(model)
    for x, y in loader():
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
        break
    del model, optimizer
    gc.collect()
    for _ in loader():
        break
    assert len(only(logged()).values("epoch_loss")) == 1


def test_end_run(logged: Logged) -> None:
    """After ``autolog.end_run()`` the same loop goes on in a run of its own."""
    model, batches = linear(), loader()
    optimizer = sgd(model)
    train(model, batches, optimizer, 1)
    autolog.end_run()
    train(model, batches, optimizer, 1)
    first, second = logged()
    assert first.status == "FINISHED"
    assert len(first.values("epoch_loss")) == len(second.values("epoch_loss")) == 1


def test_three_threads(logged: Logged) -> None:
    """Threads that train at once have a run each, with their own numbers."""
    barrier = threading.Barrier(3)
    expected: dict[float, list[float]] = {}
    trained: list[nn.Module] = []

    def work(lr: float) -> None:
        trained.append(model := nn.Linear(4, 1))
        barrier.wait()
        expected[lr] = train(model, loader(), sgd(model, lr), 3)

    threads = [threading.Thread(target=work, args=(lr,)) for lr in (0.1, 0.02, 0.03)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in loader():
        break
    runs = {float(run.params["lr"]): run for run in logged()}
    assert len(runs) == len(logged()) == 3
    for lr, run in runs.items():
        assert run.values("epoch_loss") == exactly(expected[lr])
        assert run.status == "FINISHED"


def test_pause(logged: Logged) -> None:
    """Inside ``autolog.pause()`` nothing is logged."""
    model = linear()
    with autolog.pause():
        train(model, loader(), sgd(model))
    assert logged() == []


def test_log_every_n_steps(autolog_home: Path) -> None:
    """``log_every_n_steps=3`` logs every third step's own loss at its number."""
    autolog.enable(mode="offline", silent=True, log_every_n_steps=3)
    model, losses = linear(), []

    def criterion(*args: Tensor) -> Tensor:
        loss = functional.mse_loss(*args)
        losses.append(loss.item())
        return loss

    train(model, loader(), sgd(model), 2, criterion)
    run = only(logged_runs(autolog_home))
    assert run.metrics["batch_loss"] == [(3, losses[2]), (6, losses[5])]


def test_without_a_loader(autolog_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A loop without a loader logs params, no epochs, and says so once."""
    autolog.enable(mode="offline")
    model = linear()
    train(model, [(X, Y)], sgd(model), 20)
    run = only(logged_runs(autolog_home))
    assert run.metrics == {}
    assert "batch_size" not in run.params
    assert run.params["optimizer_name"] == "SGD"
    assert capfd.readouterr().err.count("no DataLoader") == 1


def test_two_optimizers_without_a_loader(autolog_home: Path) -> None:
    """Optimizers that step in turn from the start, as actor and critic, share a run."""
    autolog.enable(mode="offline", silent=True, log_every_n_steps=1)
    models = linear(), nn.Linear(4, 1)
    optimizers = [sgd(model) for model in models]
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, [(X, Y)], optimizer, 1)
    run = only(logged_runs(autolog_home))
    assert [len(run.values(key)) for key in ("batch_loss", "batch_loss.1")] == [3, 3]


def test_the_end_of_the_process(autolog_home: Path, tmp_path: Path) -> None:
    """A script's last epoch is logged though it was left by ``break``, one that crashed is not."""
    source = """
        import autolog
        autolog.enable(mode="offline", silent=True)
        import torch
        from torch.utils.data import DataLoader
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for index, x in enumerate(DataLoader(torch.ones(9, 1), batch_size=2)):
            model(x).square().mean().backward()
            optimizer.step()
            if index == 1:
                break
        {end}
    """
    assert run_script(source.format(end=""), cwd=tmp_path).returncode == 0
    assert "KeyError" in run_script(source.format(end="raise KeyError"), cwd=tmp_path).stderr
    finished, failed = sorted(logged_runs(autolog_home), key=lambda run: run.status or "")[::-1]
    assert (finished.status, len(finished.values("epoch_loss"))) == ("FINISHED", 1)
    assert (failed.status, failed.metrics) == ("FAILED", {})


def test_read_back_from_the_store(autolog_home: Path, tmp_path: Path) -> None:
    """What a loop logged is in MLflow's store: metrics, params and tags."""
    autolog.enable(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", silent=True)
    model = linear()
    expected = train(model, loader(), sgd(model))
    assert autolog.flush(60).pending == 0
    run = autolog.last_run()
    assert run is not None
    assert [point.value for point in run.metrics()["epoch_loss"]] == exactly(expected)
    assert run.params()["batch_size"] == "16"


# -- what must not change --------------------------------------------------------------------------

_PLACES = [
    (torch.autograd, "backward"),
    (DataLoader, "__iter__"),
    (torch.utils.data.dataloader._BaseDataLoaderIter, "__next__"),
    (nn.modules.loss._Loss, "__call__"),
    (torch.amp.grad_scaler.GradScaler, "scale"),
]


def _in_place() -> list[object]:
    from torch.optim import optimizer

    own = [vars(owner).get(name) for owner, name in _PLACES]
    return [*own, *optimizer._global_optimizer_pre_hooks, *optimizer._global_optimizer_post_hooks]


def test_disable_puts_everything_back(autolog_home: Path) -> None:
    """After ``disable()`` every attribute of torch is what it was, however often it was enabled."""
    before = _in_place()
    autolog.enable(mode="offline", silent=True)
    enabled = _in_place()
    autolog.enable(mode="offline", silent=True)
    assert _in_place() == enabled
    assert not any(new is old for new, old in zip(enabled, before, strict=False))
    autolog.disable()
    assert _in_place() == before
    train(model := linear(), loader(), sgd(model))
    assert logged_runs(autolog_home) == []


def test_enabled_again(logged: Logged) -> None:
    """Enabled after it was disabled, it logs again."""
    autolog.disable()
    autolog.enable(mode="offline", silent=True)
    train(model := linear(), loader(), sgd(model))
    assert len(only(logged()).values("epoch_loss")) == 2


@pytest.mark.usefixtures("everywhere")
def test_weights_and_random_state_are_the_same(autolog_home: Path) -> None:
    """A training with hooks ends with the very bits of one without: weights and random states."""

    def result() -> list[Any]:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global state is what is compared
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        torch.manual_seed(7)
        batches = DataLoader(DATA, batch_size=BATCH, shuffle=True)
        optimizer = torch.optim.Adam(model.parameters())
        for module in (model[0], model[2]):
            nn.init.ones_(module.weight)  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        train(model, batches, optimizer, 2, nn.MSELoss())
        weights = [p.detach().numpy().tobytes() for p in model.parameters()]
        numpy_state = np.random.get_state()[1].tobytes()  # noqa: NPY002  # type: ignore[index, union-attr]
        return [weights, torch.get_rng_state().numpy().tobytes(), random.getstate(), numpy_state]

    without = result()
    autolog.enable(mode="offline", silent=True, log_every_n_steps=1)
    assert result() == without


def test_no_graph_is_kept(logged: Logged) -> None:
    """What is remembered of a loss keeps neither it nor its graph alive."""
    model = linear()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu")
    left = []
    for x, y in loader():
        hidden = model(x)
        left.append(weakref.ref(hidden))
        loss = functional.mse_loss(hidden, y)
        scaler.scale(loss).backward(retain_graph=True)
        scaler.step(optimizer)
        scaler.update()
        scaler.scale(loss)
        del hidden, loss
        gc.collect()
    assert [reference() for reference in left] == [None] * 4


def test_the_users_exception_passes(logged: Logged) -> None:
    """What torch raises about the user's own mistake reaches him as it is."""
    loss = linear()(X).mean()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with pytest.raises(RuntimeError, match="scalar outputs"):
        linear()(X).backward()


def test_copies_pickles_and_scripts_of_losses(logged: Logged) -> None:
    """Loss modules can be copied, scripted and compiled whole as before."""
    criterion = nn.CrossEntropyLoss()
    torch.jit.script(criterion)
    copied = copy.deepcopy(criterion)
    target = torch.zeros(3, dtype=torch.long)

    def compiled(logits: Tensor) -> Tensor:
        return copied(logits, target)

    whole = torch.compile(compiled, backend="eager", fullgraph=True)
    logits = torch.ones(3, 2)
    for _ in loader():
        assert whole(logits).item() == compiled(logits).item()


# -- the device ring -------------------------------------------------------------------------------


def test_a_ring_gives_every_value_in_order() -> None:
    """Values that wait on a device come out complete and in order, many buffers full."""
    rings = Rings()
    scalars = Scalars(rings)
    for number in range(3 * tensors._RING_SIZE + 7):
        scalars._values.append(float("nan"))
        rings.put(torch.tensor(float(number)), scalars, number)
    assert scalars.known >= tensors._RING_SIZE
    assert list(scalars) == [float(number) for number in range(3 * tensors._RING_SIZE + 7)]
    assert scalars.known == len(scalars)


def test_a_ring_takes_the_value_of_now() -> None:
    """A loss that is changed in place afterwards was still logged as it was."""
    rings = Rings()
    scalars = Scalars(rings)
    loss = torch.tensor(2.0, requires_grad=True) * 1.5
    scalars._values.append(float("nan"))
    rings.put(loss, scalars, 0)
    with torch.no_grad():
        loss *= 10
    assert list(scalars) == [3.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_ring_takes_every_precision(dtype: torch.dtype) -> None:
    """Losses of any floating type arrive as exactly the number they are, in inference mode too."""
    rings = Rings()
    scalars = Scalars(rings)
    value = torch.tensor([1 / 3], dtype=dtype)
    for index in range(2):
        scalars._values.append(float("nan"))
        with torch.inference_mode(index == 1):
            rings.put(value, scalars, index)
    assert list(scalars) == [value.item()] * 2
