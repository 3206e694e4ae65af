"""What is logged of Keras' own callbacks: stopping, checkpoints, and going on after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_trainings import Raising, eager_model, fit
from logged import Logged, only

import autolog


class Scripted(keras.callbacks.Callback):
    """Reports a score that somebody has chosen for each epoch."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["score"] = self.scores[epoch]


def stopping(**settings: Any) -> keras.callbacks.EarlyStopping:
    """Stops when the score has not fallen for two epochs."""
    return keras.callbacks.EarlyStopping(
        **{"monitor": "score", "mode": "min", "patience": 2, **settings}
    )


class TestEarlyStopping:
    def test_settings_and_outcome(self, logged: Logged) -> None:
        """Settings are params; where it stopped and what it restored are metrics, as MLflow's."""
        made, scores = eager_model(), Scripted(4, 2, 3, 3, 1)
        history = fit(made, epochs=5, callbacks=[scores, stopping(restore_best_weights=True)])
        run = only(logged())
        settings = {"monitor": "score", "min_delta": "0", "patience": "2", "baseline": "None"}
        assert settings.items() <= run.params.items()
        assert run.params["restore_best_weights"] == "True"
        assert run.metrics["stopped_epoch"] == [(3, 3)]
        assert run.metrics["restored_epoch"] == [(3, 1)]
        assert run.metrics["restored_score"] == [(1, 2)]
        assert run.metrics["restored_loss"] == [(1, history["loss"][1])]
        assert len(run.metrics["loss"]) == 4
        best = eager_model()
        fit(best, epochs=2)
        assert np.array_equal(made.get_weights()[0], best.get_weights()[0])

    def test_weights_that_stay(self, logged: Logged) -> None:
        """Nothing is said to be restored where the weights are those of the last epoch."""
        fit(eager_model(), epochs=5, callbacks=[Scripted(4, 2, 3, 3, 1), stopping()])
        metrics = only(logged()).metrics
        assert metrics["stopped_epoch"] == [(3, 3)]
        assert not [name for name in metrics if name.startswith("restored_")]

    def test_training_that_is_not_stopped(self, logged: Logged) -> None:
        """Keras restores the best weights then too, and that is said."""
        callbacks = [Scripted(4, 2, 3), stopping(restore_best_weights=True)]
        fit(eager_model(), epochs=3, callbacks=callbacks)
        metrics = only(logged()).metrics
        assert "stopped_epoch" not in metrics
        assert metrics["restored_epoch"] == [(2, 1)]

    @pytest.mark.recent  # EarlyStopping of Keras 3.3 keeps the best of an earlier fit
    def test_two_in_two_fits_of_one_run(self, logged: Logged) -> None:
        """A second callback has numbered names; a second fit counts on from the first."""
        made, both = (
            eager_model(),
            [
                stopping(min_delta=0.5, restore_best_weights=True),
                stopping(patience=9),
            ],
        )
        with autolog.run("mine"):
            fit(made, epochs=2, callbacks=[Scripted(4, 2), *both])
            fit(made, epochs=4, callbacks=[Scripted(4, 2, 3, 3), *both])
        run = only(logged())
        assert (run.params["patience"], run.params["patience.1"]) == ("2", "9")
        assert run.params["min_delta"] == "0.5"
        assert run.metrics["stopped_epoch"] == [(5, 5)]
        assert run.metrics["restored_epoch"] == [(1, 1), (5, 3)]
        assert run.metrics["restored_score"] == [(1, 2), (3, 2)]
        changed = run.tags.get("autolog.changed_params", "").split(", ")
        assert "min_delta" not in changed  # Keras turns its sign


class TestModelCheckpoint:
    def test_every_epoch(self, logged: Logged, tmp_path: Path) -> None:
        """The pattern and settings are params, the file written last is a tag."""
        pattern = str(tmp_path / "{epoch:02d}-{loss:.3f}.weights.h5")
        saving = keras.callbacks.ModelCheckpoint(pattern, save_weights_only=True)
        fit(eager_model(), epochs=2, callbacks=[saving])
        run = only(logged())
        assert run.params["checkpoint_filepath"] == pattern
        assert run.params["checkpoint_save_weights_only"] == "True"
        assert run.params["checkpoint_save_freq"] == "epoch"
        assert run.tags["checkpoint_path"] == str(max(tmp_path.glob("*.h5")))

    def test_the_best_only(self, logged: Logged, tmp_path: Path) -> None:
        """The tag names the file of the best epoch, since no later one was written."""
        saving = keras.callbacks.ModelCheckpoint(
            tmp_path / "{epoch}.keras", monitor="score", mode="min", save_best_only=True
        )
        fit(eager_model(), epochs=4, callbacks=[Scripted(4, 2, 3, 3), saving])
        run = only(logged())
        assert run.tags["checkpoint_path"] == str(tmp_path / "2.keras")
        assert {file.name for file in tmp_path.glob("*.keras")} == {"1.keras", "2.keras"}

    def test_between_epochs(self, logged: Logged, tmp_path: Path) -> None:
        """Where files are written after some batches, only the pattern is known."""
        saving = keras.callbacks.ModelCheckpoint(tmp_path / "{batch}.keras", save_freq=2)
        fit(eager_model(), callbacks=[saving])
        run = only(logged())
        assert run.params["checkpoint_save_freq"] == "2"
        assert "checkpoint_path" not in run.tags


class TestBackupAndRestore:
    @pytest.mark.parametrize("one_run", [True, False], ids=["one run", "two runs"])
    def test_going_on(self, logged: Logged, tmp_path: Path, one_run: bool) -> None:
        """The steps are Keras' own epochs, which go on behind those of the backup."""

        def train(*callbacks: Any) -> None:
            backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
            fit(eager_model(), epochs=4, callbacks=[*callbacks, backup])

        def interrupted() -> None:
            with pytest.raises(ZeroDivisionError):
                train(Raising(ZeroDivisionError(), epoch=2))
            train()

        if one_run:
            with autolog.run("mine"):
                interrupted()
        else:
            interrupted()
        first, second = logged()[-2:]
        assert [step for step, _ in first.metrics["epoch_loss"]] == [0, 1]
        assert [step for step, _ in second.metrics["epoch_loss"]] == [2, 3]
