"""``python -m tests.fuzzing``: change journals until one makes the reader misbehave.

Guided by the code that they reach. ``make fuzz RUNS=1000000`` runs it so often. Arguments are
libFuzzer's: to try a file again that a run has left behind, name it.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the tests' own modules are

with atheris.instrument_imports(include=["autolog"]):
    from tests.fuzzing.changes import LARGEST, mutate
    from tests.fuzzing.checks import Place, in_memory
    from tests.fuzzing.corpus import corpus
    from tests.fuzzing.packed import Packed

_OPTIONS = f"-max_len={LARGEST} -timeout=10 -print_final_stats=1".split()
_MEMORY = 256 << 20
"""Bytes that the process may take beside what it starts with."""


def main() -> None:
    """Fuzz, beginning with the corpus unless a folder or files are named."""
    with in_memory() as parent:
        place = Place(Path(parent))
        given = sys.argv[1:]
        if all(argument.startswith("-") for argument in given):
            given.append(str(_corpus(Path(parent))))
        _limit_memory()
        atheris.Setup(
            [sys.argv[0], *_OPTIONS, *given],
            lambda data: place.check(Packed.from_bytes(data)),
            custom_mutator=lambda data, most, seed: mutate(data, most, seed, atheris.Mutate),
        )
        atheris.Fuzz()


def _corpus(parent: Path) -> Path:
    folder = parent / "corpus"
    folder.mkdir()
    for number, data in enumerate(corpus(parent)):
        (folder / f"{number}").write_bytes(data)
    return folder


def _limit_memory() -> None:
    taken = re.search(r"VmSize:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert taken is not None
    most = int(taken[1]) * 1024 + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
