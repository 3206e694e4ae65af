"""What a campaign comes to: a summary as JSON, and the tables of ``docs/reliability.md``."""

from __future__ import annotations

import json
import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from campaign.schedule import KINDS

if TYPE_CHECKING:
    from campaign.play import Played

_DOCS = Path(__file__).parents[2] / "docs"
PAGE, FIGURES = _DOCS / "reliability.md", _DOCS / "reliability.json"
_FILLED = re.compile(r"(<!-- figures -->\n).*?(<!-- end of the figures -->)", re.DOTALL)


def summary(played: Iterable[Played], seconds: float) -> dict[str, Any]:
    """The figures of a campaign that took so many seconds."""
    episodes = sorted(played, key=lambda each: each.seed)
    hit = Counter(kind for each in episodes for kind in each.hit)
    missed = Counter(kind for each in episodes for kind in each.missed)
    return {
        "episodes": len(episodes),
        "first_seed": min((each.seed for each in episodes), default=None),
        "failed_seeds": [each.seed for each in episodes if each.verdict.problems],
        "faults": {kind: {"hit": hit[kind], "missed": missed[kind]} for kind in KINDS},
        "overlapping": sum(len(each.hit) > 1 for each in episodes),
        "synced_by_hand": sum(each.was_synced for each in episodes),
        "values": dict(sum((each.verdict.values for each in episodes), Counter())),
        "seconds": round(seconds),
        "versions": {
            "autolog": version("mlflow-autolog"),
            "mlflow": version("mlflow"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
        },
        "cores": os.cpu_count(),
    }


def fill_page() -> None:
    """Write the figures of `FIGURES` into `PAGE`."""
    PAGE.write_text(page(PAGE.read_text(), json.loads(FIGURES.read_text())))


def page(text: str, figures: Mapping[str, Any]) -> str:
    """A page with the figures of a campaign in its place for them."""
    return _FILLED.sub(lambda found: f"{found[1]}{_tables(figures)}\n{found[2]}", text)


def _tables(figures: Mapping[str, Any]) -> str:
    values, versions = Counter(figures["values"]), figures["versions"]
    failed = len(figures["failed_seeds"])
    outcome = f"{failed} failed" if failed else "none failed"
    where = ", ".join(f"{name} {release}" for name, release in versions.items())
    lines = [
        f"Episodes: {figures['episodes']:,}, from seed {figures['first_seed']} on; {outcome}.",
        f"Several faults hit one training in {figures['overlapping']:,} of them.",
        f"Nobody was left who sends in {figures['synced_by_hand']:,}: `autolog sync` was called.",
        f"It took {figures['seconds'] / 60:.0f} minutes on {figures['cores']} cores; {where}.",
        "",
        "| what became of the values of calls that had returned | values |",
        "| --- | --- |",
        f"| logged | {values['logged']:,} |",
        f"| stored, each once, in the right run | {values['stored']:,} |",
        f"| refused by the server, and in the dead letters | {values['refused']:,} |",
        f"| dropped on a full disk, counted and said | {values['dropped']:,} |",
        f"| behind a damaged byte in its segment, and said | {values['damaged']:,} |",
        "",
        "| fault | times |",
        "| --- | --- |",
        *(f"| {kind} | {counts['hit']:,} |" for kind, counts in figures["faults"].items()),
    ]
    return "\n".join(lines)
