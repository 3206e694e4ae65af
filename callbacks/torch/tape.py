"""The regular steps of a loop, written down as numbers by the hooks and told to the tracker later.

A training sweeps the caches between two hooks, so that a line of Python there costs several times
what it costs in a tight loop. A step is regular where one batch of one loader, its loss and the
step of one optimizer follow each other; whatever else happens is told at once, behind what the
tape holds. Pure: knows no torch.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final

from autolog.callbacks.torch.epochs import Tracker
from autolog.callbacks.torch.passes import Pass

OFF: Final = 0
BATCH: Final = 1
LOSS: Final = 2
STEP: Final = 3
END: Final = 4

_ROOM: Final = 256
"""Steps that are told together."""


class Tape:
    """Regular steps that the tracker has not been told of."""

    __slots__ = (
        *("awaits", "ended", "loss_kind", "losses", "optimizer", "passed", "rate", "room"),
        "samples",
    )

    def __init__(self) -> None:
        self.awaits = OFF
        """What comes next in a regular step: a batch, its loss, a step, or the end of that step."""
        self.passed: Pass | None = None
        self.optimizer: Callable[[], object] = _nothing
        self.loss_kind: type | None = None
        """What a loss on the host is made by that is neither divided nor scaled."""
        self.rate: object = None
        """The learning rate of the newest step."""
        self.ended = 0.0
        self.room = 0
        """So many steps before the tracker must be told."""
        self.samples, self.losses = array("q"), array("d")

    def begin(self, passed: Pass, optimizer: Callable[[], object], room: int) -> None:
        """Regular steps of `optimizer` on `passed` may follow, at most so many."""
        self.room = min(room, _ROOM)
        self.passed, self.optimizer = passed, optimizer
        self.awaits = BATCH if self.room > 0 else OFF

    def tell(self, tracker: Tracker, owner: int) -> int:
        """Tell the tracker of all that happened, the step that is under way included.

        Returns how many steps the optimizer, which is this `owner`, has made.
        """
        awaits, self.awaits = self.awaits, OFF
        samples, losses, passed = self.samples, self.losses, self.passed
        self.samples, self.losses = array("q"), array("d")
        assert passed is not None
        whole = len(losses) - (awaits >= STEP)
        if whole:
            passed.repeat(owner, samples[:whole], losses[:whole])
            passed.ended = self.ended
        if awaits >= LOSS:
            tracker.advance(passed, samples[whole])
        if awaits >= STEP:
            tracker.loss(losses[whole])
        if awaits == END:
            tracker.enter_step()
        return whole


def _nothing() -> None:
    """Stand in for a weak reference."""
