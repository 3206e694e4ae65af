"""What the hooks in torch must not change."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from logged import LoggedRun, logged_runs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch_loops import (
    BATCH,
    DATA,
    X,
    linear,
    loader,
    only,
    sgd,
    train,
)

import autolog
from autolog.callbacks.tensors import Scalars

Logged = Callable[[], list[LoggedRun]]


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
