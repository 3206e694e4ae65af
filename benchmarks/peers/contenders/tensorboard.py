"""TensorBoard, by PyTorch's writer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from peers.contenders import Contender, Log, Place, Stored


class TensorBoard(Contender):
    """Event files, which a thread writes every two minutes or when its queue is full."""

    name = "TensorBoard"
    package = "tensorboard"
    module = "torch.utils.tensorboard"
    call = "`SummaryWriter(...).add_scalar(key, value, step)`, once a metric"

    def begin(self, place: Place) -> Log:
        """Open a writer with its defaults."""
        spare_tensorflow()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(place.folder)
        add = self._writer.add_scalar

        def log(metrics: dict[str, float], step: int) -> None:
            for key, value in metrics.items():
                add(key, value, step)

        return log

    def finish(self) -> None:
        """Close the writer, which writes what is left."""
        self._writer.close()

    def stored(self, place: Place) -> Stored:
        """Each event that its own loader gives."""
        return Stored(list(_points(Path(place.folder))), "has none")


def spare_tensorflow() -> None:
    """It imports TensorFlow where that is installed, for 6 s and 500 MB, and here needs none."""
    sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")


def _points(folder: Path) -> Iterator[tuple[str, int, float]]:
    spare_tensorflow()
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for path in folder.glob("events.*"):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                yield value.tag, event.step, value.simple_value
