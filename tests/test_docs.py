"""The pages, held to the code: snippets run, links lead somewhere, tables are what they say.

Every ``python``, ``bash`` and ``console`` block runs. The Python blocks of a page are one program,
in their order; the shell blocks follow in the same folder. A comment on the line above a block
changes that:

``<!-- new process -->``
    This block begins another program.
``<!-- checked by tests/test_x.py -->``
    That test does what the block says (installs, long runs); here only its names are looked up.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from support import run_script

import autolog
from autolog.settings import Settings, resolve, variable

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCS, *(page for page in sorted(ROOT.glob("*.md")) if page != README)]

NEW_PROCESS = "new process"
CHECKED_BY = "checked by "

ALL_IS_SENT = """
import sys
if "autolog" in sys.modules:
    receipt = sys.modules["autolog"].flush(60)
    assert receipt.complete, receipt
"""


class Block(NamedTuple):
    """A fenced block, and the comment above it."""

    mark: str
    language: str
    code: str


_BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _blocks(page: Path) -> list[Block]:
    return [Block(*found.groups("")) for found in _BLOCK.finditer(page.read_text())]


def _is_run_here(block: Block) -> bool:
    return not block.mark.startswith(CHECKED_BY)


def _programs(blocks: list[Block]) -> list[str]:
    """The Python programs of a page."""
    programs: list[str] = []
    for block in blocks:
        if block.language == "python" and _is_run_here(block):
            if block.mark == NEW_PROCESS or not programs:
                programs.append("")
            programs[-1] += f"{block.code}\n"
    return programs


def _shell_scripts(blocks: list[Block]) -> Iterator[str]:
    """The shell blocks of a page; of a ``console`` block what stands behind its prompts."""
    for block in blocks:
        if block.language == "bash" and _is_run_here(block):
            yield block.code
        elif block.language == "console" and _is_run_here(block):
            yield "\n".join(re.findall(r"^\$ (.*)$", block.code, re.MULTILINE))


def _prose(page: Path) -> Iterator[str]:
    """The lines of a page that are sentences, without markup."""
    text = re.sub(r"<!--.*?-->", "", _BLOCK.sub("", page.read_text()), flags=re.DOTALL)
    for line in text.splitlines():
        words = re.sub(r"`[^`]+`", "code", re.sub(r"\]\([^)]*\)", "]", line)).strip()
        if words and words[0] not in "#|!":  # nor is a picture
            yield words


def _has_snippets(page: Path) -> bool:
    return bool(_programs(_blocks(page)) or [*_shell_scripts(_blocks(page))])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", filter(_has_snippets, DOCS), ids=_name)
def test_the_snippets_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In the reader's order, in fresh processes; and what they log arrives."""
    folder = tmp_path / "page"
    folder.mkdir()
    for program in _programs(_blocks(page)):
        done = run_script(program + ALL_IS_SENT, cwd=folder, timeout=150)
        assert done.returncode == 0, f"{program}\n{done.stdout}\n{done.stderr}"
        assert "internal error" not in done.stderr
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for script in _shell_scripts(_blocks(page)):
        shell = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert shell.returncode == 0, f"{script}\n{shell.stdout}\n{shell.stderr}"


@pytest.mark.parametrize("page", DOCS, ids=_name)
def test_every_block_is_found(page: Path) -> None:
    """A fence that the pattern above does not know would hide a snippet from its test."""
    fences = re.findall(r"^ *(?:```|~~~)", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(_blocks(page))


def test_every_mark_on_a_block_is_known() -> None:
    """A block that is not run here names the test that does it; commands and files are there."""
    extras = metadata("mlflow-autolog").get_all("Provides-Extra") or []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for mark, language, code in (block for page in DOCS for block in _blocks(page) if block.mark):
        if mark == NEW_PROCESS:
            continue
        assert mark.startswith(CHECKED_BY)
        assert (ROOT / mark.removeprefix(CHECKED_BY)).is_file()
        for line in code.splitlines() if language != "python" else ():
            command, *words = shlex.split(line, comments=True)
            assert command != "make" or set(words) <= set(targets)
            for word in words:
                if extra := re.fullmatch(r"\.\[(.+)\]", word):
                    assert set(extra[1].split(",")) <= set(extras)
                elif "/" in word and not word.startswith("-"):
                    assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a page, a file or a heading finds it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in map(_anchor, re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_page_can_be_reached() -> None:
    """Each page in docs/ is linked from another page."""
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    }
    assert set(DOCS) - {README} <= linked


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_sentence_has_a_line_of_its_own(page: Path) -> None:
    """No line holds two sentences, and no sentence is broken."""
    for line in _prose(page):
        assert not re.search(r"[.!?][)\"*_]* +\S", re.sub(r"^\d+\. ", "", line)), line
        assert re.search(r"[.:!?][)\"*_]*$", line) or re.match(r"[-*] |\d+\. ", line), line


def test_the_settings_table_is_that_of_the_code() -> None:
    """Names, variables, defaults and meanings; and `enable` has no option that is no setting."""
    destinations = {"tracking_uri", "workspace", "experiment"}
    options = inspect.signature(autolog.enable).parameters.keys() - destinations
    assert options <= {field.name for field in fields(Settings)}
    rows = ["| variable | `enable()` | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields(Settings):
        option = f"`{field.name}`" if field.name in options else ""
        default = _shown(field.name, field.default)
        meaning = field.metadata["text"]
        rows.append(f"| `{variable(field.name)}` | {option} | {default} | {meaning} |")
    table = "\n".join(rows)
    assert table in README.read_text(), f"\n{table}"


def _shown(name: str, default: object) -> str:
    if isinstance(default, bool):
        return "1" if default else "0"
    if isinstance(default, float):
        return f"{default:g} s"
    if isinstance(default, int):
        return f"{default} ({default >> 20} MiB)" if default >> 20 else str(default)
    return "" if default is None else str(default)


def test_every_variable_of_the_table_works() -> None:
    """Each can be set from the environment, and its value is the one given."""
    texts = {
        **dict.fromkeys(("disabled", "strict", "silent", "exclusive"), "1"),
        **dict.fromkeys(("training_metrics", "checkpoint", "log_input_examples"), "1"),
        **dict.fromkeys(("log_models", "log_model_signatures"), "0"),
        "log_datasets": "0",
        "mode": "offline",
        "dir": "/journals",
        "extra_tags": '{"team": "vision"}',
    }
    for field in fields(Settings):
        text = texts.get(field.name, "4000000")
        chosen, origins = resolve({}, {variable(field.name): text})
        assert origins[field.name] == variable(field.name)
        assert getattr(chosen, field.name) != field.default


def test_every_public_name_is_explained() -> None:
    """What ``import autolog`` offers is in the README or in docs/."""
    text = "\n".join(page.read_text() for page in DOCS)
    missing = [name for name in autolog.__all__ if not re.search(rf"`(autolog\.)?{name}\b", text)]
    assert not missing


def test_the_floor_plan_names_every_file() -> None:
    """docs/architecture.md gives each source file its one reason to change, and no other one."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    plan = page.partition("\n| file |")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", plan, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]
    sources = [*(ROOT / "callbacks").rglob("*.py"), *(ROOT / "autolog").rglob("*.py")]
    assert sorted(named) == sorted({_in_the_plan(path) for path in sources})


def _in_the_plan(source: Path) -> str:
    """A source file's name there: its path in the package, of a package's own file the folder."""
    name = source.relative_to(ROOT).as_posix().removeprefix("autolog/")
    return name if name == "__init__.py" else name.removesuffix("__init__.py")
