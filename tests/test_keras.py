"""What of a Keras training is logged: names, values and steps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_trainings import BATCH, SIZES, Raising, X, Y, batch_losses, fit, model
from logged import Logged, only

import autolog
from autolog.callbacks.keras import AutologCallback
from autolog.callbacks.keras.observer import Observer


class TestWhatIsLogged:
    def test_epoch_loss_against_a_mean_by_hand(self, logged: Logged) -> None:
        """epoch_loss is the mean of the batch losses weighted by batch size, as Keras' loss."""
        history = fit(model())
        by_hand = [np.average(losses, weights=SIZES) for losses in batch_losses(2)]
        run = only(logged())
        assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1]
        assert run.values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)
        assert run.values("epoch_loss") == history["loss"]

    @pytest.mark.parametrize("given", ["class_weight", "sample_weight"])
    def test_epoch_loss_with_weights(self, logged: Logged, given: str) -> None:
        """Weights are in the batch losses, which count by batch size: sum(w * loss) / samples."""
        labels = (Y > 0).astype("float32")
        by_class = {0: 0.5, 1: 3.0}
        weights = np.where(labels[:, 0] > 0, by_class[1], by_class[0])
        made = model(keras.optimizers.SGD(0.0))
        losses = (made.predict(X, verbose=0) - labels)[:, 0] ** 2
        value = by_class if given == "class_weight" else weights
        made.fit(X, labels, batch_size=BATCH, verbose=0, **{given: value})
        run = only(logged())
        assert run.values("epoch_loss") == pytest.approx([np.mean(weights * losses)], abs=1e-6)
        assert ("class_weight" in run.params, "sample_weight" in run.params) == (True, False)

    def test_keras_own_metrics_at_their_epoch(self, logged: Logged) -> None:
        """Each name of the history is there, the validation's too, with the epoch as step."""
        history = fit(model(), validation_data=(X, Y), epochs=3)
        run = only(logged())
        assert {"loss", "mae", "val_loss", "val_mae"} <= history.keys()
        for name, values in history.items():
            assert run.metrics[name] == list(enumerate(values))
        assert (run.model, run.status) == ("Sequential", "FINISHED")
        assert run.tags["mlflow.autologging"] == "keras"

    def test_validation_now_and_then(self, logged: Logged) -> None:
        """With validation_freq, validation metrics stand at the epochs that had one."""
        fit(model(), validation_data=(X, Y), validation_freq=2, epochs=5)
        run = only(logged())
        assert [step for step, _ in run.metrics["val_loss"]] == [1, 3]
        assert [step for step, _ in run.metrics["epoch_loss"]] == list(range(5))

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

    @pytest.mark.parametrize(
        ("data", "size"),
        [
            (lambda: {"x": X, "y": Y}, "32"),
            (lambda: {"x": _dataset().batch(8)}, "8"),
            (lambda: {"x": _dataset().batch(8).cache().prefetch(2)}, "8"),
            (lambda: {"x": _Batches()}, "10"),
            (lambda: {"x": (batch for batch in [(X, Y)]), "steps_per_epoch": 1}, "None"),
        ],
        ids="arrays dataset prefetched PyDataset generator".split(),
    )
    def test_batch_size_that_nobody_gave(self, logged: Logged, data: Any, size: str) -> None:
        """It is Keras' default for arrays, else what the data says; nothing is taken from it."""
        model().fit(**data(), shuffle=False, verbose=0)
        assert only(logged()).params["batch_size"] == size

    def test_shapes_of_the_data(self, logged: Logged) -> None:
        """Those of arrays, alone or as parts of what a model with several inputs takes."""
        left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
        made = keras.Model([left, right], keras.layers.Dense(1)(left))
        made.compile("sgd", "mse")
        made.fit({"left": X, "right": X[:, :2]}, Y, verbose=0)
        fit(model(), epochs=1)
        assert [run.tags["autolog.data_shapes"] for run in logged()] == [
            "x/left (50, 4), x/right (50, 2), y (50, 1)",
            "x (50, 4), y (50, 1)",
        ]
        assert logged()[0].params["batch_size"] == "32"

    def test_mixed_precision(self, logged: Logged) -> None:
        """An optimizer within a loss-scaling one shows its own settings and learning rate."""
        inner = keras.optimizers.Adam(0.01)
        fit(model(keras.optimizers.LossScaleOptimizer(inner)), epochs=1)
        run = only(logged())
        assert run.params["optimizer_name"] == "LossScaleOptimizer"
        assert run.params["optimizer_inner_optimizer"] == "Adam"
        assert run.params["optimizer_inner_optimizer_learning_rate"] == "0.01"
        assert run.values("learning_rate") == pytest.approx([0.01])

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
        """Numbers and scalars that a callback puts into the logs are metrics, the rest is not."""

        class Reporting(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                logs["seven"], logs["words"], logs["many"] = 7, "no number", np.ones(1)
                logs["rate"], logs["array"] = self.model.optimizer.learning_rate, np.array(2)

        fit(model(), callbacks=Reporting())
        run = only(logged())
        assert run.metrics["seven"] == [(0, 7), (1, 7)]
        assert (run.values("array"), run.values("rate")) == ([2, 2], run.values("learning_rate"))
        assert not {"words", "many"} & run.metrics.keys()

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


class TestLoopsOfTheUsersOwn:
    def test_train_step(self, logged: Logged) -> None:
        """What a train_step returns is logged, and each optimizer that it steps, with its name."""
        made = two_players()
        rate_of_adam = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: made.g_optimizer.learning_rate.assign(0.001)
        )
        history = fit(made, callbacks=[rate_of_adam])
        run = only(logged())
        assert run.metrics["g_loss"] == list(enumerate(history["g_loss"]))
        assert run.values("epoch_loss") == history["loss"]
        by_hand = np.mean((made.critic(X).numpy() - Y) ** 2)
        assert run.values("epoch_loss") == pytest.approx([by_hand] * 2, abs=1e-6)
        names = {name for name in run.params if name.endswith("optimizer_name")}
        assert names == {"g_optimizer_name", "d_optimizer_name"}
        assert run.params["g_optimizer_name"] == "Adam"
        assert run.params["g_optimizer_learning_rate"] == "0.002"
        assert run.values("g_optimizer_learning_rate") == pytest.approx([0.002, 0.001])
        assert run.values("d_optimizer_learning_rate") == [0.0, 0.0]
        assert not {"optimizer_rho", "optimizer_learning_rate"} & run.params.keys()
        assert "learning_rate" not in run.metrics

    def test_train_step_that_fails(self, logged: Logged) -> None:
        """Its optimizers are known from the first epoch on, also where that does not end."""
        with pytest.raises(ZeroDivisionError):
            fit(two_players(), callbacks=[Raising(ZeroDivisionError())])
        run = only(logged())
        assert (run.params["d_optimizer_name"], run.params["g_optimizer_name"]) == ("SGD", "Adam")
        assert (run.status, "optimizer_name" in run.params) == ("FAILED", False)

    @pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
    def test_model_without_an_optimizer_at_work(self, logged: Logged) -> None:
        """Of an optimizer that has nothing to train nothing is logged."""
        made = model(run_eagerly=True)
        made.trainable = False
        fit(made)
        run = only(logged())
        assert len(run.values("epoch_loss")) == 2
        assert "optimizer_name" not in run.params
        assert "learning_rate" not in run.metrics

    @pytest.mark.recent  # train_on_batch of Keras 3.3 gives running means
    def test_loop_without_fit(self, logged: Logged) -> None:
        """The public calls log a loop of GradientTape or train_on_batch, once."""
        made = model()
        with autolog.run("by hand"):
            for epoch in range(2):
                mean = keras.metrics.Mean()
                for start in range(0, len(X), BATCH):
                    x, y = X[start : start + BATCH], Y[start : start + BATCH]
                    loss, _ = made.train_on_batch(x, y)
                    mean.update_state(loss, sample_weight=len(x))
                autolog.log_metrics({"epoch_loss": mean.result()}, step=epoch)
        by_hand = [np.average(losses, weights=SIZES) for losses in batch_losses(2)]
        run = only(logged())
        assert run.values("epoch_loss") == pytest.approx(by_hand, abs=1e-6)
        assert list(run.metrics) == ["epoch_loss"]

    def test_loop_that_calls_the_callbacks(self, logged: Logged) -> None:
        """A loop that drives callbacks as Keras does is logged as a fit."""
        made = model()
        callbacks = keras.callbacks.CallbackList([AutologCallback()], model=made)
        for _ in range(2):
            callbacks.on_train_begin()
            for epoch in range(2):
                callbacks.on_epoch_begin(epoch)
                callbacks.on_epoch_end(epoch, {"loss": 3.0 - epoch})
            callbacks.on_train_end()
        for run in logged():
            assert run.metrics["epoch_loss"] == [(0, 3.0), (1, 2.0)]
            assert run.params["optimizer_name"] == "SGD"
            assert (run.status, list(run.texts)) == ("FINISHED", ["model_summary.txt"])


class TestBatchValues:
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

    @pytest.mark.parametrize("given", [{}, {"optimizer": None}], ids=["idle", "None"])
    def test_steps_that_no_optimizer_counts(self, logged: Logged, given: dict[str, Any]) -> None:
        """Where the model's own optimizer is idle or missing, steps are the batches of the run."""
        autolog.enable(log_every_n_steps=3)
        made = two_players(**given)
        with autolog.run("mine"):
            fit(made, epochs=2)
            fit(made, epochs=1)
        run = only(logged())
        steps = [step for step, _ in run.metrics["batch_loss"]]
        assert steps == [step for step, _ in run.metrics["running_g_loss"]] == [3, 6, 9, 12]
        by_hand = [np.mean((made.critic(x) - y) ** 2) for x, y in _batches()]
        expected = [by_hand[batch] for batch in (2, 1, 0, 3)]
        assert run.values("batch_loss") == pytest.approx(expected, abs=1e-5)

    @pytest.mark.recent
    def test_several_batches_an_execution(self, logged: Logged) -> None:
        """With steps_per_execution it is the mean over the batches of the execution."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=4)
        fit(model(steps_per_execution=2), epochs=1)
        _, _, third, fourth = batch_losses(1)[0]
        ((step, value),) = only(logged()).metrics["batch_loss"]
        assert step == 4
        assert value == pytest.approx((16 * third + 2 * fourth) / 18, abs=1e-5)

    def test_running_means(self, logged: Logged) -> None:
        """What Keras itself reports of a batch, means that run, comes as running_<name>."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=3)
        reported: list[dict[str, float]] = []

        class Listening(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                reported.append(dict(logs))

        fit(model(), callbacks=Listening())
        run = only(logged())
        for name in ("loss", "mae"):
            values = [reported[2][name], reported[5][name]]
            assert run.metrics[f"running_{name}"] == list(zip([3, 6], values, strict=True))

    @pytest.mark.recent  # the iterations of Keras 3.3 are batches
    def test_accumulated_gradients(self, logged: Logged) -> None:
        """A step is a change of the weights, not a batch."""
        autolog.enable(mode="offline", silent=True, log_every_n_steps=1)
        fit(model(keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)), epochs=1)
        assert [step for step, _ in only(logged()).metrics["batch_loss"]] == [1, 2]

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
        assert isinstance(callback, Observer)
        assert callback.on_train_batch_end._is_default
        assert callback.on_batch_end._is_default


def _batches() -> list[Any]:
    """Those of an epoch."""
    return [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


def _dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, Y))


class _Batches(keras.utils.PyDataset):
    """Five batches of ten."""

    batch_size = 10

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return X[index * 10 :][:10], Y[index * 10 :][:10]


class TwoPlayers(keras.Model):
    """A train_step with two optimizers, as a GAN of Keras has; that of ``compile`` is idle."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.critic = keras.layers.Dense(4), keras.layers.Dense(1)
        self.loss_of_critic = keras.metrics.Mean(name="loss")
        self.loss_of_generator = keras.metrics.Mean(name="g_loss")

    def compile(self, g_optimizer: Any, d_optimizer: Any, **given: Any) -> None:
        super().compile(run_eagerly=True, **given)
        self.g_optimizer, self.d_optimizer = g_optimizer, d_optimizer

    @property
    def metrics(self) -> list[Any]:
        return [self.loss_of_critic, self.loss_of_generator]

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self.critic(x) - y) ** 2)
            g_loss = tf.reduce_mean(self.critic(self.generator(x)) ** 2)
        for layer, optimizer, value in (
            (self.critic, self.d_optimizer, loss),
            (self.generator, self.g_optimizer, g_loss),
        ):
            weights = layer.trainable_variables
            optimizer.apply(tape.gradient(value, weights), weights)
        for metric, value in zip(self.metrics, (loss, g_loss), strict=True):
            metric.update_state(value, sample_weight=tf.shape(x)[0])
        return {metric.name: metric.result() for metric in self.metrics}


def two_players(**given: Any) -> TwoPlayers:
    """One whose critic stays as it is."""
    made = TwoPlayers()
    made.compile(keras.optimizers.Adam(0.002), keras.optimizers.SGD(0.0), **given)
    return made
