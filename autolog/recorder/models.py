"""A trained model on its way into the journal: serialised within a budget, and described.

The host only serialises. What MLflow has round those bytes in a model's folder is written where
they are uploaded, from the description, and the model is not loaded for it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from autolog.journal import files

_EXAMPLE: Final = "input_example.json"
"""The file of an input example in a model's folder."""


class OverBudget(Exception):
    """A model takes more bytes or seconds than it may; the message names the setting."""


class Duplicate(Exception):
    """A model that the run has already; the message is the name that it has there."""


class Budget:
    """The bytes and seconds that one model may take."""

    def __init__(self, megabytes: int, seconds: float) -> None:
        self._megabytes, self._seconds = megabytes, seconds
        self._bytes_left = megabytes * 1_000_000
        self._deadline = time.monotonic() + seconds
        self._excess: OverBudget | None = None

    def expect(self, size: int) -> None:
        """Raise `OverBudget` where so many bytes are too many; before they are written."""
        if size > self._bytes_left:
            raise OverBudget(
                f"it takes more than model_megabytes={self._megabytes} (here {size / 1e6:.0f})"
            )

    def take(self, size: int) -> None:
        """Take so many bytes, and the time until now. Raises `OverBudget`."""
        if size > self._bytes_left:
            self._excess = OverBudget(f"it takes more than model_megabytes={self._megabytes}")
        elif time.monotonic() > self._deadline:
            self._excess = OverBudget(f"it takes longer than model_seconds={self._seconds:g}")
        if self._excess is not None:
            raise self._excess
        self._bytes_left -= size

    @contextlib.contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """A file to write a model to, which raises `OverBudget` in time."""
        with (
            open(path, "wb", buffering=0, opener=files.private) as file,
            _Measured(file, self) as measured,
        ):
            try:
                yield measured
            except Exception:
                if self._excess is not None:  # of which torch makes an error of its own
                    raise self._excess from None
                raise


class _Measured(io.BufferedWriter):
    """A binary file whose writes come off a budget."""

    def __init__(self, file: io.FileIO, budget: Budget) -> None:
        super().__init__(file)
        self._budget = budget

    def write(self, content: Any) -> int:
        """Write bytes, or what gives them as a buffer. Raises `OverBudget`."""
        self._budget.take(memoryview(content).nbytes)
        return super().write(content)


class Example(NamedTuple):
    """An input example."""

    text: str
    """JSON."""
    form: Mapping[str, object]
    """How it is to be read, in MLflow's terms."""


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model, in the terms of that flavor of MLflow's which loads it."""

    write: Callable[[Path, Budget], None]
    """Serialise it to a path, within a budget."""
    path: str
    """That path, in the model's folder."""
    flavors: Mapping[str, Mapping[str, object]]
    """The section of that name in MLflow's ``MLmodel``."""
    packages: tuple[str, ...]
    """Distributions that loading it takes; those that are not installed are passed over."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Other files of the model's folder."""
    signature: Mapping[str, str | None] | None = None
    """Schemas of ``inputs`` and ``outputs``, in MLflow's JSON."""
    example: Example | None = None

    def save(self, folder: Path, budget: Budget) -> None:
        """Write what is to be known from the model itself. Raises whatever serialising raises."""
        target = folder / self.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write(target, budget)
        example = {} if self.example is None else {_EXAMPLE: self.example.text}
        for path, text in {**self.texts, **example}.items():
            place = folder / path
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(place, "w", encoding="utf-8", opener=files.private) as file:
                file.write(text)

    def described(self) -> dict[str, object]:
        """What the folder's other files are written from; JSON."""
        return {
            "flavors": {name: dict(options) for name, options in self.flavors.items()},
            "packages": _versions(self.packages),
            "python": platform.python_version(),
            "signature": self.signature and dict(self.signature),
            "example": self.example and {"artifact_path": _EXAMPLE, **self.example.form},
        }


@functools.lru_cache(maxsize=64)
def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each distribution."""
    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
