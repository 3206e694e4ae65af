"""How a module of ours is run in a process of its own, and asked for a word."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_PACKAGE = Path(__file__).parent


def command(module: str) -> list[str]:
    """The command line that runs ``main()`` of a module; arguments may follow.

    The working directory is no place to import from there: a `queue.py` beside the user's script
    would be taken for Python's own.
    """
    code = (
        "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv.pop(1)]; "
        f"from {module} import main; main()"
    )
    return [sys.executable, "-c", code, str(_PACKAGE.parent)]


def asked() -> Iterator[str]:
    """The lines of standard input, to be dealt with one by one.

    When it ends, this process ends at once, whatever it is at: who asked is dead then, and another
    process does all of it again.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    while True:
        yield lines.get()


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


class NoAnswer(Exception):
    """Who was asked has not answered; the message says why."""


def answer(
    module: str,
    environ: Mapping[str, str],
    *question: str,
    token: str = "",
    seconds: float = 20.0,
) -> str:
    """What ``main()`` of a module prints in another process, within so many seconds.

    `token` goes to its standard input.
    Raises `NoAnswer` with the last line of its errors where it fails, and where it takes longer.
    """
    try:
        asked = subprocess.run(
            [*command(module), *question],
            env=dict(environ),
            input=f"{token}\n" if token else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {seconds:.0f} s") from None
    except OSError as error:
        raise NoAnswer(f"no process can be started to ask it: {error}") from error
    if asked.returncode != 0:
        said = asked.stderr.strip().splitlines()
        raise NoAnswer(said[-1] if said else "the process that asked it died")
    return asked.stdout.strip()
