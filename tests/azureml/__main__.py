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
    """Serve until Ctrl-C; print the lines that a shell needs."""
    with tempfile.TemporaryDirectory() as root:
        workspace = StandIn(Path(root))
        workspace.start()
        config = workspace.write_config(Path(root))
        environ = workspace.environ("service principal")
        environ["MLFLOW_TRACKING_URI"] = workspace.uri
        for name, value in environ.items():
            print(f"export {name}={shlex.quote(value)}")
        print(f"# config.json for Workspace.from_config(): {config}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            workspace.stop()


main()
