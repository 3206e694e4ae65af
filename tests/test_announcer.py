"""What a user reads: a few lines, however many trainings there are."""

from __future__ import annotations

import re
from pathlib import Path

from logged import logged_runs
from support import run_script

_FITS = """
    import sys, time
    import autolog
    autolog.enable(mode="offline")
    from sklearn.linear_model import LinearRegression

    def fits(count):
        started = time.process_time()
        for _ in range(count):
            LinearRegression().fit([[0.0], [1.0]], [0, 1])
        return (time.process_time() - started) / count

    with autolog.pause():
        fits(10)
        bare = fits(100)
    print((fits(500) - bare) * 1000)
"""

_RUN = r"LinearRegression-[0-9a-f]{6}"
_ACCOUNT = r"\d+ logged, 0 stored, \d+ pending"


def test_five_hundred_fits_print_eight_lines(tmp_path: Path, autolog_home: Path) -> None:
    """Start, three ends, the accounts after 10 and 100 runs, and at exit; a run costs little."""
    done = run_script(_FITS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    expected = [
        rf"autolog: run {_RUN} -> sqlite:\S+  \(look: .*\)",
        *[rf"autolog: run {_RUN} FINISHED \(so far {_ACCOUNT}\)"] * 3,
        rf"autolog: 10 runs so far, {_ACCOUNT}",
        rf"autolog: 100 runs so far, {_ACCOUNT}",
        rf"autolog: 500 runs, {_ACCOUNT}",
        r"autolog: to send what may be left: autolog sync .*",
    ]
    assert len(lines) == len(expected), done.stderr
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    assert len(logged_runs(autolog_home)) == 500
    milliseconds = float(done.stdout)
    assert milliseconds < 5, "the target is 1 ms on a quiet machine"


def test_silent_prints_nothing(tmp_path: Path) -> None:
    """``AUTOLOG_SILENT`` keeps every line away."""
    done = run_script(_FITS.replace("500", "12"), cwd=tmp_path, env={"AUTOLOG_SILENT": "1"})
    assert (done.returncode, done.stderr) == (0, "")
