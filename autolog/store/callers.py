"""Which function of MLflow's asks for a run: it decides what is needed of the answer."""

from __future__ import annotations

import sys
from typing import Any

HOT = frozenset(["log_metric", "log_metrics", "monitor"])
"""Functions of MLflow that read a run at each call, and need only what is known here."""
LASTING = frozenset(["_log_url", "_get_artifact_repo"])
"""Those that need what never changes: where a run is, and where its files go."""
UPLOADING = frozenset(["_get_artifact_repo"])
"""Those of them that can do nothing without the server's own answer."""
RESUMING = frozenset(["start_run"])
"""Those that go on with a run, whether or not the server answers now."""


def who_asks() -> str:
    """The function of MLflow that called the caller, if it is one of those above."""
    frame: Any = sys._getframe(2)  # noqa: SLF001 - there is no other way to know
    for _ in range(6):
        if frame is None or not str(frame.f_globals.get("__name__")).startswith("mlflow"):
            return ""
        if frame.f_code.co_name in HOT | LASTING | RESUMING:
            return str(frame.f_code.co_name)
        frame = frame.f_back
    return ""
