"""Judges an episode: what the server has is compared with what the training has told.

A value of a call that has returned must be stored once, in its run; or stand in the dead letters;
or have been dropped and counted on a full disk; or stand behind a damaged byte, in its segment.
"""

from __future__ import annotations

import itertools
import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from campaign import truth

from autolog.feed import read_meta
from autolog.journal import layout, progress
from autolog.journal.root import journals
from autolog.standing import inspect

if TYPE_CHECKING:
    from campaign.schedule import Call
    from campaign.world import Spot, World
    from support import StoredRun

_SHORTAGES = ("dropped and counted", "nothing can be logged", "No space left")
"""Words of which one stands where values were dropped."""
_LARGEST = sys.float_info.max
_STATUS_BY_SIGNAL = {-signal.SIGKILL: "FAILED", -signal.SIGTERM: "KILLED"}


class Value(NamedTuple):
    """One thing that a call logs."""

    run: str
    kind: str
    key: str
    step: int | None
    content: float | str


class Fate(Enum):
    """What may become of what a call logs."""

    KEPT = "kept"
    """It was promised."""
    OPEN = "in flight"
    """The process died in the call: it may be there or not."""
    DROPPED = "dropped"
    """For want of room, and counted."""
    AT_RISK = "at risk"
    """It stands behind a damaged byte, in its segment."""


class Made(NamedTuple):
    """A call that was made, and what may become of it."""

    call: Call
    fate: Fate
    values: tuple[Value, ...]


@dataclass
class Verdict:
    """What came out."""

    problems: list[str] = field(default_factory=list)
    values: Counter[str] = field(default_factory=Counter)
    """Logged, stored, refused, dropped, and lost to damage."""


def judge(world: World) -> Verdict:
    """The verdict on a world that is settled."""
    return _Judge(world).verdict()


class _Judge:
    def __init__(self, world: World) -> None:
        self._world = world
        self._verdict = Verdict()
        self._journals = {meta.owner.pid: j for j in world.journals() if (meta := read_meta(j))}
        self._runs: dict[str, StoredRun] = {}

    def verdict(self) -> Verdict:
        host, child = self._made_by_host(), self._made_by_child()
        names = list(dict.fromkeys(made.call.run for made in host))
        for name in names:
            found = self._world.server.store.runs_named(name)
            if len(found) > 1:
                self._complain(f"{name} is there {len(found)} times")
            if found:
                self._runs[name] = found[0]
        self._judge_values([*host, *child])
        for name in names:
            self._judge_status(name, [made for made in host if made.call.run == name])
            self._judge_times(name)
        self._judge_account(host, self._world.host_pid)
        self._judge_account(child, self._world.child_pid)
        self._judge_words()
        return self._verdict

    def _complain(self, problem: str) -> None:
        self._verdict.problems.append(problem)

    # -- what was promised -----------------------------------------------------------------------

    def _made_by_host(self) -> list[Made]:
        calls = self._world.episode.workload.calls
        return list(self._made(calls, truth.HOST, self._world.host_pid))

    def _made_by_child(self) -> list[Made]:
        calls = self._world.episode.workload.child
        return list(self._made(calls, truth.CHILD, self._world.child_pid))

    def _made(self, calls: Iterable[Call], file: str, pid: int | None) -> Iterator[Made]:
        outcomes = truth.outcomes(self._world.folder / file)
        spots = [spot for spot in self._world.damaged if spot.journal == self._journals.get(pid)]
        if pid is None:
            return
        steps: Counter[tuple[str, str]] = Counter()
        for call, outcome in itertools.zip_longest(calls, outcomes):
            has_journal = outcome is None or outcome.dropped >= 0
            yield Made(call, _fate(outcome, spots), tuple(_values(call, steps, has_journal)))
            if outcome is None:
                return

    # -- values ----------------------------------------------------------------------------------

    def _judge_values(self, made: list[Made]) -> None:
        stored = Counter(self._stored())
        refused = Counter(self._refused())
        expected = [(value, each.fate) for each in made for value in each.values]
        for value, fate in expected:
            if value.kind == "tag":
                continue
            self._count(value, fate, stored[value], refused[value])
        self._judge_tags([pair for pair in expected if pair[0].kind == "tag"], stored, refused)
        for stranger in stored.keys() - {value for value, _ in expected}:
            self._complain(f"nobody logged {stranger}")

    def _count(self, value: Value, fate: Fate, stored: int, refused: int) -> None:
        counts = self._verdict.values
        counts["logged"] += fate is not Fate.OPEN
        if stored > 1:
            self._complain(f"stored {stored} times: {value}")
        if stored:
            counts["stored"] += 1
        elif refused:
            counts["refused"] += 1
        elif fate is Fate.DROPPED:
            counts["dropped"] += 1
        elif fate is Fate.AT_RISK:
            counts["damaged"] += 1
        elif fate is Fate.KEPT:
            self._complain(f"lost: {value}")

    def _judge_tags(
        self, expected: list[tuple[Value, Fate]], stored: Counter[Value], refused: Counter[Value]
    ) -> None:
        """The last value of each that was promised stands, or a later one."""
        by_key: dict[tuple[str, str], list[tuple[Value, Fate]]] = {}
        for value, fate in expected:
            by_key.setdefault((value.run, value.key), []).append((value, fate))
        for sets in by_key.values():
            may_stand: list[Value] = []
            for value, fate in reversed(sets):
                may_stand.append(value)
                if fate is Fate.KEPT and not refused[value]:
                    break
            else:
                continue
            if not any(stored[value] for value in may_stand):
                self._complain(f"the tag is not {may_stand[-1]}")

    def _stored(self) -> Iterator[Value]:
        calls = (*self._world.episode.workload.calls, *self._world.episode.workload.child)
        ours = {key for call in calls if call.verb == "tags" for key in call.content}
        for name, run in self._runs.items():
            for point in self._world.server.points(run.id):
                yield Value(name, "metric", point.key, point.step, _plain(point.value))
            for key, text in run.params.items():
                yield Value(name, "param", key, None, text)
            for key in ours & run.tags.keys():
                yield Value(name, "tag", key, None, run.tags[key])
            for path, content in self._world.server.artifacts(run.id).items():
                yield Value(name, "file", path, None, content.decode())

    def _refused(self) -> Iterator[Value]:
        """What stands in the dead letters."""
        names = {run.id: name for name, run in self._runs.items()}
        for line in self._lines(layout.REJECTED):
            letter = json.loads(line)
            run = names.get(letter["run_id"], "")
            for metric in letter.get("metrics", ()):
                yield Value(run, "metric", metric["key"], metric["step"], _plain(metric["value"]))
            for kind in ("param", "tag"):
                for key, text in letter.get(f"{kind}s", {}).items():
                    yield Value(run, kind, key, None, text)

    def _lines(self, name: str) -> Iterator[str]:
        for journal in journals(self._world.home):
            path = journal / name
            if path.exists():
                yield from path.read_text().splitlines()

    # -- runs ------------------------------------------------------------------------------------

    def _judge_status(self, name: str, made: list[Made]) -> None:
        opening, ending = made[0], made[-1] if made[-1].call.verb == "close" else None
        if name not in self._runs:
            if opening.fate is Fate.KEPT:
                self._complain(f"{name} is not there")
            return
        left = _STATUS_BY_SIGNAL.get(self._world.host_code, "FAILED")
        allowed = {left} if ending is None else {str(ending.call.content["status"])}
        if ending is not None and ending.fate is not Fate.KEPT:
            allowed.add(left)
        status = self._runs[name].status
        if status not in allowed:
            self._complain(f"{name} is {status}, not {' or '.join(sorted(allowed))}")

    def _judge_times(self, name: str) -> None:
        """Within a series no value is older than the one before."""
        if name not in self._runs:
            return
        series: dict[str, list[tuple[int, int]]] = {}
        for point in self._world.server.points(self._runs[name].id):
            series.setdefault(point.key, []).append((point.step, point.timestamp))
        for key, moments in series.items():
            times = [time for _, time in sorted(moments)]
            if times != sorted(times):
                self._complain(f"{key} of {name} goes back in time")

    # -- what was said ---------------------------------------------------------------------------

    def _judge_account(self, made: list[Made], pid: int | None) -> None:
        """A journal's account has each of its values once, as stored or as refused."""
        journal = self._journals.get(pid)
        if journal is None or any(spot.journal == journal for spot in self._world.damaged):
            return
        state = progress.load(journal)
        sure = sum(len(each.values) for each in made if each.fate is Fate.KEPT)
        perhaps = sum(len(each.values) for each in made if each.fate is Fate.OPEN)
        if not sure <= state.settled <= sure + perhaps:
            counts = f"{state.acknowledged} stored and {state.rejected} refused"
            self._complain(f"{journal.name}: {counts}, of {sure} to {sure + perhaps} logged")

    def _judge_words(self) -> None:
        """What is not on the server has been said, and nothing is left unsent."""
        for journal in journals(self._world.home):
            for line in inspect(journal).left():
                if "pending" in line or "refused before" in line:
                    self._complain(f"{journal.name}: {line}")
        said = (self._world.folder / truth.SAID).read_text()
        if self._verdict.values["dropped"] and not any(words in said for words in _SHORTAGES):
            self._complain("values were dropped, and nobody said so")
        if "internal error" in said or "Traceback" in said:
            self._complain(f"the training said: {said}")
        told = [line for journal in self._journals.values() for line in inspect(journal).damage]
        if self._verdict.values["damaged"] and not told:
            self._complain("values were lost to damage, and nobody said so")
        if told and not self._world.damaged:
            self._complain(f"damage that nobody did: {told}")


def _fate(outcome: truth.Outcome | None, spots: list[Spot]) -> Fate:
    if outcome is None:
        return Fate.OPEN
    if outcome.dropped:
        return Fate.DROPPED
    segment, end = layout.split(outcome.tail)
    is_behind = any(segment == spot.segment and end > spot.offset for spot in spots)
    return Fate.AT_RISK if is_behind else Fate.KEPT


def _values(call: Call, steps: Counter[tuple[str, str]], has_journal: bool) -> Iterator[Value]:
    """What a call logs; `steps` counts, by run and name, those that are given none."""
    kind = {"metrics": "metric", "params": "param", "tags": "tag", "artifact": "file"}
    for key, content in call.content.items() if call.verb in kind else ():
        step = call.step
        if call.verb == "metrics" and step is None:
            step = steps[call.run, key]
            steps[call.run, key] += has_journal
        yield Value(call.run, kind[call.verb], key, step, _plain(content))


def _plain(content: float | str) -> float | str:
    """What MLflow makes of a value, so that equal ones are equal here."""
    if isinstance(content, str):
        return content
    if math.isnan(content):
        return "NaN"
    return max(-_LARGEST, min(_LARGEST, content))
