"""The means that a plain PyTorch loop logs, against those by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from logged import logged_runs, only
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset
from torch_loops import (
    BATCH,
    DATA,
    SLICES,
    VALIDATION,
    Hand,
    X,
    Y,
    exactly,
    linear,
    loader,
    sgd,
    train,
)

import autolog

if TYPE_CHECKING:
    from pathlib import Path

    from logged import Logged


class SimpleBatch:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


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


@pytest.mark.parametrize("kind", [list, tuple])
def test_losses_propagated_back_together(logged: Logged, kind: type) -> None:
    """``torch.autograd.backward([a, b])`` is a loss in two parts; what torch refuses it refuses."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for x, y in loader():
        optimizer.zero_grad()
        parts = functional.mse_loss(model(x), y), model.weight.square().sum()
        torch.autograd.backward(kind(parts))
        optimizer.step()
        hand.note(len(x), sum(parts, torch.zeros(())))
    hand.end_epoch()
    with pytest.raises(RuntimeError, match="scalar outputs"):
        torch.autograd.backward(kind([model(X)]))
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


def test_one_loss_for_two_optimizers(logged: Logged) -> None:
    """Of two optimizers that step on one loss the first has its mean, and both have params."""
    encoder, decoder, hand = nn.Linear(4, 3), nn.Linear(3, 1), Hand()
    optimizers = sgd(encoder), torch.optim.Adam(decoder.parameters(), lr=0.25)
    for x, y in loader():
        loss = functional.mse_loss(decoder(encoder(x)), y)
        for each in optimizers:
            each.zero_grad()
        loss.backward()
        for each in optimizers:
            each.step()
        hand.note(len(x), loss)
    hand.end_epoch()
    run = only(logged())
    assert run.values("epoch_loss") == exactly(hand.epochs)
    assert "epoch_loss.0" not in run.metrics
    assert (run.params["optimizer_name.1"], run.params["lr.1"]) == ("Adam", "0.25")


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


class Shard(DataLoader[Any]):
    """As accelerate's DataLoaderShard: it knows the last batch when it gives it."""

    is_last = False

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        source = super().__iter__()
        self.is_last, held = False, next(source)
        while not self.is_last:
            following = next(source, None)
            self.is_last = following is None
            yield held
            held = following


class Skipping(torch.optim.Optimizer):
    """As accelerate's AcceleratedOptimizer: it has no state of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.is_skipped = optimizer, False

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if not self.is_skipped:
            self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        if not self.is_skipped:
            self.optimizer.zero_grad(set_to_none)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_accelerate(logged: Logged, accumulated: int) -> None:
    """Accelerate's loader is one batch ahead, its optimizer skips steps, it divides the loss."""
    model, hand = linear(), Hand()
    optimizer, batches = Skipping(sgd(model)), Shard(DATA, batch_size=BATCH)
    for _ in range(2):
        for index, (x, y) in enumerate(batches):
            optimizer.is_skipped = (index + 1) % accumulated > 0 and not batches.is_last
            loss = functional.mse_loss(model(x), y)
            (loss / accumulated).backward()
            optimizer.step()
            optimizer.zero_grad()
            hand.note(len(x), loss)
        hand.end_epoch()
    run = only(logged())
    assert run.values("epoch_loss") == exactly(hand.epochs)
    assert run.params["optimizer_name"] == "SGD"


def test_a_skipped_amp_step(logged: Logged) -> None:
    """A step that a gradient scaler leaves out for an infinity costs neither epoch nor others."""
    model, hand = linear(), Hand()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for epoch in range(2):
        for index, (x, y) in enumerate(loader()):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            if (epoch, index) == (1, 1):
                model.weight.grad.fill_(float("inf"))  # type: ignore[union-attr]
            scaler.step(optimizer)
            scaler.update()
            hand.note(len(x), loss)
        hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


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


class Shifted(nn.Module):
    """A loss module of the user's own with one of torch's inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MSELoss()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.inner(output, target) + 1  # type: ignore[no-any-return]


def _with_penalty(output: Tensor, target: Tensor) -> Tensor:
    return nn.MSELoss()(output, target) + output.square().mean()  # type: ignore[no-any-return]


def _scaled(output: Tensor, target: Tensor) -> Tensor:
    return nn.MSELoss()(output, target) * 0.25  # type: ignore[no-any-return]


@pytest.mark.parametrize("criterion", [Shifted(), _with_penalty, _scaled])
def test_the_loss_is_more_than_a_loss_module(
    autolog_home: Path, capfd: pytest.CaptureFixture[str], criterion: Callable[..., Tensor]
) -> None:
    """Where what is trained on is more than the module's value, no other number is ``val_loss``."""
    autolog.enable(mode="offline")
    model, batches = linear(), loader()
    optimizer = sgd(model)
    for _ in range(2):
        expected = train(model, batches, optimizer, 1, criterion)
        with torch.no_grad():
            for x, y in loader(VALIDATION):
                criterion(model(x), y)
    run = only(logged_runs(autolog_home))
    assert run.values("epoch_loss")[1:] == exactly(expected)
    assert "val_loss" not in run.metrics
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "val_loss" in line]
    assert "autolog.log_metrics" in line


@pytest.mark.parametrize("way", ["plain", "divided", "scaled", "beside another", "function"])
def test_the_loss_is_that_of_a_loss_module(logged: Logged, way: str) -> None:
    """A loss that is accumulated or scaled, or one of several values, is still its module's."""
    model, criterion, hand = linear(), nn.MSELoss(), Hand()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=4.0)
    for _ in range(2):
        for index, (x, y) in enumerate(loader()):
            loss = (functional.mse_loss if way == "function" else criterion)(model(x), y)
            if way == "beside another":
                nn.L1Loss()(model(x), y)
            if way == "divided":
                loss = loss / 2
            (scaler.scale(loss) if way == "scaled" else loss).backward()
            if way != "divided" or index % 2:
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            for x, y in loader(VALIDATION):
                hand.note(len(x), criterion(model(x), y))
        hand.end_epoch()
    assert only(logged()).values("val_loss") == exactly(hand.epochs)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("is_divided", [False, True])
def test_a_loss_module_that_sums(logged: Logged, is_divided: bool) -> None:
    """With ``reduction="sum"`` the losses are sums over the samples, divided by the samples."""
    model, criterion = linear(), nn.MSELoss(reduction="sum")
    optimizer, hand = sgd(model, 0.001), ([], [])  # type: ignore[var-annotated]
    for _ in range(2):
        total = 0.0
        for x, y in loader():
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            (loss / len(x) if is_divided else loss).backward()
            optimizer.step()
            total += loss.item()
        hand[0].append(total / len(X))
        with torch.no_grad():
            total = sum(criterion(model(x), y).item() for x, y in loader(VALIDATION))
        hand[1].append(total / len(VALIDATION))
    run = only(logged())
    assert run.values("epoch_loss") == exactly(hand[0])
    assert run.values("val_loss") == exactly(hand[1])
