"""DistributedDataParallel: two real processes on gloo, shards of unequal size, one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from logged import logged_runs
from support import run_ranks

_DDP = """
    import json
    import autolog
    import torch, torch.distributed as dist
    from torch.nn.functional import mse_loss
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, TensorDataset

    autolog.enable(mode="offline")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    x = torch.randn(20 - 5 * rank, 4)
    shard = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=5 - rank)

    def train(accumulated=1, hear=lambda epoch: None):
        torch.manual_seed(7)
        model = DistributedDataParallel(torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        autolog.watch(model, optimizer)
        by_hand = []
        for epoch in range(3):
            total = samples = 0
            for index, (x, y) in enumerate(shard):
                loss = mse_loss(model(x), y)
                if index % accumulated < accumulated - 1:
                    with model.no_sync():
                        (loss / accumulated).backward()
                else:
                    (loss / accumulated).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                total, samples = total + len(x) * loss.item(), samples + len(x)
            by_hand.append((total, samples))
        dist.barrier()
        return by_hand
"""


def _by_hand(ranks: list[list[tuple[float, int]]]) -> Any:
    """The global mean of each epoch, from what each rank noted down."""
    sums = [[sum(part) for part in zip(*epoch, strict=True)] for epoch in zip(*ranks, strict=True)]
    return pytest.approx([total / samples for total, samples in sums], rel=1e-6)


def test_a_distributed_training_is_one_run(autolog_home: Path, tmp_path: Path) -> None:
    """The first rank logs the mean over all samples of all ranks, accumulation included."""
    source = """
    print(json.dumps([train(), train(accumulated=2)]))
    dist.destroy_process_group()
    """
    done = run_ranks(_DDP + source, cwd=tmp_path)
    assert [process.returncode for process in done] == [0, 0], done
    assert not any("internal error" in process.stderr for process in done)
    plain, accumulated = zip(*(json.loads(process.stdout) for process in done), strict=True)
    first, second = logged_runs(autolog_home)
    assert first.values("epoch_loss") == _by_hand(plain)
    assert second.values("epoch_loss") == _by_hand(accumulated)
    for run in (first, second):
        assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2]
        assert (run.model, run.status, run.params["epochs"]) == ("Linear", "FINISHED", "3")
        assert "autolog.loss_scope" not in run.tags


def test_ranks_that_log_nothing_are_not_waited_for(autolog_home: Path, tmp_path: Path) -> None:
    """Where the other rank is silent the first one goes on, logs its own mean and says so."""
    source = """
    if rank == 1:
        with autolog.pause():
            train()
    else:
        print(json.dumps(train()))
    """
    done = run_ranks(_DDP + source, cwd=tmp_path)
    assert [process.returncode for process in done] == [0, 0], done
    (run,) = logged_runs(autolog_home)
    assert run.values("epoch_loss") == _by_hand([json.loads(done[0].stdout)])
    assert run.tags["autolog.loss_scope"] == "rank0"
