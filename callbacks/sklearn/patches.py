"""Which attributes of scikit-learn are replaced: the methods of estimators that count."""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from autolog import guard, hooks

PREDICTING = ("predict", "predict_proba", "predict_log_proba", "decision_function")
METHODS = ("fit", "partial_fit", "fit_predict", "fit_transform", "score", *PREDICTING)


_wrapped: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes of which a method is replaced."""


def wrap_family(base: type) -> None:
    """Have the methods of a class and all its subclasses report to `call`, future ones included."""
    for cls in lineage_of_family(base):
        _wrap_own(cls)
    _watch_subclasses(base)


def unwrap_all(base: type, *, but: Iterable[type] = ()) -> None:
    """Put back what `wrap_family` and `wrap_class` replaced, except for these classes.

    Those keep what they inherit as well.
    """
    if isinstance(vars(base).get("__init_subclass__"), _Watch):
        del base.__init_subclass__
    kept = {ancestor for cls in but for ancestor in cls.__mro__}
    for cls in set(_wrapped) - kept:
        _wrapped.discard(cls)
        for _, owner, attribute in methods(cls):
            hooks.unwrap(owner, attribute)


def wrap_class(cls: type) -> None:
    """Have the methods of a class report to `call`, wherever it inherits them from."""
    for ancestor in cls.__mro__:
        _wrap_own(ancestor)


def lineage_of_family(base: type) -> set[type]:
    """A class, all its subclasses that are loaded, and what these inherit from: mixins."""
    found, left = {base}, [base]
    while left:
        fresh: set[type] = set(left.pop().__subclasses__()) - found
        found |= fresh
        left.extend(fresh)
    return {ancestor for cls in found for ancestor in cls.__mro__}


def methods(cls: type) -> Iterator[tuple[str, object, str]]:
    """What to replace of a class's own methods: its name, and the owner and attribute to replace.

    A method under ``available_if`` stands in the attribute ``fn`` of a descriptor.
    """
    for name in METHODS:
        method = vars(cls).get(name)
        if inspect.isfunction(method):
            yield name, cls, name
        elif inspect.isfunction(getattr(method, "fn", None)):
            yield name, method, "fn"


class _Watch(classmethod):  # type: ignore[type-arg]
    """Our ``BaseEstimator.__init_subclass__``."""


def _watch_subclasses(base: type) -> None:
    if "__init_subclass__" in vars(base):
        return

    def init_subclass(cls: type, **options: Any) -> None:
        super(base, cls).__init_subclass__(**options)  # type: ignore[arg-type]
        with guard.shield("sklearn.subclass"):
            wrap_class(cls)

    base.__init_subclass__ = _Watch(init_subclass)  # type: ignore[assignment]


def _wrap_own(cls: type) -> None:
    for name, owner, attribute in methods(cls):
        _wrapped.add(cls)
        hooks.wrap(owner, attribute, functools.partial(_reporting, name))


def _reporting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that reports to `call`.

    joblib sends classes of ``__main__`` by value to its workers, their methods included. So the
    wrapper may hold nothing but the method, and must run where autolog is absent.
    """

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            from autolog.callbacks.sklearn import call
        except Exception:  # noqa: BLE001 - the user's training comes first
            return method(self, *args, **kwargs)
        return call(name, method, self, *args, **kwargs)

    return wrapper
