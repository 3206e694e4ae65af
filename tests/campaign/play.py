"""One episode, from the start of its training to the verdict."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from campaign.kinds import befall
from campaign.verdict import Verdict, judge
from campaign.world import Missed, World

if TYPE_CHECKING:
    from campaign.schedule import Episode
    from support import MlflowServer


@dataclass
class Played:
    """What there is to tell of an episode."""

    seed: int
    verdict: Verdict
    account: list[str]
    hit: list[str]
    """Kinds of fault that hit something."""
    missed: list[str]
    """Kinds of fault that found nothing to hit."""
    was_synced: bool
    """Whether somebody had to send by hand what the processes had left."""
    seconds: float


def play(episode: Episode, server: MlflowServer, folder: Path) -> Played:
    """Play an episode against a server that nobody else kills, in a folder that is made."""
    started = time.monotonic()
    hit: list[str] = []
    missed: list[str] = []
    world = World(episode, server, folder)
    try:
        with world:
            _befall(world, hit, missed)
            world.settle()
            verdict = judge(world)
    except Exception:  # noqa: BLE001 - whatever is wrong here fails this episode and no other
        verdict = Verdict([traceback.format_exc()])
    seconds = time.monotonic() - started
    return Played(episode.seed, verdict, world.account, hit, missed, world.was_synced, seconds)


def _befall(world: World, hit: list[str], missed: list[str]) -> None:
    """Begin and end each fault in its time."""
    faults = world.episode.faults
    moments = [(fault.at, fault) for fault in faults]
    moments += [(fault.at + fault.lasts, fault) for fault in faults]
    courses = {fault: befall(world, fault) for fault in faults}
    for moment, fault in sorted(moments, key=lambda pair: pair[0]):
        world.wait_until(moment)
        try:
            next(courses[fault], None)
        except Missed as reason:
            missed.append(fault.kind)
            world.note(f"{fault.kind} misses: {reason}")
    hit += [fault.kind for fault in faults if fault.kind not in missed]
