"""The two name spaces of Lightning, each with a class tree of its own."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

NAME_SPACES: Final = ("lightning.pytorch", "pytorch_lightning")


def space_of(trainer: Any) -> str:
    """The name space that a trainer is from."""
    modules = [cls.__module__ for cls in type(trainer).__mro__]
    return next(
        space for module in modules for space in NAME_SPACES if f"{module}.".startswith(f"{space}.")
    )


def callbacks_of(trainer: Any, kind: str) -> list[Any]:
    """The trainer's callbacks of a class of Lightning, in their order."""
    cls = getattr(importlib.import_module(space_of(trainer)).callbacks, kind)
    return [callback for callback in trainer.callbacks if isinstance(callback, cls)]


def loaded_classes(package: str, name: str) -> tuple[Any, ...]:
    """A class in each of the name spaces that the program has imported."""
    spaces = [sys.modules[space] for space in NAME_SPACES if space in sys.modules]
    return tuple(getattr(getattr(space, package), name) for space in spaces)
