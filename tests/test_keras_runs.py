"""Which run a Keras training or evaluation is logged to, and where on its axis."""

from __future__ import annotations

import gc
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import keras
from keras_trainings import X, Y, eager_model, fit, model
from logged import Logged, only

import autolog
from autolog.callbacks.keras import AutologCallback

if TYPE_CHECKING:
    import pytest


class TestRuns:
    def test_fits_of_one_model_in_the_users_run(self, logged: Logged) -> None:
        """The epochs go on where they ended, or at initial_epoch where the user counts himself."""
        made = eager_model()
        with autolog.run("mine"):
            fit(made)
            fit(made)
            fit(made, initial_epoch=4, epochs=6)
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(6))

    def test_five_fits_in_an_adopted_run(
        self, logged: Logged, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In the run of a platform the fits of one model are one axis, and nobody ends the run."""
        monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
        made = eager_model()
        for _ in range(5):
            fit(made)
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(10))
        assert (run.start.run_id, run.start.owned, run.status) == ("0123", False, None)

    def test_ten_trainings_in_an_adopted_run(
        self, logged: Logged, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """The first one uses it, the other nine are its children."""
        monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
        models = [eager_model() for _ in range(10)]
        for made in models:
            fit(made, epochs=1)
        adopted, *children = logged()
        assert adopted.start.run_id == "0123"
        assert [run.status for run in children] == ["FINISHED"] * 9
        for run in (adopted, *children):
            assert [step for step, _ in run.metrics["epoch_loss"]] == [0]
            assert run.start.parent_key == (None if run is adopted else adopted.start.key)
        assert capfd.readouterr() == ("", "")

    def test_five_fits_of_one_model(self, logged: Logged) -> None:
        """Outside of a run each is a run of its own, from epoch 0."""
        made = eager_model()
        for _ in range(5):
            fit(made)
        assert [[step for step, _ in run.metrics["epoch_loss"]] for run in logged()] == [[0, 1]] * 5

    def test_many_fits(self, logged: Logged, capfd: pytest.CaptureFixture[str]) -> None:
        """Fits in a loop are as many runs and a few lines, and leave nothing in this integration.

        Thirty of them: what is left by each would show, and 500 take a minute.
        """
        autolog.enable(silent=False)
        made = model()
        fit_method, left = keras.Model.fit, []
        for number in range(30):
            made.fit(X, Y, verbose=0, callbacks=[AutologCallback()] if number % 2 else None)
            if number in (9, 29):
                gc.collect()
                left.append(Counter(filter(_OURS.match, map(_kind, gc.get_objects()))))
        assert left[0] == left[1]
        assert keras.Model.fit is fit_method
        assert len(logged()) == len({run.start.key for run in logged()}) == 30
        assert {run.status for run in logged()} == {"FINISHED"}
        assert all([step for step, _ in run.metrics["epoch_loss"]] == [0] for run in logged())
        lines = [line for line in capfd.readouterr().err.splitlines() if "autolog" in line]
        assert 0 < len(lines) < 12

    def test_initial_epoch(self, logged: Logged) -> None:
        """The steps are Keras' own epochs."""
        fit(eager_model(), initial_epoch=3, epochs=5)
        assert [step for step, _ in only(logged()).metrics["epoch_loss"]] == [3, 4]

    def test_evaluation_alone(self, logged: Logged) -> None:
        """An evaluation logs its metrics as test_<name>; return values are Keras' own."""
        found = eager_model().evaluate(X, Y, verbose=0, return_dict=True)
        run = only(logged())
        assert run.metrics == {f"test_{name}": [(0, value)] for name, value in found.items()}
        assert run.status == "FINISHED"

    def test_evaluation_after_a_fit_in_the_users_run(self, logged: Logged) -> None:
        """It stands at the last epoch that the model was trained."""
        made = eager_model()
        with autolog.run("mine"):
            fit(made)
            loss, _ = made.evaluate(X, Y, verbose=0)
        assert only(logged()).metrics["test_loss"] == [(1, loss)]

    def test_evaluation_inside_a_fit(self, logged: Logged) -> None:
        """Validations, and evaluations by callbacks, belong to the fit."""

        class Checking(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.model.evaluate(X, Y, verbose=0)

        fit(eager_model(), validation_data=(X, Y), callbacks=[AutologCallback(), Checking()])
        assert not any(name.startswith("test_") for name in only(logged()).metrics)

    def test_pause(self, logged: Logged) -> None:
        """What trains while autolog is paused is not logged."""
        with autolog.pause():
            fit(eager_model())
            fit(eager_model(), callbacks=[AutologCallback()])
        assert logged() == []


_OURS = re.compile(r"autolog\.callbacks\.")


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
