"""What `autolog doctor` says of one thing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    text: str
    remedy: str = ""
    """What to do; empty when all is well."""

    @property
    def is_well(self) -> bool:
        """True when nothing has to be done."""
        return not self.remedy
