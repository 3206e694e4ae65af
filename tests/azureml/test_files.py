"""Files on their way to a workspace, where names are taken before their content; and to a cloud."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient
from support import eventually, run_script, start_script
from trainings import shippers

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn


_LOGGING = """
    import os, pathlib
    import autolog
    autolog.enable(workspace=os.environ["WORKSPACE"])
    with autolog.run("files"):
        pathlib.Path("a.bin").write_bytes(b"0123456789abcdef" * {sixteens})
        autolog.log_artifact("a.bin", "models")
    receipt = autolog.flush(60)
    assert receipt.complete, receipt
    print(autolog.last_run().run_id)
"""
_STORAGE = "/azureml/ExperimentRun"


def _artifacts(workspace: StandIn, cwd: Path, sixteens: int, **env: str) -> dict[str, bytes]:
    """What a run has after a file of so many times 16 bytes was logged."""
    environ = {**workspace.environ("service principal"), "WORKSPACE": workspace.uri, **env}
    done = run_script(_LOGGING.format(sixteens=sixteens), cwd=cwd, env=environ, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return workspace.artifacts_of(done.stdout.split()[-1])


def test_an_upload_that_is_cut_goes_on(workspace: StandIn, tmp_path: Path) -> None:
    """To the path that it has taken, behind the blocks of a large file that are there."""
    workspace.faults.slow(0, _STORAGE, times=5)
    workspace.faults.drop(_STORAGE, times=1)
    stored = _artifacts(workspace, tmp_path, 65 << 16)
    assert stored == {"models/a.bin": b"0123456789abcdef" * (65 << 16)}
    blocks, lists = 17, 1
    assert workspace.count(_STORAGE, 201) == blocks + lists


@pytest.mark.parametrize("fault", ["drop", "lose_reply", "refuse"])
def test_a_small_file_that_is_cut_is_there_once(
    workspace: StandIn, tmp_path: Path, fault: str
) -> None:
    """Whether or not the storage has it; a path whose address is over is left, and not for ever."""
    switch = {
        "drop": lambda: workspace.faults.drop(_STORAGE, times=1),
        "lose_reply": lambda: workspace.faults.lose_reply(_STORAGE, times=1),
        "refuse": lambda: workspace.faults.status(403, _STORAGE, times=1),
    }
    switch[fault]()
    name = "models/a-2.bin" if fault == "refuse" else "models/a.bin"
    assert _artifacts(workspace, tmp_path, 1) == {name: b"0123456789abcdef"}


def test_a_killed_upload_begins_beside_the_path_that_it_had_taken(
    workspace: StandIn, tmp_path: Path, autolog_home: Path
) -> None:
    """Its permission died with it: the file is there once and whole, with a number."""
    environ = {
        **workspace.environ("service principal"),
        "WORKSPACE": workspace.uri,
        "AUTOLOG_UPLOAD_MB_PER_SECOND": "20",
    }
    source = _LOGGING.format(sixteens=65 << 16)
    process = start_script(source, cwd=tmp_path, env=environ)
    eventually(lambda: workspace.count(_STORAGE, 201) > 2, 60)
    for shipper in shippers(autolog_home):
        for uploader in shipper.children():
            uploader.kill()
    said, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    stored = workspace.artifacts_of(said.split()[-1])
    assert stored == {"models/a-2.bin": b"0123456789abcdef" * (65 << 16)}


def test_the_limit_on_the_network_holds(workspace: StandIn, tmp_path: Path) -> None:
    """Blocks that go through TLS take no less time than that, within a fifth, nor much more."""
    _artifacts(workspace, tmp_path, 65 << 16, AUTOLOG_UPLOAD_MB_PER_SECOND="20")
    times = [seen.at for seen in workspace.requests if _STORAGE in seen.path]
    at_the_limit = 64 * (1 << 20) / 20e6
    assert 0.8 * at_the_limit < times[16] - times[0] < 3 * at_the_limit


# -- MLflow's own repository of a cloud ------------------------------------------------------------


class _BlobStorage(ThreadingHTTPServer):
    """What Azure's client of its storage asks to upload a file, without a workspace."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Blob)
        self.stored: dict[str, bytes] = {}


class _Blob(BaseHTTPRequestHandler):
    server: _BlobStorage

    def do_PUT(self) -> None:
        self.server.stored[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", self.date_time_string())
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def blobs() -> Iterator[_BlobStorage]:
    """A running storage account."""
    server = _BlobStorage()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_repository_of_mlflow_s_uploads_to_a_cloud(
    blobs: _BlobStorage, new_store: Callable[[], str], tmp_path: Path
) -> None:
    """With the real client of the storage, of which the training has loaded nothing."""
    uri = new_store()
    MlflowClient(uri).create_experiment("cloud", "wasbs://files@account.blob.core.windows.net/runs")
    source = """
        import sys
        import autolog
        autolog.enable(experiment="cloud")
        with autolog.run("files"):
            open("a.bin", "wb").write(b"content")
            autolog.log_artifact("a.bin", "models")
        receipt = autolog.flush(60)
        assert receipt.complete, receipt
        assert not {"azure", "mlflow", "requests"} & set(sys.modules)
        print(autolog.last_run().run_id)
    """
    host, port = blobs.server_address[:2]
    account = f"AccountName=account;AccountKey=a2V5;BlobEndpoint=http://{host}:{port}/account"
    environ = {
        "MLFLOW_TRACKING_URI": uri,
        "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{account}",
    }
    done = run_script(source, cwd=tmp_path, env=environ, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    path = f"/account/files/runs/{done.stdout.split()[-1]}/artifacts/models/a.bin"
    assert {place.partition("?")[0]: data for place, data in blobs.stored.items()} == {
        path: b"content"
    }
