"""How a module of ours is run in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
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


def ask(module: str, environ: Mapping[str, str], seconds: float) -> str:
    """What ``main()`` of a module prints, in a process with an environment of its own.

    Raises `ValueError` with the reason where there is no answer within so many seconds.
    """
    try:
        asked = subprocess.run(
            command(module),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"no answer within {seconds:.0f} s") from None
    except OSError as error:
        raise ValueError(f"no process can be started to ask it: {error}") from error
    if asked.returncode != 0:
        raise ValueError((asked.stderr.strip().splitlines() or ["the process that asked died"])[-1])
    return asked.stdout.strip()
