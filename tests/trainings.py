"""Small trainings as scripts, and what became of them on the server and in the journals."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from support import MlflowServer, eventually, run_script

from autolog.journal import progress
from autolog.journal.layout import REJECTED
from autolog.journal.root import journals

if TYPE_CHECKING:
    from autolog.journal.progress import Progress

STEPS, KEYS = 120, 10

_TRAINING = """
    import hashlib, json, time
    import autolog
    autolog.enable()
    state = b""
    started = time.perf_counter()
    with autolog.run("{name}"):
        for step in range({steps}):
            for _ in range(200):
                state = hashlib.sha256(state * 100).digest()
            autolog.log_metrics({{f"m{{i}}": step + i / 16 for i in range({keys})}}, step=step)
    print(json.dumps([state.hex(), time.perf_counter() - started]))
"""


def fresh_name() -> str:
    """A run name that no other test uses on the shared server."""
    return f"run-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Trained:
    """What a training computed, and the seconds it and its whole process took."""

    name: str
    result: str
    seconds: float
    whole: float
    said: str


def train(uri: str, cwd: Path, *, name: str = "", env: Mapping[str, str] | None = None) -> Trained:
    """Run a training that logs `STEPS` steps of `KEYS` values to `uri`; it must succeed."""
    name = name or fresh_name()
    source = _TRAINING.format(name=name, steps=STEPS, keys=KEYS)
    started = time.perf_counter()
    done = run_script(source, cwd=cwd, env={"MLFLOW_TRACKING_URI": uri, **(env or {})})
    whole = time.perf_counter() - started
    assert done.returncode == 0, done.stderr
    result, seconds = json.loads(done.stdout)
    return Trained(name, result, seconds, whole, done.stderr)


def everything_of_a_training() -> set[tuple[str, int, float]]:
    """The key, step and value of all that `train` logs."""
    return {(f"m{i}", step, step + i / 16) for step in range(STEPS) for i in range(KEYS)}


def run_named(server: MlflowServer, name: str) -> Any:
    """The one run of that name on the server; an ``AssertionError`` while there is none, or two."""
    client = server.client()
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, f"attributes.run_name = '{name}'")
    assert len(runs) == 1, f"{len(runs)} runs are named {name}"
    return runs[0]


def stored(server: MlflowServer, name: str) -> list[tuple[str, int, float]]:
    """Key, step and value of each row of a run: one that was stored twice stands here twice."""
    run_id = run_named(server, name).info.run_id
    return sorted((p.key, p.step, p.value) for p in server.points(run_id))


def arrives(
    server: MlflowServer, name: str, expected: set[tuple[str, int, float]], timeout: float = 30
) -> None:
    """Wait until the run has exactly these values, each once."""
    eventually(lambda: stored(server, name) == sorted(expected), timeout, every=0.2)


def accounts(home: Path) -> list[Progress]:
    """What the shipper says of each journal of a home."""
    return [progress.load(journal) for journal in journals(home) if "held" not in journal.parts]


def dead_letters(home: Path) -> list[dict[str, Any]]:
    """The records that a server refused, of all journals of a home."""
    files = home.glob(f"*/*/{REJECTED}")  # not rglob: folders vanish while the shipper works
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def shippers(home: Path) -> list[psutil.Process]:
    """The shipper processes of a home that work."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if "autolog.shipper" in command and str(home) in command:
                found.append(process)
        except psutil.Error:
            continue
    return found


def group_of(home: Path) -> Path:
    """The only group of a home."""
    (group,) = (entry for entry in home.iterdir() if entry.is_dir())
    return group


def ship(group: Path, uri: str, timeout: float = 40) -> None:
    """Ship a group in a fresh process; returns once that has nothing more to do."""
    code = "import sys; from pathlib import Path; from autolog.shipper import ship; "
    code += "ship(Path(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(group), uri], check=True, timeout=timeout)
