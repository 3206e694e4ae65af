"""`Standing`: how far a journal has come, seen from outside and without touching it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autolog.delivery import values_in
from autolog.feed import Feed, read_meta
from autolog.journal import layout, progress
from autolog.journal.owner import Life, is_locked
from autolog.records import Artifact


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of the values of one journal."""

    folder: Path
    life: Life
    target: str = ""
    """Where it goes; empty when that cannot be read."""
    run_ids: tuple[str, ...] = ()
    stored: int = 0
    values: int = 0
    """Values that wait to be sent."""
    files: int = 0
    """Files that wait to be uploaded."""
    bytes: int = 0
    """What they hold."""
    records: int = 0
    """Records that wait to be sent, starts and ends of runs included."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """Values that the server refused, by its words, without those set aside for another try."""
    refusal: str = ""
    """Why the server refused the run, where this is one that was set aside."""
    damage: tuple[str, ...] = ()
    goal: int = 0
    """The position behind the last published record."""
    gap: str = ""
    """Where an incomplete copy cannot be read further."""

    @property
    def pending(self) -> int:
        """Values and files that wait."""
        return self.values + self.files

    @property
    def is_sent(self) -> bool:
        """True when nothing waits."""
        return not (self.values or self.files or self.records or self.gap)

    @property
    def is_complete(self) -> bool:
        """True when the server has everything, as far as one can know."""
        return self.is_sent and not (self.rejected or self.damage)

    def left(self) -> Iterator[str]:
        """What is not on the server, a line each."""
        waiting = [(self.values, "values"), (self.files, "files")]
        if not self.pending:
            waiting.append((self.records, "starts or ends of runs"))
        if any(count for count, _ in waiting):
            counts = ", ".join(f"{count} {what}" for count, what in waiting if count)
            yield f"{counts} pending"
        yield from self.faults()

    def faults(self) -> Iterator[str]:
        """What stands in the way of completeness, a line each."""
        if self.refusal:
            yield f"refused before: {self.refusal}"
        for reason, count in self.rejected.items():
            yield f"{count} values refused: {reason}"
        for place in self.damage:
            yield f"damaged: {place}"
        if self.gap:
            yield (
                f"incomplete copy: {self.gap}; copy it again, "
                "or pass over such places and end its runs with --finish"
            )


def inspect(folder: Path, *, finish: bool = False, target: str = "") -> Standing:
    """The standing of a journal; `finish` and `target` are those of `Feed`."""
    meta = read_meta(folder)
    if meta is None:
        life = Life.ALIVE if is_locked(folder / layout.OWNER_LOCK) else Life.UNKNOWN
        damage = (f"{layout.META}: cannot be read, or of a later version of autolog",)
        return Standing(folder, life, damage=damage)
    feed = Feed(folder, meta, finish, target, is_observer=True)
    life, goal = feed.life(), feed.tail
    values = records = 0
    waiting = [file for _, file, *_ in feed.progress.uploads]
    while entries := feed.read(life):
        count = values_in(entry.record for entry in entries)
        files = [entry.record.file for entry in entries if isinstance(entry.record, Artifact)]
        values, records = values + count - len(files), records + len(entries)
        waiting += files
        if life is Life.ALIVE and feed.position >= goal:
            break
    state = feed.progress
    return Standing(
        folder,
        life,
        feed.target,
        tuple(state.run_ids.values()),
        state.acknowledged,
        values,
        len(waiting),
        sum(map(feed.size, waiting)),
        records,
        Counter(state.rejected) - _set_aside(state.held.values()),
        "; ".join(_refusals(folder)) if feed.is_held else "",
        tuple(state.damage),
        goal,
        feed.gap,
    )


def _set_aside(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter())


def _refusals(held: Path) -> Iterable[str]:
    return progress.load(held.parent.parent).held.get(held.name, {})
