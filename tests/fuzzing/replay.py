"""``python -m tests.fuzzing.replay``: what fuzzing begins with, and some changes by chance."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the tests' own modules are

from tests.fuzzing.changes import LARGEST, mutate
from tests.fuzzing.checks import Place, in_memory
from tests.fuzzing.corpus import corpus
from tests.fuzzing.packed import Packed

_CHANGES = 500


def main() -> None:
    """Check all; print how many there were."""
    dice = random.Random(1)
    with in_memory() as parent:
        place = Place(Path(parent))
        given = list(corpus(Path(parent)))
        changed = (mutate(dice.choice(given), LARGEST, n, _change) for n in range(_CHANGES))
        for data in (*given, *changed):
            try:
                place.check(Packed.from_bytes(data))
            except BaseException:
                print(f"Packed.from_bytes({data!r})")
                raise
        print(len(given) + _CHANGES)


def _change(data: bytes, most: int) -> bytes:
    """Other bytes in one place."""
    dice = random.Random(data)
    at = dice.randrange(len(data) + 1)
    return (data[:at] + dice.randbytes(dice.randrange(9)) + data[at + dice.randrange(9) :])[:most]


if __name__ == "__main__":
    main()
