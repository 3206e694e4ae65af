"""Images of a classifier's predictions, drawn with matplotlib where that is installed.

On figures of their own: pyplot, its settings and its windows are the user's.
"""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_POINTS = 1000
_MOST_NAMED, _MOST_NUMBERED = 20, 8
"""Classes whose names, and whose shares, do not run into each other."""


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def confusion_matrix(matrix: Any, classes: Any) -> bytes:
    """Rows are true classes, columns predicted ones; values are shares of a row."""
    figure = _figure()
    axes = figure.subplots()
    shown = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown)
    axes.set(title="Normalized confusion matrix", xlabel="Predicted label", ylabel="True label")
    if len(classes) <= _MOST_NAMED:
        names = [str(name) for name in classes]
        axes.set_xticks(range(len(names)), labels=names, rotation=45)
        axes.set_yticks(range(len(names)), labels=names)
    if len(classes) <= _MOST_NUMBERED:
        for row, shares in enumerate(matrix):
            for column, share in enumerate(shares):
                color = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=color)
    return _png(figure)


def roc_curve(false_positives: Any, true_positives: Any) -> bytes:
    """The rate of true positives over that of false ones."""
    labels = {"xlabel": "False positive rate", "ylabel": "True positive rate"}
    return _line(false_positives, true_positives, title="ROC curve", **labels)


def precision_recall(recall: Any, precision: Any) -> bytes:
    """Precision over recall."""
    labels = {"xlabel": "Recall", "ylabel": "Precision"}
    return _line(recall, precision, title="Precision recall curve", **labels)


def _line(x: Any, y: Any, **labels: str) -> bytes:
    figure = _figure()
    axes = figure.subplots()
    every = max(1, len(x) // _MOST_POINTS)
    axes.plot([*x[::every], x[-1]], [*y[::every], y[-1]])
    axes.set(**labels)
    return _png(figure)


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(6.0, 4.0), dpi=100, layout="constrained")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
