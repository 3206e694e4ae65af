"""Every setting: its environment variable, default, check and origin."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, cast

MODES = ("process", "thread", "offline")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names it and the remedy."""


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("use 1 or 0")


def _mode(value: object) -> str:
    if value not in MODES:
        raise ValueError(f"use one of {', '.join(MODES)}")
    return str(value)


def _seconds(value: object) -> float:
    seconds = float(cast("float", value))
    if not 0 <= seconds < float("inf"):
        raise ValueError("use a number of seconds, 0 or more")
    return seconds


def _rate(value: object) -> float:
    rate = float(cast("float", value))
    if not 0 < rate < float("inf"):
        raise ValueError("use a number of megabytes a second, more than 0")
    return rate


def _at_least(minimum: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        number = int(cast("int", value))
        if number != float(cast("float", value)) or number < minimum:
            raise ValueError(f"use a whole number, {minimum} or more")
        return number

    return check


def _folder(value: object) -> Path:
    return Path(os.fspath(cast("str", value))).expanduser().absolute()


def _tags(value: object) -> dict[str, str]:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise TypeError("use a dict of tag names and texts, in the variable as JSON")
    return {str(key): str(text) for key, text in value.items()}


def _setting(default: object, check: Callable[[object], object], text: str) -> Any:
    return field(default=default, metadata={"check": check, "text": text})


@dataclass(frozen=True)
class Settings:
    """The settings of this process; `resolve` makes one and knows where each value is from."""

    disabled: bool = _setting(False, _boolean, "do nothing at all; every call is accepted")
    mode: str = _setting("process", _mode, "who sends: a process of its own, a thread, or nobody")
    strict: bool = _setting(False, _boolean, "raise on bad input, unsent or refused values")
    silent: bool = _setting(False, _boolean, "print nothing")
    dir: Path | None = _setting(None, _folder, "folder of the journals; a local disk")  # noqa: RUF009
    exclusive: bool = _setting(False, _boolean, "hooks leave runs that the user opened alone")
    extra_tags: Mapping[str, str] | None = _setting(
        None, _tags, "tags for every run we open; JSON in the variable"
    )
    log_every_n_steps: int | None = _setting(
        None, _at_least(1), "batch values too: every n-th optimizer step"
    )
    max_tuning_runs: int = _setting(
        5, _at_least(0), "how many of a search's candidates become child runs, the best first"
    )
    training_metrics: bool = _setting(
        False, _boolean, "scikit-learn: predict the training data after a fit, and log how well"
    )
    checkpoint: bool = _setting(
        False, _boolean, "Lightning: log the best and the last checkpoints at the end of a fit"
    )
    log_models: bool = _setting(True, _boolean, "log the trained model at the end of a training")
    registered_model_name: str | None = _setting(
        None, str, "make a version of the trained model in the model registry, under this name"
    )
    log_model_signatures: bool = _setting(
        True, _boolean, "with a model, the schemas of what it takes and gives"
    )
    log_input_examples: bool = _setting(
        False, _boolean, "with a model, the first rows of its training data"
    )
    model_megabytes: int = _setting(256, _at_least(1), "largest model that is logged, in MB")
    model_seconds: float = _setting(2.0, _seconds, "longest time that serialising one may take")
    upload_mb_per_second: float | None = _setting(
        None, _rate, "most of the network that files may take, in 10⁶ bytes a second"
    )
    log_datasets: bool = _setting(
        True, _boolean, "log name, digest, schema and shape of what a training is given"
    )
    batch_seconds: float = _setting(1.0, _seconds, "longest time a value waits to be sent")
    exit_timeout: float = _setting(10.0, _seconds, "wait at exit for a remote server")
    exit_timeout_local: float = _setting(
        2.0, _seconds, "wait at exit for a local target, or a server known to be down"
    )
    exit_timeout_ephemeral: float = _setting(
        60.0, _seconds, "wait at exit where the machine goes away with the process"
    )
    linger: float = _setting(
        3600.0, _seconds, "how long a shipper tries on after its last process ended"
    )
    journal_limit: int = _setting(1 << 30, _at_least(1 << 20), "unsent bytes a process may keep")
    segment_size: int = _setting(8 << 20, _at_least(1 << 16), "bytes of a journal file")


class Origin(NamedTuple):
    """A setting's value and where it came from, as `autolog.config` shows it."""

    value: object
    origin: str


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"AUTOLOG_{name.upper()}"


def resolve(
    arguments: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[Settings, dict[str, str]]:
    """Settings from arguments (None = not given), else the environment, else the defaults.

    Returns the settings and the origin of each.
    An unusable argument raises `SettingError`; an unusable variable falls back to the default,
    because a typo in a job's environment must not stop a training, and its origin says so.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for spec in fields(Settings):
        name, check = spec.name, spec.metadata["check"]
        given, text = arguments.get(name), environ.get(variable(name))
        origins[name] = "default"
        if given is not None:
            try:
                values[name] = check(given)
            except (TypeError, ValueError) as error:
                raise SettingError(f"{name}={given!r}: {error}") from None
            origins[name] = "argument"
        elif text:
            try:
                values[name] = check(text)
                origins[name] = variable(name)
            except (TypeError, ValueError) as error:
                origins[name] = f"default, since {variable(name)}={text!r}: {error}"
    return Settings(**values), origins
