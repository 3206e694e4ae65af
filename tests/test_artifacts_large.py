"""Large files: kills in the middle of one, and several gigabytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import MlflowServer, eventually, start_script
from trainings import accounts, fresh_name, group_of, run_named, shippers

from autolog.journal.root import SHIPPER_STATE
from autolog.receipt import shipper_state

pytestmark = pytest.mark.long

MEGABYTE = 1_000_000


def lanes(home: Path) -> list[psutil.Process]:
    """The processes that upload for the shippers of a home."""
    return [lane for shipper in shippers(home) for lane in shipper.children()]


def is_in_the_middle(home: Path) -> bool:
    """Whether a part of a file has been sent, and not all of it."""
    sending = shipper_state(group_of(home)).sending
    return 0 < sending.sent < sending.size / 2


# -- kills -----------------------------------------------------------------------------------------

_LOGGING = """
    import os
    import autolog
    autolog.enable(upload_mb_per_second=5)
    with open("large.bin", "wb") as file:
        file.write(os.urandom(30_000_000))
    with autolog.run({name!r}):
        autolog.log_metrics({{"loss": 1.0}}, step=0)
        autolog.log_artifact("large.bin", "models")
        with open("large.bin", "r+b") as file:
            file.write(b"this comes too late")
        print("logged", flush=True)
        open("go").read()
"""


def test_a_file_survives_the_death_of_everybody(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """SIGKILL in the middle of a file: of who uploads it, of the shipper, of the training.

    One process uploads at a time, at the rate that is set, and the file arrives whole: what is on
    its way is finished after all trainings have ended, however long it takes.
    """
    os.mkfifo(tmp_path / "go")
    name = fresh_name()
    env = {"MLFLOW_TRACKING_URI": mlflow_server.url, "AUTOLOG_LINGER": "1"}
    training = start_script(_LOGGING.format(name=name), cwd=tmp_path, env=env)
    assert training.stdout is not None
    assert training.stdout.readline() == "logged\n"
    (spooled,) = autolog_home.glob("*/*/files/*/large.bin")
    content = spooled.read_bytes()

    eventually(lambda: is_in_the_middle(autolog_home), 30)
    (lane,) = lanes(autolog_home)
    lane.kill()
    eventually(lambda: lanes(autolog_home) not in ([], [lane]), 30)
    eventually(lambda: is_in_the_middle(autolog_home), 30)
    (lane,) = lanes(autolog_home)
    (shipper,) = shippers(autolog_home)
    shipper.kill()
    lane.wait(5)
    eventually(lambda: shippers(autolog_home) not in ([], [shipper]), 30)
    eventually(lambda: is_in_the_middle(autolog_home), 30)
    training.kill()
    assert rate(autolog_home) == pytest.approx(5 * MEGABYTE, rel=0.2)
    assert len(lanes(autolog_home)) == 1

    eventually(lambda: [account.uploads for account in accounts(autolog_home)] == [[]], 30)
    client, run_id = mlflow_server.client(), run_named(mlflow_server, name).info.run_id
    (file,) = client.list_artifacts(run_id, "models")
    assert Path(client.download_artifacts(run_id, file.path, str(tmp_path))).read_bytes() == content
    assert [account.acknowledged for account in accounts(autolog_home)] == [2]


def rate(home: Path) -> float:
    """Bytes of a file that go in a second, by what the shipper says at two moments."""
    first, second = (said(home), said(home))
    return (second[1] - first[1]) / (second[0] - first[0])


def said(home: Path) -> tuple[float, int]:
    """When the shipper next says how many bytes are sent, and how many."""
    path = group_of(home) / SHIPPER_STATE
    before = path.stat().st_mtime
    eventually(lambda: path.stat().st_mtime != before)
    return path.stat().st_mtime, shipper_state(group_of(home)).sending.sent


# -- several gigabytes -----------------------------------------------------------------------------

GIGABYTES = 3 << 30
MARKS = {0: b"begin", GIGABYTES // 2: b"middle", GIGABYTES - 3: b"end"}

_SEVERAL_GIGABYTES = f"""
    import resource
    import autolog
    autolog.enable()
    with open("large.bin", "wb") as file:
        file.truncate({GIGABYTES})
        for place, mark in {MARKS}.items():
            file.seek(place)
            file.write(mark)
    with autolog.run("large"):
        autolog.log_metrics({{"loss": 1.0}}, step=0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        autolog.log_artifact("large.bin")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
        open("go").read()
"""


@pytest.fixture(params=["folder", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A tracking URI, and the folder that its artifacts end up in, on the disk and not for long."""
    if request.param == "folder":
        place = tmp_path / "mlruns"
        yield f"sqlite:///{tmp_path}/mlflow.db", place
    else:
        (tmp_path / "server").mkdir()
        server = MlflowServer(tmp_path / "server")
        place = tmp_path / "server" / "artifacts"
        server.start()
        yield server.url, place
        server.kill()
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.timeout(600)
def test_several_gigabytes_take_no_memory(
    store: tuple[str, Path], tmp_path: Path, autolog_home: Path
) -> None:
    """Neither of the training, nor of the shipper, nor of who uploads; and they arrive whole."""
    uri, place = store
    os.mkfifo(tmp_path / "go")
    env = {"MLFLOW_TRACKING_URI": uri}
    training = start_script(_SEVERAL_GIGABYTES, cwd=tmp_path, env=env)
    assert training.stdout is not None
    assert int(training.stdout.readline()) < 10_000, "kilobytes of the training"
    eventually(lambda: shipper_state(group_of(autolog_home)).sending.sent, 60)
    everybody = [psutil.Process(training.pid), *shippers(autolog_home), *lanes(autolog_home)]
    assert len(everybody) == 3
    before = [process.memory_info().rss for process in everybody]
    grown = [0, 0, 0]

    def is_done() -> bool:
        now = [process.memory_info().rss for process in everybody]
        grown[:] = [max(g, n - b) for g, n, b in zip(grown, now, before, strict=True)]
        return [account.uploads for account in accounts(autolog_home)] == [[]]

    eventually(is_done, 300, every=0.2)
    assert max(grown) < 20 * MEGABYTE, grown
    (tmp_path / "go").write_text("")
    assert training.wait(20) == 0
    (stored,) = place.rglob("large.bin")
    assert stored.stat().st_size == GIGABYTES
    with stored.open("rb") as file:
        for offset, mark in MARKS.items():
            file.seek(offset)
            assert file.read(len(mark)) == mark
