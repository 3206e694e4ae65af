"""Lightning: hooks that fail, hooks switched on and off, and what hooks must not change."""

from __future__ import annotations

import pickle
import random
import re
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightnings import METHODS, Regression, Talkative, loader, trainer
from logged import Logged, logged_runs
from support import run_script

import autolog
from autolog import guard
from autolog.callbacks.lightning import (
    AutologLogger,
    checkpoints,
    facts,
    guest,
    logger,
    losses,
    observer,
    runs,
)

# -- what must not change --------------------------------------------------------------------------


STATES = (random.getstate, np.random.get_state, torch.get_rng_state)


class Random(Talkative):
    """A module that draws random numbers of every kind, and warns."""

    def training_step(self, batch: Any, index: int) -> Any:
        warnings.warn("the user's own", stacklevel=1)
        noise = random.random() + np.random.random() + torch.rand(()).item()  # noqa: NPY002
        loss = super().training_step(batch, index)["loss"]
        return loss * (1 + 1e-3 * noise)


def without_version(text: str) -> str:
    """A text without the number that Lightning counts up with each trainer."""
    return re.sub(r"version_\d+", "", text)


# CSVLogger of Lightning 2.1 refuses names that were not there at first.
@pytest.mark.parametrize("form", [True, False, pytest.param("csv", marks=pytest.mark.recent)])
def test_nothing_of_a_training_changes(off: Logged, tmp_path: Path, form: Any) -> None:
    """Weights, random states, checkpoints, results, warnings and pickles are the same with us."""

    def outcome() -> dict[str, Any]:
        options = {"default_root_dir": tmp_path, "logger": form}
        if form == "csv":
            options["logger"] = lightning.pytorch.loggers.CSVLogger(tmp_path, version="fixed")
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(3)
        for path in tmp_path.rglob("*.ckpt"):
            path.unlink()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            fitted = trainer(**options)
            before = [id(each) for each in [*fitted.loggers, *fitted.callbacks]]
            fitted.fit(model := Random(), loader(), loader())
            results = fitted.test(model, loader(), verbose=False)
        assert [id(each) for each in [*fitted.loggers, *fitted.callbacks]] == before
        assert "log_metrics" not in vars(fitted._logger_connector)
        path = fitted.checkpoint_callback.best_model_path
        checkpoint = torch.load(path, weights_only=False)
        for entry in checkpoint["callbacks"].values():
            entry.clear()  # paths
        return {
            "path": without_version(path),
            "weights": [p.detach().numpy().tobytes() for p in model.parameters()],
            "checkpoint": str(checkpoint),
            "results": results,
            "logged": {key: value.item() for key, value in fitted.logged_metrics.items()},
            "random": [str(state()) for state in STATES],
            "warnings": sorted(without_version(str(w.message)) for w in warned),
            "pickle": len(pickle.dumps(fitted)),
        }

    outcome()  # some warnings come once a process
    without = outcome()
    autolog.enable()
    assert outcome() == without
    assert len({run.start.key for run in off()}) == 1


# -- hooks that fail -------------------------------------------------------------------------------

_PLACES: list[tuple[str, object, str]] = [
    ("lightning.join", guest, "observe"),
    ("lightning.leave", runs.Runs, "end"),
    ("lightning.setup", runs.Runs, "expect"),
    ("lightning.log_graph", logger, "observe"),
    ("lightning.log_hyperparams", logger, "flattened"),
    ("lightning.log_metrics", runs.Runs, "log_given"),
    ("lightning.finalize", runs.Runs, "end"),
    ("lightning.after_save_checkpoint", checkpoints, "note_run"),
    ("lightning.before_end", facts, "checkpoint_metrics"),
    ("lightning.on_train_start", facts, "fit_params"),
    ("lightning.on_train_epoch_start", observer._Fit, "begin_epoch"),
    ("lightning.on_train_batch_end", losses.Losses, "add"),
    ("lightning.on_train_epoch_end", observer._Fit, "end_epoch"),
    ("lightning.on_save_checkpoint", observer._Fit, "log_epoch"),
    ("lightning.on_train_end", observer._Fit, "log_epoch"),
    ("lightning.models", observer, "as_model"),
    ("lightning.on_before_backward", losses.Losses, "hear"),
    ("lightning.on_exception", runs.Runs, "note_error"),
]
"""Each place that a shield guards, with something that is called in there."""


class Manual(Talkative):
    """Steps by hand, so that every hook is called; fails in the end where it is told to."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.automatic_optimization, self.fails = False, fails

    def training_step(self, batch: Any, index: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss)

    def on_train_end(self) -> None:
        if self.fails:
            raise ZeroDivisionError("mine")


def _train(*, fails: bool, explicit: bool) -> list[bytes]:
    chosen = AutologLogger(resume="auto") if explicit else True
    torch.manual_seed(1)
    model = Manual(fails=fails)
    fitted = trainer(logger=chosen)
    if fails:
        with pytest.raises(ZeroDivisionError, match=r"^mine$"):
            fitted.fit(model, loader(), loader())
    else:
        fitted.fit(model, loader(), loader())
    return [p.detach().numpy().tobytes() for p in model.parameters()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("logged")
@pytest.mark.parametrize("hook", _PLACES, ids=[place for place, _, _ in _PLACES])
def test_a_hook_that_fails(
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[tuple[str, Exception]],
    capfd: pytest.CaptureFixture[str],
    hook: tuple[str, object, str],
) -> None:
    """What goes wrong inside is counted, said once and kept from the user; the training is whole.

    So it is under ``enable()`` and with an explicit logger, in a training that fails and one that
    does not; and each place is reached by one of them.
    """
    place, owner, name = hook
    autolog.enable(log_models=place == "lightning.models")
    clean = _train(fails=False, explicit=False)
    guard.silent = False
    capfd.readouterr()
    true = getattr(owner, name)

    def broken(*args: Any, **kwargs: Any) -> Any:
        true(*args, **kwargs)
        raise RuntimeError("ours")

    monkeypatch.setattr(owner, name, broken)
    for explicit in (False, True):
        for fails in (False, True):
            assert _train(fails=fails, explicit=explicit) == clean
    assert guard.failures[place] > 0
    assert {str(error) for _, error in swallowed} == {"ours"}
    said = capfd.readouterr().err.splitlines()
    assert sum(f"internal error at {place} " in line for line in said) == 1
    swallowed.clear()


def test_every_shield_is_tried() -> None:
    """The list above has every place in the code of this integration."""
    folder = Path(guest.__file__).parent
    code = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    in_code = set(re.findall(r'(?:shield|swallow)\("([^"]+)"', code))
    assert in_code - {"lightning.register"} == {place for place, _, _ in _PLACES}


# -- on and off ------------------------------------------------------------------------------------


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


_ON_AND_OFF = """
    import autolog
    autolog.enable(mode="offline", silent=True)
    from lightnings import METHODS, Regression, loader, trainer
    import lightning.pytorch, pytorch_lightning

    spaces = (lightning.pytorch, pytorch_lightning)

    def methods():
        return [vars(space.Trainer)[name] for space in spaces for name in METHODS]

    def fit():
        trainer(max_epochs=1, logger=False, enable_checkpointing=False).fit(Regression(), loader())

    originals = [method.__wrapped__ for method in methods()]
    fit()
    autolog.disable()
    assert methods() == originals
    fit()
    autolog.enable()
    fit()
    autolog.disable()
    assert methods() == originals
"""


def test_enabled_before_the_import(autolog_home: Path, tmp_path: Path) -> None:
    """Enabled first, then off, on and off again: on it logs, off it is as if never on."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    done = run_script(_ON_AND_OFF, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert len(logged_runs(autolog_home)) == 2
