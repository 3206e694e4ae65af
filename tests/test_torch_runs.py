"""Which loops of plain PyTorch share a run, and what a run says beside the means."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from logged import LoggedRun, logged_runs
from support import run_script
from torch import Tensor, nn
from torch.nn import functional
from torch_loops import (
    X,
    Y,
    exactly,
    linear,
    loader,
    only,
    sgd,
    train,
)

import autolog

Logged = Callable[[], list[LoggedRun]]


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


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
