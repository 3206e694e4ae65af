"""Which integrations there are, when they are switched on, and how anything gets replaced."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from autolog import guard

INTEGRATIONS: Mapping[str, str] = {
    "sklearn.base": "autolog.callbacks.sklearn",
    "sklearn.metrics": "autolog.callbacks.sklearn.evaluation",
    "sklearn.model_selection._validation": "autolog.callbacks.sklearn.validation",
    "keras": "autolog.callbacks.keras",
    "lightning.pytorch": "autolog.callbacks.lightning",
    "pytorch_lightning": "autolog.callbacks.lightning",
    "torch": "autolog.callbacks.torch",
    "torch.utils.tensorboard.writer": "autolog.callbacks.torch.summaries",
    "mlflow": "autolog.store",
}
"""Module that an integration instruments: module that is the integration."""

ENTRY_POINTS = "autolog.integrations"
"""Entry-point group of integrations in other packages: name = module, value = integration."""


class Integration(Protocol):
    """What an integration offers; ``autolog.callbacks`` says more."""

    def instrument(self, module: ModuleType) -> None:
        """Start to log what `module` trains; twice is once."""

    def uninstrument(self) -> None:
        """Put back everything that `instrument` replaced."""


# -- replacing attributes --------------------------------------------------------------------------

_MISSING = object()


class _Wrap(NamedTuple):
    original: Any
    """What stood in the owner's own namespace, `_MISSING` where it was inherited."""
    replacement: Any


_wraps: dict[tuple[int, str], _Wrap] = {}


def wrap(owner: object, name: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    """Replace ``owner.<name>`` by ``make(original)``, dressed up as the original; twice is once.

    Where somebody wraps ours in turn, ours stays inside theirs after `unwrap`: it must then pass
    calls through, so it asks at each call whether its integration is on.
    """
    known = _wraps.get((id(owner), name))
    present = getattr(owner, name)
    if known is not None and known.replacement in _layers(present):
        return
    replacement = make(present)
    functools.update_wrapper(replacement, present)
    _wraps[(id(owner), name)] = _Wrap(vars(owner).get(name, _MISSING), replacement)
    setattr(owner, name, replacement)


def unwrap(owner: object, name: str) -> None:
    """Put back exactly what `wrap` found, unless somebody else has wrapped it since."""
    known = _wraps.get((id(owner), name))
    if known is None or vars(owner).get(name, _MISSING) is not known.replacement:
        return
    if known.original is _MISSING:
        delattr(owner, name)
    else:
        setattr(owner, name, known.original)
    del _wraps[(id(owner), name)]


def _layers(function: object) -> list[object]:
    """A function and what it wraps, outermost first, as ``functools.wraps`` records it."""
    layers = [function]
    while (function := getattr(function, "__wrapped__", None)) is not None:
        layers.append(function)
    return layers


# -- switching integrations on and off -------------------------------------------------------------


class Switchboard:
    """Instruments each known module when the user's program has imported it."""

    def __init__(self) -> None:
        self.on = False
        self._watched: set[str] = set()
        self._instrumented: dict[str, Integration] = {}

    def enable(self) -> None:
        """Instrument what is imported already, and the rest right after its import."""
        import wrapt

        self.on = True
        for name, integration in known().items():
            if name in self._watched:
                if name in sys.modules:
                    self._instrument(name, integration, sys.modules[name])
                continue
            self._watched.add(name)
            wrapt.register_post_import_hook(
                functools.partial(self._instrument, name, integration), name
            )

    def disable(self) -> None:
        """Put back everything."""
        self.on = False
        for name, integration in list(self._instrumented.items()):
            del self._instrumented[name]
            with guard.shield(f"uninstrument {name}"):
                integration.uninstrument()

    def keep(self, name: str, integration: Integration) -> None:
        """Have `disable` put back what an explicit form has instrumented."""
        self._instrumented.setdefault(name, integration)

    @property
    def instrumented(self) -> list[str]:
        """The modules that are instrumented now."""
        return sorted(self._instrumented)

    def _instrument(self, name: str, integration: str, module: ModuleType) -> None:
        """Runs inside the user's ``import``, which an exception of ours would make fail."""
        if not self.on:
            return
        with guard.shield(f"instrument {name}", firm=True):
            found = _load(integration)
            found.instrument(module)
            self._instrumented[name] = found


def _load(where: str) -> Integration:
    module, _, attribute = where.partition(":")
    found: Any = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part)
    integration: Integration = found
    return integration


def known() -> dict[str, str]:
    """Every integration that is installed, by the module it instruments."""
    return {**INTEGRATIONS, **_entry_points()}


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    with guard.shield("entry points"):  # the metadata of every installed package is read
        return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    return {}
