"""How much of the network a process may take: a limit on what its sockets send."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from autolog import hooks

_PIECE = 1 << 16
"""Bytes that go at once, however many are given."""
_CREDIT = 0.1
"""Seconds of sending that may be made up for, where the processor or the network came late."""


class _Gate:
    """Lets bytes through at a rate, whichever thread they come from."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free = time.monotonic()
        """When all that was let through is sent at that rate."""

    def wait(self, count: int) -> None:
        """Wait until so many bytes more may go."""
        with self._lock:
            now = time.monotonic()
            turn = max(self._free, now - _CREDIT)
            self._free = turn + count / self._rate
        time.sleep(max(0.0, turn - now))


def limit(rate: float) -> None:
    """Have all sockets of this process together send `rate` bytes a second at most, from now on.

    TLS included. Sockets that a library in C opens for itself are not Python's, and are not held.
    """
    gate = _Gate(rate)

    def held(send: Callable[..., int]) -> Callable[..., int]:
        def send_piece(self: socket.socket, data: Any, *flags: int) -> int:
            piece = memoryview(data).cast("B")[:_PIECE]
            gate.wait(len(piece))
            return send(self, piece, *flags)

        return send_piece

    hooks.wrap(socket.socket, "send", held)
    hooks.wrap(socket.socket, "sendall", lambda _: _send_all)
    hooks.wrap(ssl.SSLSocket, "send", held)  # which its `sendall` calls


def _send_all(self: socket.socket, data: Any, *flags: int) -> None:
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[self.send(rest, *flags) :]
