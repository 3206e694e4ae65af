"""`Source`: one journal on its way, as far as the shipper has come with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from autolog.delivery import Delivery, values_in
from autolog.feed import Entry, Feed
from autolog.journal.owner import Life


@dataclass(slots=True)
class Source:
    """A feed with what was read of it and is not acknowledged yet."""

    feed: Feed
    goal: int = 0
    """What the journal held when it was taken on ends here."""
    entries: list[Entry] = field(default_factory=list)
    values: int = 0
    since: float = 0.0
    """When the first of the entries was read, by the shipper's clock."""
    delivery: Delivery | None = None
    life: Life = Life.ALIVE
    """That of the owner, as far as all that it may have written has been read."""
    synced: int = 0
    rests_until: float = -math.inf
    is_discarded: bool = False

    @property
    def is_drained(self) -> bool:
        """Whether the server has everything that the journal will ever hold."""
        return self.is_delivered and not self.feed.progress.uploads

    @property
    def is_delivered(self) -> bool:
        """The same, files aside."""
        return self.life is not Life.ALIVE and not self.entries and self.delivery is None

    @property
    def is_given_up(self) -> bool:
        """Whether the server will never have the rest."""
        return self.rests_until == math.inf

    @property
    def is_hurried(self) -> bool:
        """Whether what was read is not to wait for more."""
        return self.life is not Life.ALIVE or self.feed.flush_wanted()

    def has_arrived(self, *, with_files: bool) -> bool:
        """Whether the server has, or will never have, what the journal held when taken on."""
        if self.is_given_up:
            return True
        if self.feed.progress.uploads and with_files:
            return False
        return self.is_delivered or (
            self.feed.progress.cursor >= self.goal and self.feed.life() is Life.ALIVE
        )

    @property
    def is_owned(self) -> bool:
        """Whether the owner is alive now."""
        return not self.is_discarded and self.feed.life() is Life.ALIVE

    def read(self, now: float, most: int) -> bool:
        """Read on until about so many values wait; False when there was nothing new."""
        moved = False
        while max(self.values, len(self.entries)) < most and self._read_some(now):
            moved = True
        return moved

    def _read_some(self, now: float) -> bool:
        # Life before content: an owner found dead has nothing more to write.
        life = self.feed.life()
        entries = self.feed.read(life)
        if not self.entries and entries:
            self.since = now
        self.entries += entries
        self.values += values_in(entry.record for entry in entries)
        if not entries:
            self.life = life
        return bool(entries)

    def sync_disk(self) -> None:
        """Have what is read so far survive the machine."""
        if self.life is Life.ALIVE and self.feed.position != self.synced:
            self.synced = self.feed.position
            self.feed.sync()

    def discard_when_done(self) -> None:
        """Let go of the content of a journal that nobody needs any more.

        To that of a run set aside the journal beside it may still add.
        """
        if self.is_drained and self.life is Life.DEAD and not self.feed.is_held:
            self.feed.discard_content()
            self.is_discarded = True
