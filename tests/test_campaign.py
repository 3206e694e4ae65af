"""A short fault campaign; ``make faults`` plays a long one."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from campaign import summary
from campaign.play import play
from campaign.schedule import KINDS, ROUND, episode
from campaign.verdict import judge
from campaign.world import World

if TYPE_CHECKING:
    from support import MlflowServer


@pytest.mark.timeout(600)  # that is for who has been stuck; one takes two seconds
@pytest.mark.parametrize("seed", range(ROUND))
def test_an_episode(seed: int, mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Whatever befalls a training, what it logged is stored once and right, or the loss is said."""
    played = play(episode(seed), mlflow_server, tmp_path / "episode")
    assert not played.verdict.problems, "\n".join([*played.account, *played.verdict.problems])


DEEDS = {
    "DELETE FROM metrics WHERE run_uuid = :run AND key = 'm0' AND step = 3": "lost: ",
    "UPDATE metrics SET value = 0.25 WHERE run_uuid = :run AND key = 'm0' AND step = 3": "nobody",
    "INSERT INTO metrics SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM metrics"
    " WHERE run_uuid = :run AND key = 'm0' AND step = 3": "stored 2 times",
    "UPDATE metrics SET timestamp = 1 WHERE run_uuid = :run AND step = 9": "back in time",
    "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = :run": "is RUNNING",
    "UPDATE runs SET name = 'other' WHERE run_uuid = :run": "is not there",
}
"""What somebody does to a run on the server, and what the judge says then."""


def test_a_judge_finds_what_is_wrong(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """Without a fault there is nothing to say; whatever is wrong on the server is said."""
    quiet = replace(episode(ROUND), faults=())  # whose runs no other test has
    store = mlflow_server.store.uri.removeprefix("sqlite:///")
    with World(quiet, mlflow_server, tmp_path / "episode") as world:
        world.settle()
        assert judge(world).problems == []
        (run,) = mlflow_server.store.runs_named(quiet.workload.calls[0].run)
        for deed, complaint in DEEDS.items():
            with (
                contextlib.closing(sqlite3.connect(store, timeout=30)) as database,
                contextlib.closing(sqlite3.connect(":memory:")) as as_it_was,
            ):
                database.backup(as_it_was)
                database.execute(deed, {"run": run.id})
                database.commit()
                assert any(complaint in problem for problem in judge(world).problems), deed
                as_it_was.backup(database)
        assert judge(world).problems == []


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
