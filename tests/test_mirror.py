"""Copies of journals in the outputs of a job."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import encoded

from autolog.journal import layout
from autolog.journal.owner import Life
from autolog.journal.progress import Progress
from autolog.journal.reader import Reader
from autolog.journal.writer import Journal
from autolog.mirror import PATIENCE, Mirror
from autolog.records import Tags


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """One with something that nobody sends."""
    made = Journal(
        tmp_path / "group" / "journal",
        {"target": "https://away"},
        segment_size=1 << 16,
        limit=1 << 20,
        wake=lambda: None,
    )
    made.append(layout.frame(encoded(Tags(1, {"a": "b"}))), 1)
    yield made
    made.close()


def test_what_stands_still_is_copied(journal: Journal, tmp_path: Path) -> None:
    """After 30 seconds, and the copy has all that was logged, without the space for more."""
    outputs = tmp_path / "outputs" / "autolog"
    mirror = Mirror(outputs)
    mirror.look(journal.folder, 0.0)
    mirror.look(journal.folder, PATIENCE - 1)
    assert not outputs.exists()
    mirror.look(journal.folder, PATIENCE)
    (copy,) = outputs.iterdir()
    frames = list(Reader(journal.folder).frames(Life.ALIVE))
    assert list(Reader(copy).frames(Life.UNKNOWN)) == frames
    assert len(frames) == 1
    assert sum(file.stat().st_size for file in copy.iterdir()) < 1 << 14


def test_values_of_a_service_that_lags_are_copied(journal: Journal, tmp_path: Path) -> None:
    """Though it takes some each second: what was there 30 seconds ago is not all taken."""
    mirror = Mirror(tmp_path / "copies")
    assert journal.tail > PATIENCE
    for second in range(round(PATIENCE) + 1):
        assert not (tmp_path / "copies").exists()
        Progress(cursor=second).store(journal.folder)
        mirror.look(journal.folder, float(second))
    assert (tmp_path / "copies" / journal.folder.name).is_dir()


def test_a_file_that_waits_is_copied(journal: Journal, tmp_path: Path) -> None:
    """After 30 seconds though values move, once; one that is taken in time is not."""
    spool = journal.folder / layout.FILES / "000001"
    spool.mkdir()
    (spool / "model.bin").write_bytes(b"model")
    copies = tmp_path / "outputs" / "autolog"
    mirror = Mirror(copies)
    for second in range(round(4 * PATIENCE)):
        waiting = ["stuck"] if second >= PATIENCE else []
        waiting += [f"taken-{second // 20}"]
        uploads = [["run", f"000001/{name}", name, "file"] for name in waiting]
        Progress(cursor=journal.tail - second % 2, uploads=uploads).store(journal.folder)
        mirror.look(journal.folder, float(second))
        if second == PATIENCE:
            assert not copies.exists()
        elif second == 2 * PATIENCE:
            (copy,) = copies.iterdir()
            assert (copy / spool.relative_to(journal.folder) / "model.bin").read_bytes() == b"model"
            shutil.rmtree(copies)
    assert not copies.exists()


def test_outputs_that_cannot_be_written(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Are said once, with the folder and the remedy."""
    (tmp_path / "outputs").write_text("a file")
    mirror = Mirror(tmp_path / "outputs" / "autolog")
    for look in range(4):
        mirror.look(journal.folder, look * PATIENCE)
    mirror.leave(journal.folder)
    said = capsys.readouterr().err
    assert said.count("no copy in") == 1
    assert f"{tmp_path / 'outputs' / 'autolog'} (" in said
    assert "make that folder writable" in said
