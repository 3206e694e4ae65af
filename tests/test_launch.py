"""Modules of ours that are asked for a word in a process of their own."""

from __future__ import annotations

import socket

import pytest

from autolog import check, launch, settings


def test_an_answer_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that takes the connection and never speaks is left alone after it."""
    monkeypatch.setattr(launch, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert check.problem_of(settings.shipper_environment(uri)) == "no answer within 1 s"


def test_who_fails_says_why() -> None:
    """In the last line of its errors."""
    with pytest.raises(launch.NoAnswer, match=r"^ModuleNotFoundError: .*autolog\.nowhere"):
        launch.answer("autolog.nowhere", settings.environment())
