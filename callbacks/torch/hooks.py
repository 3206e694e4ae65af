"""The places in torch where a training shows itself, and what each tells the thread's `Observer`.

The user's own call stands outside every shield. Each hook is on the path of every step: no
closures, no lists, no work that an epoch's end can do as well.
"""

# ruff: noqa: ARG001 - hooks take what torch passes

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed
from torch import Tensor
from torch.nn.modules.loss import _Loss
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from autolog import guard, hooks, recorder
from autolog.callbacks.modules import Inputs
from autolog.callbacks.tensors import batch_size, is_readable
from autolog.callbacks.torch import runs, watched
from autolog.callbacks.torch.graphs import divisor_of, is_quotient, node_of
from autolog.callbacks.torch.tape import BATCH, END, LOSS, OFF, STEP

try:
    from torch.amp.grad_scaler import GradScaler
except ImportError:  # torch < 2.3
    from torch.cuda.amp.grad_scaler import GradScaler  # type: ignore[assignment]

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer
    from torch.utils.hooks import RemovableHandle

    from autolog.callbacks.torch.passes import Pass
    from autolog.recorder import Recorder, Run

_ATTRIBUTE: Final = "_autolog_pass"
"""Of a loader's iterator: the pass it makes."""

_handles: list[RemovableHandle] = []
_wrapped: list[tuple[object, str]] = []
_recorder: Recorder | None = None
"""None while the hooks are off."""


class _Thread(threading.local):
    def __init__(self) -> None:
        self.observer = runs.Observer()
        self.tape = self.observer.tape
        self.criteria = 0
        """Criteria that are inside of each other now."""
        self.scaled: weakref.ReferenceType[Tensor] | None = None
        """What a gradient scaler made of the loss below."""
        self.unscaled: Tensor | None = None
        self.unscaled_divisor = 1
        self.unscaled_node: int | None = None
        self.is_scored = False
        """True when a criterion has given a value since the last loss."""


_thread = _Thread()


# -- on and off ------------------------------------------------------------------------------------


def watch(model: Module, optimizers: tuple[Optimizer, ...]) -> None:
    """Log what these optimizers train, with or without ``enable()``."""
    install()
    watched.add(model, optimizers)


def epochs(count: int) -> Iterator[int]:
    """``range(count)``, whose turns are the epochs of this thread."""
    return iter(range(count)) if _is_off() else _thread.observer.turns(count)


def install() -> None:
    """Hook into torch, once."""
    global _recorder
    if _recorder is not None:
        return
    _recorder = recorder.get()
    _handles.append(register_optimizer_step_pre_hook(_before_step))
    _handles.append(register_optimizer_step_post_hook(_after_step))
    for owner, name, make in (
        (torch.autograd, "backward", _backward),
        (DataLoader, "__iter__", _iter),
        (_BaseDataLoaderIter, "__next__", _next),
        (_Loss, "__call__", _criterion),
        (GradScaler, "scale", _scale),
        (torch.distributed, "destroy_process_group", _destroy_process_group),
    ):
        if hasattr(owner, name):  # a torch without distributed has no process groups
            hooks.wrap(owner, name, make)
            _wrapped.append((owner, name))
    _recorder.before_end.append(_before_end)
    _recorder.before_flush.append(runs.before_flush)
    atexit.register(_at_exit)


def remove() -> None:
    """Take every hook out of torch, end the runs that they log to, and forget what was heard."""
    global _recorder, _thread
    if _recorder is not None:
        _recorder.before_end.remove(_before_end)
        _recorder.before_flush.remove(runs.before_flush)
    _recorder = None
    watched.clear()
    for handle in _handles:
        handle.remove()
    for owner, name in _wrapped:
        hooks.unwrap(owner, name)
    _handles.clear()
    _wrapped.clear()
    atexit.unregister(_at_exit)
    with guard.shield("torch.remove"):
        runs.finish_all()
    _thread = _Thread()


def _at_exit() -> None:
    """Log the epochs that were left by ``break``; one that an exception left is none."""
    if getattr(sys, "last_value", None) is None:
        with guard.shield("torch.exit"):
            runs.close_epochs()


def _before_end(run: Run, status: str) -> None:
    with guard.shield("torch.exit"):
        runs.before_end(run, status)


def _destroy_process_group(original: Callable[..., Any]) -> Callable[..., Any]:
    """What other ranks have put for us goes with the group."""

    def destroy_process_group(group: Any = None) -> Any:
        with guard.shield("torch.ranks"):
            if group is None or group is torch.distributed.group.WORLD:
                runs.close_epochs()
        return original(group)

    return destroy_process_group


def _is_off() -> bool:
    """True where a hook has nothing to do: removed, or inside another framework's training."""
    return _recorder is None or _recorder.nesting.in_training


# -- loaders ---------------------------------------------------------------------------------------


def _iter(original: Callable[..., Any]) -> Callable[..., Any]:
    def __iter__(self: Any) -> Any:  # noqa: N807 - stands for the method
        iterator = original(self)
        with guard.shield("torch.loader"):
            begun = None if _is_off() else _thread.observer.begin(self, iterator)
            setattr(iterator, _ATTRIBUTE, begun)
        return iterator

    return __iter__


def _next(original: Callable[..., Any]) -> Callable[..., Any]:
    def __next__(self: Any) -> Any:  # noqa: N807 - stands for the method
        try:
            batch = original(self)
        except StopIteration:
            with guard.shield("torch.loader"):
                _exhausted(self)
            raise
        try:
            moved = getattr(self, _ATTRIBUTE, None)
            if moved is not None:
                tape = _thread.tape
                if tape.awaits == BATCH and tape.passed is moved:
                    tape.samples.append(batch_size(batch))
                    tape.awaits = LOSS
                else:
                    moved = _pass_of(self)
                    if not moved.weights and watched.has_models():
                        moved.inputs = Inputs.of(batch)
                    _thread.observer.tracker.advance(moved, batch_size(batch))
        except Exception as error:  # noqa: BLE001 - as a shield
            guard.swallow("torch.hooks", error)
        return batch

    return __next__


def _pass_of(iterator: object) -> Pass:
    """The pass that an iterator makes now, in the newest of its epochs."""
    found: Pass = getattr(iterator, _ATTRIBUTE)
    if found.successor is not None:
        found = found.successor
        setattr(iterator, _ATTRIBUTE, found)
    return found


def _exhausted(iterator: object) -> None:
    if getattr(iterator, _ATTRIBUTE, None) is not None:
        _thread.observer.tracker.exhaust(_pass_of(iterator))
        _thread.observer.report()


# -- losses ----------------------------------------------------------------------------------------


def _backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> Any:
        if type(tensors) is not Tensor:
            return _propagate(original, tensors, grad_tensors, *args, **kwargs)
        divisor, is_regular = 0, False
        try:
            if grad_tensors is None and not _is_off():
                is_regular = type(tensors.grad_fn) is _thread.tape.loss_kind and tensors.is_cpu
                divisor = 1 if is_regular else _divisor(tensors)
        except Exception as error:  # noqa: BLE001 - as a shield
            guard.swallow("torch.hooks", error)
        result = original(tensors, grad_tensors, *args, **kwargs)
        try:
            if is_regular and (tape := _thread.tape).awaits == LOSS:
                tape.losses.append(tensors.item())
                tape.awaits = STEP
            elif divisor:
                _heard(tensors, divisor)
        except Exception as error:  # noqa: BLE001 - as a shield
            guard.swallow("torch.hooks", error)
        return result

    return backward


def _propagate(
    original: Callable[..., Any], tensors: Any, grad_tensors: Any, *args: Any, **kwargs: Any
) -> Any:
    """Several losses are propagated back by one call: parts of one."""
    parts: list[tuple[Tensor, int]] = []
    with guard.shield("torch.hooks"):
        if isinstance(tensors, (list, tuple)) and grad_tensors is None and not _is_off():
            parts = [(each, _divisor(each)) for each in tensors if type(each) is Tensor]
    result = original(tensors, grad_tensors, *args, **kwargs)
    with guard.shield("torch.hooks"):
        for loss, divisor in parts:
            _heard(loss, divisor)
    return result


def _divisor(loss: Tensor) -> int:
    """The integer by which a loss has been divided, else 1; the graph must still be there."""
    node = loss.grad_fn
    if not is_quotient(node):
        _thread.tape.loss_kind = type(node) if loss.is_cpu else None
        return 1
    _thread.tape.loss_kind = None
    return divisor_of(node)


def _heard(loss: Tensor, divisor: int) -> None:
    """A loss, which torch takes only as one real number, has been propagated back.

    What a scaler scaled counts as it was before.
    """
    thread = _thread
    node = node_of(loss, divisor) if thread.is_scored else None
    if thread.scaled is not None:
        if thread.scaled() is loss and thread.unscaled is not None:
            loss, divisor, node = thread.unscaled, thread.unscaled_divisor, thread.unscaled_node
        thread.scaled = thread.unscaled = None
        thread.tape.loss_kind = None
    if is_readable(loss):
        thread.is_scored = False
        thread.observer.tracker.loss(loss, divisor, node)


def _scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        scaled = original(self, outputs)
        with guard.shield("torch.loss"):
            if scaled is not outputs and is_readable(outputs) and not _is_off():
                thread = _thread
                thread.scaled, thread.unscaled = weakref.ref(scaled), outputs.detach()
                divisor = thread.unscaled_divisor = _divisor(outputs)
                thread.unscaled_node = node_of(outputs, divisor) if thread.is_scored else None
                thread.tape.loss_kind = None
        return scaled

    return scale


def _criterion(original: Callable[..., Any]) -> Callable[..., Any]:
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - stands for the method
        if torch.compiler.is_compiling():  # what follows would break the user's graph
            return original(self, *args, **kwargs)
        thread = _thread
        if not _is_score_wanted(thread):
            return original(self, *args, **kwargs)
        thread.criteria += 1
        try:
            value = original(self, *args, **kwargs)
        finally:
            thread.criteria -= 1
        with guard.shield("torch.loss"):
            if is_readable(value):
                thread.is_scored = True
                is_sum = getattr(self, "reduction", None) == "sum"
                thread.observer.tracker.score(value, node_of(value), is_sum=is_sum)
        return value

    return __call__


def _is_score_wanted(thread: _Thread) -> bool:
    try:
        if thread.tape.awaits != OFF:  # a training
            return False
        return not thread.criteria and thread.observer.tracker.wants_score() and not _is_off()
    except Exception as error:  # noqa: BLE001 - as a shield
        guard.swallow("torch.hooks", error)
        return False


# -- steps -----------------------------------------------------------------------------------------


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    try:
        tape = _thread.tape
        if tape.awaits == STEP:
            tape.awaits = END
        else:
            _thread.observer.tracker.enter_step()
    except Exception as error:  # noqa: BLE001 - as a shield
        guard.swallow("torch.hooks", error)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    try:
        tape = _thread.tape
        if tape.awaits == END and tape.optimizer() is optimizer:
            tape.rate, tape.ended = optimizer.param_groups[0].get("lr"), monotonic()
            tape.awaits = BATCH
            tape.room -= 1
            if not tape.room:
                _thread.observer.empty_tape(optimizer)
            return
        observer = _thread.observer
        if observer.tracker.leave_step() and not _is_off():
            observer.stepped(optimizer)
    except Exception as error:  # noqa: BLE001 - as a shield
        guard.swallow("torch.hooks", error)
