"""``docs/journal-format.md`` is enough: a reader written from that page alone reads journals."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journals import KEY, TARGET, open_journal, run_start

from autolog.journal import layout, progress
from autolog.journal.progress import Progress
from autolog.recorder.run import Run
from autolog.records import RunStart
from autolog.targets import Target

PAGE = Path(__file__).parent.parent / "docs" / "journal-format.md"

# -- the reader: nothing of autolog in it ----------------------------------------------------------

KINDS = {1: "start", 4: "params", 5: "tags", 6: "artifact", 7: "end"}


def read_frames(folder: Path, tail: int) -> Iterator[tuple[int, bytes]]:
    """The segment and the body of each frame up to the tail."""
    segment = min(int(path.stem) for path in folder.glob("*.seg"))
    content, offset = (folder / f"{segment:06d}.seg").read_bytes(), 8
    assert content[:8] == b"autolog1"
    while (segment << 32 | offset) < tail:
        length, check = struct.unpack_from("<II", content, offset)
        size = 4 if length == 0xFFFFFFFF else length
        body = content[offset + 8 : offset + 8 + size]
        assert zlib.crc32(body) == check
        if length == 0xFFFFFFFF:
            segment = int.from_bytes(body, "little")
            content, offset = (folder / f"{segment:06d}.seg").read_bytes(), 8
            assert content[:8] == b"autolog1"
        else:
            yield segment, body
            offset += 8 + size


def read_records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a journal, each with its kind."""
    control = (folder / "control").read_bytes()
    assert control[:8] == b"autolog1"
    names: dict[tuple[int, int], list[str]] = {}
    for segment, body in read_frames(folder, int.from_bytes(control[8:16], "little")):
        if body[0] == 3:
            run, number, timestamp, step = struct.unpack_from("<IIqq", body, 1)
            keys = names[segment, number]
            values = struct.unpack_from(f"<{len(keys)}d", body, 25)
            point = {"run": run, "timestamp": timestamp, "step": step}
            yield "metrics", {**point, "values": dict(zip(keys, values, strict=True))}
            continue
        content = json.loads(body[1:].decode("utf-8", "surrogatepass"))
        if body[0] == 2:
            names[segment, content[0]] = content[1]
        else:
            yield KINDS[body[0]], content


# -- what it reads ---------------------------------------------------------------------------------


def write(folder: Path) -> Run:
    """A run of every kind of record over several segments."""
    journal = open_journal(folder)
    run = Run(journal, Target(TARGET), run_start(next(journal.ids), tags={"ä": "\udc80"}))
    run.log_params({"lr": 0.1, "name": "ö"})
    run.log_params({"lr": 0.2})
    run.files.log_text("hello", "notes/hello.txt")
    for step in range(3000):
        run.log_metrics({"loss": step / 7, "acc/val": -step}, step)
        if step % 1000 == 0:
            run.log_metrics({f"rare_{step}": math.inf}, -step)
    run.set_tags({"done": "yes"})
    run.end()
    return run


def test_a_reader_written_from_the_page_reads_every_record(tmp_path: Path) -> None:
    """All kinds, over several segments, with names and starts repeated in each."""
    run = write(tmp_path / "j")
    found = list(read_records(tmp_path / "j"))
    assert len(list((tmp_path / "j").glob("*.seg"))) > 2
    starts = [content for kind, content in found if kind == "start"]
    assert len(starts) == len(list((tmp_path / "j").glob("*.seg")))
    assert all(RunStart(**start) == run.start for start in starts)
    metrics = [content for kind, content in found if kind == "metrics"]
    assert {content["run"] for content in metrics} == {run.number}
    both = [(m["step"], m["values"]) for m in metrics if len(m["values"]) == 2]
    assert both == [(step, {"loss": step / 7, "acc/val": -step}) for step in range(3000)]
    rare = [(m["step"], m["values"]) for m in metrics if len(m["values"]) == 1]
    assert rare == [(-step, {f"rare_{step}": math.inf}) for step in range(0, 3000, 1000)]
    assert all(run.start.timestamp <= m["timestamp"] for m in metrics)
    others = [(kind, content) for kind, content in found if kind in ("params", "artifact", "end")]
    assert others[0] == (
        "params",
        {"run": run.number, "params": {"lr": "0.1", "name": "ö"}, "changed": {}},
    )
    assert others[1][1]["changed"] == {"lr": "0.2"}
    assert others[2][1]["path"] == "notes/hello.txt"
    assert (tmp_path / "j" / "files" / others[2][1]["file"]).read_text() == "hello"
    assert others[3] == ("end", {**others[3][1], "run": run.number, "status": "FINISHED"})


def test_the_page_names_every_field_and_file(tmp_path: Path) -> None:
    """Nothing that the code writes is missing on the page."""
    run = write(tmp_path / "j")
    page = PAGE.read_text(encoding="utf-8")
    written = {path.name for path in (tmp_path / "j").iterdir() if path.suffix != ".seg"}
    meta = json.loads((tmp_path / "j" / layout.META).read_text())
    fields = {field for _, content in read_records(tmp_path / "j") for field in content}
    account = {field.name for field in dataclasses.fields(Progress)}
    owner, known = set(meta.pop("owner")), {"step", "values"}
    for name in written | set(meta) | owner | (fields - known) | account:
        assert f"`{name}`" in page or f"`{name}/`" in page, name
    assert f"The format's number is {layout.FORMAT}." in page
    assert run.key == KEY


def test_progress_is_as_the_page_says(tmp_path: Path) -> None:
    """A line: the checksum of the JSON text, a space, the text."""
    Progress(cursor=7, run_ids={KEY: "id"}).store(tmp_path)
    line = (tmp_path / "progress.json").read_bytes()
    assert line.endswith(b"\n")
    assert f"{zlib.crc32(line[9:-1]):08x} ".encode() == line[:9]
    assert json.loads(line[9:])["run_ids"] == {KEY: "id"}
    assert progress.load(tmp_path).cursor == 7
