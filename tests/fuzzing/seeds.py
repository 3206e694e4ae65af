"""Small journals made by the real writer, with every kind of record."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from journals import KEY, TARGET, lay_out, losses, open_journal, run_start

from autolog import held
from autolog.journal import layout
from autolog.journal.progress import Progress
from autolog.journal.writer import Journal
from autolog.recorder.run import Point, Run
from autolog.records import Artifact, Kind, Link, Metrics, Status
from autolog.targets import Target
from tests.fuzzing.packed import Packed

_INPUTS = '{"datasets":[{"dataset":{"name":"d","digest":"1","source_type":"x","source":"{}"}}]}'


def seeds(parent: Path) -> Iterator[Packed]:
    """Journals of a process that is over, of one that is not, set aside, half sent, in parts."""
    folder = parent / "seeds"
    journal = open_journal(folder / "j")
    run = _run(journal)
    for choices in range(3):
        yield Packed.from_folder(journal.folder, choices)
    run.end()
    yield Packed.from_folder(journal.folder, 1)
    content = [Metrics(1, ("a", "b"), (math.nan, 1.5), 7, 2000, (Link("m-1"), None))]
    for _ in range(2):
        held.set_aside(journal.folder, run.start, content)
    yield Packed.from_folder(journal.folder / layout.HELD / KEY, 2)
    lay_out(folder / "parts", [losses(3), losses(2), losses(1)])
    Progress(
        cursor=layout.position(1, layout.START),
        acknowledged=3,
        rejected={"no": 1},
        run_ids={KEY: "f" * 32},
        uploads=[[KEY, "1/a.txt", "a.txt", Kind.FILE]],
        filed={KEY: 1},
        damage=["segment 0, byte 8: no frame"],
        held={"e" * 32: {"no": 1}},
    ).store(folder / "parts")
    for choices in (1, 5, 17, 26):
        yield Packed.from_folder(folder / "parts", choices)
    shutil.rmtree(folder)


def _run(journal: Journal) -> Run:
    """An open run of every kind of record, with another one inside."""
    run = Run(journal, Target(TARGET), run_start(next(journal.ids), tags={"ä": "\udc80"}))
    run.log_params({"lr": 0.1, "name": "ö"})
    run.log_hook_params({"lr": 0.2})
    run.set_tags({"stage": "one"})
    run.files.log_text("hello", "notes/hello.txt")
    for step in range(3):
        run.log_metrics({"loss": step / 7, "acc/val": -step}, step)
    run.write_points([Point("linked", 1.0, 1, 2, Link("m-1", "data", "0a1b"))])
    run.write_inputs(_INPUTS)
    run.write_artifact(Artifact(run.number, "2/model.json", "model", Kind.MODEL))
    child = run_start(next(journal.ids), key="e" * 32, parent_key=KEY, experiment="e", run_id="r")
    Run(journal, Target(TARGET), child).end(Status.KILLED)
    run.resume()
    return run
