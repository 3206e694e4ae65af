"""Neptune, offline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from peers.contenders import NOTHING, Contender, Log, Place, Stored


class NeptuneOffline(Contender):
    """A queue on disk, which ``neptune sync`` would send."""

    name = "Neptune offline"
    package = "neptune"
    module = "neptune"
    call = "`run[key].append(value, step=step)`, once a metric, without monitors of the hardware"

    def begin(self, place: Place) -> Log:  # noqa: ARG002 - it writes where the process works
        """Without monitors and captured output, which log more than metrics."""
        import neptune

        self._run = run = neptune.init_run(
            mode="offline",
            project="bench/peers",
            capture_hardware_metrics=False,
            capture_stdout=False,
            capture_stderr=False,
            capture_traceback=False,
            source_files=[],
            git_ref=False,
        )

        def log(metrics: dict[str, float], step: int) -> None:
            for key, value in metrics.items():
                run[key].append(value, step=step)

        return log

    def finish(self) -> None:
        """Write what is left."""
        self._run.stop()

    def stored(self, place: Place) -> Stored:
        """What its own queue class reads, as ``neptune sync`` does."""
        folders = list(Path(place.folder).glob(".neptune/offline/run__*"))
        if not folders:
            return NOTHING
        (folder,) = folders
        return Stored(list(_points(folder)), "has none offline")


def _points(folder: Path) -> Iterator[tuple[str, int, float]]:
    from neptune.core.components.queue.disk_queue import DiskQueue
    from neptune.internal.operation import LogFloats, Operation

    queue = DiskQueue(folder, Operation.to_dict, Operation.from_dict, threading.RLock())
    while (element := queue.get()) is not None:
        if isinstance(element.obj, LogFloats):
            for value in element.obj.values:
                yield "/".join(element.obj.path), int(value.step), value.value
