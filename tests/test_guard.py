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


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def closed() -> io.StringIO:
    """A stream that the program is done with."""
    stream = io.StringIO()
    stream.close()
    return stream


class Odd:
    """What a program may put in the place of standard error: neither ``flush`` nor ``isatty``."""

    def write(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("stream", [None, Broken(), closed(), Odd()])
def test_a_standard_error_of_any_kind_is_no_error(
    stream: object, monkeypatch: pytest.MonkeyPatch, swallowed: list[Any]
) -> None:
    """Where nobody can be told, nobody is, and no error comes of it."""
    monkeypatch.setattr(sys, "stderr", stream)
    guard.say("into the void")
    guard.show("into the void")
    with guard.shield("void"):
        raise ValueError("ours")
    swallowed.clear()


def test_an_error_without_words_is_no_error(swallowed: list[Any]) -> None:
    """An exception whose text raises is kept like any other."""

    class Wordless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with guard.shield("wordless"):
        raise Wordless
    assert guard.failures["wordless"] == 1
    swallowed.clear()


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
