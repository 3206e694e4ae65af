"""The verbs of logging: what hooks and the public API call, turned into records of a journal.

===========  ===============================================================
`run`        `Run`: metrics, params, tags, end; beside it `keys`, `params`, `problems`
`files`      `Files`: artifacts and models of a run; beside it `spool` and `models`
`training`   `Training`: a training as a hook sees it
`place`      which run a training goes into
`nesting`    what a piece of code is inside of: entered runs, trainings, pauses
`recorder`   `Recorder`: the open runs, which is the current one, fork
`known`      `KnownRuns`: which run an id means
`family`     what child processes are told
===========  ===============================================================
"""

from __future__ import annotations

import importlib
from typing import cast

from autolog.recorder.place import SharedRun
from autolog.recorder.recorder import Recorder, Role
from autolog.recorder.run import FormerRun, Run
from autolog.recorder.training import Training

__all__ = ["FormerRun", "Recorder", "Role", "Run", "SharedRun", "Training", "get"]


def get() -> Recorder:
    """The recorder of this process; works with or without ``autolog.enable()``."""
    # By name: the session puts this process together, and so stands above its parts.
    session = importlib.import_module("autolog.session")
    return cast("Recorder", session.get().recorder)
