"""Who writes a journal, and whether that process is alive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from journals import open_journal
from support import eventually, start_script

from autolog.feed import read_meta
from autolog.journal import layout
from autolog.journal.owner import Life, Lock, Owner, is_locked, life

posix = pytest.mark.skipif(os.name != "posix", reason="flock and namespaces are POSIX's")


def owner_of(folder: Path) -> Owner:
    """The owner that a journal's description names."""
    meta = read_meta(folder)
    assert meta is not None
    return meta.owner


@pytest.fixture
def owned(tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a journal and waits, and the journal."""
    source = """
        from pathlib import Path
        from journals import open_journal
        journal = open_journal(Path("j"))
        Path("ready").touch()
        while True:
            __import__("time").sleep(60)
    """
    process = start_script(source, cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    eventually((tmp_path / "ready").exists, 30)
    return process, tmp_path / "j"


@posix
def test_an_owner_is_alive_until_it_is_dead(owned: tuple[subprocess.Popen[str], Path]) -> None:
    """Alive, alive while SIGSTOP holds it, and dead at once when it is killed."""
    process, folder = owned
    owner = owner_of(folder)
    assert owner.pid == process.pid
    assert life(folder, owner) is Life.ALIVE
    process.send_signal(signal.SIGSTOP)
    assert life(folder, owner) is Life.ALIVE
    process.kill()
    process.wait(10)
    assert life(folder, owner) is Life.DEAD


@posix
def test_a_copy_tells_nothing_of_its_owner(
    owned: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    """On another path, or without its lock, a journal is neither alive nor dead."""
    process, folder = owned
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert life(copy, owner_of(copy)) is Life.UNKNOWN
    process.kill()
    process.wait(10)
    assert life(copy, owner_of(copy)) is Life.UNKNOWN
    (folder / layout.OWNER_LOCK).unlink()
    assert life(folder, owner_of(folder)) is Life.UNKNOWN


def test_a_journal_of_another_machine_is_never_dead(tmp_path: Path) -> None:
    """On a shared disk the lock may be kept elsewhere: another machine's journal is unknown."""
    folder = tmp_path / "j"
    journal = open_journal(folder)
    owner = owner_of(folder)
    elsewhere = Owner(owner.pid, owner.host, "another machine", owner.lock_inode)
    journal.abandon()
    assert life(folder, elsewhere) is Life.UNKNOWN
    assert life(folder, owner) is Life.DEAD


def test_a_reused_pid_keeps_no_owner_alive(tmp_path: Path) -> None:
    """A process that has got a dead owner's number is not taken for it."""
    folder = tmp_path / "j"
    open_journal(folder).abandon()
    owner = owner_of(folder)
    assert owner.pid == os.getpid()
    assert life(folder, owner) is Life.DEAD


@posix
def test_an_owner_in_another_container_is_alive(tmp_path: Path) -> None:
    """A process of another pid namespace, whose number means nothing here, holds its journal."""
    unshare = shutil.which("unshare")
    probe = [unshare or "false", "--pid", "--fork", "--kill-child", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode != 0:
        pytest.skip("no pid namespace can be made here")
    source = """
        import subprocess, sys
        inner = (
            "import os, time; from pathlib import Path; from journals import open_journal; "
            "journal = open_journal(Path('j')); Path('pid').write_text(str(os.getpid())); "
            "time.sleep(600)"
        )
        command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", inner]
        sys.exit(subprocess.call(command))
    """
    process = start_script(source, cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), 30)
    owner = owner_of(tmp_path / "j")
    assert owner.pid == int((tmp_path / "pid").read_text()) < 10
    assert life(tmp_path / "j", owner) is Life.ALIVE
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
    eventually(lambda: life(tmp_path / "j", owner) is Life.DEAD)


@posix
def test_asking_for_a_lock_does_not_take_it(tmp_path: Path) -> None:
    """Two who look at the same time both see that a lock is free, and so is one that is absent."""
    lock = Lock(tmp_path / "lock")
    assert lock.acquire()
    assert is_locked(lock.path)
    assert not Lock(lock.path).acquire()
    lock.release()
    fcntl = pytest.importorskip("fcntl")
    with open(lock.path) as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_locked(lock.path)
    assert not is_locked(tmp_path / "no such file")
