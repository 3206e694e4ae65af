"""A short fault campaign; ``make faults`` plays a long one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from campaign.play import play
from campaign.schedule import KINDS, ROUND, episode

if TYPE_CHECKING:
    from support import MlflowServer


@pytest.mark.parametrize("seed", range(ROUND))
def test_an_episode(seed: int, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Whatever befalls a training, what it logged is stored once and right, or the loss is said."""
    played = play(episode(seed), mlflow_server, tmp_path / "episode")
    assert not played.verdict.problems, "\n".join([*played.account, *played.verdict.problems])


def test_a_seed_replays_a_schedule() -> None:
    """The same seed gives the same episode, and a round of them has every kind of fault."""
    assert episode(7) == episode(7)
    assert {fault.kind for seed in range(ROUND) for fault in episode(seed).faults} == set(KINDS)
