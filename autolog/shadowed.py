"""Python's own modules, although files of the user's bear their names.

A ``queue.py`` or ``random.py`` beside ``train.py`` stands before Python's own. What autolog needs
is then loaded at once, with Python's own modules, and the names are given back: the user's
``import random`` finds his file before and after.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

_NEEDED = ("autolog.api", "importlib.metadata", "wrapt")


def names() -> list[str]:
    """The standard modules that a file in the folder of the user's script stands in for."""
    try:
        files = os.listdir(sys.path[0] or ".")  # noqa: PTH208 - pathlib costs more than the rest
    except (IndexError, OSError):
        return []
    split = (file.partition(".") for file in files)
    return [n for n, _, kind in split if n in sys.stdlib_module_names and kind in ("", "py")]


def load_past(names: list[str]) -> None:
    """Load what autolog needs with Python's own modules of these names, then hide those again."""
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    for name, module in before.items():
        if _is_beside_script(module):
            del sys.modules[name]
    path = list(sys.path)
    sys.path[:] = [*path[1:], path[0]]
    try:
        for needed in _NEEDED:
            importlib.import_module(needed)
    finally:
        sys.path[:] = path
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def _is_beside_script(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None) or ""
    return file.startswith(os.path.abspath(sys.path[0]))  # noqa: PTH100 - as above
