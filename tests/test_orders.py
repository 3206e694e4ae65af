"""Import, enable, use and disable in every order: the frameworks end up as they were."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from logged import logged_runs
from support import run_script

pytest.importorskip("keras")
pytest.importorskip("lightning")
pytest.importorskip("pytorch_lightning")
pytest.importorskip("sklearn")

_PROGRAM = """
    import json, os, sys, traceback, types, warnings
    warnings.simplefilter("ignore")
    FRAMEWORKS = {"__main__", "keras", "lightning", "pytorch_lightning", "sklearn", "sys", "torch"}

    def load():
        global keras, pl, lightning, sklearn, torch, Estimator
        import keras
        import lightning.pytorch as lightning
        import pytorch_lightning as pl
        import sklearn.base
        import sklearn.linear_model
        import sklearn.pipeline
        import torch

        class Estimator(sklearn.base.BaseEstimator):
            def fit(self, x, y):
                return self

    def use():
        from lightning.pytorch.demos.boring_classes import BoringModel
        from pytorch_lightning.demos.boring_classes import BoringModel as OtherModel

        x, y = torch.rand(4, 2), torch.rand(4, 1)
        sklearn.pipeline.make_pipeline(sklearn.linear_model.LinearRegression()).fit(x, y)
        Estimator().fit(x, y)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.fit(x.numpy(), y.numpy(), verbose=0)
        quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
        quiet |= dict(enable_model_summary=False, max_epochs=1, limit_train_batches=1)
        quiet |= dict(limit_val_batches=0, accelerator="cpu")
        lightning.Trainer(**quiet).fit(BoringModel())
        pl.Trainer(**quiet).fit(OtherModel())
        layer = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        data = torch.utils.data.TensorDataset(x, y)
        for inputs, targets in torch.utils.data.DataLoader(data, batch_size=2):
            optimizer.zero_grad()
            torch.nn.MSELoss()(layer(inputs), targets).backward()
            optimizer.step()

    FUNCTIONS = types.FunctionType, types.BuiltinFunctionType, classmethod, staticmethod

    def attributes():
        # Every function of every module and class of the frameworks, by its owner.
        modules = [
            module for path, module in list(sys.modules.items())
            if path.partition(".")[0] in FRAMEWORKS and module is not None
        ]
        owners = {id(module): module for module in modules}
        for module in modules:
            for value in list(vars(module).values()):
                if isinstance(value, type):
                    owners[id(value)] = value
        found = {}
        for owner in owners.values():
            for name, value in list(vars(owner).items()):
                where = getattr(owner, "__module__", ""), owner.__name__, name
                if isinstance(value, FUNCTIONS):
                    found[id(owner), name] = where, value
                elif "fn" in getattr(value, "__dict__", {}):  # sklearn's available_if
                    found[id(value), "fn"] = where, value.fn
        return found

    def is_ours(value):
        value = getattr(value, "__func__", value)
        return getattr(value, "__globals__", {}).get("__name__", "").startswith("autolog")

    def check(before):
        hooks = sys.modules["torch.optim.optimizer"]
        assert not hooks._global_optimizer_pre_hooks, hooks._global_optimizer_pre_hooks
        assert not hooks._global_optimizer_post_hooks, hooks._global_optimizer_post_hooks
        after = attributes()
        ours = [where for where, value in after.values() if is_ours(value)]
        assert not ours, ours
        changed = [
            where for key, (where, value) in before.items()
            if after.get(key, [where, None])[1] is not value
        ]
        assert not changed, changed

    def run(order, home):
        import autolog
        before = {}
        for step in order:
            if step == "import":
                load()
            elif step == "enable":
                autolog.enable(mode="offline", dir=home, silent=True)
            elif step == "use":
                use()
            elif step == "disable":
                autolog.disable()
            else:
                before = attributes()
        autolog.disable()
        check(before)
        assert not autolog.status()["internal_errors"], autolog.status()["internal_errors"]

    orders, root = json.loads(os.environ["ORDERS"]), os.environ["AUTOLOG_DIR"]
    if orders[0][0] == "import":
        load()
        use()  # autolog is not loaded yet: a fork is as good as a start, and much faster
    failed = 0
    for number, order in enumerate(orders):
        child = os.fork()
        if child == 0:
            try:
                if order[0] == "import":
                    order[0] = "look"
                run(order, os.path.join(root, str(number)))
                os._exit(0)
            except BaseException:
                sys.stderr.write(f"{order}\\n{traceback.format_exc()[-3000:]}\\n")
                os._exit(1)
        failed |= os.waitpid(child, 0)[1]
    sys.exit(failed != 0)
"""

_ONCE = ["sklearn", "sklearn", "keras", "lightning", "lightning", "torch"]
"""The flavors of the runs that one use makes."""


def _logged_uses(order: Sequence[str]) -> int:
    """How often an order trains while autolog is on."""
    uses, on = 0, False
    for step in order:
        on = step == "enable" or (on and step != "disable")
        uses += on and step == "use"
    return uses


def _passes(orders: list[list[str]], cwd: Path, home: Path) -> None:
    env = {"ORDERS": json.dumps(orders), "KERAS_BACKEND": "torch"}
    done = run_script(_PROGRAM, cwd=cwd, env=env, timeout=170)
    assert done.returncode == 0, done.stderr
    for number, order in enumerate(orders):
        flavors = [run.tags["mlflow.autologging"] for run in logged_runs(home / str(number))]
        assert flavors == _ONCE * _logged_uses(order), order


def test_every_order_after_the_import(tmp_path: Path, autolog_home: Path) -> None:
    """After the import come two enables, a use and a disable in any order, and another use."""
    orders = sorted(set(itertools.permutations(["enable", "enable", "use", "disable"])))
    _passes([["import", *order, "use"] for order in orders], tmp_path, autolog_home)


@pytest.mark.parametrize(
    "order",
    [
        "enable import use disable use enable use",
        "enable disable import use enable use",
    ],
)
def test_frameworks_imported_later(order: str, tmp_path: Path, autolog_home: Path) -> None:
    """Frameworks are imported while autolog is on, or off again."""
    _passes([order.split()], tmp_path, autolog_home)
