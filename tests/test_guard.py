"""The guard: what is ours never reaches the user, what is his always does."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import pytest

from autolog import guard


def test_a_shield_swallows_counts_and_says_once(
    capfd: pytest.CaptureFixture[str], swallowed: list[Any]
) -> None:
    """An exception of ours is kept, counted by place and said once for it."""
    for _ in range(3):
        with guard.shield("here"):
            raise ValueError("ours")
    assert guard.failures["here"] == 3
    assert [place for place, _ in swallowed] == ["here"] * 3
    assert capfd.readouterr().err.count("an internal error at here") == 1
    swallowed.clear()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_shield_lets_through_what_is_no_exception_of_ours(error: type[BaseException]) -> None:
    """Ctrl-C and exits pass."""
    with pytest.raises(error), guard.shield("here", firm=True):
        raise error


def test_strict_passes_our_exceptions_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With strict the exception itself tells; nothing claims that it was kept."""
    monkeypatch.setattr(guard, "strict", True)
    with pytest.raises(ValueError, match="ours"), guard.shield("here"):
        raise ValueError("ours")
    assert capfd.readouterr().err == ""
    assert guard.failures == {}


def test_a_firm_shield_holds_with_strict_too(
    monkeypatch: pytest.MonkeyPatch, swallowed: list[Any]
) -> None:
    """In our threads and inside an import nothing of ours gets out, strict or not."""
    monkeypatch.setattr(guard, "strict", True)
    with guard.shield("thread", firm=True):
        raise ValueError("ours")
    assert guard.failures["thread"] == 1
    swallowed.clear()


@pytest.mark.parametrize("stream", [None, "closed", "broken"])
def test_a_terminal_that_is_gone_is_no_error(
    stream: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``say`` returns with no, a closed or a broken standard error."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    file: io.StringIO | None = Broken() if stream == "broken" else io.StringIO()
    if stream == "closed" and file is not None:
        file.close()
    monkeypatch.setattr(sys, "stderr", file if stream else None)
    guard.say("into the void")


def test_silent_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With ``silent`` no line is written."""
    monkeypatch.setattr(guard, "silent", True)
    guard.say("a")
    guard.say_once("b", "b")
    assert capfd.readouterr().err == ""


def test_threads_count_every_failure_and_say_one(
    capfd: pytest.CaptureFixture[str], swallowed: list[Any]
) -> None:
    """Eight threads that fail at one place at once: one line, and the right count."""

    def fail() -> None:
        for _ in range(200):
            with guard.shield("busy"):
                raise ValueError("ours")

    threads = [threading.Thread(target=fail) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.failures["busy"] == 1600
    assert capfd.readouterr().err.count("busy") == 1
    swallowed.clear()
