"""Tokens that come from elsewhere, for who sends."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import IO

from autolog import credentials

Fetch = Callable[[], str]
"""Gives a fresh token, and raises whatever it is that cannot be done."""

_PATIENCE = 1.0
"""Seconds that the first one may take."""


def sent_here() -> Fetch | None:
    """What gives the tokens that this process is sent; None where it is sent none."""
    return from_lines(sys.stdin) if credentials.are_tokens_sent() else None


def from_lines(lines: IO[str]) -> Fetch:
    """Tokens that another process writes, one a line, as long as it runs: the newest."""
    newest: list[str] = []
    is_there = threading.Event()

    def listen() -> None:
        for line in lines:
            newest[:] = [line.strip()]
            is_there.set()

    threading.Thread(target=listen, name="autolog-tokens", daemon=True).start()

    def fetch() -> str:
        if not is_there.wait(_PATIENCE):
            raise TimeoutError("the training process, whose credential this is, has sent no token")
        return newest[0]

    return fetch
