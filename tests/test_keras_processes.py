"""Keras in fresh processes: backends, orders of import and enable, and mlflow's own autologging."""

from __future__ import annotations

import json
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
        pytest.importorskip("jax", reason="jax is not installed")
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


def test_beside_mlflows_autologging(
    mlflow_server: MlflowServer, tmp_path: Path, autolog_home: Path
) -> None:
    """Whoever comes first, the fit is one run that has epoch_loss, and both leave no trace."""
    done = run_script(
        """
        import json
        import autolog
        import keras
        import mlflow
        import numpy as np
        from mlflow.utils.autologging_utils.safety import revert_patches

        def trained():
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            x, y = np.ones((4, 2)), np.ones((4, 1))
            history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y), callbacks=[])
            return [mlflow.last_active_run().info.run_id, history.history["loss"]]

        def methods():
            names = "fit", "evaluate"
            return [vars(cls).get(name) for cls in keras.Model.__mro__ for name in names]

        def theirs():
            mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)

        mlflow.set_experiment("both")
        before, found = methods(), []
        for first, second in [(autolog.enable, theirs), (theirs, autolog.enable)]:
            first()
            second()
            found.append(trained())
            autolog.disable()
            revert_patches("keras")
            assert methods() == before
        assert len(mlflow.search_runs(output_format="list")) == 2
        print(json.dumps(found))
        """,
        cwd=tmp_path,
        env={"MLFLOW_TRACKING_URI": mlflow_server.url, "AUTOLOG_MODE": "offline"},
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "internal error" not in done.stderr
    logged = [[run.start.run_id, run.values("epoch_loss")] for run in logged_runs(autolog_home)]
    assert logged == found
