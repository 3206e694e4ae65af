"""Plain PyTorch, without a change of code: a training loop over a `DataLoader` is a run.

Logged, with step = epoch:

* ``epoch_loss``: the mean over the samples of an epoch of what was propagated back before the
  optimizer stepped. Parts of one batch add up, ``loss / k`` under gradient accumulation is
  multiplied back, a gradient scaler's factor is left out. With several optimizers also
  ``epoch_loss.0``, ``epoch_loss.1``, …, in the order of their first steps, and ``epoch_loss`` is
  their sum. Over all ranks, where they can be had;
* ``val_loss``: the mean of the loss module that is called on the batches of a loader without
  anything being propagated back; ``val_loss.1`` of a second dataset in the same epoch. A loss that
  is a plain function is not seen there, and one that is more than its module's value has none;
* ``learning_rate``, of the first parameter group, as the last step of the epoch used it;
* ``steps_per_second`` of the first optimizer within the epoch;
* with ``log_every_n_steps=N`` also ``batch_loss`` at every N-th step of an optimizer; without a
  loader at steps that grow sparser;
* params: ``optimizer_name`` and the hyper-parameters under torch's names, ``batch_size``,
  ``epochs``, and of a model that `autolog.watch` names its size.

An epoch is one pass over a loader in which an optimizer stepped, or a turn of
``autolog.epochs(n)``. Without either only batch values are logged. A run opens at the first step on
a loss, and ends when another optimizer starts a training, when model and optimizers are gone, or
with the process.

===========  =====================================================
`hooks`      where torch is hooked
`graphs`     what the graph of a loss says of it
`epochs`     what the events add up to; pure, knows no torch
`passes`     one pass over a loader and its means; pure as well
`tape`       regular steps, told to the state machine together
`runs`       which optimizers share a run
`log`        what is logged there
`summaries`  what the user's TensorBoard writer is told
`watched`    which optimizers the user has named, with their model
===========  =====================================================
"""

from __future__ import annotations

from types import ModuleType

__all__ = ["instrument", "uninstrument"]


def instrument(module: ModuleType) -> None:  # noqa: ARG001 - one torch a process
    """Log the training loops of this process; twice is once."""
    from autolog.callbacks.torch import hooks, watched

    hooks.install()
    watched.log_everything(on=True)


def uninstrument() -> None:
    """Put torch back as it was, and end the runs of its loops."""
    from autolog.callbacks.torch import hooks, watched

    watched.log_everything(on=False)
    hooks.remove()
