"""What multiprocessing's children are told by the process that starts them.

It travels inside the process object, so it is as of that start whatever the start method is: the
environment of a fork server or of a worker that is used again is older.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from autolog.records import RunStart
from autolog.targets import Target

_PREFIX = "autolog."


class Inherited(NamedTuple):
    """The run that was open in the parent process when this one was started."""

    start: RunStart
    target: Target


def hand_down(name: str, content: Mapping[str, Any] | None) -> None:
    """Tell the children that start from now on; None takes it back."""
    text = None if content is None else json.dumps(content, default=str)
    _config()[_PREFIX + name] = text


def handed_down(name: str) -> dict[str, Any]:
    """What this process was told, or told itself; empty when nothing."""
    text = _config().get(_PREFIX + name)
    return dict(json.loads(text)) if text else {}


def at_end(call: Callable[[], None]) -> None:
    """Have a call made when this child ends: one that is forked never comes to ``atexit``.

    Where an exception ends the child it is then ``sys.exc_info()``.
    """
    from multiprocessing import util

    util.Finalize(None, call, exitpriority=0)


def hand_down_run(run: Inherited | None) -> None:
    """Tell the children that start from now on which run is open."""
    told = None if run is None else {k: asdict(v) for k, v in run._asdict().items()}
    hand_down("run", told)


def handed_down_run() -> Inherited | None:
    """The run that was open in the parent when this process was started."""
    told = handed_down("run")
    return Inherited(RunStart(**told["start"]), Target(**told["target"])) if told else None


def is_child() -> bool:
    """True in a process that multiprocessing, or a package built on it, started."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and (process.parent_process() is not None or is_importing_main())


def is_importing_main() -> bool:
    """True while a child runs the user's main script again, only to have its functions."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def _config() -> dict[str, Any]:
    # What a process object copies from the one that makes it, authkey and daemon flag too.
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    return config
