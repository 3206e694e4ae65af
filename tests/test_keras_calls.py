"""Which calls of Keras are logged, and what they leave of the user's program: all."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_trainings import BATCH, Raising, X, Y, eager_model, fit, model
from logged import Logged, only

import autolog
from autolog.callbacks.keras import AutologCallback, batches, calls, neighbours, observer
from autolog.callbacks.keras.companions import Companions
from autolog.callbacks.keras.optimizers import Optimizers

Swallowed = list[tuple[str, Exception]]


def _only_the_place(given: object) -> str:
    return given if isinstance(given, str) and given.startswith("keras.") else ""


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
        fit(eager_model(), callbacks=callbacks)
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

    def test_every_shape_for_an_evaluation(self, logged: Logged) -> None:
        """Each is used as it is, and stays so; the evaluation is logged once, whatever is given."""
        made = eager_model()
        with autolog.pause():
            expected = made.evaluate(X, Y, BATCH, 0)
        seen: list[Any] = []
        mine = keras.callbacks.LambdaCallback()
        mine.on_test_end = seen.append  # LambdaCallback has no argument for it
        of_keras = keras.callbacks.CallbackList([mine], model=made)
        shapes = [None, [], mine, [mine], (mine,), [[mine]], [mine, AutologCallback()], of_keras]
        for callbacks in shapes:
            before = keras.tree.flatten(callbacks), list(of_keras.callbacks)
            assert made.evaluate(X, Y, BATCH, verbose=0, callbacks=callbacks) == expected
            assert (keras.tree.flatten(callbacks), list(of_keras.callbacks)) == before
        assert made.evaluate(X, Y, BATCH, 0, None, None, [mine]) == expected
        assert len(seen) == len(shapes) - 2 + 1
        runs = logged()
        assert len(runs) == len(shapes) + 1
        assert {run.status for run in runs} == {"FINISHED"}
        assert [run.values("test_loss") for run in runs] == [[expected[0]]] * len(runs)

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

    @pytest.mark.parametrize(
        "copied",
        [lambda it: it, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))],
        ids="itself copied pickled".split(),
    )
    def test_used_again(self, off: Logged, copied: Callable[[Any], Any]) -> None:
        """One callback serves fit after fit, copied and pickled before and after use."""
        callback = AutologCallback()
        for _ in range(2):
            callback = copied(callback)
            fit(model(), callbacks=[callback])
        assert [run.status for run in off()] == ["FINISHED", "FINISHED"]
        assert [run.params["batch_size"] for run in off()] == ["16", "16"]

    def test_enabled_and_disabled_meanwhile(self, off: Logged) -> None:
        """An explicit callback does all it does, whatever enable and disable do beside it."""
        callback = AutologCallback()
        autolog.enable()
        autolog.disable()
        with pytest.raises(ZeroDivisionError):
            fit(model(), callbacks=[callback, Raising(ZeroDivisionError())])
        run = only(off())
        assert (run.status, run.params["batch_size"]) == ("FAILED", "16")

    def test_unmarked_fit_without_enable(self, off: Logged) -> None:
        """Beside an explicit callback, fits that do not name it are not logged."""
        AutologCallback()
        fit(model())
        assert off() == []


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

    @pytest.mark.recent  # the second training differs in Keras 3.3 without us too
    def test_training_is_bit_for_bit_the_same(self, off: Logged) -> None:
        """Weights, results, random state, warnings and saved models are equal, hooks on or off."""

        def train() -> list[object]:
            made = model(keras.optimizers.Adam())
            stopping = keras.callbacks.EarlyStopping("none", mode="min")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                history = fit(made, shuffle=True, validation_split=0.2, callbacks=[stopping])
            again = pickle.loads(pickle.dumps(made))
            return [
                *(weight.tobytes() for weight in (*made.get_weights(), *again.get_weights())),
                *(history, made.evaluate(X, Y, verbose=0)),
                *(random.random(), np.random.random()),  # noqa: NPY002
                *(keras.random.normal((2,)).numpy().tobytes(), tf.random.normal((2,)).numpy()[0]),
                [(str(warning.message), warning.filename, warning.lineno) for warning in caught],
            ]

        without = train()
        autolog.enable()
        assert train() == without
        assert len(off()) == 2  # the fit and the evaluation

    def test_signatures(self, logged: Logged) -> None:
        """Fit and evaluate look as they did."""
        for method in (keras.Model.fit, keras.Model.evaluate):
            assert inspect.signature(method) == inspect.signature(method.__wrapped__)
            assert method.__qualname__ == f"TensorFlowTrainer.{method.__name__}"

    @pytest.mark.parametrize(
        ("owner", "name", "place"),
        [
            (calls, "_call_to_log", "keras.fit"),
            (calls, "fit_params", "keras.arguments"),
            (calls._Call, "_leave", "keras.leave"),
            (neighbours, "find", "keras.neighbours"),
            (observer, "Optimizers", "keras.on_train_begin"),
            (Optimizers, "learning_rates", "keras.on_epoch_begin"),
            (observer, "numbers", "keras.on_epoch_end"),
            (Companions, "outcome", "keras.on_train_end"),
            (batches, "keras", "keras.batches.on_train_begin"),
            (batches, "steps_taken", "keras.batches.on_epoch_begin"),
            (batches, "numbers", "keras.batches.on_train_batch_end"),
        ],
        ids=_only_the_place,
    )
    def test_hook_of_a_fit_that_raises(
        self,
        logged: Logged,
        swallowed: Swallowed,
        monkeypatch: pytest.MonkeyPatch,
        *,
        owner: Any,
        name: str,
        place: str,
    ) -> None:
        """The fit does not notice; the error is counted at its place, and the next fit logged."""
        with autolog.pause():
            expected = fit(eager_model())
        autolog.enable(log_every_n_steps=1)
        monkeypatch.setattr(owner, name, _raising_once(getattr(owner, name)))
        assert fit(eager_model()) == expected
        assert [where for where, _ in swallowed] == [place]
        assert autolog.status()["internal_errors"] == {place: 1}
        assert autolog.status()["open_runs"] == []
        swallowed.clear()
        assert fit(eager_model()) == expected
        assert logged()[-1].values("epoch_loss") == expected["loss"]

    @pytest.mark.parametrize(
        ("owner", "name", "place"),
        [
            (calls, "_call_to_log", "keras.evaluate"),
            (observer.Observer, "_begin", "keras.on_test_begin"),
            (observer, "numbers", "keras.on_test_end"),
        ],
        ids=_only_the_place,
    )
    def test_hook_of_an_evaluation_that_raises(
        self,
        logged: Logged,
        swallowed: Swallowed,
        monkeypatch: pytest.MonkeyPatch,
        *,
        owner: Any,
        name: str,
        place: str,
    ) -> None:
        """The same for evaluations."""
        monkeypatch.setattr(owner, name, _raising_once(getattr(owner, name)))
        first = eager_model().evaluate(X, Y, verbose=0)
        assert [where for where, _ in swallowed] == [place]
        swallowed.clear()
        assert eager_model().evaluate(X, Y, verbose=0) == first
        assert logged()[-1].values("test_loss") == [first[0]]
        assert logged()[-1].status == "FINISHED"


def _raising_once(original: Any) -> Any:
    """Something that raises when it is used first, and then is the original."""

    class Once:
        used = False

        def _use(self) -> None:
            if not self.used:
                self.used = True
                raise RuntimeError("forced")

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self._use()
            return original(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            self._use()
            return getattr(original, name)

        def __get__(self, owner: Any, kind: type) -> Any:
            return functools.partial(self, owner)

    return Once()
