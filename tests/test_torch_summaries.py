"""What TensorBoard's writer is told, in the open run as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from logged import logged_runs, only
from torch.utils import tensorboard
from torch_loops import linear, loader, sgd, train

import autolog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from logged import LoggedRun


def test_hyper_parameters_and_their_metrics(
    logged: Callable[[], list[LoggedRun]], tmp_path: Path
) -> None:
    """They join the run of the loop; each metric once, and no scalar that was not asked for."""
    model = linear()
    train(model, loader(), sgd(model))
    with tensorboard.SummaryWriter(tmp_path) as writer:
        writer.add_scalar("running", 0.5, 3)
        writer.add_hparams({"depth": 2, "lr": 9.0}, {"hparam/accuracy": 0.75})
    autolog.end_run()
    run = only(logged())
    assert run.params["depth"] == "2"
    assert run.params["lr"] == "0.05", "the optimizer's, which was there first"
    assert run.metrics["hparam/accuracy"] == [(0, 0.75)]
    assert "running" not in run.metrics


def test_scalars_at_every_nth_step(autolog_home: Path, tmp_path: Path) -> None:
    """Tensors as well; nothing without a run, in a pause, or after ``disable()``."""
    original = tensorboard.SummaryWriter.add_scalar
    autolog.enable(mode="offline", silent=True, log_every_n_steps=2)
    with tensorboard.SummaryWriter(tmp_path) as writer:
        writer.add_scalar("early", 1.0, 0)
        with autolog.run("mine"):
            for step in range(5):
                writer.add_scalar("loss", torch.tensor(step / 4), step)
            writer.add_hparams({}, {"best": 1.0})
            with autolog.pause():
                writer.add_scalar("loss", 9.0, 6)
        autolog.disable()
        assert tensorboard.SummaryWriter.add_scalar is original
        writer.add_scalar("late", 1.0, 0)
    run = only(logged_runs(autolog_home))
    assert run.metrics == {"loss": [(0, 0.0), (2, 0.5), (4, 1.0)], "best": [(0, 1.0)]}


def test_a_failing_hook_is_kept_from_the_writer(
    logged: Callable[[], list[LoggedRun]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swallowed: list[tuple[str, Exception]],
) -> None:
    """The file that the user asked for is written."""
    monkeypatch.setattr("autolog.callbacks.torch.summaries._run", lambda: 1 / 0)
    with tensorboard.SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert list(tmp_path.glob("events.*"))
    assert [place for place, _ in swallowed] == ["torch.summaries"]
    swallowed.clear()
    assert logged() == []
