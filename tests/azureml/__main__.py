"""``python -m tests.azureml``: a workspace to try things with by hand."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the tests' own modules are

from tests.azureml.standin import StandIn


def main() -> None:
    """Serve until Ctrl-C or SIGTERM; print the lines that a shell needs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as root:
        workspace = StandIn(Path(root))
        try:
            _serve(workspace, Path(root))
        except KeyboardInterrupt:
            workspace.stop()


def _serve(workspace: StandIn, root: Path) -> None:
    workspace.start()
    config = workspace.write_config(root)
    environ = workspace.environ("service principal")
    environ["MLFLOW_TRACKING_URI"] = workspace.uri
    for name, value in environ.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"# config.json for Workspace.from_config(): {config}", flush=True)
    signal.pause()


main()
