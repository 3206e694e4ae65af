"""A short fault campaign; ``make faults`` plays a long one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from campaign import summary
from campaign.play import play
from campaign.schedule import KINDS, ROUND, episode

if TYPE_CHECKING:
    from support import MlflowServer


@pytest.mark.timeout(600)  # that is for who has been stuck; one takes two seconds
@pytest.mark.parametrize("seed", range(ROUND))
def test_an_episode(seed: int, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Whatever befalls a training, what it logged is stored once and right, or the loss is said."""
    played = play(episode(seed), mlflow_server, tmp_path / "episode")
    assert not played.verdict.problems, "\n".join([*played.account, *played.verdict.problems])


def test_a_seed_replays_a_schedule() -> None:
    """The same seed gives the same episode, and a round of them has every kind of fault."""
    assert episode(7) == episode(7)
    assert {fault.kind for seed in range(ROUND) for fault in episode(seed).faults} == set(KINDS)


def test_the_page_has_the_figures_beside_it() -> None:
    """What docs/reliability.md says of a campaign is what docs/reliability.json has."""
    text = summary.PAGE.read_text()
    assert text == summary.page(text, json.loads(summary.FIGURES.read_text()))


def test_the_page_explains_every_kind_of_fault() -> None:
    """Each has its place in the first column of a table."""
    cells = re.findall(r"^\| ([^|]+) \|", summary.PAGE.read_text(), re.MULTILINE)
    explained = {kind for cell in cells for kind in cell.split(", ")}
    assert set(KINDS) <= explained
