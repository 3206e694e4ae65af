"""How a module of ours is run in a process of its own."""

from __future__ import annotations

import sys
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
