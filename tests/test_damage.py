"""Damaged journals: what stands before the damage is read, the damage is told, nothing raises."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import (
    TARGET,
    bodies,
    each_flip,
    encoded,
    lay_out,
    losses,
    open_journal,
    read_to_the_end,
    run_start,
    write_control,
    write_meta,
)

from autolog import records
from autolog.feed import Feed, Meta, read_meta
from autolog.journal import layout, progress
from autolog.journal.owner import Life
from autolog.journal.progress import Progress
from autolog.journal.reader import Reader
from autolog.records import Metrics, Record, RunEnd

BODIES = [[f"segment {s}, body {b}".encode() * (b % 3 + 1) for b in range(6)] for s in range(3)]
FLAT = [body for segment in BODIES for body in segment]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole journal of three segments."""
    lay_out(tmp_path / "j", BODIES)
    assert bodies(tmp_path / "j") == FLAT
    return tmp_path / "j"


def segment(folder: Path, number: int) -> Path:
    """The path of a segment."""
    return folder / layout.segment_name(number)


def frames_end(number: int) -> int:
    """The offset behind the last frame of a segment."""
    return layout.START + sum(layout.HEADER.size + len(body) for body in BODIES[number])


def hit_by(number: int, offset: int) -> int | None:
    """Which frame of a segment holds a byte; None for its header or its end."""
    end = layout.START
    for index, body in enumerate(BODIES[number]):
        start, end = end, end + layout.HEADER.size + len(body)
        if start <= offset < end:
            return index
    return None


def feed_of(folder: Path, *, finish: bool = False) -> Feed:
    """The journal as the shipper sees it."""
    meta = read_meta(folder)
    assert meta is not None
    return Feed(folder, meta, finish)


def read_all(feed: Feed, owner: Life = Life.DEAD) -> list[Record]:
    """Every record, each batch committed as if the server had taken it."""
    found = []
    while entries := feed.read(owner):
        found += [entry.record for entry in entries]
        feed.commit(entries[-1].position)
    return found


def values_of(found: list[Record]) -> list[float]:
    """The values of metrics."""
    return [value for record in found if isinstance(record, Metrics) for value in record.values]


# -- segments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [Life.DEAD, Life.ALIVE])
@pytest.mark.parametrize("number", [0, 2])
def test_a_flipped_bit_costs_at_most_the_rest_of_its_segment(
    folder: Path, number: int, owner: Life
) -> None:
    """All before it and all later segments are read, and of a frame with the right length no more.

    Nothing is made up.
    """
    before = [body for s in BODIES[:number] for body in s]
    after = [body for s in BODIES[number + 1 :] for body in s]
    for offset in each_flip(segment(folder, number), 0, frames_end(number)):
        reader = Reader(folder)
        found = read_to_the_end(reader, owner)
        index = hit_by(number, offset)
        whole = BODIES[number][: index or 0]
        assert found[: len(before) + len(whole)] == before + whole, offset
        assert found[len(found) - len(after) :] == after, offset
        assert set(found) < set(FLAT), offset
        assert reader.damage, offset
        if index is not None:
            start = layout.START + sum(layout.HEADER.size + len(body) for body in whole)
            if offset >= start + 4:
                assert found == [body for body in FLAT if body != BODIES[number][index]], offset
                assert [damage.position for damage in reader.damage] == [
                    layout.position(number, start)
                ]


@pytest.mark.parametrize("owner", [Life.DEAD, Life.ALIVE])
def test_a_flipped_bit_in_a_seal_costs_nothing(folder: Path, owner: Life) -> None:
    """The end of a segment is known to be damaged, and the next segment is found without it."""
    end = frames_end(0)
    for offset in each_flip(segment(folder, 0), end, end + layout.SEAL_SIZE):
        reader = Reader(folder)
        assert read_to_the_end(reader, owner) == FLAT, offset
        assert reader.damage, offset


@pytest.mark.parametrize("owner", [Life.DEAD, Life.ALIVE])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_segment_cut_at_any_byte_is_read_up_to_there(
    folder: Path, number: int, owner: Life
) -> None:
    """What is whole before the cut is read, and so are the segments behind it."""
    path = segment(folder, number)
    content = path.read_bytes()
    before = [body for s in BODIES[:number] for body in s]
    after = [body for s in BODIES[number + 1 :] for body in s]
    for length in range(frames_end(number)):
        path.write_bytes(content[:length])
        index = hit_by(number, length)
        reader = Reader(folder)
        expected = before + BODIES[number][: index or 0] + after
        assert read_to_the_end(reader, owner) == expected, length
        assert reader.damage, length
        assert read_to_the_end(reader, owner) == []


def test_a_damaged_length_takes_no_memory(folder: Path) -> None:
    """What a frame says of itself is believed no further than its file reaches."""
    with open(segment(folder, 0), "r+b") as file:
        file.seek(layout.START)
        file.write(layout.LARGEST_BODY.to_bytes(4, "little"))
    tracemalloc.start()
    read_to_the_end(Reader(folder), Life.DEAD)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20


def test_a_page_of_zeros_is_damage_and_not_the_end(folder: Path) -> None:
    """What a power loss leaves of a page is told, and the next segment is read."""
    for start in range(layout.START, frames_end(1) - 40):
        content = segment(folder, 1).read_bytes()
        damaged = content[:start] + bytes(40) + content[start + 40 :]
        segment(folder, 1).write_bytes(damaged)
        reader = Reader(folder)
        found = read_to_the_end(reader, Life.DEAD)
        assert found[: len(BODIES[0])] == BODIES[0]
        assert found[-len(BODIES[2]) :] == BODIES[2]
        assert set(found) < set(FLAT)
        assert reader.damage, start
        segment(folder, 1).write_bytes(content)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("owner", [Life.DEAD, Life.ALIVE])
def test_a_missing_segment_is_told(folder: Path, number: int, owner: Life) -> None:
    """The others are read."""
    segment(folder, number).unlink()
    reader = Reader(folder)
    expected = [body for s, contents in enumerate(BODIES) if s != number for body in contents]
    assert read_to_the_end(reader, owner) == expected
    assert [str(damage) for damage in reader.damage] == [
        f"segment {number}, byte 0: segment missing"
    ]


def test_damage_in_a_living_journal_does_not_stop_what_comes_later(tmp_path: Path) -> None:
    """Reading goes on at the tail, which is always the end of a frame."""
    journal = open_journal(tmp_path / "j")
    journal.append(layout.frame(b"whole"))
    start = journal.tail
    journal.append(layout.frame(b"to be damaged"))
    journal.append(layout.frame(b"behind it"))
    with open(segment(journal.folder, 0), "r+b") as file:
        file.seek(start)
        file.write(b"\xff\xff\xff")
    reader = Reader(journal.folder)
    assert read_to_the_end(reader, Life.ALIVE) == [b"whole"]
    assert len(reader.damage) == 1
    journal.append(layout.frame(b"later"))
    assert read_to_the_end(reader, Life.ALIVE) == [b"later"]


def test_a_frame_that_death_left_half_written_is_no_damage(folder: Path) -> None:
    """Behind the tail nothing was promised; a whole frame there is read all the same."""
    path = segment(folder, 2)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + layout.frame(b"whole, not published") + b"\x14\x00\x00\x00half")
    reader = Reader(folder)
    assert read_to_the_end(reader, Life.DEAD) == [*FLAT, b"whole, not published"]
    assert reader.damage == []


def test_behind_the_tail_of_a_living_owner_nothing_is_read(folder: Path) -> None:
    """A frame is there before it is published, and may still be changed until it is."""
    path = segment(folder, 2)
    path.write_bytes(path.read_bytes().rstrip(b"\0") + layout.frame(b"not published"))
    assert bodies(folder, Life.ALIVE) == FLAT


def test_what_is_published_and_not_visible_yet_is_no_damage(folder: Path) -> None:
    """The stores of another processor may come in any order: the reader looks again."""
    path = segment(folder, 2)
    content = path.read_bytes()
    start = layout.START + layout.HEADER.size + len(BODIES[2][0])
    path.write_bytes(content[:start] + bytes(len(content) - start))
    reader = Reader(folder)
    assert [frame.body for frame in reader.frames(Life.ALIVE)] == [
        *BODIES[0],
        *BODIES[1],
        BODIES[2][0],
    ]
    path.write_bytes(content)
    assert [frame.body for frame in reader.frames(Life.ALIVE)] == BODIES[2][1:]
    assert reader.damage == []


def test_an_incomplete_copy_is_read_up_to_its_gap_unless_no_other_will_come(folder: Path) -> None:
    """A copy that another may complete stops at what is missing and says where."""
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    segment(copy, 1).write_bytes(bytes(1000))
    feed = feed_of(copy)
    assert feed.life() is Life.UNKNOWN
    reader = Reader(copy)
    assert read_to_the_end(reader, Life.UNKNOWN) == BODIES[0]
    assert str(reader.gap) == "segment 1, byte 0: no segment header"
    assert read_to_the_end(reader, Life.DEAD) == BODIES[2]


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=300), tail=st.none() | st.integers(0, (1 << 64) - 1))
def test_bytes_from_anywhere_are_read_without_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, tail: int | None
) -> None:
    """Whatever the files hold, reading ends, and only frames with the right checksum come out."""
    folder = tmp_path_factory.mktemp("j", numbered=True)
    (folder / layout.segment_name(0)).write_bytes(layout.MAGIC + content)
    (folder / layout.segment_name(2)).write_bytes(content)
    if tail is not None:
        write_control(folder, tail)
    for owner in Life:
        for body in read_to_the_end(Reader(folder), owner):
            assert layout.frame(body) in layout.MAGIC + content


# -- the control page ------------------------------------------------------------------------------


def test_a_damaged_control_page_costs_nothing(folder: Path) -> None:
    """Flipped at any byte or cut at any byte, a dead journal is read whole."""
    control = folder / layout.CONTROL
    for offset in each_flip(control, 0, 40):
        assert bodies(folder) == FLAT, offset
    content = control.read_bytes()
    for length in (*range(40), layout.CONTROL_SIZE - 1):
        control.write_bytes(content[:length])
        assert bodies(folder) == FLAT, length
        assert Reader(folder).control().is_damaged
    control.unlink()
    assert bodies(folder) == FLAT


def test_a_damaged_control_page_is_told(tmp_path: Path) -> None:
    """The account of the journal names it once."""
    lay_out(tmp_path / "j", [losses(3)])
    (tmp_path / "j" / layout.CONTROL).write_bytes(b"garbage")
    assert values_of(read_all(feed_of(tmp_path / "j"))) == [0, 1, 2]
    assert progress.load(tmp_path / "j").damage == ["control: unreadable"]


# -- the description -------------------------------------------------------------------------------


def test_a_damaged_description_is_none_or_right(folder: Path) -> None:
    """Flipped at any byte, ``meta.json`` gives no description, or one with sound types."""
    path = folder / layout.META
    for offset in each_flip(path, 0, path.stat().st_size):
        meta = read_meta(folder)
        assert meta is None or isinstance(meta, Meta), offset
    for length in range(path.stat().st_size):
        path.write_bytes(path.read_bytes()[: -1 - length])
        assert read_meta(folder) is None, length
        write_meta(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": 2, "target": "x", "owner": {}}',
        b"\xff\xfe",
    ],
)
def test_a_description_of_any_other_shape_is_none(folder: Path, content: bytes) -> None:
    """Other JSON, deep JSON, no JSON, and a later format."""
    (folder / layout.META).write_bytes(content)
    assert read_meta(folder) is None


# -- the progress ----------------------------------------------------------------------------------


def test_a_damaged_progress_starts_anew_and_is_told(folder: Path) -> None:
    """Flipped at any byte it is as written, or new with a line that says so."""
    written = Progress(
        cursor=12, acknowledged=3, run_ids={"a": "b"}, uploads=[["a", "f", "p", "file"]]
    )
    written.store(folder)
    path = folder / layout.PROGRESS
    for offset in each_flip(path, 0, path.stat().st_size):
        loaded = progress.load(folder)
        if loaded != written:
            assert (loaded.cursor, loaded.acknowledged) == (0, 0), offset
            assert "progress.json" in loaded.damage[0], offset
    assert progress.load(folder) == written


def test_after_damaged_progress_everything_is_read_again(tmp_path: Path) -> None:
    """A server that drops doubles has each value once."""
    lay_out(tmp_path / "j", [losses(5)])
    read_all(feed_of(tmp_path / "j"))
    (tmp_path / "j" / layout.PROGRESS).write_bytes(b"\0" * 100)
    assert values_of(read_all(feed_of(tmp_path / "j"))) == [0, 1, 2, 3, 4]
    assert len(progress.load(tmp_path / "j").damage) == 1


# -- records ---------------------------------------------------------------------------------------


def test_a_damaged_record_costs_only_itself(tmp_path: Path) -> None:
    """Values before and behind it arrive; the damage is told once, with its place."""
    folder = tmp_path / "j"
    contents = losses(10)
    lay_out(folder, [contents])
    start = layout.START + sum(layout.HEADER.size + len(body) for body in contents[:7])
    with open(segment(folder, 0), "r+b") as file:
        file.seek(start + layout.HEADER.size + 3)
        file.write(b"\xff")
    feed = feed_of(folder)
    assert values_of(read_all(feed)) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    line = f"segment 0, byte {start}: wrong checksum"
    assert progress.load(folder).damage == [line]

    later = feed_of(folder)
    later.read(Life.DEAD)
    assert later.progress.damage == [line]


def test_what_stands_before_damage_is_still_known_after_a_restart(tmp_path: Path) -> None:
    """A shipper that starts behind damage knows the runs and names declared around it."""
    folder = tmp_path / "j"
    contents = losses(2)
    other = [records.encode(run_start(2, key="f" * 32)), records.encode_keys(2, ("loss",))]
    behind = [encoded(Metrics(2, ("loss",), (7.0,), 0, 1), keys=2)]
    lay_out(folder, [contents + other + behind])
    place = layout.START + sum(layout.HEADER.size + len(body) for body in contents) - 1
    with open(segment(folder, 0), "r+b") as file:
        file.seek(place)
        file.write(b"\xff")
    last = layout.HEADER.size + len(behind[0])
    tail = Reader(folder).control().tail
    assert tail is not None
    Progress(cursor=tail - last).store(folder)
    assert values_of(read_all(feed_of(folder))) == [7.0]


def test_names_without_values_are_no_end(tmp_path: Path) -> None:
    """A long row of declarations neither hides what follows nor ends a run before its time."""
    folder = tmp_path / "j"
    long = [(n, tuple(f"{n}.{i}" * 20 for i in range(10))) for n in range(2, 500)]
    names = [records.encode_keys(n, keys) for n, keys in long]
    contents = losses(1)
    lay_out(folder, [[*contents[:2], *names, *contents[2:]]])
    found = read_all(feed_of(folder))
    assert values_of(found) == [0]
    assert isinstance(found[-1], RunEnd)


def test_the_cursor_passes_what_holds_no_record(tmp_path: Path) -> None:
    """Who waits for the tail is not kept waiting by names and damage behind the last record."""
    journal = open_journal(tmp_path / "j")
    for body in losses(3):
        journal.append(layout.frame(body))
    feed = feed_of(journal.folder)
    read_all(feed, Life.ALIVE)
    journal.append(layout.frame(records.encode_keys(9, ("unused",))))
    assert feed.read(Life.ALIVE) == []
    assert progress.load(journal.folder).cursor == journal.tail


def test_the_cursor_waits_for_what_was_read_and_is_not_acknowledged(tmp_path: Path) -> None:
    """Names behind it are no reason to take a value for stored."""
    journal = open_journal(tmp_path / "j")
    for body in losses(3):
        journal.append(layout.frame(body))
    feed = feed_of(journal.folder)
    assert feed.read(Life.ALIVE)
    journal.append(layout.frame(records.encode_keys(9, ("unused",))))
    assert feed.read(Life.ALIVE) == []
    assert progress.load(journal.folder).cursor == 0


def test_a_full_disk_keeps_the_account_in_memory(tmp_path: Path) -> None:
    """Progress that cannot be written stops no delivery; segments behind it make room again."""
    folder = tmp_path / "j"
    lay_out(folder, [losses(2), losses(3)])
    (folder / layout.PROGRESS).mkdir()  # stands for a disk without room: replacing it fails
    feed = feed_of(folder)
    assert values_of(read_all(feed)) == [0, 1, 0, 1, 2]
    (folder / layout.PROGRESS).rmdir()
    feed.commit(feed.position)
    assert not segment(folder, 0).exists()
    assert progress.load(folder).cursor == feed.position


def test_a_copy_keeps_its_segments(tmp_path: Path) -> None:
    """What a dead owner's journal lets go of when it is sent stays in a copy of it."""
    folder, copy = tmp_path / "j", tmp_path / "copy"
    lay_out(folder, [losses(2), losses(3)])
    shutil.copytree(folder, copy)
    for place in (folder, copy):
        assert values_of(read_all(feed_of(place), feed_of(place).life())) == [0, 1, 0, 1, 2]
    assert not segment(folder, 0).exists()
    assert segment(copy, 0).exists()


def test_the_account_of_damage_stays_short(tmp_path: Path) -> None:
    """Thousands of bad records make a hundred lines, none of them long."""
    lay_out(tmp_path / "j", [[bytes([99]) + str(i).encode() for i in range(5000)]])
    feed = feed_of(tmp_path / "j")
    assert read_all(feed) == []
    damage = progress.load(tmp_path / "j").damage
    assert len(damage) == 100
    assert max(map(len, damage)) <= 200


def test_target_and_checksum_are_what_the_helpers_say(folder: Path) -> None:
    """The journals of these tests are the format's: description, and progress with its checksum."""
    meta = read_meta(folder)
    assert meta is not None
    assert meta.target == TARGET
    Progress(cursor=5).store(folder)
    check, _, text = (folder / layout.PROGRESS).read_text().rstrip("\n").partition(" ")
    assert int(check, 16) == zlib.crc32(text.encode())
    assert json.loads(text)["cursor"] == 5
