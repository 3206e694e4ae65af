"""What the graph behind a loss says of how the loss came to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.autograd.graph import Node


def is_quotient(node: Node | None) -> bool:
    """True for the node of a division."""
    return type(node).__name__ == "DivBackward0"


def divisor_of(quotient: Any) -> int:
    """The integer that a node divides by, else 1; only before it is propagated back."""
    other = quotient._saved_other  # noqa: SLF001 - torch shows it so
    if other is None or not other.is_cpu or other.dtype is not torch.int64 or other.dim():
        return 1
    return max(1, int(other))


def node_of(loss: Tensor, divisor: int = 1) -> int | None:
    """A number that only the node has which computed this loss, before it was divided.

    None for a loss without a graph. A number keeps no graph alive.
    """
    node: Any = loss.grad_fn
    if divisor > 1:
        node = node.next_functions[0][0]
    return None if node is None else node._sequence_nr()  # noqa: SLF001
