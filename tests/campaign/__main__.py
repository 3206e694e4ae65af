"""``python tests/campaign``: trainings that everything happens to, judged by what arrives.

``--episodes 1000 --from 1`` plays the episodes of so many seeds; ``--seed N`` plays one of them
again and tells what was done. An episode that fails is told with its seed, and its folder is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from campaign import summary
from campaign.play import Played, play
from campaign.schedule import episode
from support import MlflowServer, memory_folder

_LANES_A_CORE = 3
"""Episodes that go on at a time: each waits for most of its time."""
_TOLD, _SHOWN = 50, 10
_PATIENCE = 300.0
"""Seconds that a server has to start: all begin at once."""


class Campaign:
    """Plays seeds in several lanes, each with a server of its own."""

    def __init__(self, folder: Path, *, is_verbose: bool) -> None:
        self._folder, self._is_verbose = folder, is_verbose
        self._lock = threading.Lock()
        self.played: list[Played] = []

    def run(self, seeds: range, lanes: int) -> None:
        """Play the episodes of all seeds."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for seed in seeds:
            waiting.put(seed)
        with ThreadPoolExecutor(lanes) as pool:
            for lane in [pool.submit(self._lane, n, waiting) for n in range(lanes)]:
                lane.result()

    def _lane(self, number: int, waiting: queue.SimpleQueue[int]) -> None:
        place = self._folder / f"server-{number}"
        place.mkdir()
        server = MlflowServer(place)
        try:
            server.start(_PATIENCE)
            while True:
                seed = waiting.get_nowait()
                folder = self._folder / f"episode-{seed}"
                self._tell(play(episode(seed), server, folder), folder)
        except queue.Empty:
            return
        finally:
            server.kill()

    def _tell(self, played: Played, folder: Path) -> None:
        problems = played.verdict.problems
        with self._lock:
            self.played.append(played)
            if problems or self._is_verbose:
                print(f"seed {played.seed}: {'FAILED' if problems else 'well'}, {folder}")
                print(*(f"  {line}" for line in [*played.account, *problems[:_SHOWN]]), sep="\n")
                print(f"  and {len(problems) - _SHOWN} more" if problems[_SHOWN:] else "")
            if len(self.played) % _TOLD == 0:
                print(f"{len(self.played)} episodes", flush=True)
        if not problems:
            shutil.rmtree(folder, ignore_errors=True)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/campaign", description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one episode, and tell what is done")
    parser.add_argument("--lanes", type=int, default=_LANES_A_CORE * (os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="a file for the summary")
    parser.add_argument("--page", action="store_true", help="only fill docs/reliability.md")
    given = parser.parse_args()
    if given.page:
        summary.fill_page()
        return 0
    if given.seed is not None:
        return _play(range(given.seed, given.seed + 1), 1, None)
    seeds = range(given.first, given.first + given.episodes)
    return _play(seeds, min(given.lanes, len(seeds)), given.json)


def _play(seeds: range, lanes: int, report: Path | None) -> int:
    """Play the episodes of all seeds; the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=memory_folder()))
    campaign, started = Campaign(folder, is_verbose=len(seeds) == 1), time.monotonic()
    campaign.run(seeds, lanes)
    result = summary.summary(campaign.played, time.monotonic() - started)
    if len(seeds) > 1:
        print(json.dumps(result, indent=2))
    if report is not None:
        report.write_text(json.dumps(result, indent=2) + "\n")
    for server in folder.glob("server-*"):
        shutil.rmtree(server, ignore_errors=True)
    if not result["failed_seeds"]:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(result["failed_seeds"])


if __name__ == "__main__":
    sys.exit(_main())
