"""Files: the copy at the call, the limit on the network, and what is shown of their upload."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from answering import Answer, AnsweringServer
from commands import autolog as command
from commands import log_offline
from journals import open_journal
from mlflow import MlflowClient
from support import eventually, run_script
from trainings import fresh_name, group_of, run_named

import autolog
from autolog import credentials
from autolog.artifacts import Lane, Upload
from autolog.backlog import backlog
from autolog.journal import layout
from autolog.receipt import Sending
from autolog.recorder.spool import NoRoom, Spool
from autolog.records import Kind

if TYPE_CHECKING:
    from faults import FaultyProxy
    from readback import Experiment
    from support import MlflowServer


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


def test_files_that_wait_are_bounded(tmp_path: Path) -> None:
    """Those of all runs together, by the journal's limit; what has arrived makes room again."""
    journal = open_journal(tmp_path / "journal", limit=1 << 20)
    spools = [Spool(journal), Spool(journal)]
    source = tmp_path / "half.bin"
    source.write_bytes(bytes(600_000))
    first, _ = [spool.copy(source, "half.bin") for spool in spools]
    for spool in spools:
        with pytest.raises(NoRoom, match="take journal_limit=1048576"):
            spool.copy(source, "half.bin")
    (tmp_path / "journal" / layout.FILES / first).unlink()  # as the shipper does
    place = eventually(lambda: _accepted(spools[0], source))
    assert (tmp_path / "journal" / layout.FILES / place).stat().st_size == 600_000
    journal.abandon()


def _accepted(spool: Spool, source: Path) -> str:
    """Where a copy is; empty where there is no room."""
    try:
        return spool.copy(source, "half.bin")
    except NoRoom:
        return ""


def test_a_file_too_many_is_counted_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what else is logged is not touched."""
    monkeypatch.setenv("AUTOLOG_JOURNAL_LIMIT", str(1 << 20))
    (tmp_path / "half.bin").write_bytes(bytes(600_000))
    autolog.enable(mode="offline")
    with autolog.run("files"):
        for _ in range(4):
            autolog.log_artifact(tmp_path / "half.bin")
        autolog.log_metrics({"loss": 1.0})
    receipt = autolog.flush(0)
    assert (receipt.logged, receipt.pending) == (5, 3)
    assert receipt.dropped == {"files over journal_limit": 2}
    assert capsys.readouterr().err.count("take journal_limit=1048576") == 1


# -- the limit on the network ----------------------------------------------------------------------

RATE, SIZE = 4_000_000, 6_000_000

_SENDING = f"""
    import socket, ssl, threading, time
    from autolog import bandwidth

    def read_all(end):
        while end.recv(1 << 16):
            pass

    def seconds_for(ends, senders):
        readers = [threading.Thread(target=read_all, args=(end,)) for _, end in ends]
        parts = [
            threading.Thread(target=end.sendall, args=(bytes({SIZE} // senders),))
            for end, _ in ends
        ]
        started = time.monotonic()
        for thread in readers + parts:
            thread.start()
        for thread in parts:
            thread.join()
        print(time.monotonic() - started)
        for end, _ in ends:
            end.close()

    def encrypted():
        # Without a certificate, which such a cipher does without.
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        ends = []
        for context in (client, server):
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("aNULL:@SECLEVEL=0")
        near, far = socket.socketpair()
        hello = threading.Thread(
            target=lambda: ends.append(server.wrap_socket(far, server_side=True))
        )
        hello.start()
        near = client.wrap_socket(near)
        hello.join()
        return near, ends[0]

    bandwidth.limit({RATE})
    seconds_for([socket.socketpair()], 1)
    seconds_for([socket.socketpair(), socket.socketpair()], 2)
    seconds_for([encrypted()], 1)
"""


def test_all_sockets_together_send_at_the_limit(tmp_path: Path) -> None:
    """One, two at the same time and an encrypted one: each way within a fifth of it."""
    done = run_script(_SENDING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [float(line) for line in done.stdout.split()] == [
        pytest.approx(SIZE / RATE, rel=0.2)
    ] * 3


# -- what is shown ---------------------------------------------------------------------------------

_LOGGING = """
    import json, sys, time
    from pathlib import Path
    import autolog
    autolog.enable()
    Path("first.bin").write_bytes(bytes(1_000_000))
    Path("second.bin").write_bytes(bytes(500_000))
    with autolog.run({name!r}):
        autolog.log_artifact("first.bin", "models")
        autolog.log_artifact("second.bin")
        while True:
            (uploads,) = autolog.status()["uploads"].values()
            if uploads.sending.sent:
                break
            time.sleep(0.05)
    print(json.dumps([uploads.files, uploads.bytes, uploads.sending.path, uploads.sending.sent]))
    loaded = {{name.partition(".")[0] for name in sys.modules}}
    print(loaded & {{"mlflow", "requests", "boto3", "azure"}})
"""


def test_an_upload_is_shown_and_is_not_the_host_s(
    faulty: FaultyProxy, mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Files, bytes and the file on its way, in ``status()`` and on the command line.

    The process that logs has loaded nothing that could send it.
    """
    faulty.slow(20, "mlflow-artifacts")
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": faulty.url}
    done = run_script(_LOGGING.format(name=name), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    uploads, loaded = done.stdout.splitlines()
    assert json.loads(uploads) == [2, 1_500_000, "models/first.bin", 1_000_000]
    assert loaded == "set()"
    group = group_of(autolog_home)
    assert backlog(group).sending == Sending("models/first.bin", 1_000_000, 1_000_000)
    shown = command("status", code=0).stdout
    assert "sends models/first.bin (1.0 MB of 1.0 MB)" in shown
    assert "2 (1.5 MB)" in shown
    faulty.pass_on()

    def arrived() -> bool:
        found = mlflow_server.client().list_artifacts(run_named(mlflow_server, name).info.run_id)
        return [(file.path, file.file_size) for file in found] == [
            ("models", None),
            ("second.bin", 500_000),
        ]

    eventually(arrived, 30)
    eventually(lambda: (backlog(group).files, backlog(group).sending) == (0, Sending()))


def test_what_nobody_sends_is_shown_too(experiment: Experiment, tmp_path: Path) -> None:
    """A file that was logged offline waits for ``autolog sync``, with its bytes."""
    (tmp_path / "large.bin").write_bytes(bytes(2_500_000))
    log_offline(experiment, tmp_path, extra='autolog.log_artifact("large.bin")')
    assert "1 (2.5 MB)" in command("status", "--check", code=1).stdout


def test_nobody_is_told_the_permission_in_an_address(
    new_store: Callable[[], str], tmp_path: Path
) -> None:
    """MLflow's repositories quote the address of a storage that refuses a file, and we them."""
    uri, file = new_store(), tmp_path / "notes.txt"
    file.write_text("notes")
    client = MlflowClient(uri)
    lane = Lane(credentials.shipper_environment(uri), tmp_path / "lane.log", lambda: None)
    with AnsweringServer(Answer(403)) as storage:
        experiment_id = client.create_experiment("x", f"{storage.url}/files?sig=very-secret")
        run_id = client.create_run(experiment_id).info.run_id
        lane.submit(Upload(run_id, str(file), file.name, Kind.FILE))
        outcome = eventually(lane.outcome, 100)
        lane.close()
    assert "403" in outcome.problem
    assert f"/{run_id}/artifacts?********" in outcome.problem
    assert "very-secret" in storage.seen[0].path
