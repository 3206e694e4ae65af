"""What the integrations of torch and Lightning read from tensors.

Reading disturbs nothing: no wait for a device in the middle of an epoch, no graph kept alive, no
random number drawn.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

_RING_SIZE: Final = 256
_DEEPEST: Final = 6
_NO_HYPER_PARAMETERS: Final = frozenset(["params", "param_names", "initial_lr"])
_UNKNOWN: Final = float("nan")


def batch_size(batch: object) -> int:
    """The first dimension of the first tensor (or array) in a batch; 1 where there is none."""
    if type(batch) in (list, tuple) and batch and type(batch[0]) is Tensor and batch[0].dim():  # type: ignore[index]
        return batch[0].size(0)  # type: ignore[index]
    found = _first_dimension(batch, 0)
    return 1 if found is None else found


def _first_dimension(item: object, depth: int) -> int | None:
    if isinstance(item, (list, tuple)):
        parts: Any = item
    elif isinstance(shape := getattr(item, "shape", None), tuple):
        return int(shape[0]) if shape else None
    elif isinstance(item, Mapping):
        parts = item.values()
    else:
        parts = getattr(item, "__dict__", {}).values()
    if depth < _DEEPEST:
        for part in parts:
            found = _first_dimension(part, depth + 1)
            if found is not None:
                return found
    return None


def optimizer_params(optimizer: Optimizer) -> dict[str, object]:
    """Kind and hyper-parameters of an optimizer, under the names that MLflow gives them.

    Where parameter groups differ, the list of their values; the learning rate is the one before
    any schedule.
    """
    groups = optimizer.param_groups
    params: dict[str, object] = {"optimizer_name": type(optimizer).__name__}
    for name in (key for key in groups[0] if key not in _NO_HYPER_PARAMETERS):
        source = "initial_lr" if name == "lr" and "initial_lr" in groups[0] else name
        values = [plain(group.get(source)) for group in groups]
        params[name] = values if any(value != values[0] for value in values) else values[0]
    return params


def plain(value: object) -> object:
    """A tensor as numbers, which waits for its device; anything else as it is."""
    return value.tolist() if isinstance(value, Tensor) else value


def is_readable(scalar: object) -> TypeGuard[Tensor]:
    """True for a floating number in a tensor whose value may be taken now.

    Not while a CUDA graph is captured: what is captured would be replayed for ever.
    """
    if type(scalar) is not Tensor or scalar.numel() != 1 or not scalar.is_floating_point():
        return False
    if scalar.is_cpu:
        return True
    if scalar.is_cuda:
        return not torch.cuda.is_current_stream_capturing()
    return not scalar.is_meta


class Scalars:
    """Numbers in the order they came, some of them still on a device.

    Reading them all waits for the device; `append` never does.
    """

    __slots__ = ("_rings", "_values", "known")

    def __init__(self, rings: Rings) -> None:
        self.known = 0
        """So many of the first numbers can be read without waiting."""
        self._rings = rings
        self._values = array("d")

    def append(self, scalar: Tensor | float) -> None:
        """Take a number, or what a readable tensor has or will have when its device gets there."""
        values = self._values
        if not isinstance(scalar, float):
            if not scalar.is_cpu:
                values.append(_UNKNOWN)
                self._rings.put(scalar, self, len(values) - 1)
                return
            scalar = scalar.item()
        self.known += self.known == len(values)
        values.append(scalar)

    def extend(self, numbers: Iterable[float]) -> None:
        """Take numbers that are known."""
        is_known = self.known == len(self._values)
        self._values.extend(numbers)
        if is_known:
            self.known = len(self._values)

    def resolve(self, index: int, value: float) -> None:
        """Fill in a number that has left its device."""
        self._values[index] = value
        self.known = index + 1

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> float:
        return self._values[index]

    def __iter__(self) -> Iterator[float]:
        if self.known < len(self._values):
            self._rings.wait()
            self.known = len(self._values)
        return iter(self._values)


class Rings:
    """The device rings of one thread: one a device, precision and stream."""

    def __init__(self) -> None:
        self._rings: dict[tuple[object, ...], _Ring] = {}

    def put(self, scalar: Tensor, target: Scalars, index: int) -> None:
        """Copy a scalar on its device, to be filled into ``target[index]`` later."""
        stream = torch.cuda.current_stream(scalar.device) if scalar.is_cuda else None
        key = (scalar.device, scalar.dtype is torch.float64, stream)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring(scalar)
        ring.put(scalar, target, index)

    def wait(self) -> None:
        """Have every number; waits for the devices."""
        for ring in self._rings.values():
            ring.wait()


class _Ring:
    """Two small buffers on a device: one fills while the other travels to the host."""

    def __init__(self, like: Tensor) -> None:
        self._filling, self._travelling = _Buffer(like), _Buffer(like)

    def put(self, scalar: Tensor, target: Scalars, index: int) -> None:
        self._travelling.land_if_done()
        self._filling.put(scalar, target, index)
        if self._filling.is_full:
            self._travelling.land()
            self._filling.depart()
            self._filling, self._travelling = self._travelling, self._filling

    def wait(self) -> None:
        self._travelling.land()
        self._filling.depart()
        self._filling.land()


class _Buffer:
    """Scalars side by side on a device, so that one copy brings them all to the host.

    On CUDA that copy goes to pinned memory behind what is queued, and an event tells its end;
    elsewhere landing is a plain copy, which waits.
    """

    def __init__(self, like: Tensor) -> None:
        dtype = torch.float64 if like.dtype is torch.float64 else torch.float32
        with torch.inference_mode(False):
            self._device = torch.empty(_RING_SIZE, dtype=dtype, device=like.device)
            # Indexing, since the views of unbind() refuse in-place writes under grad mode.
            self._cells = [self._device[i] for i in range(_RING_SIZE)]
            self._host = self._device
            self._event: Any = None
            if like.is_cuda:
                self._host = torch.empty(_RING_SIZE, dtype=dtype, device="cpu", pin_memory=True)
                self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._stream = torch.cuda.current_stream(like.device)
        self._targets: list[tuple[Scalars, int]] = []
        self._is_travelling = False

    @property
    def is_full(self) -> bool:
        return len(self._targets) == _RING_SIZE

    def put(self, scalar: Tensor, target: Scalars, index: int) -> None:
        # Without detach() the buffer would start to require a gradient and keep the graph.
        self._cells[len(self._targets)].copy_(scalar.detach().reshape(()))
        self._targets.append((target, index))

    def depart(self) -> None:
        self._is_travelling = bool(self._targets)
        if self._event is not None and self._is_travelling:
            with torch.cuda.stream(self._stream):
                self._host.copy_(self._device, non_blocking=True)
                self._event.record()

    def land_if_done(self) -> None:
        if self._is_travelling and (self._event is None or self._event.query()):
            self.land()

    def land(self) -> None:
        if not self._is_travelling:
            return
        if self._event is not None:
            self._event.synchronize()
        numbers = self._host[: len(self._targets)].tolist()
        for (target, index), number in zip(self._targets, numbers, strict=True):
            target.resolve(index, number)
        self._targets.clear()
        self._is_travelling = False
