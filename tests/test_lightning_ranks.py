"""Lightning on two ranks: one run, the mean over all ranks, and not one collective more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lightnings import exactly
from logged import LoggedRun, logged_runs, only
from support import run_ranks, run_script

if TYPE_CHECKING:
    import pytest

_TRAINING = """
    import json, warnings
    warnings.simplefilter("ignore")
    import torch
    from torch.utils.data import DataLoader, Subset
    import autolog
    from autolog.callbacks.lightning import AutologLogger
    from lightnings import BATCH, DATA, Regression, trainer

    class Told(Regression):
        \"\"\"Tells what a person would note down on each rank; the ranks have unequal shards.\"\"\"

        def train_dataloader(self):
            return DataLoader(Subset(DATA, range(40 if self.global_rank else 34)), BATCH)

        def on_train_start(self):
            experiment = type(self.logger.experiment).__name__ if self.logger else None
            print(json.dumps({"rank": self.global_rank, "experiment": experiment}), flush=True)

        def on_train_epoch_end(self):
            sums = [self.hand._total, self.hand._samples]
            print(json.dumps({"epoch": self.current_epoch, "sums": sums}), flush=True)
            super().on_train_epoch_end()

    class Late(Told):
        # The second rank ends its epochs after the first has looked for them.

        def on_train_batch_end(self, outputs, batch, index):
            if self.global_rank and self.trainer.is_last_batch:
                torch.distributed.barrier()

        def on_train_epoch_end(self):
            if not self.global_rank:
                torch.distributed.barrier()
            super().on_train_epoch_end()

    def fit(strategy, module, **options):
        options |= {"accelerator": "cpu", "devices": 2, "use_distributed_sampler": False}
        trainer(strategy=strategy, **options).fit(module)
"""

_TORCHRUN = """
    from collections import Counter
    calls = Counter()
    NAMES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "broadcast_object_list",
             "reduce", "gather", "gather_object", "barrier", "monitored_barrier")

    def counted(name):
        true = getattr(torch.distributed, name)
        def call(*args, **kwargs):
            calls[name] += 1
            return true(*args, **kwargs)
        setattr(torch.distributed, name, call)

    for name in NAMES:
        counted(name)
    fit("ddp", Late(), logger=False, default_root_dir="off")
    without, calls = calls, Counter()
    print(json.dumps({"from here": "with autolog"}))
    autolog.enable(mode="offline", silent=True)
    fit("ddp", Late(), logger=False, default_root_dir="on")
    assert calls == without, (calls, without)
    assert sum(calls.values()) > 0
"""

_SPAWNED = """
    if __name__ == "__main__":
        autolog.enable(mode="offline", silent=True)
        fit("ddp_spawn", Told(), logger=AutologLogger())
"""


def _env() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}


def _global_means(said: list[dict[str, object]]) -> list[float]:
    """What a person computes from what both ranks noted down."""
    means = []
    for epoch in (0, 1):
        sums: list[list[float]] = [line["sums"] for line in said if line.get("epoch") == epoch]  # type: ignore[misc]
        assert [samples for _, samples in sorted(sums, key=lambda pair: pair[1])] == [34, 40]
        means.append(sum(total for total, _ in sums) / 74)
    return means


def _said(output: str) -> list[dict[str, object]]:
    """The objects in what several processes printed: a line of one may end behind another's."""
    return [json.loads(found) for found in re.findall(r"\{[^{}]*\}", output)]


def _is_whole(run: LoggedRun, means: list[float]) -> None:
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1]
    assert run.values("epoch_loss") == exactly(means)
    assert "autolog.loss_scope" not in run.tags
    assert run.status == "FINISHED"


def test_two_ranks(autolog_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun, with unequal shards: one run, the global mean, no collective of ours."""
    for name, value in _env().items():
        monkeypatch.setenv(name, value)
    said = []
    for process in run_ranks(_TRAINING + _TORCHRUN, cwd=tmp_path):
        assert process.returncode == 0, process.stderr
        assert "internal error" not in process.stderr
        lines = _said(process.stdout)
        said += lines[lines.index({"from here": "with autolog"}) :]
    _is_whole(only(logged_runs(autolog_home)), _global_means(said))


def test_processes_that_lightning_starts(autolog_home: Path, tmp_path: Path) -> None:
    """``ddp_spawn``: the logger travels along, and the first rank alone has an experiment."""
    done = run_script(_TRAINING + _SPAWNED, cwd=tmp_path, env=_env(), timeout=120)
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
    said = _said(done.stdout)
    _is_whole(only(logged_runs(autolog_home)), _global_means(said))
    experiments = {line["rank"]: line["experiment"] for line in said if "rank" in line}
    assert experiments == {0: "Training", 1: "_DummyExperiment"}
