"""Modules of ours that are asked for a word in a process of their own."""

from __future__ import annotations

import socket

import pytest

from autolog import launch, settings


def test_an_answer_has_a_deadline() -> None:
    """A target that takes the connection and never speaks is left alone after it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = settings.shipper_environment(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(launch.NoAnswer, match="no answer within 1 s"):
            launch.answer("autolog.exporters.probe", environ, seconds=1)


def test_who_fails_says_why() -> None:
    """In the last line of its errors."""
    with pytest.raises(launch.NoAnswer, match=r"^ModuleNotFoundError: .*autolog\.nowhere"):
        launch.answer("autolog.nowhere", settings.environment())
