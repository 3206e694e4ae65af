"""Which loops of plain PyTorch share a run, and what a run says beside the means."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from logged import Logged, logged_runs, only
from support import run_script
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch_loops import (
    BATCH,
    SLICES,
    VALIDATION,
    Hand,
    X,
    Y,
    by_epoch,
    exactly,
    linear,
    loader,
    sgd,
    train,
)

import autolog
from autolog.callbacks.torch import log


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


def _train_and_come_back(epochs: int) -> list[list[float]]:
    """Two models one after the other, and the first one again."""
    first, second = linear(), nn.Linear(4, 1)
    trained = [(first, sgd(first)), (second, sgd(second, 0.01))]
    return [
        train(model, loader(), optimizer, epochs) for model, optimizer in [*trained, trained[0]]
    ]


def test_a_model_that_is_trained_again(logged: Logged) -> None:
    """What trained before, and another one for several epochs since, is another training."""
    expected = _train_and_come_back(2)
    runs = logged()
    assert [run.values("epoch_loss") for run in runs] == [exactly(means) for means in expected]
    assert [run.params["lr"] for run in runs] == ["0.05", "0.01", "0.05"]


def test_a_model_that_is_trained_again_in_a_run(logged: Logged) -> None:
    """In a run of the user's, the first model goes on there behind its last epoch and step."""
    autolog.enable(log_every_n_steps=1)
    with autolog.run("teacher and student"):
        first, second, again = _train_and_come_back(2)
    own, child = logged()
    assert own.metrics["epoch_loss"] == by_epoch(first + again)
    assert child.metrics["epoch_loss"] == by_epoch(second)
    steps = [step for step, _ in own.metrics["batch_loss"]]
    assert steps == [*range(1, 4 * len(loader()) + 1)]


def test_a_model_that_is_trained_again_in_marked_epochs(logged: Logged) -> None:
    """The same without a loader, where the user marks the epochs."""
    models = linear(), nn.Linear(4, 1)
    optimizers = [sgd(model) for model in models]
    expected = []
    for which in (0, 1, 0):
        means = [train(models[which], [(X, Y)], optimizers[which], 1)[0] for _ in autolog.epochs(2)]
        expected.append(means)
    assert [run.values("epoch_loss") for run in logged()] == [exactly(m) for m in expected]


def test_three_optimizers_in_turn(logged: Logged) -> None:
    """Any number of optimizers that train for an epoch each, in turn, end up in one run."""
    models = linear(), nn.Linear(4, 1), nn.Linear(4, 1)
    optimizers = [sgd(model) for model in models]
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, loader(), optimizer, 1)
    assert [len(run.values("epoch_loss")) for run in logged()] == [1, 1, 7]


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


def test_steps_per_second(logged: Logged) -> None:
    """``steps_per_second`` is the pace of the first optimizer within each epoch."""
    model, batches = linear(), loader()
    optimizer = sgd(model)
    for epoch in range(2):
        started = time.monotonic()
        train(model, batches, optimizer, 1)
        slowest = len(batches) / (time.monotonic() - started)
        step, pace = only(logged()).metrics["steps_per_second"][epoch]
        assert step == epoch
        assert pace >= slowest


def test_epochs_is_a_param_at_the_end(logged: Logged) -> None:
    """A loop that says nothing has the number of its epochs as a param when its run ends."""
    train(model := linear(), loader(), sgd(model), 3)
    assert "epochs" not in only(logged()).params
    autolog.end_run()
    assert only(logged()).params["epochs"] == "3"


def test_break_in_a_run_of_the_users(logged: Logged) -> None:
    """A loop left by ``break`` in ``autolog.run()`` is logged there; one that raised is not."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)

    def broken() -> None:
        for x, y in loader():
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(len(x), loss)
            break

    with autolog.run("broken"):
        broken()
    hand.end_epoch()
    with pytest.raises(KeyError), autolog.run("raised"):
        broken()
        raise KeyError
    first, second = logged()
    assert first.metrics["epoch_loss"] == by_epoch(hand.epochs)
    assert (second.metrics, second.status) == ({}, "FAILED")


def test_folds(logged: Logged) -> None:
    """Each fold with a model of its own is a run of its own, whichever names it reuses."""
    rows, expected = torch.arange(len(X)).chunk(3), []
    for fold in range(3):
        part = TensorDataset(*(t[torch.cat(rows[:fold] + rows[fold + 1 :])] for t in (X, Y)))
        model = linear()
        optimizer = sgd(model, lr=0.01 * (fold + 1))
        expected.append(train(model, DataLoader(part, batch_size=BATCH), optimizer))
    runs = logged()
    assert [run.values("epoch_loss") for run in runs] == [exactly(means) for means in expected]
    assert [run.params["lr"] for run in runs] == ["0.01", "0.02", "0.03"]
    assert [run.status for run in runs] == ["FINISHED", "FINISHED", None]


def test_a_cell_that_runs_again(logged: Logged) -> None:
    """A cell that makes its model anew is a run each time; one with the loop only goes on."""
    cells: dict[str, Any] = {"sgd": sgd, "linear": linear, "loader": loader, "train": train}
    setup = "model = linear(); optimizer = sgd(model); batches = loader()"
    loop = "train(model, batches, optimizer, 2)"
    for cell in (setup, loop, loop, setup, loop):
        exec(cell, cells)
    first, second = logged()
    assert [step for step, _ in first.metrics["epoch_loss"]] == [0, 1, 2, 3]
    assert [step for step, _ in second.metrics["epoch_loss"]] == [0, 1]


def test_trainings_in_an_adopted_run(
    autolog_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first of ten models uses the platform's run, and goes on there; the others are below."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "a" * 32)
    autolog.enable(mode="offline")
    models = [linear() for _ in range(10)]
    for model in [*models, *[models[0]] * 4]:
        train(model, loader(), sgd(model), 1)
    adopted, *children = logged_runs(autolog_home)
    assert (adopted.start.run_id, adopted.start.owned) == ("a" * 32, False)
    assert [step for step, _ in adopted.metrics["epoch_loss"]] == [0, 1, 2, 3, 4]
    assert len(children) == 9
    assert {child.start.parent_key for child in children} == {adopted.start.key}
    assert "internal error" not in capfd.readouterr().err


def test_five_hundred_trainings(autolog_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A loop over 500 small trainings is 500 runs with few words."""
    autolog.enable(mode="offline")
    for _ in range(500):
        train(model := linear(), [*loader()], sgd(model), 0)
        train(model, loader(), sgd(model), 1)
    runs = logged_runs(autolog_home)
    assert len(runs) == 500
    assert all(len(run.values("epoch_loss")) == 1 for run in runs)
    assert len(capfd.readouterr().err.splitlines()) < 20


# -- epochs that the user marks --------------------------------------------------------------------


def test_epochs(logged: Logged) -> None:
    """``autolog.epochs(n)`` marks the epochs of a loop without a loader: means over its steps."""
    model, hand = linear(), Hand()
    optimizer = sgd(model)
    for epoch in autolog.epochs(3):
        for x, y in SLICES:
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(1, loss)
        hand.end_epoch()
        assert len(hand.epochs) == epoch + 1
    run = only(logged())
    assert run.metrics["epoch_loss"] == by_epoch(hand.epochs)
    assert run.params["epochs"] == "3"
    assert "batch_size" not in run.params
    assert len(run.metrics["steps_per_second"]) == 3


def test_epochs_around_loaders(logged: Logged) -> None:
    """Two loaders trained in one turn are one epoch by samples, with the validation at its step."""
    model, criterion, hand = linear(), nn.MSELoss(), Hand()
    optimizer, batches, more = sgd(model), loader(), loader(TensorDataset(X[:7], Y[:7]))
    for _ in autolog.epochs(2):
        for x, y in (pair for each in (batches, more) for pair in each):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(len(x), loss)
        hand.end_epoch()
        with torch.no_grad():
            for x, y in loader(VALIDATION):
                criterion(model(x), y)
    run = only(logged())
    assert run.metrics["epoch_loss"] == by_epoch(hand.epochs)
    assert [step for step, _ in run.metrics["val_loss"]] == [0, 1]
    assert run.params["batch_size"] == "16"


def test_epochs_over_a_loader_without_end(logged: Logged) -> None:
    """Batches drawn by ``next`` from an iterator that outlives the epoch count by their samples."""
    model, hand = linear(), Hand()
    optimizer, batches = sgd(model), iter(loader())
    for _ in autolog.epochs(2):
        for _ in range(2):
            x, y = next(batches)
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            hand.note(len(x), loss)
        hand.end_epoch()
    assert only(logged()).values("epoch_loss") == exactly(hand.epochs)


def test_epochs_within_epochs(logged: Logged) -> None:
    """The outermost loop marks the epochs; it gives plain numbers, with autolog off as well."""
    model = linear()
    optimizer = sgd(model)
    for _ in autolog.epochs(2):
        for _ in autolog.epochs(3):
            train(model, [(X, Y)], optimizer, 1)
    assert len(only(logged()).values("epoch_loss")) == 2
    autolog.disable()
    assert list(autolog.epochs(3)) == [0, 1, 2]


# -- what the user names ---------------------------------------------------------------------------


def test_watch_without_enable(autolog_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``watch`` names is logged, named after its model; all else is not, in the same loop."""
    monkeypatch.setenv("AUTOLOG_MODE", "offline")
    other, model, hand = linear(), nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)), Hand()
    model[0].requires_grad_(requires_grad=False)
    unnamed, optimizer = sgd(other), sgd(model)
    autolog.watch(torch.compile(model, backend="eager"), optimizer)
    train(other, loader(), unnamed)
    for x, y in loader():
        for each in (unnamed, optimizer):
            each.zero_grad()
        functional.mse_loss(other(x), y).backward()
        unnamed.step()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        hand.note(len(x), loss)
    hand.end_epoch()
    run = only(logged_runs(autolog_home))
    assert run.model == "Sequential"
    assert run.metrics["epoch_loss"] == by_epoch(hand.epochs)
    assert run.params["model_parameters"] == "19"
    assert run.params["model_trainable_parameters"] == "4"
    autolog.disable()
    assert not hasattr(torch.autograd.backward, "__wrapped__")
    train(model, loader(), optimizer)
    assert len(logged_runs(autolog_home)) == 1


def test_watch_makes_one_run_of_several_optimizers(logged: Logged) -> None:
    """Optimizers named with one model share its run though they share no pass and no parameter."""
    model, batches = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), loader()
    optimizers = sgd(model[0]), sgd(model[1])
    autolog.watch(model, *optimizers)
    for optimizer in optimizers:
        train(model, batches, optimizer, 2)
    run = only(logged())
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]
    train(model, batches, optimizer := torch.optim.Adam(model.parameters()), 1)
    autolog.watch(model, optimizer)
    assert only(logged()).params["optimizer_name.2"] == "Adam"


# -- without a loader ------------------------------------------------------------------------------


def test_without_a_loader(autolog_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A loop without a loader logs params and steps, no epochs, and says so once."""
    autolog.enable(mode="offline")
    model = linear()
    expected = train(model, [(X, Y)], sgd(model), 20)
    run = only(logged_runs(autolog_home))
    assert run.metrics == {"batch_loss": list(enumerate(exactly(expected).expected, 1))}
    assert "batch_size" not in run.params
    assert run.params["optimizer_name"] == "SGD"
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "no DataLoader" in line]
    assert "for epoch in autolog.epochs(n)" in line


def test_many_steps_without_a_loader(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long loop every step is logged at first, then every tenth, then every hundredth."""
    monkeypatch.setattr(log, "_DIGITS", 1)
    model = linear()
    train(model, [(X, Y)], sgd(model), 210)
    steps = [step for step, _ in only(logged()).metrics["batch_loss"]]
    assert steps == [*range(1, 10), *range(10, 100, 10), 100, 200]


def test_steps_behind_a_loop_over_a_loader(logged: Logged) -> None:
    """Steps outside of its loops are no series of a training that has epochs."""
    model = linear()
    optimizer = sgd(model)
    train(model, loader(), optimizer)
    train(model, SLICES, optimizer)
    assert "batch_loss" not in only(logged()).metrics


def test_two_optimizers_without_a_loader(autolog_home: Path) -> None:
    """Optimizers that step in turn from the start, as actor and critic, share a run."""
    autolog.enable(mode="offline", silent=True)
    models = linear(), nn.Linear(4, 1)
    optimizers = [sgd(model) for model in models]
    for _ in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            train(model, [(X, Y)], optimizer, 1)
    run = only(logged_runs(autolog_home))
    assert [len(run.values(key)) for key in ("batch_loss", "batch_loss.1")] == [3, 3]
    autolog.end_run()
    assert only(logged_runs(autolog_home)).params["optimizer_name.1"] == "SGD"


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


def test_beside_mlflows_own_autologging(autolog_home: Path, tmp_path: Path) -> None:
    """With ``mlflow.autolog()`` on as well, in both orders: one run, and each value once."""
    source = """
        import sys
        import autolog, mlflow, torch

        def ours():
            autolog.enable(mode="offline", silent=True)

        def theirs():
            mlflow.autolog(silent=True, log_models=False)

        for first, second in (ours, theirs), (theirs, ours):
            first()
            second()
            sys.path.insert(0, {tests!r})
            from torch_loops import linear, loader, sgd, train
            model = linear()
            optimizer, batches = sgd(model), loader()
            for epoch in range(2):
                train(model, batches, optimizer, 1)
                mlflow.log_metric("mine", epoch, epoch)
            mlflow.autolog(disable=True, silent=True)
            autolog.disable()
    """
    ended = run_script(source.format(tests=str(Path(__file__).parent)), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    runs = logged_runs(autolog_home)
    model = linear()
    with autolog.pause():
        expected = train(model, loader(), sgd(model))
    assert len(runs) == 2
    for each in runs:
        assert each.metrics["epoch_loss"] == by_epoch(expected)
        assert each.metrics["mine"] == [(0, 0.0), (1, 1.0)]
        assert each.params["optimizer_name"] == "SGD"


def test_read_back_from_the_store(new_store: Callable[[], str]) -> None:
    """What a loop logged is in MLflow's store: metrics, params and tags."""
    autolog.enable(tracking_uri=new_store(), silent=True)
    model = linear()
    expected = train(model, loader(), sgd(model))
    assert autolog.flush(60).pending == 0
    run = autolog.last_run()
    assert run is not None
    assert [point.value for point in run.metrics()["epoch_loss"]] == exactly(expected)
    assert run.params()["batch_size"] == "16"
