"""Which optimizers the user has named with ``autolog.watch``, and the models they train."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING
from weakref import ReferenceType, WeakKeyDictionary

from autolog.callbacks.modules import unwrapped

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

_models: WeakKeyDictionary[Optimizer, ReferenceType[Module]] = WeakKeyDictionary()

_is_everything_logged = False


def log_everything(*, on: bool) -> None:
    """Say whether optimizers that nobody named are logged as well."""
    global _is_everything_logged
    _is_everything_logged = on


def add(model: Module, optimizers: tuple[Optimizer, ...]) -> None:
    """Have the trainings of `optimizers` logged as those of `model`."""
    reference = weakref.ref(unwrapped(model))
    for optimizer in optimizers:
        _models[optimizer] = reference


def has_models() -> bool:
    """True when some model was named, with an optimizer that lives."""
    return bool(_models)


def clear() -> None:
    """Forget them all."""
    _models.clear()


def is_logged(optimizer: Optimizer) -> bool:
    """True when what this optimizer trains is to be logged."""
    return _is_everything_logged or optimizer in _models


def model_of(optimizer: Optimizer) -> Module | None:
    """The model that was named with an optimizer, while it lives."""
    reference = _models.get(optimizer)
    return None if reference is None else reference()


def model_params(model: Module) -> dict[str, object]:
    """How large a model is: all parameters, and those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {
        "model_parameters": sum(size for size, _ in sizes),
        "model_trainable_parameters": sum(size for size, is_trained in sizes if is_trained),
    }
