"""Checkpoints: which of them are logged, which run each belongs to, and the weights of the best."""

from __future__ import annotations

import json
import pickle
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from autolog.callbacks.tensors import plain
from autolog.recorder import FormerRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from autolog.callbacks.modules import Weights
    from autolog.recorder import Training

_NOTES: Final = "autolog.json"
_RUN_KEY: Final = re.compile(r"[0-9a-f]{32}")
_SETTINGS: Final = ("monitor", "mode", "save_last", "save_top_k", "save_weights_only")


class _Checkpoint(NamedTuple):
    path: Path
    score: object
    saved: float
    """When it was written."""


def _present(saving: Any) -> Iterator[_Checkpoint]:
    """The checkpoints of a ``ModelCheckpoint`` that are on a disk here, the oldest first."""
    scores: dict[str, object] = {saving.last_model_path: saving.current_score}
    scores[saving.best_model_path] = saving.best_model_score
    scores.update(saving.best_k_models)
    found = [
        _Checkpoint(path, score, path.stat().st_mtime)
        for path, score in ((Path(name), score) for name, score in scores.items() if name)
        if path.exists()
    ]
    return iter(sorted(found, key=lambda checkpoint: checkpoint.saved))


class Uploads:
    """Logs checkpoints as Lightning's ``MLFlowLogger`` lays them out, each version of one once.

    ``<stem>/<file>``, beside it ``metadata.yaml`` (score and settings) and ``aliases.txt``.
    """

    def __init__(self) -> None:
        self._logged: dict[Path, float] = {}

    def log(self, saving: Any, training: Training) -> None:
        """Log what is new of a ``ModelCheckpoint``; copies each file."""
        for checkpoint in _present(saving):
            path, score, saved = checkpoint
            if self._logged.get(path) == saved:
                continue
            training.log_artifact(path, path.stem)
            metadata = {
                "score": plain(score),
                "original_filename": path.name,
                "Checkpoint": {name: getattr(saving, name, None) for name in _SETTINGS},
            }
            aliases = ["latest", "best"] if str(path) == saving.best_model_path else ["latest"]
            # JSON is YAML.
            training.log_text(json.dumps(metadata, indent=2), f"{path.stem}/metadata.yaml")
            training.log_text(str(aliases), f"{path.stem}/aliases.txt")
            self._logged[path] = saved


# -- the weights of the best -----------------------------------------------------------------------


def best_of(savings: Iterable[Any]) -> Path | None:
    """The best checkpoint of the first ``ModelCheckpoint`` that monitors a metric.

    None where there is none, or it is on no disk here.
    """
    for saving in savings:
        if saving.monitor is not None:
            path = Path(saving.best_model_path)
            return path if path.is_file() else None
    return None


class _Other:
    """Stands for an object of a checkpoint that is no weight."""

    def __init__(self, *_: object) -> None:
        """Take what the object would be made from."""

    def __setstate__(self, _: object) -> None:
        """Take what the object would know."""


def weights_in(checkpoint: Path) -> Weights:
    """The weights in a checkpoint, which stay on the disk until they are used.

    Its other objects are not made: the path may be one that a checkpoint of somebody else has
    named, and making them runs code.
    """
    names = torch.serialization.get_unsafe_globals_in_checkpoint(str(checkpoint))
    try:
        with torch.serialization.safe_globals([(_Other, name) for name in names]):
            content = torch.load(str(checkpoint), map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{checkpoint.name} has objects that torch.load(weights_only=True) refuses"
        ) from error
    weights: Weights = content["state_dict"]
    return weights


# -- the run of a checkpoint -----------------------------------------------------------------------


def note_run(saving: Any, run: FormerRun) -> None:
    """Note beside the newest checkpoint of a ``ModelCheckpoint`` which run it is from."""
    newest = max(_present(saving), key=lambda checkpoint: checkpoint.saved, default=None)
    if newest is None:
        return
    folder = newest.path.parent
    notes = _notes_in(folder)
    runs_by_file = {
        file: key for file, key in notes["checkpoints"].items() if (folder / file).exists()
    }
    runs_by_file[newest.path.name] = run.key
    runs = {key: notes["runs"].get(key) for key in runs_by_file.values()} | {run.key: run._asdict()}
    _write(folder / _NOTES, json.dumps({"checkpoints": runs_by_file, "runs": runs}))


def run_of(checkpoint: str | Path) -> FormerRun | None:
    """The run that a checkpoint is from, where that was noted; a link counts as its target."""
    path = Path(checkpoint).resolve()
    notes = _notes_in(path.parent)
    try:
        run = FormerRun(**notes["runs"][notes["checkpoints"][path.name]])
        return run if _RUN_KEY.fullmatch(run.key) else None
    except (KeyError, TypeError):
        return None


def _notes_in(folder: Path) -> dict[str, Any]:
    try:
        notes = json.loads((folder / _NOTES).read_text())
        return {part: dict(notes[part]) for part in ("checkpoints", "runs")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"checkpoints": {}, "runs": {}}


def _write(path: Path, text: str) -> None:
    """Write a file as a whole, so that no reader finds half of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
