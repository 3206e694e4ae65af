"""The journal as its writer and its reader see it: nothing returned-from is ever lost."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import shutil
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import TARGET, appended, bodies, number, numbers, open_journal, run_start
from support import eventually, start_script

from autolog.journal import layout
from autolog.journal.owner import Life, is_locked
from autolog.journal.reader import Reader
from autolog.recorder.run import Run
from autolog.targets import Target

if TYPE_CHECKING:
    from autolog.journal.writer import Journal

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork are POSIX's")


def open_run(journal: Journal) -> Run:
    """A run that logs to a journal."""
    return Run(journal, Target(TARGET), run_start(next(journal.ids)))


# -- what is written is read -----------------------------------------------------------------------


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(contents=st.lists(st.binary(min_size=1, max_size=40_000), max_size=12))
def test_every_body_comes_back_in_order(tmp_path: Path, contents: list[bytes]) -> None:
    """Whatever the sizes of frames are, a living and a dead journal give the same bodies back."""
    folder = tmp_path / f"journal-{time.monotonic_ns()}"
    journal = open_journal(folder)
    for body in contents:
        journal.append(layout.frame(body))
    assert appended(folder, journal) == contents
    assert bodies(folder) == contents
    assert journal.logged == len(contents)
    shutil.rmtree(folder)


def test_a_frame_larger_than_a_segment_gets_one_of_its_size(tmp_path: Path) -> None:
    """Ten megabytes of params are one frame like any other."""
    journal = open_journal(tmp_path / "j")
    large = os.urandom(10 << 20)
    journal.append(number(1))
    journal.append(layout.frame(large))
    journal.append(number(2))
    found = appended(journal.folder, journal)
    assert found[1] == large
    assert numbers([found[0], found[2]]) == [1, 2]


def test_each_segment_repeats_what_was_declared_until_it_is_forgotten(tmp_path: Path) -> None:
    """A reader that starts with any segment knows the names it needs."""
    journal = open_journal(tmp_path / "j")
    journal.declare("a", layout.frame(b"declared a"))
    journal.declare("b", layout.frame(b"declared b"))
    filler = layout.frame(bytes(60_000))
    journal.append(filler)
    journal.append(filler)
    journal.forget("a")
    journal.append(filler)
    found = Counter(appended(journal.folder, journal))
    assert found[b"declared a"] == 2
    assert found[b"declared b"] == 3


def test_reading_goes_on_where_another_reader_stopped(tmp_path: Path) -> None:
    """A position, stored and given to a new reader, neither repeats nor skips a frame."""
    journal = open_journal(tmp_path / "j")
    for value in range(20_000):
        journal.append(number(value))
    found: list[int] = []
    position = 0
    while position != journal.tail:
        reader = Reader(journal.folder, position)
        found += numbers([frame.body for frame in reader.frames(Life.ALIVE, limit=10_000)])
        position = reader.position
    assert found == list(range(20_000))


def test_context_is_what_stands_before_the_position_in_its_segment(tmp_path: Path) -> None:
    """What a decoder must know to go on is found again, behind damage too."""
    journal = open_journal(tmp_path / "j")
    for value in range(10):
        journal.append(number(value))
    reader = Reader(journal.folder)
    first = next(reader.frames(Life.ALIVE))
    list(reader.frames(Life.ALIVE))
    journal.append(number(10))
    assert numbers([frame.body for frame in reader.context()]) == list(range(10))
    path = journal.folder / layout.segment_name(0)
    with open(path, "r+b") as file:
        file.seek(first.position - 1)
        file.write(b"\xff")
    assert numbers([frame.body for frame in reader.context()]) == list(range(1, 10))


def test_reading_64_megabytes_takes_a_few(tmp_path: Path) -> None:
    """The reader holds a window of the journal, never a segment."""
    journal = open_journal(tmp_path / "j", segment_size=8 << 20)
    frame = layout.frame(bytes(range(256)) * 4)
    for _ in range(64 << 10):
        journal.append(frame)
    tracemalloc.start()
    count = sum(1 for _ in Reader(journal.folder).frames(Life.ALIVE))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 64 << 10
    assert peak < 2 << 20


def test_a_value_of_a_ten_metric_step_takes_at_most_13_bytes(tmp_path: Path) -> None:
    """The journal's cost of a value in the steady state, its 8 bytes included."""
    journal = open_journal(tmp_path / "j", segment_size=8 << 20)
    run = open_run(journal)
    metrics = {f"a_metric_of_some_length_{i}": i / 7 for i in range(10)}
    run.log_metrics(metrics, 0)
    before = journal.tail
    for step in range(1, 1001):
        run.log_metrics(metrics, step)
    assert (journal.tail - before) / 10_000 <= 13


# -- while others write ----------------------------------------------------------------------------


def test_a_reader_keeps_up_with_a_writing_thread(tmp_path: Path) -> None:
    """Reading while a thread appends gives every frame once, in order, and no false damage."""
    journal = open_journal(tmp_path / "j")
    count = 60_000

    def write() -> None:
        for value in range(count):
            journal.append(number(value))

    thread = threading.Thread(target=write)
    thread.start()
    reader, found = Reader(journal.folder), list[bytes]()

    def caught_up() -> bool:
        found.extend(frame.body for frame in reader.frames(Life.ALIVE))
        return len(found) >= count

    eventually(caught_up, 60, every=0)
    thread.join()
    assert numbers(found) == list(range(count))
    assert reader.damage == []


def test_a_reader_keeps_up_with_a_writing_process(tmp_path: Path) -> None:
    """The same across processes, where only the files are shared."""
    source = """
        from pathlib import Path
        from journals import open_journal
        from autolog.journal import layout
        journal = open_journal(Path("j"))
        for value in range(60_000):
            journal.append(layout.frame(value.to_bytes(8, "little")))
    """
    process = start_script(source, cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    reader, found = Reader(tmp_path / "j"), list[bytes]()

    def caught_up() -> bool:
        found.extend(frame.body for frame in reader.frames(Life.ALIVE))
        return len(found) >= 60_000

    eventually(caught_up, 60, every=0.001)
    assert process.wait(30) == 0
    assert numbers(found) == list(range(60_000))
    assert reader.damage == []


def test_eight_threads_lose_nothing(tmp_path: Path) -> None:
    """Values of 8 threads all arrive, each thread's in its order, and the count is right."""
    journal = open_journal(tmp_path / "j")
    each = 3000

    def write(thread: int) -> None:
        for value in range(each):
            journal.append(number(thread << 32 | value), essential=value % 2 == 0)
            if value % 3 == 0:
                journal.drop("bad value", 1)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = numbers(appended(journal.folder, journal))
    for thread_number in range(8):
        mine = [value & 0xFFFFFFFF for value in found if value >> 32 == thread_number]
        assert mine == list(range(each))
    assert journal.dropped == {"bad value": 8 * each // 3}
    assert journal.logged == 8 * each + 8 * each // 3


# -- in the middle of a call -----------------------------------------------------------------------


class Finalized:
    """Garbage that logs when it is collected."""

    def __init__(self, log: Callable[[], None]) -> None:
        self.log, self.itself = log, self

    def __del__(self) -> None:
        self.log()


def test_a_finalizer_may_append_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """Values of finalizers that the collector runs at any allocation are all there."""
    journal = open_journal(tmp_path / "j")
    fresh, returned = itertools.count(1_000_000), list[int]()

    def log() -> None:
        value = next(fresh)
        journal.append(number(value))
        returned.append(value)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for value in range(5000):
            Finalized(log)
            journal.append(number(value))
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    found = numbers(appended(journal.folder, journal))
    assert len(returned) == 5000
    assert sorted(found) == [*range(5000), *returned]
    assert journal.logged == 10_000


def test_a_finalizer_in_one_thread_and_new_names_in_another_do_not_block(tmp_path: Path) -> None:
    """A run and its journal share a lock, so no circle of two threads can close."""

    def thread_waits_in(function: str) -> bool:
        frame = sys._current_frames().get(other.ident or 0)
        names = []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return function in names

    def in_the_middle() -> None:
        other.start()
        eventually(lambda: thread_waits_in("intern"))
        run.log_metrics({"from the middle": 1.0}, 0)

    def append_until_it_rolls() -> None:
        while other.ident is None:
            journal.append(number(0))

    journal = open_journal(tmp_path / "j", wake=in_the_middle)
    run = open_run(journal)
    other = threading.Thread(target=run.log_metrics, args=({"new": 1.0}, 0), daemon=True)
    one = threading.Thread(target=append_until_it_rolls, daemon=True)
    one.start()
    one.join(20)
    other.join(20)
    assert not one.is_alive()
    assert not other.is_alive()


@contextlib.contextmanager
def alarms(handler: Callable[[int, object], None], every: float) -> Iterator[None]:
    """Have `handler` run in the main thread again and again, wherever that is."""
    former = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


@posix
def test_a_signal_handler_may_append_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """Values that a signal handler logs are all there."""
    journal = open_journal(tmp_path / "j")
    returned = itertools.count(1_000_000)

    def log(signum: int, frame: object) -> None:
        journal.append(number(next(returned)))

    with alarms(log, 0.0002):
        for value in range(60_000):
            journal.append(number(value))
    found = numbers(appended(journal.folder, journal))
    logged = next(returned) - 1_000_000
    assert logged > 100
    assert sorted(found) == [*range(60_000), *range(1_000_000, 1_000_000 + logged)]


@posix
def test_a_storm_of_interrupts_loses_nothing_returned_from(tmp_path: Path) -> None:
    """KeyboardInterrupt at any place of `append`, at the change of segments too, harms nobody."""
    journal = open_journal(tmp_path / "j")
    returned, interrupts, is_armed = list[int](), 0, False
    stop = threading.Event()
    theirs = itertools.count(1 << 40)

    def interrupt(signum: int, frame: object) -> None:
        nonlocal interrupts, is_armed
        if is_armed:
            interrupts, is_armed = interrupts + 1, False
            raise KeyboardInterrupt

    def write() -> None:
        while not stop.is_set():
            journal.append(number(next(theirs)))

    def append_until_interrupted() -> None:
        nonlocal is_armed
        with contextlib.suppress(KeyboardInterrupt):
            is_armed = True
            while True:
                value = next(mine)
                journal.append(layout.frame(value.to_bytes(8, "little") * 300))
                returned.append(value)

    mine = itertools.count(1)
    other = threading.Thread(target=write, daemon=True)
    other.start()
    deadline = time.monotonic() + 4
    with alarms(interrupt, 0.0003):
        while time.monotonic() < deadline:
            append_until_interrupted()
    stop.set()
    other.join(20)
    assert not other.is_alive()
    journal.append(number(0))
    stored = appended(journal.folder, journal)
    found = Counter(int.from_bytes(body[:8], "little") for body in stored)
    assert interrupts > 100
    assert [value for value in returned if found[value] == 0] == []
    assert [v for v in range(1 << 40, next(theirs)) if found[v] != 1] == []
    assert max(found.values()) == 1
    assert journal.logged == found.total()
    used = [n for n in Reader(journal.folder).segments() if n <= layout.split(journal.tail)[0]]
    assert len(used) > 5


def interrupted(journal: Journal, frame: bytes, nth: int) -> bool:
    """Append with a KeyboardInterrupt where the nth call in it begins or returns; False if none."""
    events = itertools.count(1)

    def profile(code: object, event: str, argument: object) -> None:
        if argument is not sys.setprofile and next(events) == nth:
            raise KeyboardInterrupt

    gc.disable()  # in a finalizer of somebody else's the interrupt would be lost
    try:
        sys.setprofile(profile)
        journal.append(frame)
        sys.setprofile(None)
    except KeyboardInterrupt:
        return True
    finally:
        gc.enable()
    return False


def go_on_after_an_interrupt(folder: Path, nth: int) -> bool:
    """Interrupt an append that changes segments while a handler appends too; False at its end."""
    x, y, z, middle = b"x" * 20_000, b"y" * 100, b"z" * 40_000, b"in the middle"
    returned = [bytes(60_000)]

    def log_in_the_middle() -> None:
        journal.append(layout.frame(middle))
        returned.append(middle)

    journal = open_journal(folder, wake=log_in_the_middle)
    journal.append(layout.frame(returned[0]))
    if not interrupted(journal, layout.frame(x), nth):
        return False
    journal.append(layout.frame(y))
    journal.append(layout.frame(z))
    found = Counter(appended(folder, journal))
    assert Counter([*returned, y, z]) - found == Counter(), nth
    assert found[x] <= 1
    assert journal.logged == found.total()
    journal.abandon()
    return True


def test_an_interrupt_at_any_call_within_append_loses_nothing(tmp_path: Path) -> None:
    """At each place in turn where one can come up: what had returned is there, and more can come.

    A change of segments is in it, and a value that a handler logs in the middle of that.
    """
    nth = 1
    while go_on_after_an_interrupt(tmp_path / "j", nth):
        shutil.rmtree(tmp_path / "j")
        nth += 1
    assert nth > 100


@posix
def test_an_interrupt_between_a_handler_s_values_and_their_storing_keeps_their_order(
    tmp_path: Path,
) -> None:
    """What a handler declared in the middle of an append stands before what uses it later."""

    def raise_after_logging() -> None:
        journal.append(layout.frame(b"declared"))
        raise KeyboardInterrupt

    def append_until_interrupted() -> None:
        while True:
            journal.append(layout.frame(bytes(1000)))

    journal = open_journal(tmp_path / "j", wake=raise_after_logging)
    with pytest.raises(KeyboardInterrupt):
        append_until_interrupted()
    journal.append(layout.frame(b"used"))
    assert appended(journal.folder, journal)[-2:] == [b"declared", b"used"]


# -- when the process dies -------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("round_number", range(5))
def test_sigkill_loses_no_value_whose_append_returned(tmp_path: Path, round_number: int) -> None:
    """A process killed at a random moment leaves all that it had reported."""
    source = """
        import os
        from pathlib import Path
        from journals import open_journal
        from autolog.journal import layout
        journal = open_journal(Path("j"))
        out = os.open("reported", os.O_WRONLY)
        value = 0
        while True:
            journal.append(layout.frame(value.to_bytes(8, "little") * 40))
            os.write(out, value.to_bytes(8, "little"))
            value += 1
    """
    os.mkfifo(tmp_path / "reported")
    process = start_script(source, cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    with open(tmp_path / "reported", "rb") as pipe:
        last = pipe.read(8)
        deadline = time.monotonic() + random.uniform(0, 0.3)
        while time.monotonic() < deadline:
            last = pipe.read(8)
        process.kill()
        while len(part := pipe.read(8)) == 8:
            last = part
    process.wait(10)
    reader = Reader(tmp_path / "j")
    found = [int.from_bytes(f.body[:8], "little") for f in reader.frames(Life.DEAD)]
    reported = int.from_bytes(last, "little") + 1
    assert found[:reported] == list(range(reported))
    assert len(found) <= reported + 1
    assert reader.damage == []


@posix
def test_a_forked_child_leaves_its_parent_s_journal_alone(tmp_path: Path) -> None:
    """Objects of the parent, used in a child that let go, write nothing into the shared memory."""
    journal = open_journal(tmp_path / "j")
    journal.append(number(1))
    with journal.lock:  # as if another thread had been appending
        child = os.fork()
        if child == 0:
            journal.abandon()
            thread = threading.Thread(target=journal.append, args=(number(666),))
            thread.start()
            thread.join(10)
            journal.request_flush()
            os._exit(0 if journal.dropped.total() == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    journal.append(number(2))
    assert numbers(appended(journal.folder, journal)) == [1, 2]
    assert Reader(journal.folder).control().flush == 0
    assert is_locked(journal.folder / layout.OWNER_LOCK)
