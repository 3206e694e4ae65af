from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from logged import LoggedRun, logged_runs
from support import run_script

import autolog
from autolog.callbacks.keras import AutologCallback

Logged = Callable[[], list[LoggedRun]]

_random = np.random.default_rng(3)
X = _random.normal(size=(50, 4)).astype("float32")
Y = _random.normal(size=(50, 1)).astype("float32")
BATCH = 16  # 50 rows: the last batch has 2


@pytest.fixture
def logged(autolog_home: Path) -> Logged:
    """The runs so far, with autolog enabled."""
    autolog.enable(mode="offline", silent=True)
    return lambda: logged_runs(autolog_home)


@pytest.fixture
def off(autolog_home: Path) -> Logged:
    """The runs so far, with autolog not enabled."""
    autolog.enable(mode="offline", silent=True)
    autolog.disable()
    return lambda: logged_runs(autolog_home)


def only(runs: list[LoggedRun]) -> LoggedRun:
    """The one run that there must be."""
    (run,) = runs
    return run


def model(optimizer: Any = None, **compiling: Any) -> keras.Model:
    """A small regression, with the same weights each time."""
    keras.utils.set_random_seed(5)
    made = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    )
    made.compile(optimizer or keras.optimizers.SGD(0.05), "mse", metrics=["mae"], **compiling)
    return made


def fit(made: keras.Model, **arguments: Any) -> dict[str, list[float]]:
    """Train in the same order each time; gives the history."""
    given = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0, **arguments}
    history: dict[str, list[float]] = made.fit(X, Y, **given).history
    return history


def batch_losses(epochs: int) -> list[list[float]]:
    """The loss of each batch of each epoch, by training the same model batch by batch."""
    made = model()
    losses = []
    for _ in range(epochs):
        losses.append([])
        for start in range(0, len(X), BATCH):
            x, y = X[start : start + BATCH], Y[start : start + BATCH]
            losses[-1].append(float(np.mean((made(x).numpy() - y) ** 2)))
            made.train_on_batch(x, y)
    return losses


class Raising(keras.callbacks.Callback):
    """Raises at the end of the first epoch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise self.error


class TestWhatIsLogged:
    def test_epoch_loss_against_a_mean_by_hand(self, logged: Logged) -> None:
        """epoch_loss is the mean of the batch losses weighted by batch size, as Keras' loss."""
        history = fit(model())
        sizes = [16, 16, 16, 2]
        by_hand = [np.average(losses, weights=sizes) for losses in batch_losses(2)]
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1]
        assert run.values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)
        assert run.values("epoch_loss") == history["loss"]

    def test_keras_own_metrics_at_their_epoch(self, logged: Logged) -> None:
        """Each name of the history is there, the validation's too, with the epoch as step."""
        history = fit(model(), validation_data=(X, Y), epochs=3)
        run = only(logged())
        assert {"loss", "mae", "val_loss", "val_mae"} <= history.keys()
        for name, values in history.items():
            assert run.metrics[name] == list(enumerate(values))
        assert (run.model, run.status) == ("Sequential", "FINISHED")
        assert run.tags["mlflow.autologging"] == "keras"

    def test_params(self, logged: Logged) -> None:
        """The fit's arguments, steps an epoch, and the optimizer as it was set up."""
        fit(model(keras.optimizers.Adam(0.001, beta_1=0.8)), validation_split=0.2)
        params = only(logged()).params
        assert params["epochs"] == "2"
        assert params["batch_size"] == "16"
        assert params["steps"] == "3"
        assert params["validation_split"] == "0.2"
        assert params["shuffle"] == "False"
        assert params["optimizer_name"] == "Adam"
        assert params["optimizer_learning_rate"] == "0.001"
        assert params["optimizer_beta_1"] == "0.8"
        assert not {"x", "y", "verbose", "callbacks", "validation_data"} & params.keys()

    def test_batch_size_that_nobody_gave(self, logged: Logged) -> None:
        """For arrays it is Keras' own default; for a dataset only the data knows."""
        fit(model(), batch_size=None)
        model().fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(8), shuffle=False, verbose=0)
        assert [run.params["batch_size"] for run in logged()] == ["32", "None"]
        assert [run.params["steps"] for run in logged()] == ["2", "7"]

    def test_learning_rate_of_a_schedule(self, logged: Logged) -> None:
        """learning_rate is what an epoch begins with; the schedule's settings are params."""
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)
        fit(model(keras.optimizers.SGD(schedule)), epochs=3)
        run = only(logged())
        assert run.values("learning_rate") == pytest.approx([0.1, 0.05, 0.025], rel=1e-6)
        assert run.params["optimizer_learning_rate"] == "ExponentialDecay"
        assert run.params["optimizer_learning_rate_decay_steps"] == "4"

    @pytest.mark.parametrize("first", [True, False], ids=["ours-first", "ours-last"])
    def test_learning_rate_that_callbacks_change(self, logged: Logged, first: bool) -> None:
        """Whether others set it before or after an epoch, it is the rate of that epoch."""

        class Halving(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.model.optimizer.learning_rate = 1.0 / 2**epoch

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.model.optimizer.learning_rate = 7.0

        ours = AutologCallback()
        fit(model(), epochs=3, callbacks=[ours, Halving()] if first else [Halving(), ours])
        assert only(logged()).values("learning_rate") == [1.0, 0.5, 0.25]

    def test_what_other_callbacks_report(self, logged: Logged) -> None:
        """Numbers that a callback puts into the logs are metrics; other things are not."""

        class Reporting(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                logs["seven"], logs["words"] = 7, "no number"

        fit(model(), callbacks=Reporting())
        run = only(logged())
        assert run.metrics["seven"] == [(0, 7), (1, 7)]
        assert "words" not in run.metrics

    def test_summary(self, logged: Logged) -> None:
        """The summary is an artifact, also of a model that gets its weights in the first epoch."""

        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense = keras.layers.Dense(1)

            def call(self, x: Any) -> Any:
                return self.dense(x)

            def fit(self, *args: Any, **kwargs: Any) -> Any:
                return super().fit(*args, **kwargs)

        made = Subclassed()
        made.compile("sgd", "mse")
        fit(made)
        run = only(logged())
        assert run.model == "Subclassed"
        assert "Trainable params: 5" in run.texts["model_summary.txt"]


class TestBatchLoss:
    def test_it_is_the_batch_alone(self, logged: Logged) -> None:
        """batch_loss is the loss of every second batch, not Keras' running mean."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=2)
        fit(model())
        by_hand = [loss for losses in batch_losses(2) for loss in losses][1::2]
        run = only(logged())
        assert [step for step, _ in run.metrics["batch_loss"]] == [2, 4, 6, 8]
        assert run.values("batch_loss") == pytest.approx(by_hand, abs=1e-5)

    def test_steps_go_on_in_the_next_fit(self, logged: Logged) -> None:
        """The step is the optimizer's own count, which a second fit continues."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=3)
        made = model()
        fit(made, epochs=1)
        fit(made, epochs=1)
        steps = [[step for step, _ in run.metrics["batch_loss"]] for run in logged()]
        assert steps == [[3], [6]]

    @pytest.mark.recent
    def test_several_batches_an_execution(self, logged: Logged) -> None:
        """With steps_per_execution it is the mean over the batches of the execution."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=4)
        fit(model(steps_per_execution=2), epochs=1)
        _, _, third, fourth = batch_losses(1)[0]
        ((step, value),) = only(logged()).metrics["batch_loss"]
        assert step == 4
        assert value == pytest.approx((16 * third + 2 * fourth) / 18, abs=1e-5)

    @pytest.mark.recent
    def test_no_batch_hook_unless_asked(self, logged: Logged) -> None:
        """By default no callback of ours makes Keras wait for each batch."""
        made = model()
        ours: list[Any] = []

        class Looking(keras.callbacks.Callback):
            def on_train_begin(self, logs: Any = None) -> None:
                ours.extend(c for c in everyone.callbacks if c not in (self, made.history))

        everyone = keras.callbacks.CallbackList([Looking()], True, False, made, epochs=1)
        fit(made, callbacks=everyone)
        (callback,) = ours
        assert isinstance(callback, AutologCallback)
        assert callback.on_train_batch_end._is_default
        assert callback.on_batch_end._is_default


class TestCallbacksArgument:
    @pytest.mark.parametrize(
        "callbacks",
        [
            None,
            [],
            keras.callbacks.TerminateOnNaN(),
            [keras.callbacks.TerminateOnNaN()],
            (keras.callbacks.TerminateOnNaN(),),
            [[keras.callbacks.TerminateOnNaN()]],
        ],
        ids="None empty one list tuple nested".split(),
    )
    def test_every_shape(self, logged: Logged, callbacks: Any) -> None:
        """Whatever the user passes, the fit is logged once and what he passed stays as it was."""
        before = keras.tree.flatten(callbacks)
        fit(model(), callbacks=callbacks)
        assert len(only(logged()).metrics["epoch_loss"]) == 2
        assert keras.tree.flatten(callbacks) == before

    def test_positional(self, logged: Logged) -> None:
        """Callbacks given by position are found."""
        seen = keras.callbacks.History()
        model().fit(X, Y, BATCH, 2, 0, [seen])
        assert len(seen.history["loss"]) == 2
        assert len(only(logged()).metrics["epoch_loss"]) == 2

    def test_list_of_keras(self, logged: Logged) -> None:
        """A CallbackList is used and afterwards holds what it held."""
        made = model()
        given = keras.callbacks.CallbackList(None, add_history=True, model=made, epochs=2)
        before = list(given.callbacks)
        fit(made, callbacks=given)
        assert given.callbacks == before
        assert len(only(logged()).metrics["epoch_loss"]) == 2

    def test_explicit_without_enable(self, off: Logged) -> None:
        """The callback alone logs all there is, arguments of the fit included."""
        history = fit(model(), callbacks=[AutologCallback()])
        run = only(off())
        assert run.values("epoch_loss") == history["loss"]
        assert run.params["batch_size"] == "16"
        assert run.status == "FINISHED"

    def test_explicit_beside_enable(self, logged: Logged) -> None:
        """No second callback joins the user's own; each value is there once."""
        fit(model(), callbacks=[AutologCallback(), keras.callbacks.TerminateOnNaN()])
        assert len(only(logged()).metrics["epoch_loss"]) == 2

    def test_used_again(self, off: Logged) -> None:
        """One callback serves fit after fit, and copies as tuners copy it."""
        callback = AutologCallback()
        for _ in range(2):
            fit(model(), callbacks=[callback])
            callback = copy.deepcopy(callback)
        assert [run.status for run in off()] == ["FINISHED", "FINISHED"]

    def test_unmarked_fit_without_enable(self, off: Logged) -> None:
        """Beside an explicit callback, fits that do not name it are not logged."""
        AutologCallback()
        fit(model())
        assert off() == []


class TestRuns:
    def test_fits_of_one_model_in_the_users_run(self, logged: Logged) -> None:
        """The epochs go on where they ended, or at initial_epoch where the user counts himself."""
        made = model()
        with autolog.run("mine"):
            fit(made)
            fit(made)
            fit(made, initial_epoch=4, epochs=6)
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(6))

    def test_initial_epoch(self, logged: Logged) -> None:
        """The steps are Keras' own epochs."""
        fit(model(), initial_epoch=3, epochs=5)
        assert [step for step, _ in only(logged()).metrics["epoch_loss"]] == [3, 4]

    def test_evaluation_alone(self, logged: Logged) -> None:
        """An evaluation logs its metrics as test_<name>; return values are Keras' own."""
        found = model().evaluate(X, Y, verbose=0, return_dict=True)
        run = only(logged())
        assert run.metrics == {f"test_{name}": [(0, value)] for name, value in found.items()}
        assert run.status == "FINISHED"

    def test_evaluation_after_a_fit_in_the_users_run(self, logged: Logged) -> None:
        """It stands at the last epoch that the model was trained."""
        made = model()
        with autolog.run("mine"):
            fit(made)
            loss, _ = made.evaluate(X, Y, verbose=0)
        assert only(logged()).metrics["test_loss"] == [(1, loss)]

    def test_evaluation_inside_a_fit(self, logged: Logged) -> None:
        """Validations, and evaluations by callbacks, belong to the fit."""

        class Checking(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.model.evaluate(X, Y, verbose=0)

        fit(model(), validation_data=(X, Y), callbacks=[AutologCallback(), Checking()])
        assert not any(name.startswith("test_") for name in only(logged()).metrics)

    def test_pause(self, logged: Logged) -> None:
        """What trains while autolog is paused is not logged."""
        with autolog.pause():
            fit(model())
            fit(model(), callbacks=[AutologCallback()])
        assert logged() == []


class TestTheUsersProgram:
    @pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "injected"])
    @pytest.mark.parametrize(
        ("error", "status"),
        [(ZeroDivisionError("mine"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
        ids=["exception", "ctrl-c"],
    )
    def test_exception_passes_untouched(
        self, logged: Logged, error: BaseException, status: str, explicit: bool
    ) -> None:
        """The very exception arrives, the run says how it ended, and the next fit is logged."""
        ours = [AutologCallback()] if explicit else []
        with pytest.raises(type(error)) as caught:
            fit(model(), callbacks=[*ours, Raising(error)])
        assert caught.value is error
        fit(model(), callbacks=ours)
        assert [run.status for run in logged()] == [status, "FINISHED"]

    def test_wrong_argument(self, logged: Logged) -> None:
        """A call that Keras refuses is refused as before, and opens no run."""
        with pytest.raises(TypeError, match="epoch"):
            fit(model(), epoch=3)
        assert logged() == []

    @pytest.mark.recent
    def test_training_is_bit_for_bit_the_same(self, off: Logged) -> None:
        """Weights, history and random state are equal with hooks on and off."""

        def train() -> list[bytes]:
            made = model(keras.optimizers.Adam())
            history = fit(made, shuffle=True, validation_split=0.2)
            state = [np.random.random(), *keras.random.normal((2,)).numpy()]  # noqa: NPY002
            weights = [weight.tobytes() for weight in made.get_weights()]
            return [*weights, repr(history).encode(), repr(state).encode()]

        without = train()
        autolog.enable()
        assert train() == without
        assert len(off()) == 1

    def test_everything_is_put_back(self, off: Logged) -> None:
        """After disable fit and evaluate are the very objects they were, on every class."""
        before = _methods()
        autolog.enable()
        assert _methods() != before
        autolog.enable()
        autolog.disable()
        assert _methods() == before

    def test_torch_backend(self, tmp_path: Path, autolog_home: Path) -> None:
        """On the torch backend, with the hooks of plain torch on, a fit is one run, and exact."""
        done = run_script(
            """
            import autolog
            autolog.enable(log_every_n_steps=2)
            import keras
            import numpy as np

            x, y = np.random.rand(20, 4), np.random.rand(20, 1)
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            print(model.fit(x, y, batch_size=8, epochs=2, verbose=0).history["loss"])
            """,
            cwd=tmp_path,
            env={"KERAS_BACKEND": "torch", "AUTOLOG_MODE": "offline"},
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        run = only(logged_runs(autolog_home))
        assert str(run.values("epoch_loss")) == done.stdout.strip()
        assert [step for step, _ in run.metrics["batch_loss"]] == [2, 4, 6]


def _methods() -> list[dict[str, object]]:
    """What each class behind keras.Model has of its own."""
    return [
        {name: vars(cls)[name] for name in ("fit", "evaluate") if name in vars(cls)}
        for cls in keras.Model.__mro__
    ]
