"""Weights & Biases, offline."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from peers.contenders import NOTHING, Contender, Log, Place, Stored


class WandbOffline(Contender):
    """A process of its own writes a file, which ``wandb sync`` would send."""

    name = "W&B offline"
    package = "wandb"
    module = "wandb"
    call = "`run.log(metrics, step)`, without monitors of the hardware"
    environ: ClassVar = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }

    def begin(self, place: Place) -> Log:
        """Without monitors and captured output, which log more than metrics."""
        import wandb

        self._run = wandb.init(
            project="peers",
            name=place.run,
            dir=place.folder,
            settings=wandb.Settings(x_disable_stats=True, console="off", disable_git=True),
        )
        return self._run.log

    def finish(self) -> None:
        """Wait until all is written."""
        self._run.finish()

    def stored(self, place: Place) -> Stored:
        """The history in its file; a run without an exit record has not ended."""
        from wandb.proto.wandb_internal_pb2 import Record

        paths = list(Path(place.folder).glob("wandb/offline-run-*/*.wandb"))
        if not paths:
            return NOTHING
        (path,) = paths
        points = []
        status = "has not ended"
        for data in _records(path.read_bytes()):
            record = Record.FromString(data)
            if record.HasField("exit"):
                status = "ended"
            items = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            }
            step = items.pop("_step", None)
            points += [(k, step, v) for k, v in items.items() if not k.startswith("_")]
        return Stored(points, status)


_BLOCK, _FILE_HEADER = 32768, 7
_RECORD_HEADER = struct.Struct("<IHB")
_FULL, _LAST = 1, 4


def _records(file: bytes) -> Iterator[bytes]:
    """What is whole in a file of records in blocks, LevelDB's format: the package has no reader."""
    at, parts = _FILE_HEADER, b""
    while True:
        if _BLOCK - at % _BLOCK < _RECORD_HEADER.size:
            at += _BLOCK - at % _BLOCK
        begin = at + _RECORD_HEADER.size
        if begin > len(file):
            return
        _, length, kind = _RECORD_HEADER.unpack_from(file, at)
        at = begin + length
        if kind == 0 or at > len(file):
            return
        parts += file[begin:at]
        if kind in (_FULL, _LAST):
            yield parts
            parts = b""
