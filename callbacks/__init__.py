"""The integrations: each turns the events of one framework into the verbs of a training.

An integration is a module (or any object) with two functions, the `Integration` protocol:

``instrument(module)``
    `module` is the framework, just imported. Afterwards its trainings log themselves.
    Called twice it acts once. Whatever it replaces goes through `autolog.hooks.wrap`.
``uninstrument()``
    Every attribute is what it was before. Called without `instrument` it does nothing.

What its hooks do stays inside `autolog.guard.shield`, and the user's own call outside of it: return
values, exceptions, warnings, signatures, pickles and random state of the training stay as they are.

An integration reports through `Recorder.begin_training`, whose `Training` knows whether this
training is to be logged at all, in which run, and where its epoch axis starts. It imports nothing
but the standard library, its framework, and ``autolog.recorder``, ``records``, ``guard``, ``hooks``
and ``settings``; it knows no other integration.

Integrations of other packages are found through the entry-point group ``autolog.integrations``.
"""

from __future__ import annotations

if __name__ == "callbacks":
    raise ImportError(
        "this folder is part of autolog: import autolog.callbacks, for example "
        "'from autolog.callbacks.keras import AutologCallback'"
    )

from autolog.hooks import Integration

__all__ = ["Integration"]
