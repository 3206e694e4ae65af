"""The results in the docs: a JSON file that keeps them, tables and plots that are made from it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from figures import Figure, machine

from peers.contenders import Contender
from peers.tables import Results, Rows, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAGE, _JSON, _PLOTS = "benchmarks.md", "benchmarks.json", "benchmarks"
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"


class Measurement(Protocol):
    """What a module offers that measures something."""

    TITLE: str

    def measure(self, bench: Any) -> Rows:
        """Do it."""

    def figures(self, results: Results) -> list[Figure]:
        """What there is a target for, from the rows of all measurements by their names."""

    def section(self, rows: Rows) -> str:
        """The table."""

    def plot(self, rows: Rows, axes: Axes) -> None:
        """The picture."""


class Report:
    """What was measured so far; a measurement replaces its earlier self.

    Args:
        folder: Of the docs, with a page that has the two marks.
        measurements: By name, in the order of the page.
    """

    def __init__(self, folder: Path, measurements: Mapping[str, Measurement]) -> None:
        self._folder = folder
        self._measurements = measurements
        path = folder / _JSON
        self._kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, name: str, rows: Rows, contenders: list[Contender]) -> None:
        """Write the rows of a measurement into the JSON, with what they are from."""
        self._kept[name] = {
            "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
            "machine": machine(),
            "contenders": {
                each.name: {"version": each.version, "to": each.to, "call": each.call}
                for each in contenders
            },
            "rows": rows,
        }
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self._kept.items()]
        (self._folder / _JSON).write_text("{\n" + ",\n".join(lines) + "\n}\n")

    def figures(self) -> list[Figure]:
        """All that there is a target for, of what was measured."""
        results = {name: kept["rows"] for name, kept in self._kept.items()}
        return [
            figure
            for name, measurement in self._measurements.items()
            if name in results
            for figure in measurement.figures(results)
        ]

    def write(self) -> None:
        """Draw the plots, and write all between the marks of the page anew."""
        page = self._folder / _PAGE
        before, rest = page.read_text().split(BEGIN)
        _, after = rest.split(END)
        page.write_text(f"{before}{BEGIN}\n\n{self._text()}\n\n{END}{after}")

    def _text(self) -> str:
        return "\n\n".join([self._about(), *self._sections(), self._targets()])

    def _about(self) -> str:
        contenders = {
            name: about
            for kept in self._kept.values()
            for name, about in kept["contenders"].items()
        }
        lines = [
            [name, about["version"], about["to"], about["call"]]
            for name, about in contenders.items()
        ]
        return table(["", "version", "where to", "a step of ten metrics"], lines)

    def _sections(self) -> Iterator[str]:
        for name, measurement in self._measurements.items():
            if name in self._kept:
                kept = self._kept[name]
                yield f"### {measurement.TITLE}"
                yield measurement.section(kept["rows"])
                yield f"![{measurement.TITLE}]({self._drawn(name, measurement, kept['rows'])})"
                about = kept["machine"]
                yield (
                    f"Measured on {kept['date']}: {about['cores']} cores, {about['processor']}, "
                    f"{about['system']}, Python {about['python']}, MLflow {about['mlflow']}."
                )

    def _drawn(self, name: str, measurement: Measurement, rows: Rows) -> str:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Drawing

        with mpl.rc_context({"svg.hashsalt": "autolog"}):  # equal results, an equal file
            drawing = Drawing(figsize=(8, 4.5), layout="constrained")
            measurement.plot(rows, drawing.subplots())
            folder = self._folder / _PLOTS
            folder.mkdir(exist_ok=True)
            drawing.savefig(folder / f"{name}.svg", metadata={"Date": None})
        return f"{_PLOTS}/{name}.svg"

    def _targets(self) -> str:
        lines = [
            [
                figure.name,
                f"{figure.value:,.3g} {figure.unit}".strip(),
                f"{'at least' if figure.higher_is_better else 'at most'} {figure.target:,.3g}",
                "met" if figure.is_met else "**missed**",
            ]
            for figure in self.figures()
        ]
        return "### Targets\n\n" + table(["", "measured", "target", ""], lines)
