"""``epoch_loss`` over the ranks of a process group: two real processes, gloo, unequal shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from logged import logged_runs
from support import run_ranks

_TWO_RANKS = """
    import torch.distributed as dist
    import autolog
    from autolog import recorder
    from autolog.callbacks.ranks import EpochLoss

    autolog.enable(mode="offline")
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    class Toy:
        pass

    def begin(first_epoch=0):
        training = recorder.get().begin_training(Toy(), flavor="toy", name="Toy")
        return training, EpochLoss(training, "Toy", first_epoch)
"""


def _run(source: str, cwd: Path) -> list[str]:
    """What each rank printed; none may have failed, or spoken of an error of ours."""
    done = run_ranks(_TWO_RANKS + source, cwd=cwd)
    for process in done:
        assert process.returncode == 0, process.stderr
        assert "internal error" not in process.stderr
    return [process.stdout for process in done]


def test_the_first_rank_looks_and_never_waits(autolog_home: Path, tmp_path: Path) -> None:
    """An epoch is the global mean as soon as a look finds all ranks, else the rank's own."""
    source = """
    store = dist.distributed_c10d._get_default_store()
    training, losses = begin(first_epoch=10)

    def log(of, epoch, **sums):
        if rank == of:
            losses.log(epoch, {int(name[1:]): pair for name, pair in sums.items()})
        dist.barrier()

    log(1, 0, _0=(10.0, 2))
    log(0, 0, _0=(1.0, 1))  # there at once
    log(0, 1, _0=(3.0, 3), _1=(4.0, 2))
    log(1, 1, _0=(9.0, 1), _1=(6.0, 3))
    log(0, 2, _0=(8.0, 2))  # finds epoch 1
    log(0, 3, _0=(float("inf"), 1))  # gives epoch 2 up
    for epoch in range(2, 60):
        log(1, epoch, _0=(1.0, 1))
    log(0, 59, _0=(7.0, 3))
    training.end() if rank else losses.settle()
    if rank == 0:
        print(store.check(["autolog/Toy/0/1"]))
    dist.barrier()
    """
    first, _ = _run(source, tmp_path)
    (run,) = logged_runs(autolog_home)
    assert run.metrics["epoch_loss"] == [
        (10, 11 / 3),
        (11, 12 / 4 + 10 / 5),
        (12, 4.0),
        (13, float("inf")),
        (69, 8 / 4),
    ]
    assert run.metrics["epoch_loss.0"] == [(11, 3.0)]
    assert run.metrics["epoch_loss.1"] == [(11, 2.0)]
    assert run.tags["autolog.loss_scope"] == "rank0"
    assert first.strip() == "False"  # nothing is left in the store


def test_a_whole_group_needs_no_tag(autolog_home: Path, tmp_path: Path) -> None:
    """Where every epoch was complete the run has no scope tag; two trainings are not mixed up."""
    _run(
        """
    for number in range(2):
        training, losses = begin()
        for epoch in range(3):
            if rank == 1:
                losses.log(epoch, {0: (100.0 * number + epoch, 1)})
            dist.barrier()
            if rank == 0:
                losses.log(epoch, {0: (0.0, 1)})
        losses.settle()
        training.end()
        dist.barrier()
    """,
        tmp_path,
    )
    runs = logged_runs(autolog_home)
    assert [run.values("epoch_loss") for run in runs] == [[0.0, 0.5, 1.0], [50.0, 50.5, 51.0]]
    assert not any("autolog.loss_scope" in run.tags for run in runs)


def test_a_group_that_is_gone(autolog_home: Path, tmp_path: Path) -> None:
    """Without a group, or with a store whose host has ended, each rank goes on undisturbed."""
    _run(
        """
    store = dist.distributed_c10d._get_default_store()
    training, losses = begin()
    if rank == 0:
        dist.destroy_process_group()
        losses.log(0, {0: (2.0, 1)})
        losses.settle()
    else:
        try:
            while True:  # until its host, the first rank, has ended
                store.num_keys()
        except RuntimeError:
            losses.log(0, {0: (4.0, 1)})
            losses.settle()
    """,
        tmp_path,
    )
    (run,) = logged_runs(autolog_home)
    assert run.values("epoch_loss") == pytest.approx([2.0])
    assert run.tags["autolog.loss_scope"] == "rank0"
