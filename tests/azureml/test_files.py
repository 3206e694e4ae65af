"""Files on their way to a workspace, where names are taken before there is content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from support import run_script

if TYPE_CHECKING:
    from tests.azureml.standin import StandIn


def test_an_upload_that_is_cut(workspace: StandIn, tmp_path: Path) -> None:
    """The name is taken and has no content: the file goes beside it, and is not tried for ever."""
    workspace.faults.drop("/azureml/ExperimentRun", times=1)
    source = """
        import os, pathlib
        import autolog
        autolog.enable(workspace=os.environ["WORKSPACE"])
        with autolog.run("files"):
            pathlib.Path("a.txt").write_text("one")
            autolog.log_artifact("a.txt", "notes")
        receipt = autolog.flush(60)
        assert receipt.complete, receipt
        print(autolog.last_run().run_id)
    """
    environ = {**workspace.environ("service principal"), "WORKSPACE": workspace.uri}
    done = run_script(source, cwd=tmp_path, env=environ, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert workspace.artifacts_of(done.stdout.split()[-1]) == {"notes/a-2.txt": b"one"}
