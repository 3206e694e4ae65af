"""What this process runs in: its variables, its rank, its job and its machine.

This is the only file that reads ``os.environ``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def variables() -> Mapping[str, str]:
    """The environment variables of this process, live."""
    return os.environ


def export(name: str, value: str | None) -> None:
    """Set or remove a variable of this process, for the processes it starts."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def run_id_of_job() -> str | None:
    """The run that Azure ML opened for the job of this process, and ends."""
    return os.environ.get("AZUREML_RUN_ID") or None


def job_outputs() -> Path | None:
    """The folder of ours that outlives this job's machine; None outside of Azure ML's jobs."""
    return Path("outputs", "autolog").absolute() if run_id_of_job() else None


def is_ephemeral() -> bool:
    """True where the machine or container goes away with this process."""
    platform = ("KUBERNETES_SERVICE_HOST", "AZUREML_RUN_ID", "SLURM_JOB_ID")
    if any(os.environ.get(name) for name in (*platform, "DATABRICKS_RUNTIME_VERSION")):
        return True
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return in_container and 1 in (os.getpid(), os.getppid())


def rank() -> int:
    """This process's rank: ``RANK`` where ``WORLD_SIZE`` > 1, or that of torch.distributed."""
    return _place()[0]


def world_size() -> int:
    """How many ranks there are: ``WORLD_SIZE`` beside ``RANK``, or that of torch.distributed."""
    return _place()[1]


def _place() -> tuple[int, int]:
    environ = os.environ
    try:
        size = int(environ.get("WORLD_SIZE", "1"))
        if size > 1 and "RANK" in environ:
            return int(environ["RANK"]), size
    except ValueError:
        return 0, 1
    distributed = torch_distributed()
    if distributed is None:
        return 0, 1
    return int(distributed.get_rank()), int(distributed.get_world_size())


def has_rank() -> bool:
    """Whether a launcher, or torch.distributed, gave this process a rank."""
    return "RANK" in os.environ or torch_distributed() is not None


def torch_distributed() -> Any:
    """The module, where this process has joined a group."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed
