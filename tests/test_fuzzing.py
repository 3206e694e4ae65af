"""Reading journals that a fuzzer has made: see ``tests/fuzzing``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_what_fuzzing_has_found_is_read_as_it_should_be() -> None:
    """Journals that reach all of the reader: no error, no end, no file of others, nothing lost.

    In a process of its own, for it listens to every file that Python opens.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzzing.replay"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) > 600
