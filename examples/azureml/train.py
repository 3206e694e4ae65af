"""What the jobs of this folder run: a small classifier of digits, logged by one line.

In a job nothing has to be said about where to: the run is the one that the service opened.
"""

from __future__ import annotations

import argparse

from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import autolog


def main() -> None:
    """Train for some epochs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    epochs = parser.parse_args().epochs
    autolog.enable()
    x, y = load_digits(return_X_y=True)
    model = MLPClassifier((32,), max_iter=epochs, random_state=0)
    model.fit(x / 16, y)
    autolog.log_metric("accuracy", model.score(x / 16, y))


if __name__ == "__main__":
    main()
