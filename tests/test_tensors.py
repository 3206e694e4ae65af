"""Values that wait on a device, in a ring that is the host's own here."""

from __future__ import annotations

import pytest
import torch

from autolog.callbacks import tensors
from autolog.callbacks.tensors import Rings, Scalars


def test_a_ring_gives_every_value_in_order() -> None:
    """Values that wait on a device come out complete and in order, many buffers full."""
    rings = Rings()
    scalars = Scalars(rings)
    for number in range(3 * tensors._RING_SIZE + 7):
        scalars._values.append(float("nan"))
        rings.put(torch.tensor(float(number)), scalars, number)
    assert scalars.known >= tensors._RING_SIZE
    assert list(scalars) == [float(number) for number in range(3 * tensors._RING_SIZE + 7)]
    assert scalars.known == len(scalars)


def test_a_ring_takes_the_value_of_now() -> None:
    """A loss that is changed in place afterwards was still logged as it was."""
    rings = Rings()
    scalars = Scalars(rings)
    loss = torch.tensor(2.0, requires_grad=True) * 1.5
    scalars._values.append(float("nan"))
    rings.put(loss, scalars, 0)
    with torch.no_grad():
        loss *= 10
    assert list(scalars) == [3.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_ring_takes_every_precision(dtype: torch.dtype) -> None:
    """Losses of any floating type arrive as exactly the number they are, in inference mode too."""
    rings = Rings()
    scalars = Scalars(rings)
    value = torch.tensor([1 / 3], dtype=dtype)
    for index in range(2):
        scalars._values.append(float("nan"))
        with torch.inference_mode(index == 1):
            rings.put(value, scalars, index)
    assert list(scalars) == [value.item()] * 2
