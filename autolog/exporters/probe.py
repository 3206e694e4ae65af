"""Answers `autolog.check`: whether the target of this process's environment can be used."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from autolog import environment, targets
from autolog.exporters import Rejected, Retryable, exporter_for
from autolog.exporters.bearer import sent_here


def main() -> None:
    """Print why not; nothing when all is well."""
    environ = environment.variables()
    uri = environ["MLFLOW_TRACKING_URI"]
    try:
        problem = _missing(uri) if targets.is_local(uri) else ""
        if not problem and not _is_to_be_made(uri):
            exporter_for(uri, environ, token=sent_here()).check()
    except (Retryable, Rejected) as error:
        problem = error.reason
    sys.stdout.write(problem)


def _missing(uri: str) -> str:
    """What a local target lacks; that it is not there yet is no lack."""
    place = _place(uri)
    while not place.exists() and place != place.parent:
        place = place.parent
    if os.access(place, os.W_OK):
        return ""
    return f"{place} is not writable"


def _is_to_be_made(uri: str) -> bool:
    return targets.is_local(uri) and not _place(uri).exists()


def _place(uri: str) -> Path:
    database = re.match(r"sqlite:///([^?]*)", uri)
    return Path(unquote(database[1] if database else urlsplit(uri).path))
