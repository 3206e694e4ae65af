"""What the hooks in torch must not change."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import pickletools
import random
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged import Logged, logged_runs, only
from support import run_script
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch_loops import BATCH, DATA, VALIDATION, X, Y, linear, loader, sgd, train

import autolog
from autolog.callbacks.ranks import EpochLoss
from autolog.callbacks.torch import hooks, log, runs, watched
from autolog.callbacks.torch.epochs import Tracker
from autolog.callbacks.torch.runs import Observer

PLACES = [
    (torch.autograd, "backward"),
    (DataLoader, "__iter__"),
    (torch.utils.data.dataloader._BaseDataLoaderIter, "__next__"),
    (nn.modules.loss._Loss, "__call__"),
    (torch.amp.grad_scaler.GradScaler, "scale"),
    (torch.distributed, "destroy_process_group"),
]


def _in_place() -> list[object]:
    from torch.optim import optimizer

    own = [vars(owner).get(name) for owner, name in PLACES]
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
    """Enabled after it was disabled, it logs again, and knows nothing of losses from before."""
    functional.mse_loss(linear()(X), Y).backward()
    autolog.disable()
    autolog.enable(mode="offline", silent=True)
    model = linear()
    optimizer = sgd(model)
    optimizer.step()
    assert logged() == []
    train(model, loader(), optimizer)
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


# -- results, warnings, pickles --------------------------------------------------------------------


def names_in_pickle(thing: object) -> list[str]:
    """Every text in a pickle: classes and attributes, but no storage, which bears an address."""
    parts = pickletools.genops(pickle.dumps(thing))
    return [argument for _, argument, _ in parts if isinstance(argument, str)]


def everything_a_user_sees() -> list[Any]:
    """What calls return and warn of, types, signatures and pickles, in a loop with all hooks."""
    model, criterion = linear(), nn.MSELoss()
    optimizer, batches, scaler = sgd(model), loader(), torch.amp.GradScaler("cpu")
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    seen: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule.step()  # before the optimizer's, of which torch warns
        for epoch in autolog.epochs(2):
            iterator = iter(batches)
            seen += [epoch, type(iterator)]
            for x, y in iterator:
                optimizer.zero_grad()
                loss = criterion(model(x), y.flatten())  # of other shapes, of which torch warns
                seen.append((scaler.scale(loss) / scaler.get_scale()).item())
                seen.append(scaler.scale(loss).backward())
                scaler.unscale_(optimizer)
                seen.append(torch.autograd.backward([criterion(model(x), y), model.bias.sum()]))
                seen.append(optimizer.step(lambda loss=loss: loss).item())
                scaler.update()
            with torch.no_grad():
                seen += [criterion(model(x), y) for x, y in loader(VALIDATION)]
    seen += [(str(w.message), w.category, w.filename, w.lineno) for w in caught]
    seen += [names_in_pickle(each) for each in (model, criterion, optimizer, batches, schedule)]
    for owner, name in PLACES:
        function = getattr(owner, name)
        seen += [inspect.signature(function), function.__name__, function.__doc__]
    return seen


def test_results_warnings_and_pickles_are_the_same(autolog_home: Path) -> None:
    """With hooks on, every call returns, warns, pickles and shows itself as without them."""
    before = everything_a_user_sees()
    autolog.enable(mode="offline", silent=True)
    assert everything_a_user_sees() == before
    assert len([each for each in before if isinstance(each, tuple)]) > 2
    assert len(only(logged_runs(autolog_home)).values("epoch_loss")) == 2


def test_a_device_is_asked_for_its_graph_only_with_tensors_on_it(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training on the host makes no call to CUDA at all."""
    for name in ("is_current_stream_capturing", "current_stream", "synchronize", "Event"):
        monkeypatch.setattr(torch.cuda, name, None)
    train(model := linear(), loader(), sgd(model))
    assert len(only(logged()).values("epoch_loss")) == 2


# -- hooks that fail -------------------------------------------------------------------------------

_FAILING = [
    (Tracker, "begin"),
    (Tracker, "advance"),
    (Tracker, "exhaust"),
    (Tracker, "loss"),
    (Tracker, "wants_score"),
    (Tracker, "score"),
    (Tracker, "enter_step"),
    (Tracker, "leave_step"),
    (Tracker, "enter_turn"),
    (Tracker, "leave_turn"),
    (Observer, "stepped"),
    (Observer, "report"),
    (Observer, "before_end"),
    (Observer, "finish"),
    (EpochLoss, "log"),
    (EpochLoss, "settle"),
    (hooks, "batch_size"),
    (hooks, "is_readable"),
    (hooks, "_divisor"),
    (hooks, "node_of"),
    (hooks, "_is_off"),
    (log, "optimizer_params"),
    (runs, "close_epochs"),
    (watched, "add"),
    (watched, "model_params"),
]


def train_in_every_way(*, named: bool) -> list[Any]:
    """Whatever calls a hook, with all that a user sees of it."""
    torch.manual_seed(3)
    model = linear()
    optimizer = sgd(model)
    if named:
        autolog.watch(model, optimizer)
    seen = everything_a_user_sees()
    with pytest.raises(AssertionError, match="group"):  # there is none
        torch.distributed.destroy_process_group()
    train(model, loader(), optimizer)
    autolog.end_run()
    autolog.disable()
    return [*seen, model.weight.tolist(), torch.get_rng_state().tolist()]


@pytest.mark.usefixtures("autolog_home")
@pytest.mark.parametrize(
    ("owner", "name"), _FAILING, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_hook_that_raises(
    owner: object,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whatever of ours raises, and always: the training stays as it is, and it is said once."""

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    expected = train_in_every_way(named=False)
    monkeypatch.setattr(owner, name, failing)
    autolog.enable(mode="offline")
    assert train_in_every_way(named=True) == expected
    errors = autolog.status()["internal_errors"]
    said = [line for line in capfd.readouterr().err.splitlines() if "internal error" in line]
    assert len(said) == len(errors) > 0
    assert {str(error) for _, error in swallowed} == {"ours"}
    swallowed.clear()


# -- on and off ------------------------------------------------------------------------------------


def test_every_order_of_on_and_off(tmp_path: Path) -> None:
    """Each in a process of its own: it logs exactly while it is on, and leaves nothing behind."""
    done = run_script(
        """
        import os, sys
        import autolog

        def places():
            import torch
            from torch.optim import optimizer as steps
            from torch.utils.data import DataLoader, dataloader
            return [
                *(torch.autograd.backward, vars(DataLoader)["__iter__"]),
                vars(dataloader._BaseDataLoaderIter)["__next__"],
                vars(torch.nn.modules.loss._Loss).get("__call__"),
                vars(torch.amp.GradScaler)["scale"],
                torch.distributed.destroy_process_group,
                *steps._global_optimizer_pre_hooks.values(),
                *steps._global_optimizer_post_hooks.values(),
            ]

        def use():
            import torch
            logged = autolog.status()["receipt"].logged
            model = torch.nn.Linear(1, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for x in torch.utils.data.DataLoader(torch.ones(9, 1), batch_size=2):
                model(x).square().mean().backward()
                optimizer.step()
            return autolog.status()["receipt"].logged > logged

        def check(order):
            is_on, original = False, places() if "torch" in sys.modules else None
            for step in order:
                if step == "enable":
                    autolog.enable(mode="offline", silent=True)
                elif step == "disable":
                    autolog.disable()
                if step in ("enable", "disable"):
                    is_on = step == "enable"
                    continue
                assert use() is is_on, step
            autolog.disable()
            assert original is None or places() == original
            assert not any(hasattr(place, "__wrapped__") for place in places())
            assert len(places()) == 6

        def each_in_a_process(orders):
            for order in orders:
                if not (pid := os.fork()):
                    check(order.split())
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0, order

        each_in_a_process([
            "enable use disable use enable use",
            "enable disable use enable enable use disable use",
        ])
        assert "torch" not in sys.modules
        import torch
        torch.set_num_threads(1)
        each_in_a_process([
            "use enable use disable use enable use",
            "enable enable use disable disable use enable use",
            "disable use enable disable enable use disable use",
        ])
        """,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
