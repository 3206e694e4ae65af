"""Keras 3 and tf.keras: each ``fit`` is a run, and so is an ``evaluate`` outside of one.

docs/frameworks/keras.md has every name that is logged, with its step.

Load this package only where Keras is wanted: it imports it, and with it the backend.

==============  ==============================================================
`calls`         which calls are logged, and how ours joins the user's callbacks
`observer`      Keras' events, turned into the verbs of a training
`batches`       values of single batches, where they are asked for
`companions`    what callbacks of Keras beside ours decide: stopping, checkpoints
`models`        the trained model, as MLflow's flavor of Keras stores it
`neighbours`    what MLflow logs of the same fit
`optimizers`    which optimizers train a model, and what they say about themselves
`reading`       what models and arguments say about themselves
==============  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autolog.callbacks.keras import calls
from autolog.callbacks.keras.observer import Observer

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["AutologCallback", "instrument", "uninstrument"]


class AutologCallback(Observer):
    """Logs the trainings it is passed to: ``model.fit(x, y, callbacks=[AutologCallback()])``.

    Works with or without ``autolog.enable()``, which adds no second one beside it. It serves fit
    after fit, is called after the other callbacks wherever it stands in the list, and may be
    copied and pickled between fits.
    Making one puts a wrapper round ``keras.Model.fit`` and ``evaluate``, through which it learns
    the arguments of a fit and whether an exception ended it. Other fits pass through unlogged.
    """

    def __new__(cls) -> AutologCallback:  # noqa: PYI034 - Self is in typing from 3.11 on
        """Also a copy and an unpickled one come this way, and not through ``__init__``."""
        made: AutologCallback = super().__new__(cls)
        calls.serve(made)
        return made


def instrument(module: ModuleType) -> None:  # noqa: ARG001 - it is keras, which this imports
    """Log every training of the models of ``keras``."""
    calls.serve_all(on=True)


def uninstrument() -> None:
    """Put ``fit`` and ``evaluate`` back, unless an `AutologCallback` of the user's needs them."""
    calls.serve_all(on=False)
