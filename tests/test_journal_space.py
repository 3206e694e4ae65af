"""Journals on full disks, at their limit and in copies: training goes on and the count is right."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
from journals import (
    appended,
    bodies,
    copy_changed,
    number,
    numbers,
    open_journal,
    read_to_the_end,
    small_disk,
)
from support import run_script

from autolog.journal import layout
from autolog.journal.owner import Life
from autolog.journal.reader import Reader


def test_at_the_limit_the_essential_stays_longest_and_the_count_is_right(tmp_path: Path) -> None:
    """Batch values go first, then all others; once segments are let go, all are stored again."""
    limit = 1 << 20
    journal = open_journal(tmp_path / "j", limit=limit)
    frame = layout.frame(bytes(1000))
    first_lost: dict[bool, int] = {}
    for i in range(3000):
        essential = i % 2 == 0
        before = journal.dropped.total()
        journal.append(frame, 1, essential)
        if journal.dropped.total() > before:
            first_lost.setdefault(essential, i)
        if i % 10 == 0:
            journal.prepare()
    assert first_lost[False] < first_lost[True]
    assert set(journal.dropped) == {"journal limit"}
    kept = appended(journal.folder, journal)
    assert len(kept) + journal.dropped.total() == journal.logged == 3000
    assert sum(p.stat().st_size for p in journal.folder.glob("*.seg")) <= limit

    for path in sorted(journal.folder.glob("*.seg"))[:-2]:
        path.unlink()
    journal.prepare()
    journal.append(layout.frame(b"stored again"), 1, essential=False)
    reader = Reader(journal.folder, layout.position(layout.split(journal.tail)[0], 0))
    assert [f.body for f in reader.frames(Life.ALIVE)][-1] == b"stored again"


def test_without_room_for_values_runs_begin_and_end(tmp_path: Path) -> None:
    """Each segment has room that no value takes; once that is used up too, no run lacks a start."""
    journal = open_journal(tmp_path / "j", limit=1 << 20)
    value = layout.frame(bytes(500))
    while not journal.dropped:
        journal.append(value)
    journal.append(layout.frame(b"an end"), 0)
    assert bodies(journal.folder, Life.ALIVE)[-1] == b"an end"
    assert journal.dropped.total() == 1

    journal.declare("run", layout.frame(b"a start".ljust(1 << 14)))
    assert journal.dropped.total() == 2
    journal.append(layout.frame(b"a value"))
    assert journal.dropped.total() == 3
    assert appended(journal.folder, journal)[-1] == b"an end"
    for path in sorted(journal.folder.glob("*.seg"))[:-1]:
        path.unlink()
    journal.prepare()
    journal.append(layout.frame(b"a value"))
    reader = Reader(journal.folder, layout.position(layout.split(journal.tail)[0], 0))
    assert [frame.body.strip() for frame in reader.frames(Life.ALIVE)] == [b"a start", b"a value"]


_ON_A_FULL_DISK = """
    import os
    from pathlib import Path
    from journals import bodies, open_journal
    from autolog.journal import layout
    from autolog.journal.owner import Life
    disk = Path("disk")
    journal = open_journal(disk / "j", segment_size=1 << 18)
    (disk / "filler").write_bytes(bytes(300_000))
    frame = layout.frame(bytes(1000))
    first_lost = {}
    for i in range(3000):
        essential, before = i % 2 == 0, journal.dropped.total()
        journal.append(frame, 1, essential)
        if journal.dropped.total() > before:
            first_lost.setdefault(essential, i)
        if i % 10 == 0:
            journal.prepare()
    assert first_lost[False] < first_lost[True], first_lost
    assert set(journal.dropped) == {"disk full"}, journal.dropped
    stored = len(bodies(journal.folder, Life.ALIVE))
    assert stored + journal.dropped.total() == journal.logged == 3000
    (disk / "filler").unlink()
    journal.prepare()
    journal.append(layout.frame(b"stored again"), 1, False)
    assert bodies(journal.folder, Life.ALIVE)[-1] == b"stored again"
    print("alive")
"""


def test_a_full_disk_stops_nobody(tmp_path: Path) -> None:
    """On a full disk there is no SIGBUS: values are dropped in order and counted, till room is."""
    with small_disk(tmp_path / "disk", "1m"):
        env = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = run_script(_ON_A_FULL_DISK, cwd=tmp_path, env=env)
    assert done.stdout == "alive\n", done.stderr
    assert done.stderr.count("disk full") == 1


def test_a_small_spare_segment_gives_way_to_a_whole_one(tmp_path: Path) -> None:
    """Space that comes back ends the dropping, though the short segment was never used."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        journal = open_journal(disk / "j", segment_size=1 << 18)
        (disk / "filler").write_bytes(bytes(600_000))
        journal.prepare()
        journal.append(number(1), 1, essential=False)
        (disk / "filler").unlink()
        journal.prepare()
        journal.append(number(2), 1, essential=False)
        assert journal.dropped == {"disk full": 1}
        assert numbers(appended(journal.folder, journal)) == [2]
        sizes = sorted(path.stat().st_size for path in journal.folder.glob("*.seg"))
        assert sizes == [1 << 18, 1 << 18]


def test_no_room_for_a_journal_leaves_nothing_behind(tmp_path: Path) -> None:
    """A journal that cannot be made is an OSError, and takes none of the little space."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(OSError, match="disk full"):
            open_journal(disk / "j")
        assert list(disk.iterdir()) == []


def test_a_segment_let_go_while_space_is_counted_drops_nothing(tmp_path: Path) -> None:
    """The shipper removes segments while the writer counts them, and that is no shortage."""
    journal = open_journal(tmp_path / "j")
    stop = threading.Event()

    def let_go() -> None:
        while not stop.is_set():
            for path in sorted(journal.folder.glob("*.seg"))[:-1]:
                path.unlink(missing_ok=True)

    thread = threading.Thread(target=let_go)
    thread.start()
    for _ in range(2000):
        journal.append(layout.frame(bytes(30_000)))
    stop.set()
    thread.join(10)
    assert journal.dropped == {}


# -- copies ----------------------------------------------------------------------------------------


def test_a_copy_taken_while_the_owner_writes_is_completed_by_the_next(tmp_path: Path) -> None:
    """A control page newer than the segments is a gap, not damage: each value comes once."""
    journal = open_journal(tmp_path / "j")
    copy = tmp_path / "copy"
    for value in range(100):
        journal.append(number(value))
    shutil.copytree(journal.folder, copy)
    for value in range(100, 10_000):
        journal.append(number(value))
    shutil.copyfile(journal.folder / layout.CONTROL, copy / layout.CONTROL)
    reader = Reader(copy)
    first = read_to_the_end(reader, Life.UNKNOWN)
    assert numbers(first) == list(range(100))
    assert reader.gap is not None
    shutil.copytree(journal.folder, copy, dirs_exist_ok=True)
    assert numbers(read_to_the_end(reader, Life.UNKNOWN)) == list(range(100, 10_000))
    assert reader.gap is None
    assert reader.damage == []


@pytest.mark.parametrize("end", ["sync", "roll", "close"])
def test_a_change_is_seen_by_its_time_within_a_second_too(end: str, tmp_path: Path) -> None:
    """After each of the owner's touches a copier that goes by whole seconds, as rsync, copies."""
    journal, copy = open_journal(tmp_path / "j"), tmp_path / "copy"
    written = 0
    for _ in range(10):
        for _ in range(100 if end != "roll" else 5000):
            journal.append(number(written))
            written += 1
        if end == "close":
            journal.close()
        else:
            journal.sync()
        copy_changed(journal.folder, copy)
    assert numbers(bodies(copy, Life.UNKNOWN)) == list(range(written))
