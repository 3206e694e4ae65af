"""The command line: ``autolog sync``, ``status``, ``clean``, ``doctor``, ``databricks-init``."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

import autolog
from autolog import cleaning, doctor, environment, settings
from autolog.access import Gate
from autolog.databricks_init import init_script
from autolog.journal.layout import HELD
from autolog.journal.owner import is_locked
from autolog.journal.root import SHIPPER_LOCK, group_of, journal_root, journals
from autolog.receipt import Sending, shipper_state
from autolog.standing import Standing, inspect
from autolog.syncing import Sync

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WIDE = 250
_FOLDERS = click.argument(
    "folders",
    metavar="[DIR]...",
    nargs=-1,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(autolog.__version__, prog_name="autolog")
def main() -> None:
    """Look after what autolog has logged on this machine.

    DIR is a journal, a group of journals, a journal root, or a copy of one of these; without it
    the journal root of this user (AUTOLOG_DIR) is meant.
    """


# -- sync ------------------------------------------------------------------------------------------


@main.command()
@_FOLDERS
@click.option("--to", metavar="URI", help="Send everything to this MLflow tracking URI.")
@click.option("--finish", is_flag=True, help="Take copies for complete: end their runs.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Leave a target that stands still for so long.",
)
def sync(folders: tuple[Path, ...], to: str | None, finish: bool, timeout: float) -> None:
    """Send what journals still hold, and exit with 0 when nothing is left.

    What is sent already is not sent again. Where a process is sending, its progress is shown.
    """
    root = _root()
    found = list(_found(folders or (root,)))
    if folders and not found:
        raise click.ClickException(f"no journal in {', '.join(map(str, folders))}")
    console = Console(stderr=True)
    display = _Bar(console) if console.is_terminal else _Lines()
    left = Sync(Gate(to, root), display, finish=finish, timeout=timeout).run(found)
    for remainder in left:
        _echo(f"left in {remainder.folder}")
        for reason in remainder.reasons:
            _echo(f"  {reason}")
    if left:
        sys.exit(1)
    _echo("nothing is left" if found else "there is nothing to send")


class _Bar:
    """Progress on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._problem = ""

    def start(self, title: str, total: int) -> None:
        """See `syncing.Display`."""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            console=self._console,
        )
        self._task = self._progress.add_task(_plain(title), total=total)
        self._problem = ""
        self._progress.start()

    def update(self, done: int, problem: str) -> None:
        """See `syncing.Display`."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done)
        if problem and problem != self._problem:
            self._console.print(_plain(problem), style="yellow", markup=False, highlight=False)
        self._problem = problem

    def stop(self) -> None:
        """See `syncing.Display`."""
        if self._progress is not None:
            self._progress.stop()


class _Lines:
    """Progress in a log file."""

    def __init__(self) -> None:
        self._title, self._done, self._problem = "", 0, ""

    def start(self, title: str, total: int) -> None:
        """See `syncing.Display`."""
        self._title, self._done, self._problem = title, 0, ""
        _echo(f"{title}: {total} values to send", err=True)

    def update(self, done: int, problem: str) -> None:
        """See `syncing.Display`."""
        self._done = done
        if problem and problem != self._problem:
            _echo(f"{self._title}: {problem}", err=True)
        self._problem = problem

    def stop(self) -> None:
        """See `syncing.Display`."""
        _echo(f"{self._title}: {self._done} values sent", err=True)


# -- status ----------------------------------------------------------------------------------------


@main.command()
@click.option("--check", is_flag=True, help="Exit with 1 unless everything is on its server.")
def status(check: bool) -> None:
    """Show the journals of this user, and how far each has been sent."""
    standings = [inspect(folder) for folder in _found((_root(),))]
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    for group, members in groupby(standings, key=lambda standing: group_of(standing.folder)):
        _show_group(console, group, list(members))
    if not standings:
        _echo(f"no journals in {_root()}")
    if check and not all(standing.is_complete for standing in standings):
        sys.exit(1)


def _show_group(console: Console, group: Path, members: list[Standing]) -> None:
    names = ("journal", "owner", "runs", "stored", "pending", "files", "refused", "damaged")
    table = Table(box=None, pad_edge=False)
    for name in names:
        numeric = name not in ("journal", "owner", "runs")
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for standing in members:
        counts = (
            standing.stored,
            standing.values,
            _files(standing),
            sum(standing.rejected.values()),
            len(standing.damage),
        )
        runs = "\n".join(map(_plain, standing.run_ids))
        name = _plain(str(standing.folder.relative_to(group)))
        table.add_row(name, standing.life.value, runs, *map(str, counts))
    targets = sorted({standing.target for standing in members if standing.target})
    _show(console, f"{', '.join(targets) or group.name}: {_sender(group)}")
    console.print(table)
    for standing in members:
        for line in standing.faults():
            _show(console, f"  {standing.folder.name}: {line}")
    console.print()


def _files(standing: Standing) -> str:
    return f"{standing.files} ({decimal(standing.bytes)})" if standing.files else "0"


def _show(console: Console, text: str) -> None:
    console.print(_plain(text), markup=False, highlight=False)


def _sender(group: Path) -> str:
    state = shipper_state(group)
    trouble = f", {state.problem}" if state.problem else ""
    if is_locked(group / SHIPPER_LOCK):
        return f"process {state.pid or 'unknown'} sends{_on_its_way(state.sending)}{trouble}"
    return f"nobody sends{trouble}"


def _on_its_way(file: Sending) -> str:
    return f" {file.path} ({decimal(file.sent)} of {decimal(file.size)})" if file.path else ""


# -- clean -----------------------------------------------------------------------------------------


def _seconds(_context: click.Context, _parameter: click.Parameter, age: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", age)
    if match is None:
        raise click.BadParameter(f"{age!r}: use a number and s, m, h or d, as in 7d")
    return float(match[1]) * _UNITS[match[2]]


@main.command()
@_FOLDERS
@click.option(
    "--older-than",
    metavar="AGE",
    callback=_seconds,
    default="0s",
    help="Only what is unchanged for so long: 7d, 12h, 30m.",
)
@click.option("--force", is_flag=True, help="Also what is not on a server yet: it is lost.")
def clean(folders: tuple[Path, ...], older_than: float, force: bool) -> None:
    """Remove journals whose content is on its server and whose process is gone."""
    whole = [f for f in _found(folders or (_root(),)) if f.parent.name != HELD]
    for folder in whole:
        verdict = cleaning.clean(folder, older_than, force=force, now=time.time())
        _echo(f"{folder}: {verdict}")


# -- doctor ----------------------------------------------------------------------------------------


@main.command("doctor")
def examine() -> None:
    """Say what autolog finds here, and what is wrong; the only command that tests the network."""
    findings = doctor.examine()
    for finding in findings:
        _echo(f"{'ok ' if finding.is_well else 'BAD'}  {finding.subject}: {finding.text}")
        if finding.remedy:
            _echo(f"     -> {finding.remedy}")
    if not all(finding.is_well for finding in findings):
        sys.exit(1)


# -- databricks-init -------------------------------------------------------------------------------


@main.command("databricks-init")
@click.option(
    "--to", metavar="URI", required=True, help="The MLflow tracking URI that notebooks log to."
)
@click.option("--experiment", metavar="NAME", help="The experiment of runs that name none.")
@click.option(
    "--package",
    metavar="SPEC",
    help="What pip installs, such as the path of a wheel. Default: this release.",
)
def databricks_init(to: str, experiment: str | None, package: str | None) -> None:
    """Print an init script for a Databricks cluster: all its notebooks then log to URI.

    Save it where the cluster can read it, and name it under Init Scripts in the cluster's settings.
    """
    try:
        click.echo(init_script(to, experiment, package), nl=False)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


# -- words ----------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """A text of a journal or a server, which must not steer the user's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _echo(text: str, *, err: bool = False) -> None:
    click.echo("\n".join(map(_plain, text.split("\n"))), err=err)


# -- folders ---------------------------------------------------------------------------------------


def _root() -> Path:
    chosen, _ = settings.resolve({}, environment.variables())
    try:
        return journal_root(chosen.dir)
    except OSError as error:
        raise click.ClickException(
            f"no folder for journals: {error}; set AUTOLOG_DIR to a writable one"
        ) from None


def _found(folders: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in folders:
        for journal in journals(folder):
            if journal not in seen:
                seen.add(journal)
                yield journal
