"""Where journals are, whatever the folders of a machine are like."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

import autolog
from autolog.journal import root
from autolog.journal.root import filesystem, is_remote, journal_root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home and scratch folder, without an ``AUTOLOG_DIR``."""
    monkeypatch.delenv("AUTOLOG_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home" / "state"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "home"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The table of this machine's mounts, which a test may write."""
    table = tmp_path / "mounts"
    table.write_text("/dev/vda / ext4 rw 0 0\n")
    monkeypatch.setattr(root, "_MOUNTS", table)
    return table


def mount(table: Path, place: Path, kind: str) -> None:
    """Add a mount to the table, as the kernel writes it."""
    place.mkdir(parents=True, exist_ok=True)
    escaped = str(place).replace(" ", r"\040")
    with table.open("a") as file:
        file.write(f"server:/export {escaped} {kind} rw 0 0\n")


def test_the_state_folder_is_the_root_unless_another_is_named(home: Path, tmp_path: Path) -> None:
    """Both are made, and nobody else may look into them."""
    for place in (journal_root(None), journal_root(tmp_path / "named")):
        assert place in (home / "state" / "autolog", tmp_path / "named")
        assert place.stat().st_mode & 0o777 == 0o700
        assert list(place.iterdir()) == []


def test_a_folder_that_cannot_be_written_gives_way(home: Path, tmp_path: Path) -> None:
    """The named one to the state folder, that to scratch; with none left it is an error."""
    blocked = tmp_path / "file"
    blocked.touch()
    assert journal_root(blocked / "named") == home / "state" / "autolog"
    (home / "state" / "autolog").rmdir()
    (home / "state").rmdir()
    (home / "state").touch()
    assert journal_root(blocked / "named").parent == tmp_path / "scratch"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(blocked))
        with pytest.raises(OSError, match="file"):
            journal_root(blocked / "named")


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs", "lustre"])
def test_a_home_on_the_network_gives_way_to_scratch(
    kind: str, home: Path, mounted: Path, tmp_path: Path
) -> None:
    """Also where a link leads there, and with a space in its path."""
    mount(mounted, tmp_path / "all homes", kind)
    home.symlink_to(tmp_path / "all homes")
    assert filesystem(home / "state") == kind
    assert journal_root(None).parent == tmp_path / "scratch"
    mount(mounted, tmp_path / "all homes" / "state", "xfs")
    assert not is_remote(home / "state")
    assert journal_root(None) == home / "state" / "autolog"


@pytest.mark.parametrize("trouble", ["unwritable", "network"])
def test_a_named_folder_of_the_wrong_kind_is_told_once_and_stops_nothing(
    trouble: str, home: Path, mounted: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line names the folder and the remedy or the way out; values are logged."""
    named = tmp_path / "named"
    if trouble == "network":
        mount(mounted, named, "nfs")
    else:
        named.touch()
    os.environ["AUTOLOG_DIR"] = str(named)
    autolog.enable(mode="offline")
    for name in ("first", "second"):
        with autolog.run(name):
            autolog.log_metric("m", 1.0)
    told = [line for line in capfd.readouterr().err.splitlines() if str(named) in line]
    assert len(told) == 1
    assert ("local disk" if trouble == "network" else str(home)) in told[0]
    assert autolog.flush(0).pending == 2
