"""The least that a call can cost."""

from __future__ import annotations

from peers.contenders import MEMORY, NOTHING, Contender, Log, Place, Stored


class Floor(Contender):
    """Keeps the metrics in the process."""

    name = "list.append"
    package = "python"
    module = "builtins"
    to = MEMORY
    call = "`kept.append((step, metrics))`"

    def begin(self, place: Place) -> Log:  # noqa: ARG002 - nothing is written
        """Take an empty list."""
        kept: list[tuple[int, dict[str, float]]] = []
        return lambda metrics, step: kept.append((step, metrics))

    def finish(self) -> None:
        """Nothing is kept."""

    def stored(self, place: Place) -> Stored:  # noqa: ARG002 - nothing is written
        """It ends with its process."""
        return NOTHING

    @property
    def version(self) -> str:
        """There is no package."""
        return "built in"
