"""Judges an episode: what the server has is compared with what the training has told.

A value of a call that has returned must be stored once, in its run; or stand in the dead letters;
or have been dropped and counted on a full disk; or stand behind a damaged byte, in its segment.
"""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from campaign import truth
from campaign.promises import Fate, Made, Value, made, plain

from autolog.feed import read_meta
from autolog.journal import layout, progress
from autolog.journal.root import journals
from autolog.standing import inspect

if TYPE_CHECKING:
    from campaign.schedule import Call
    from campaign.world import World
    from support import StoredRun

_SHORTAGES = ("dropped and counted", "nothing can be logged", "No space left")
"""Words of which one stands where values were dropped."""
_STATUS_BY_SIGNAL = {-signal.SIGKILL: "FAILED", -signal.SIGTERM: "KILLED"}


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
        self._refused_files = 0

    def verdict(self) -> Verdict:
        world, workload = self._world, self._world.episode.workload
        host = self._made(workload.calls, truth.HOST, world.host_pid)
        child = self._made(workload.child, truth.CHILD, world.child_pid)
        names = list(dict.fromkeys(each.call.run for each in host))
        for name in names:
            found = world.server.store.runs_named(name)
            if len(found) > 1:
                self._complain(f"{name} is there {len(found)} times")
            if found:
                self._runs[name] = found[0]
        self._judge_values([*host, *child])
        for name in names:
            self._judge_status(name, [each for each in host if each.call.run == name])
            self._judge_times(name)
        self._judge_account(host, world.host_pid)
        self._judge_account(child, world.child_pid)
        self._judge_words()
        return self._verdict

    def _complain(self, problem: str) -> None:
        self._verdict.problems.append(problem)

    def _made(self, calls: Iterable[Call], file: str, pid: int | None) -> list[Made]:
        """The calls of a process."""
        if pid is None:
            return []
        spots = [spot for spot in self._world.damaged if spot.journal == self._journals.get(pid)]
        return list(made(calls, truth.outcomes(self._world.folder / file), spots))

    # -- values ----------------------------------------------------------------------------------

    def _judge_values(self, calls: list[Made]) -> None:
        stored = Counter(self._stored())
        refused = Counter(self._refused())
        counted = sum(sum(progress.load(j).rejected.values()) for j in self._journals.values())
        self._refused_files = counted - refused.total()  # which are counted, but are no letters
        expected = [(value, each.fate) for each in calls for value in each.values]
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
        elif value.kind == "file" and self._refused_files > 0:
            self._refused_files -= 1
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
                yield Value(name, "metric", point.key, point.step, plain(point.value))
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
                yield Value(run, "metric", metric["key"], metric["step"], plain(metric["value"]))
            for kind in ("param", "tag"):
                for key, text in letter.get(f"{kind}s", {}).items():
                    yield Value(run, kind, key, None, text)

    def _lines(self, name: str) -> Iterator[str]:
        for journal in journals(self._world.home):
            path = journal / name
            if path.exists():
                yield from path.read_text().splitlines()

    # -- runs ------------------------------------------------------------------------------------

    def _judge_status(self, name: str, calls: list[Made]) -> None:
        opening, ending = calls[0], calls[-1] if calls[-1].call.verb == "close" else None
        if name not in self._runs:
            if opening.fate is Fate.KEPT:
                self._complain(f"{name} is not there")
            return
        left = _STATUS_BY_SIGNAL.get(self._world.host_code, "FAILED")
        allowed = {left} if ending is None else {str(ending.call.content["status"])}
        if ending is not None and ending.fate is not Fate.KEPT:
            allowed.add(left)
        if opening.fate is Fate.AT_RISK:
            allowed.add("RUNNING")  # opened by a child, while who is to end it cannot be read
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

    def _judge_account(self, calls: list[Made], pid: int | None) -> None:
        """A journal's account has each of its values once, as stored or as refused."""
        journal = self._journals.get(pid)
        if journal is None or any(spot.journal == journal for spot in self._world.damaged):
            return
        state = progress.load(journal)
        sure = sum(len(each.values) for each in calls if each.fate is Fate.KEPT)
        perhaps = sum(len(each.values) for each in calls if each.fate is Fate.OPEN)
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
