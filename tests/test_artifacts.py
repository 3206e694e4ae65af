"""Files: the copy at the call."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from journals import open_journal

from autolog.journal import layout
from autolog.recorder.spool import Spool

# -- the copy at the call --------------------------------------------------------------------------


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """The spool of a journal in ``tmp_path / "journal"``."""
    journal = open_journal(tmp_path / "journal")
    yield Spool(journal)
    journal.abandon()


@pytest.mark.parametrize("size", [0, 1, 3_000_001])
def test_a_copy_is_the_file_as_it_was(
    spool: Spool, tmp_path: Path, in_memory: Path, size: int
) -> None:
    """Though the file is written over in place later; also from another filesystem."""
    content = os.urandom(size)
    for folder in (tmp_path, in_memory):
        source = folder / "model.bin"
        source.write_bytes(content)
        kept = tmp_path / "journal" / layout.FILES / spool.copy(source, "models/model.bin")
        with source.open("r+b") as file:
            file.write(b"something else")
        assert kept.read_bytes() == content
        status = kept.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 1)


def test_a_file_that_has_no_size_is_copied_whole(spool: Spool, tmp_path: Path) -> None:
    """As those of ``/proc``, which the kernel copies as empty ones."""
    source = Path("/proc/self/limits")
    kept = tmp_path / "journal" / layout.FILES / spool.copy(source, "limits")
    assert kept.read_bytes() == source.read_bytes() != b""


def test_what_cannot_be_read_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    """No half copy stays on the disk."""
    with pytest.raises(OSError, match="directory"):
        spool.copy(tmp_path, "folder")
    assert list((tmp_path / "journal" / layout.FILES).iterdir()) == []
