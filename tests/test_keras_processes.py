"""Keras in fresh processes: backends, orders of import and enable, and mlflow's own autologging."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from logged import logged_runs
from support import run_script

if TYPE_CHECKING:
    from pathlib import Path

    from support import MlflowServer

ORDERS = {
    "enable first": ("autolog.enable(silent=True)", "import keras"),
    "import first": ("import keras", "autolog.enable(silent=True)"),
}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_backends(backend: str, tmp_path: Path, autolog_home: Path) -> None:
    """With the hooks of plain torch on and no tensorboard, a fit is one run, and exact."""
    if backend == "jax":
        pytest.importorskip("jax", reason="jax is in the newest test environment only")
    done = run_script(
        """
        import json, sys
        sys.modules["tensorboard"] = None  # as where it is not installed
        import autolog
        autolog.enable(log_every_n_steps=2)
        import keras
        import numpy as np

        x, y = np.random.rand(20, 4), np.random.rand(20, 1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01), "mse")
        stopping = keras.callbacks.EarlyStopping(
            min_delta=9, patience=1, restore_best_weights=True
        )
        history = model.fit(
            x, y, batch_size=8, epochs=9, verbose=0, validation_data=(x, y), callbacks=[stopping]
        ).history
        print(json.dumps([history, model.evaluate(x, y, verbose=0)]))
        """,
        cwd=tmp_path,
        env={"KERAS_BACKEND": backend, "AUTOLOG_MODE": "offline"},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    history, loss = json.loads(done.stdout)
    fit, evaluation = logged_runs(autolog_home)
    assert fit.values("epoch_loss") == fit.values("loss") == history["loss"]
    assert fit.values("val_loss") == history["val_loss"]
    assert fit.values("learning_rate") == pytest.approx([0.01, 0.01])
    assert fit.metrics["stopped_epoch"] == [(1, 1)]
    assert fit.metrics["restored_epoch"] == [(1, 0)]
    assert "Dense" in fit.texts["model_summary.txt"]
    assert evaluation.metrics == {"test_loss": [(0, loss)]}
    steps = [step for step, _ in fit.metrics.get("batch_loss", [])]
    assert steps == ([] if backend == "jax" else [2, 4, 6])


@pytest.mark.parametrize("lines", ORDERS.values(), ids=ORDERS)
def test_orders(lines: tuple[str, str], tmp_path: Path, autolog_home: Path) -> None:
    """On, off and on again: logged exactly while on, and off means as before."""
    first, second = lines
    done = run_script(
        f"""
        import autolog
        {first}
        {second}
        import numpy as np
        import tensorflow as tf

        def methods():
            return [
                (cls, name, vars(cls)[name])
                for cls in keras.Model.__mro__ for name in ("fit", "evaluate") if name in vars(cls)
            ]

        def use():
            model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)

        on = methods()
        use()
        autolog.disable()
        off = methods()
        assert [method.__wrapped__ for *_, method in on[:2]] == [method for *_, method in off[:2]]
        assert on[2:] == off[2:]
        use()
        autolog.enable()
        autolog.enable()
        use()
        autolog.disable()
        assert methods() == off

        from autolog.callbacks.keras import AutologCallback
        callback = AutologCallback()
        held = methods()
        assert held != off
        autolog.enable()
        autolog.disable()
        assert methods() == held
        """,
        cwd=tmp_path,
        env={"AUTOLOG_MODE": "offline"},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert [len(run.metrics["epoch_loss"]) for run in logged_runs(autolog_home)] == [1, 1]


@pytest.mark.recent  # MLflow 2.18 lists files by the tracking URI of the process only
def test_beside_mlflows_own_logging(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    """One run a fit, in every order and form; what MLflow logs there it alone logs."""
    done = run_script(
        """
        import functools, json
        import autolog
        import keras
        import mlflow
        import numpy as np
        from mlflow.utils.autologging_utils.safety import revert_patches

        # Keeps mlflow.tensorflow from adding the real one, which need not be installed.
        bare = {k: v for k, v in vars(keras.callbacks.Callback).items() if k[:2] != "__"}
        NoTensorBoard = type("NoTensorBoard", (keras.callbacks.TensorBoard,), bare)

        def trained(*callbacks):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            x, y = np.ones((4, 2)), np.ones((4, 1))
            stopping = keras.callbacks.EarlyStopping(
                min_delta=9, patience=1, restore_best_weights=True
            )
            callbacks = [NoTensorBoard("."), stopping, *callbacks]
            history = model.fit(
                x, y, epochs=5, verbose=0, validation_data=(x, y), callbacks=callbacks
            )
            return history.history["loss"]

        def methods():
            names = "fit", "evaluate"
            return [vars(cls).get(name) for cls in keras.Model.__mro__ for name in names]

        def theirs(flavor, **options):
            flavor.autolog(log_models=False, log_datasets=False, silent=True, **options)

        mlflow.set_experiment("both")
        before, found = methods(), []
        for first, second in [
            (autolog.enable, functools.partial(theirs, mlflow.keras)),
            (functools.partial(theirs, mlflow.keras), autolog.enable),
            (autolog.enable, functools.partial(theirs, mlflow.tensorflow, checkpoint=False)),
            (functools.partial(theirs, mlflow.tensorflow, checkpoint=False), autolog.enable),
        ]:
            first()
            second()
            found.append(trained())
            autolog.flush(60)
            autolog.disable()
            for flavor in ("keras", "tensorflow"):
                mlflow.utils.autologging_utils.AUTOLOGGING_INTEGRATIONS.pop(flavor, None)
                revert_patches(flavor)
            assert methods() == before
        autolog.enable()
        with mlflow.start_run():
            found.append(trained(mlflow.keras.MlflowCallback()))
        autolog.flush(60)
        print(json.dumps(found))
        """,
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": mlflow_server.url},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    assert "internal error" not in done.stderr
    client = mlflow_server.client()
    both = client.get_experiment_by_name("both")
    assert both is not None
    runs = client.search_runs([both.experiment_id], order_by=["attributes.start_time"])
    losses = [_history(mlflow_server, run.info.run_id, "epoch_loss") for run in runs]
    assert losses == json.loads(found[-1])
    for run in runs:
        assert {"loss", "val_loss", "restored_epoch"} <= run.data.metrics.keys()
        assert {"epochs", "batch_size", "patience"} <= run.data.params.keys()
        assert {"optimizer_momentum", "opt_momentum"} & run.data.params.keys()
        assert "autolog.changed_params" not in run.data.tags
        points = Counter((p.key, p.step) for p in mlflow_server.points(run.info.run_id))
        twice = {key for (key, _), times in points.items() if times > 1}
        assert twice <= {"validation_loss"}, "all of MLflow's own are at step 0"
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        assert files.count("model_summary.txt") == 1


def _history(server: MlflowServer, run_id: str, key: str) -> list[float]:
    """The values of a metric in order of step."""
    points = (point for point in server.points(run_id) if point.key == key)
    return [point.value for point in sorted(points, key=lambda point: point.step)]
