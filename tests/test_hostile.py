"""Journals made to do harm: nothing in them runs, and nothing outside them is touched or sent."""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import KEY, bodies, encoded, lay_out, losses, run_start, write_meta
from support import MlflowServer, eventually

from autolog import credentials, held, params_file, records
from autolog.artifacts import Lane
from autolog.batching import Pace
from autolog.exporters import Rejected, exporter_for
from autolog.feed import Feed, read_meta
from autolog.journal import files, layout, progress
from autolog.journal.owner import Life, life
from autolog.journal.progress import Progress
from autolog.journal.reader import Reader
from autolog.journal.root import journals
from autolog.params_file import Whole
from autolog.records import Artifact, Metrics, Params, Record
from autolog.shipper import Shipper
from autolog.uploading.spooled import SpooledModel

SECRET = b'{"token": "what nobody may see"}'


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that a journal has no business with."""
    path = tmp_path / "outside" / "secret.json"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound journal, to be made hostile."""
    lay_out(tmp_path / "j", [losses(3)])
    (tmp_path / "j" / layout.FILES / "000001").mkdir(parents=True)
    return tmp_path / "j"


def feed_of(folder: Path) -> Feed:
    """The journal as the shipper sees it."""
    meta = read_meta(folder)
    assert meta is not None
    return Feed(folder, meta)


def read_all(feed: Feed) -> list[Record]:
    """Every record, each batch committed as if the server had taken it."""
    found = []
    while entries := feed.read(Life.DEAD):
        found += [entry.record for entry in entries]
        feed.commit(entries[-1].position)
    return found


def values_of(found: list[Record]) -> list[float]:
    """The values of metrics."""
    return [value for record in found if isinstance(record, Metrics) for value in record.values]


Trap = Callable[[Path, Path], None]


def symbolic_link(path: Path, outside: Path) -> None:
    """A symbolic link to the secret."""
    path.symlink_to(outside)


def hard_link(path: Path, outside: Path) -> None:
    """The secret under a second name."""
    os.link(outside, path)


def pipe(path: Path, outside: Path) -> None:
    """A pipe that nobody writes to: opening it as a file waits for ever."""
    os.mkfifo(path)


def folder_in_its_place(path: Path, outside: Path) -> None:
    """A folder where a file belongs."""
    path.mkdir()


TRAPS = [symbolic_link, hard_link, pipe, folder_in_its_place]


# -- files that are not what they seem -------------------------------------------------------------


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize(
    "name",
    [
        layout.META,
        layout.CONTROL,
        layout.PROGRESS,
        f"{layout.PROGRESS}.partial",
        layout.OWNER_LOCK,
        layout.REJECTED,
        layout.KILLED_MARKER,
        layout.segment_name(0),
        layout.segment_name(1),
        layout.HELD,
    ],
)
def test_no_file_of_a_journal_leads_out_of_it(
    folder: Path, outside: Path, name: str, trap: Trap
) -> None:
    """A link, a pipe or a folder for any file: nobody waits, and the outside stays as it is."""
    path = folder / name
    path.unlink(missing_ok=True)
    trap(path, outside)
    meta = read_meta(folder)
    if meta is not None:
        feed = Feed(folder, meta)
        read_all(feed)
        feed.life()
        feed.write_dead_letter({"harm": 1})
        feed.sync()
        feed.discard_content()
        feed.store()
    progress.load(folder)
    assert outside.read_bytes() == SECRET
    assert list(outside.parent.iterdir()) == [outside]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_spooled_file_is_a_regular_file_of_the_journal(
    folder: Path, outside: Path, trap: Trap
) -> None:
    """No link, pipe or folder is uploaded."""
    good = folder / layout.FILES / "000001" / "good.txt"
    good.write_text("good")
    trap(folder / layout.FILES / "000001" / "trap.txt", outside)
    feed = feed_of(folder)
    assert feed.spooled("000001/good.txt") == good
    assert feed.spooled("000001/trap.txt") is None


@pytest.mark.parametrize(
    "file",
    [
        "../meta.json",
        "../../outside/secret.json",
        "000001/../../../outside/secret.json",
        "/etc/hostname",
        "",
        ".",
        "..",
        "000001",
        "a\0b",
        "x" * 5000,
        "\udc80",
    ],
)
def test_a_path_leads_nowhere_else(folder: Path, outside: Path, file: str) -> None:
    """Absolute paths, '..', folders and names that no system knows are no spooled files."""
    assert feed_of(folder).spooled(file) is None


@pytest.mark.parametrize(
    "place",
    [
        layout.FILES,
        layout.HELD,
        f"{layout.FILES}/{KEY}",
        f"{layout.HELD}/{KEY}",
        f"{layout.HELD}/{KEY}/{layout.FILES}",
    ],
)
def test_a_journal_with_a_folder_that_leads_out_is_not_taken(
    folder: Path, outside: Path, place: str
) -> None:
    """What would be read, written or moved through it stays where it is."""
    link = folder / place
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_dir():
        (folder / layout.FILES / "000001").rmdir()
        link.rmdir()
    link.symlink_to(outside.parent)
    assert read_meta(folder) is None


def test_params_json_is_never_read_or_written_through_a_link(folder: Path, outside: Path) -> None:
    """The file that gathers whole params takes in nothing from outside."""
    place = folder / layout.FILES / KEY
    place.mkdir()
    (place / "params.json").symlink_to(outside)
    (place / "params.json.partial").symlink_to(outside)
    params_file.add(folder / layout.FILES, KEY, Whole(params={"long": "text"}))
    assert outside.read_bytes() == SECRET
    assert not (place / "params.json").is_symlink()
    assert json.loads((place / "params.json").read_text()) == {"whole": {"long": "text"}}


def test_a_run_set_aside_moves_only_its_own_files(folder: Path, outside: Path) -> None:
    """Setting aside a refused run follows no path out of the journal."""
    good = folder / layout.FILES / "000001" / "good.txt"
    good.write_text("good")
    contents: list[Record] = [
        Artifact(1, "000001/good.txt", "good.txt"),
        Artifact(1, "../../outside/secret.json", "secret.json"),
        Artifact(1, str(outside), "secret.json"),
        Artifact(1, "a/b/c/none.txt", "none.txt"),
        Artifact(1, "no\0name", "none.txt"),
        Artifact(1, "no\ud800name", "none.txt"),
        Params(1, {"a": "b"}),
    ]
    held.set_aside(folder, run_start(), contents)
    place = folder / layout.HELD / KEY
    assert outside.read_bytes() == SECRET
    assert [p.name for p in (place / layout.FILES).rglob("*") if p.is_file()] == ["good.txt"]


def test_a_run_set_aside_is_a_journal_that_grows(folder: Path) -> None:
    """What is added later is read behind what was there, up to the last, without damage."""
    loss = [Metrics(1, ("loss",), (float(i),), i, i) for i in range(3)]
    place = folder / layout.HELD / KEY
    feed = None
    for metrics in loss:
        held.set_aside(folder, run_start(), [metrics])
        feed = feed or feed_of(place)
        assert values_of([entry.record for entry in feed.read(feed.life())]) == [*metrics.values]
    assert feed is not None
    assert feed.progress.damage == []
    assert values_of(read_all(feed_of(place))) == [0, 1, 2]
    assert list(journals(folder)) == [folder, place]


def test_a_run_set_aside_grows_behind_what_is_sent(folder: Path) -> None:
    """What is sent is deleted; what is added after that is read all the same."""
    place = folder / layout.HELD / KEY
    held.set_aside(folder, run_start(), [Metrics(1, ("loss",), (1.0,), 1, 1)])
    assert values_of(read_all(feed_of(place))) == [1]
    for segment in place.glob("*.seg"):
        segment.unlink()  # as where the owner is known to be dead
    held.set_aside(folder, run_start(), [Metrics(1, ("loss",), (2.0,), 2, 2)])
    assert values_of(read_all(feed_of(place))) == [2]


def test_what_a_full_disk_left_of_setting_aside_is_no_run(folder: Path) -> None:
    """A folder without a segment makes no run one that was refused."""
    place = folder / layout.HELD / KEY
    (place / layout.FILES).mkdir(parents=True)
    assert held.keys(folder) == set()
    held.set_aside(folder, run_start(), [Metrics(1, ("loss",), (1.0,), 1, 1)])
    assert held.keys(folder) == {KEY}


def test_journals_are_looked_for_in_no_link_and_not_without_end(tmp_path: Path) -> None:
    """Neither a link nor folders within folders lead the search astray."""
    root = tmp_path / "root"
    lay_out(root / "group" / "j", [losses(1)])
    (root / "group" / "link").symlink_to(root / "group" / "j")
    lay_out(root / "group" / "/".join(["d"] * 300) / "j", [losses(1)])
    assert list(journals(root)) == [root / "group" / "j"]


# -- numbers and bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1 << 20, layout.LARGEST_BODY, 1 << 31, layout.SEALED - 1])
def test_an_absurd_length_allocates_nothing(folder: Path, length: int) -> None:
    """A frame that claims to be larger than its file is damage."""
    path = folder / layout.segment_name(0)
    content = path.read_bytes()
    path.write_bytes(layout.MAGIC + layout.HEADER.pack(length, 1) + content)
    reader = Reader(folder)
    assert [frame.body for frame in reader.frames(Life.DEAD)] == []
    assert reader.damage


@pytest.mark.parametrize("following", [0, 1, 7, layout.SEALED])
def test_a_seal_that_leads_astray_ends_the_reading(folder: Path, following: int) -> None:
    """Backwards, to itself or to no segment at all: reading ends and never turns in a circle."""
    (folder / layout.segment_name(1)).write_bytes(layout.MAGIC + layout.seal(following))
    (folder / layout.segment_name(0)).write_bytes(
        layout.MAGIC + layout.frame(b"body") + layout.seal(1)
    )
    assert bodies(folder) == [b"body"]


class Harmful:
    """Running code is all that loading it would do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def odd_bodies() -> list[bytes]:
    """Bodies with the right checksum that no writer of ours would write."""
    start = records.encode(run_start())
    declared = records.encode_keys(2, ("a", "b"))
    return [
        pickle.dumps(Harmful()),
        *(bytes([kind]) + pickle.dumps(Harmful()) for kind in range(9)),
        b"\x00",
        b"\xff",
        bytes([records.RUN]) + b"[" * 200_000,
        bytes([records.PARAMS]) + b'{"run": ' * 100_000,
        bytes([records.PARAMS]) + b'{"run": 1, "params": {"a": 1}}',
        bytes([records.PARAMS]) + b'{"run": 1, "params": {}, "more": 1}',
        bytes([records.PARAMS]) + b'{"run": 1e9, "params": {}}',
        bytes([records.TAGS]) + b'{"run": true, "tags": {}}',
        bytes([records.TAGS]) + b'{"run": 77, "tags": {"of": "an unknown run"}}',
        bytes([records.KEYS]) + b'[5, "ab"]',
        bytes([records.KEYS]) + b'["5", ["a"]]',
        bytes([records.KEYS]) + b'[5, [["a"]]]',
        bytes([records.KEYS]) + b"[5]",
        bytes([records.KEYS]) + b"[" + b"9" * 10_000 + b', ["a"]]',
        bytes([records.END]) + b'{"run": 1, "status": null, "timestamp": 1}',
        declared,
        encoded(Metrics(1, ("a", "b"), (1.0, 2.0), 0, 1), keys=2)[:-1],
        encoded(Metrics(1, ("a", "b"), (1.0, 2.0), 0, 1), keys=2) + b"more",
        encoded(Metrics(1, ("a",), (1.0,), 0, 1), keys=99),
        encoded(Metrics(4_000_000_000, ("a", "b"), (1.0, 2.0), 0, 1), keys=2),
        struct.pack("<BII", records.METRICS, 1, 1),
        start.replace(KEY.encode(), b"../../../../../../../outside/xxxx"),
        start.replace(KEY.encode(), b"../x" * 8),
        start.replace(b'"parent_key":null', b'"parent_key":"../../x"'),
    ]


def test_odd_records_are_told_and_the_good_ones_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles, deep JSON, wrong types, unknown runs, keys that are paths: none does anything."""
    monkeypatch.chdir(tmp_path)
    good = losses(3)
    lay_out(tmp_path / "j", [[*good[:3], *odd_bodies(), *good[3:]]])
    feed = feed_of(tmp_path / "j")
    found = read_all(feed)
    assert values_of(found) == [0, 1, 2]
    assert {record.run for record in found} == {1}
    # Every odd body but the declaration of names, which is sound by itself.
    assert len(progress.load(tmp_path / "j").damage) == len(odd_bodies()) - 1
    assert not (tmp_path / "harmed").exists()


# -- progress --------------------------------------------------------------------------------------


def write_progress(folder: Path, text: str) -> None:
    """A progress file whose checksum is right."""
    (folder / layout.PROGRESS).write_text(f"{zlib.crc32(text.encode()):08x} {text}\n")


@pytest.mark.parametrize(
    "content",
    [
        {"cursor": -1},
        {"cursor": 1 << 64},
        {"cursor": "12"},
        {"cursor": 1.5},
        {"cursor": True},
        {"acknowledged": None},
        {"rejected": []},
        {"rejected": {"a": "b"}},
        {"run_ids": {"a": 1}},
        {"ended": "text"},
        {"ended": [1]},
        {"uploads": [["a", "b", "file"]]},
        {"uploads": [["a", "../../outside/secret.json", "p", "file"]]},
        {"uploads": [["a", "/etc/hostname", "p", "file"]]},
        {"uploads": [["a", "000001/good.txt", "../up.txt", "file"]]},
        {"uploads": [["a", "000001/good.txt", "/etc/up.txt", "file"]]},
        {"uploads": {"a": "b"}},
        {"damage": [1]},
        {"target": 5},
        {"held": {"a": 1}},
        {"unknown": 1},
    ],
)
def test_progress_of_another_shape_is_damage(folder: Path, content: dict[str, object]) -> None:
    """Numbers out of range, wrong types, and uploads from or to outside: it starts anew."""
    write_progress(folder, json.dumps(content))
    loaded = progress.load(folder)
    assert loaded == Progress(damage=loaded.damage)
    assert len(loaded.damage) == 1
    assert values_of(read_all(feed_of(folder))) == [0, 1, 2]


@pytest.mark.parametrize("text", ["[]", "5", "[" * 100_000, '{"cursor":' * 50_000, ""])
def test_progress_of_any_other_text_is_damage(folder: Path, text: str) -> None:
    """Deep and odd JSON is as harmless."""
    write_progress(folder, text)
    assert progress.load(folder).cursor == 0


@pytest.mark.parametrize("cursor", [1, 9, 50, 1 << 31, 1 << 40, (1 << 64) - 1])
def test_a_wild_cursor_reads_nothing_that_is_no_frame(folder: Path, cursor: int) -> None:
    """In the middle of a frame, behind the end, in no segment: reading ends, without an error."""
    write_progress(folder, json.dumps({"cursor": cursor}))
    feed = feed_of(folder)
    assert set(values_of(read_all(feed))) <= {0, 1, 2}
    assert feed.read(Life.DEAD) == []


# -- files as such ---------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Replacing leaves the old content where the new one cannot be written."""
    path = tmp_path / "file"
    files.replace(path, b"old")
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file.partial").mkdir()
    with pytest.raises(OSError, match="partial"):
        files.replace(path, b"new")
    assert files.read(path) == b"old"


def test_nobody_s_lock_is_faked_by_a_pipe(folder: Path) -> None:
    """A journal whose lock is no file has an unknown owner, and asking does not hang."""
    meta = read_meta(folder)
    assert meta is not None
    assert life(folder, meta.owner) is Life.DEAD
    (folder / layout.OWNER_LOCK).unlink()
    os.mkfifo(folder / layout.OWNER_LOCK)
    assert life(folder, meta.owner) is Life.UNKNOWN


# -- to the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_model_has_only_files_of_its_own(
    plant: Callable[[Path, Path], None], outside: Path, tmp_path: Path
) -> None:
    """One with a second name of a file that is elsewhere is refused as a whole."""
    described = {"key": KEY, "number": 1, "timestamp": 1, "step": 0}
    described |= {"flavors": {}, "packages": {}, "python": "3.11"}
    file, folder = tmp_path / "model.json", tmp_path / "model"
    file.write_text(json.dumps(described))
    folder.mkdir()
    (folder / "model.pkl").write_bytes(b"its own")
    assert SpooledModel.read(file, "model").files() == [folder / "model.pkl"]
    plant(outside, folder / "MLmodel")
    with pytest.raises(Rejected, match="a file that is elsewhere: MLmodel"):
        SpooledModel.read(file, "model")


@pytest.mark.parametrize("damaged", [{"flavors": None}, {"packages": "none"}, {}])
def test_a_model_that_is_not_described_is_refused(
    damaged: dict[str, object], tmp_path: Path
) -> None:
    """It is not tried again and again."""
    described = {"key": KEY, "number": 1, "timestamp": 1, "step": 0, "flavors": {}, "packages": {}}
    (tmp_path / "model.json").write_text(json.dumps(described | damaged))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.pkl").write_bytes(b"its own")
    with pytest.raises(Rejected, match="no model in the journal"):
        SpooledModel.read(tmp_path / "model.json", "model")


def test_a_hostile_journal_uploads_only_its_own_files(
    mlflow_server: MlflowServer, tmp_path: Path, outside: Path
) -> None:
    """Sent to a real server: the good file and all values arrive, the rest is refused and told."""
    folder = tmp_path / "j"
    contents: list[Record] = [
        Artifact(1, "000001/good.txt", "good.txt"),
        Artifact(1, "000001/good.txt", "../up.txt"),
        Artifact(1, "000001/link.txt", "link.txt"),
        Artifact(1, "000001/pipe.txt", "pipe.txt"),
        Artifact(1, "../../outside/secret.json", "secret.json"),
        Artifact(1, str(outside), "absolute.json"),
    ]
    lay_out(folder, [[*losses(3), *odd_bodies(), *map(encoded, contents)]])
    write_meta(folder, target=mlflow_server.url)
    spool = folder / layout.FILES / "000001"
    spool.mkdir(parents=True)
    (spool / "good.txt").write_text("good")
    (spool / "link.txt").symlink_to(outside)
    os.mkfifo(spool / "pipe.txt")

    environ = credentials.shipper_environment(mlflow_server.url)
    exporter = exporter_for(mlflow_server.url, environ)
    lane = Lane(environ, tmp_path / "log", exporter.token)
    shipper = Shipper(exporter, lane, Pace(), clock=time.monotonic)
    try:
        assert shipper.add(folder)
        eventually(lambda: not shipper.round() and shipper.is_drained, 60)
    finally:
        lane.close()
        exporter.close()

    account = progress.load(folder)
    run_id = account.run_ids[KEY]
    assert {point.value for point in mlflow_server.points(run_id)} == {0.0, 1.0, 2.0}
    client = mlflow_server.client()
    assert [artifact.path for artifact in client.list_artifacts(run_id)] == ["good.txt"]
    assert sum("leads elsewhere" in line for line in account.damage) == 3
    assert sum(account.rejected.values()) == 2
    assert outside.read_bytes() == SECRET
