"""Files on their way to a workspace, where names are taken before there is content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import run_script

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


def test_the_limit_on_the_network_holds(workspace: StandIn, tmp_path: Path) -> None:
    """Within a fifth, for blocks that go through TLS."""
    _artifacts(workspace, tmp_path, 65 << 16, AUTOLOG_UPLOAD_MB_PER_SECOND="20")
    times = [seen.at for seen in workspace.requests if _STORAGE in seen.path]
    assert times[16] - times[0] == pytest.approx(64 * (1 << 20) / 20e6, rel=0.2)
