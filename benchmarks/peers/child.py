"""The process of one contender: ``python -m peers.child``, with an `Order` as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

from peers import work
from peers.contenders import Place, contenders
from peers.tally import Tally


class Order(NamedTuple):
    """What it shall do."""

    contender: str
    place: Place
    tally: str
    """Path of a file that holds `steps` durations."""
    steps: int
    trains: bool
    """Does a step's work before each step; else it only logs."""


def obey(order: Order) -> None:
    """Log all steps as a training does, each as soon as it is allowed."""
    contender = contenders()[order.contender]
    tally = Tally(Path(order.tally))
    words, clock = tally.words, time.monotonic_ns
    log = contender.begin(order.place)
    tally.stamp(Tally.READY)
    for step in range(order.steps):
        if words[Tally.ALLOWED] <= step:
            tally.wait_for(Tally.ALLOWED, step + 1)
        if order.trains:
            work.train()
        metrics = work.metrics(step)
        words[Tally.CALLED_AT] = clock()
        words[Tally.CALLED] = step + 1
        start = clock()
        log(metrics, step)
        words[Tally.DURATIONS + step] = clock() - start
        words[Tally.RETURNED] = step + 1
    tally.stamp(Tally.LOOPED)
    contender.finish()
    tally.stamp(Tally.FINISHED)
    tally.wait_for(Tally.MAY_END, 1)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    obey(Order(**{**given, "place": Place(*given["place"])}))
