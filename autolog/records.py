"""What a journal holds: the record types, and how each is written as the body of a frame.

``docs/journal-format.md`` describes the same bytes for readers in other languages.
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

RUN, KEYS, METRICS, PARAMS, TAGS, ARTIFACT, END, INPUTS = range(1, 9)

_KEY = re.compile(r"[0-9a-f]{32}")  # becomes the name of a folder
_HEAD = struct.Struct("<BIIqq")  # kind, run, keys, timestamp, step; then one float64 a key


class Status:
    """How a run ended, in MLflow's words."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"

    RUNNING = "RUNNING"
    """It goes on: it was resumed."""
    LEFT = "LEFT"
    """Our own word: the process ended and leaves the run, as it is, to whoever goes on with it."""


class Kind:
    """What a spooled file is, and so what its upload makes of it."""

    FILE = "file"
    MODEL = "model"
    """The description of a model; what was serialised stands beside it: see `model_folder`."""
    REGISTRATION = "registration"
    """The description of a version to be made in the model registry."""


class Link(NamedTuple):
    """The model and the dataset that MLflow ties the values of a metric to."""

    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None


@dataclass(frozen=True, slots=True)
class RunStart:
    """A run begins, or one that exists is adopted."""

    run: int
    """Number of the run inside its journal."""
    key: str
    """32 hex digits, unique in the world; the tag ``autolog.run_key`` on the server."""
    name: str
    experiment: str | None
    experiment_id: str | None
    """Neither a name nor an id means MLflow's default experiment, ``"0"``."""
    tags: dict[str, str]
    parent_key: str | None
    """Run key of the parent, a run of the same group."""
    run_id: str | None
    """The server's id of an adopted run; None: the shipper creates the run."""
    owned: bool
    """False: the run belongs to the user or the platform and is never ended by us."""
    timestamp: int
    """Milliseconds since the epoch, as in every record."""

    @classmethod
    def new(
        cls,
        name: str,
        timestamp: int,
        *,
        key: str | None = None,
        experiment: str | None = None,
        experiment_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        parent_key: str | None = None,
        run_id: str | None = None,
        owned: bool = True,
    ) -> RunStart:
        """The start of a run that no journal has given a number yet; without a key of a new one."""
        return cls(
            run=0,
            key=key or uuid.uuid4().hex,
            name=name,
            experiment=experiment,
            experiment_id=experiment_id,
            tags=dict(tags or {}),
            parent_key=parent_key,
            run_id=run_id,
            owned=owned,
            timestamp=timestamp,
        )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Values of one step."""

    run: int
    keys: tuple[str, ...]
    values: tuple[float, ...]
    step: int
    timestamp: int
    links: tuple[Link | None, ...] = ()
    """One a name, or none at all."""


@dataclass(frozen=True, slots=True)
class Params:
    """Parameters of a run, as whole text; the shipper shortens what a server would refuse."""

    run: int
    params: dict[str, str]
    changed: dict[str, str] = field(default_factory=dict)
    """Later values of params whose first value stands."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of a run; the last one of a key stands."""

    run: int
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the journal's ``files`` folder, to be stored under ``path`` in the run."""

    run: int
    file: str
    path: str
    kind: str = Kind.FILE

    @property
    def places(self) -> tuple[str, ...]:
        """All that belongs to it in the ``files`` folder."""
        return (self.file, model_folder(self.file)) if self.kind == Kind.MODEL else (self.file,)

    @property
    def leads_elsewhere(self) -> bool:
        """Whether something of it is outside the ``files`` folder, or would be outside the run."""
        return not all(map(_leads_inside, (*self.places, self.path)))


@dataclass(frozen=True, slots=True)
class Inputs:
    """Datasets and models that a run used."""

    run: int
    content: str
    """The body of MLflow's ``runs/log-inputs``, without the run's id: JSON."""
    by_hooks: bool = False
    """Logged by hooks and not by the user: counted nowhere, and given up where it is not taken."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """A run ended, or its status changed in another way that `Status` names."""

    run: int
    status: str
    timestamp: int


def model_folder(description: str) -> str:
    """The folder of a spooled model, which stands beside its description."""
    return description.removesuffix(".json")


def _leads_inside(path: str) -> bool:
    """Whether a relative path with '/' stays inside the folder that it starts from."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts


Record = RunStart | Metrics | Params | Tags | Artifact | Inputs | RunEnd

_JSON: dict[int, type] = {
    RUN: RunStart,
    PARAMS: Params,
    TAGS: Tags,
    ARTIFACT: Artifact,
    INPUTS: Inputs,
    END: RunEnd,
}
_KIND = {cls: kind for kind, cls in _JSON.items()}


class Malformed(ValueError):
    """A frame's checksum is right, yet its body is no record of this format."""


def encode(record: Record) -> bytes:
    """The body of a record other than `Metrics`: a kind byte and UTF-8 JSON."""
    text = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))
    return bytes([_KIND[type(record)]]) + text.encode("utf-8", "surrogatepass")


def encode_keys(number: int, keys: tuple[str, ...], links: tuple[Link | None, ...] = ()) -> bytes:
    """The body that gives a tuple of metric names, with their links, its number in this segment."""
    content = [number, keys, links] if any(links) else [number, keys]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return bytes([KEYS]) + text.encode("utf-8", "surrogatepass")


def metrics_packer(size: int) -> Callable[..., bytes]:
    """A function that packs (METRICS, run, keys, timestamp, step, *values) for `size` keys."""
    return struct.Struct(f"<BIIqq{size}d").pack


class Decoder:
    """Turns the bodies of one segment, in their order, back into records."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[tuple[str, ...], tuple[Link | None, ...]]] = {}

    def decode(self, body: bytes) -> Record | None:
        """The record of a body; None for one that only declares metric names.

        Raises `Malformed`, whatever the bytes are; nothing is ever unpickled or evaluated.
        """
        try:
            if body[0] == METRICS:
                return self._metrics(body)
            content = json.loads(body[1:].decode("utf-8", "surrogatepass"))
            if body[0] == KEYS:
                self._declare(*content)
                return None
            return _checked(_JSON[body[0]](**content))
        except (IndexError, KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
            raise Malformed(f"{type(error).__name__}: {error}") from None

    def _declare(self, number: object, keys: object, links: object = ()) -> None:
        if type(number) is not int or not isinstance(keys, list):
            raise TypeError("a number and a list of names are expected")
        if links and not (isinstance(links, list) and len(links) == len(keys)):
            raise TypeError("a link a name is expected")
        given = tuple(map(_link, links)) if isinstance(links, list) else ()
        self._keys[number] = tuple(map(_text, keys)), given

    def _metrics(self, body: bytes) -> Metrics:
        _, run, number, timestamp, step = _HEAD.unpack_from(body)
        keys, links = self._keys[number]
        values = struct.unpack_from(f"<{len(keys)}d", body, _HEAD.size)
        if len(body) != _HEAD.size + 8 * len(keys):
            raise ValueError("length and names disagree")
        return Metrics(run, keys, values, step, timestamp, links)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text belongs")
    return value


def _link(value: object) -> Link | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} where a link belongs")
    return Link(*(None if part is None else _text(part) for part in value))


def _checked(record: Record) -> Record:
    """Compare a record built from JSON with the types it declares."""
    for name, declared in type(record).__annotations__.items():
        value = getattr(record, name)
        allowed = declared.split(" | ")
        if isinstance(value, dict):
            for key, text in value.items():
                _text(key), _text(text)
            kind = "dict[str, str]"
        else:
            kind = "None" if value is None else type(value).__name__
        if kind not in allowed:
            raise TypeError(f"{name} is {kind}, not {declared}")
        if name in ("key", "parent_key") and value is not None and not _KEY.fullmatch(value):
            raise ValueError(f"{name} is not 32 hex digits")
    if isinstance(record, Artifact) and record.leads_elsewhere:
        raise ValueError("file or path leads elsewhere")
    return record
