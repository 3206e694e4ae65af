"""DVCLive, into its folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from peers.contenders import Contender, Log, Place, Stored


class DvcLive(Contender):
    """A file a metric, and a summary that is written anew at each step."""

    name = "DVCLive"
    package = "dvclive"
    module = "dvclive"
    call = "`live.log_metric(key, value)`, once a metric, then `live.next_step()`"
    environ: ClassVar = {"DVC_NO_ANALYTICS": "1"}

    def begin(self, place: Place) -> Log:
        """Without a DVC experiment, which needs a repository, and without reports."""
        from dvclive import Live

        self._live = live = Live(place.folder, save_dvc_exp=False, dvcyaml=False)

        def log(metrics: dict[str, float], step: int) -> None:  # noqa: ARG001 - it counts itself
            for key, value in metrics.items():
                live.log_metric(key, value)
            live.next_step()

        return log

    def finish(self) -> None:
        """End it."""
        self._live.end()

    def stored(self, place: Place) -> Stored:
        """The rows of its files."""
        paths = Path(place.folder, "plots", "metrics").glob("*.tsv")
        return Stored([point for path in paths for point in _points(path)], "has none")


def _points(path: Path) -> Iterator[tuple[str, int, float]]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row[path.stem]:  # else the last line was torn
                yield path.stem, int(row["step"]), float(row[path.stem])
