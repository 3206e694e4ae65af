"""Modules of ours that are asked for a word in a process of their own."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from autolog import credentials, environment, launch


def test_an_answer_has_a_deadline() -> None:
    """A target that takes the connection and never speaks is left alone after it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = credentials.shipper_environment(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(launch.NoAnswer, match="no answer within 1 s"):
            launch.answer("autolog.exporters.probe", environ, seconds=1)


def test_who_fails_says_why() -> None:
    """In the last line of its errors."""
    with pytest.raises(launch.NoAnswer, match=r"^ModuleNotFoundError: .*autolog\.nowhere"):
        launch.answer("autolog.nowhere", environment.variables())


def test_who_is_asked_dies_with_who_asks() -> None:
    """In the middle of the work, so that nobody does it beside a successor."""
    code = (
        "import time; from autolog import launch\n"
        "for line in launch.asked(): print(line, end='', flush=True); time.sleep(60)"
    )
    asked = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert asked.stdin is not None
    assert asked.stdout is not None
    asked.stdin.write("work\nmore work\n")
    asked.stdin.flush()
    assert asked.stdout.readline() == "work\n"
    asked.stdin.close()
    assert asked.wait(5) == 0
    assert asked.stdout.read() == ""
    asked.stdout.close()
