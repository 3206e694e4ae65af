"""What happens in an episode: a training of known values, and the faults that befall it.

Pure: the same seed gives the same episode, and no clock is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

KINDS = (
    *("kill host", "terminate host", "kill shipper", "kill both", "pause host", "pause shipper"),
    *("kill server", "refuse", "cut", "stall", "reset", "slow", "lose replies"),
    *("401", "403", "404", "413", "429", "500", "503"),
    *("page", "half JSON", "empty"),
    *("expire credential", "fill disk", "damage", "damage the dead"),
    *("shift clock", "fork"),
)
"""Of faults; each is a function of that name in `kinds.py`."""

_CALLS = 250
_PAUSE = 0.004
_MOST_FAULTS = 3
_EARLY_SHARE = 0.2
_LATEST, _SHORTEST, _LONGEST = 0.8, 0.1, 0.8
_WIDTHS = (1, 3, 10, 30)
_WIDEST = 150
"""Names a call where a disk is to become full."""
_ODD = (math.nan, math.inf, -math.inf, 0.0, -1e-300, 1e300)
ROUND = len(KINDS) + 1
"""Seeds in a row with every kind of fault, and one training that logs files: they take seconds."""


class Call(NamedTuple):
    """One call of the training: a verb of autolog with what it is given."""

    verb: str
    """``open``, ``close``, ``metrics``, ``params``, ``tags``, ``artifact`` or ``fork``."""
    run: str
    """The run that is current then."""
    content: Mapping[str, float | str] = {}
    step: int | None = None


@dataclass(frozen=True)
class Workload:
    """What is logged, call by call, with a pause of so many seconds behind each."""

    calls: tuple[Call, ...]
    child: tuple[Call, ...] = ()
    """What a forked process logs from the call ``fork`` on."""
    pause: float = _PAUSE

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Workload:
        """The workload that ``dataclasses.asdict`` made this of, JSON in between or not."""
        calls, child = (tuple(Call(*each) for each in content[name]) for name in ("calls", "child"))
        return cls(calls, child, content["pause"])


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, in seconds since the first call returned."""

    kind: str
    at: float
    lasts: float
    choice: int
    """Which one of several: statuses, places, forms."""


@dataclass(frozen=True)
class Episode:
    """A training, and its faults in the order in which they begin."""

    seed: int
    workload: Workload
    is_early: bool
    """Whether the faults begin while the process that sends is not there yet."""
    faults: tuple[Fault, ...]

    def has(self, *kinds: str) -> bool:
        """Whether one of these is among its faults."""
        return any(fault.kind in kinds for fault in self.faults)


def episode(seed: int) -> Episode:
    """The episode of a seed; any `ROUND` of them in a row have every kind of fault."""
    chance, place = Random(seed), seed % ROUND
    kinds = [*KINDS[place : place + 1], *chance.choices(KINDS, k=chance.randrange(_MOST_FAULTS))]
    faults = [_fault(chance, kind) for kind in dict.fromkeys(kinds)]
    has_files = place == len(KINDS)
    workload = _Composer(chance, f"episode-{seed}", kinds, has_files).workload()
    is_early = chance.random() < _EARLY_SHARE
    return Episode(seed, workload, is_early, tuple(sorted(faults, key=lambda fault: fault.at)))


def _fault(chance: Random, kind: str) -> Fault:
    at = round(chance.uniform(0, _LATEST), 3)
    lasts = round(chance.uniform(_SHORTEST, _LONGEST), 3)
    return Fault(kind, at, lasts, chance.randrange(1 << 16))


class _Composer:
    """Makes up a training, so that every value in it can be told from every other one."""

    def __init__(self, chance: Random, name: str, kinds: list[str], has_files: bool) -> None:
        self._chance, self._name, self._has_files = chance, name, has_files
        self._forks = "fork" in kinds
        self._width = _WIDEST if "fill disk" in kinds else chance.choice(_WIDTHS)
        self._run_count = self._params = 0

    def workload(self) -> Workload:
        shares = self._chance.choice(((1.0,), (0.5, 0.5), (0.6, 0.2, 0.2)))
        calls = [call for share in shares for call in self._run(round(_CALLS * share))]
        if not self._forks:
            return Workload(tuple(calls))
        early = range(len(calls) // 2)
        place = self._chance.choice([i for i in early if calls[i].verb != "close"])
        run = calls[place].run
        calls.insert(place + 1, Call("fork", run))
        return Workload(tuple(calls), tuple(self._steps(run, "child", _CALLS // 2)))

    def _run(self, count: int) -> Iterator[Call]:
        """A run of about so many calls, perhaps with a child run inside."""
        self._run_count += 1
        name = f"{self._name}-{self._run_count}"
        yield Call("open", name)
        inner = self._chance.randrange(2) * count // 4
        yield from self._steps(name, "m", count - inner)
        if inner:
            yield from self._run(inner)
        status = self._chance.choice(("FINISHED", "FINISHED", "FAILED"))
        yield Call("close", name, {"status": status})

    def _steps(self, run: str, prefix: str, count: int) -> Iterator[Call]:
        for step in range(count):
            yield Call("metrics", run, self._metrics(prefix, step), step)
            if self._chance.random() < 0.1:
                yield self._other(run, prefix, step)

    def _metrics(self, prefix: str, step: int) -> dict[str, float]:
        values = {f"{prefix}{i}": step + i / 1024 for i in range(self._width)}
        if self._chance.random() < 0.05:
            values[f"{prefix}-odd"] = self._chance.choice(_ODD)
        return values

    def _other(self, run: str, prefix: str, step: int) -> Call:
        verb = self._chance.choice(("params", "tags", "automatic", "artifact"))
        if verb == "params":
            self._params += 1
            texts = {f"{prefix}-p{self._params}.{i}": f"{step}" for i in range(3)}
            return Call("params", run, texts)
        if verb == "tags":
            return Call("tags", run, {f"{prefix}-tag": f"{step}"})
        if verb == "artifact" and self._has_files:
            return Call("artifact", run, {f"{prefix}-{step}.txt": "x" * step})
        return Call("metrics", run, {f"{prefix}-automatic": float(step)})
