"""Lightning beside other loggers that write to MLflow: one run, each value once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch
import pytest
from lightnings import Regression, Talkative, exactly, loader, trainer
from logged import only
from support import run_script

import autolog
from autolog.callbacks.lightning import AutologLogger

if TYPE_CHECKING:
    from logged import Logged
    from support import MlflowServer

pytestmark = pytest.mark.filterwarnings("ignore")

OURS = {"epoch_loss", "learning_rate"}


# -- Lightning's own -------------------------------------------------------------------------------


def test_lightnings_logger_shares_its_run(mlflow_server: MlflowServer, autolog_home: Path) -> None:
    """Ours goes into the run of ``MLFlowLogger``, on its server, and no point is there twice."""
    autolog.enable(mode="process", silent=True)  # to somewhere else
    own = lightning.pytorch.loggers.MLFlowLogger(tracking_uri=mlflow_server.url)
    before = set(mlflow_server.run_ids())
    model = Talkative(nested={"depth": 2})
    fitted = trainer(logger=own)
    fitted.fit(model, loader(), loader())
    fitted.test(model, loader(), verbose=False)
    assert autolog.flush(30).complete
    assert set(mlflow_server.run_ids()) - before == {own.run_id}
    run = mlflow_server.client().get_run(own.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.params["nested/depth"], run.data.params["optimizer_name"]) == ("2", "SGD")
    # Its own "epoch" it stores several times a step.
    points = [(p.key, p.step) for p in mlflow_server.points(own.run_id) if p.key != "epoch"]
    assert len(set(points)) == len(points)
    assert {key for key, _ in points} >= OURS | {"train_loss_epoch", "val_loss_epoch", "test_loss"}
    history = mlflow_server.client().get_metric_history(own.run_id, "epoch_loss")
    assert [point.value for point in history] == exactly(model.hand.epochs)


@pytest.mark.parametrize("form", ["enabled", "explicit", "other prefix"])
def test_what_is_ours_beside_lightnings_logger(
    logged: Logged, mlflow_server: MlflowServer, form: str
) -> None:
    """What it takes from Lightning it writes alone; of a name that it does not write, ours does."""
    own = lightning.pytorch.loggers.MLFlowLogger(tracking_uri=mlflow_server.url, prefix="p")
    loggers = {
        "enabled": [own],
        "explicit": [own, explicit := AutologLogger(prefix="p")],
        "other prefix": [own, AutologLogger(prefix="q")],
    }[form]
    model = Talkative()

    def say(logger: Any) -> None:
        explicit.log_metrics({"by hand": 1.0}, 3)

    if form == "explicit":
        model.on_train_epoch_start = say.__get__(model)  # type: ignore[method-assign]
    trainer(logger=loggers).fit(model, loader(), loader())
    run = only(logged())
    assert (run.start.key, run.status) == (own.run_id, "FINISHED")  # offline its id is the key
    extra = {
        "enabled": set(),
        "explicit": {"p-by hand"},
        "other prefix": {"q-epoch", "q-index", "q-train_loss_step", "q-train_loss_epoch"}
        | {"q-val_loss_step", "q-val_loss_epoch"},
    }[form]
    assert run.metrics.keys() >= OURS | extra
    assert all(name.startswith("p-") for name in run.metrics.keys() - OURS - extra)
    for name in run.metrics.keys() - {"p-epoch", "q-epoch", "p-by hand"}:  # several times a step
        steps = [step for step, _ in run.metrics[name]]
        assert len(set(steps)) == len(steps), name
    assert "optimizer_name" in run.params
    assert "autolog.changed_params" not in run.tags, "each param is logged by one of the two"


def test_two_models_with_lightnings_logger(logged: Logged, mlflow_server: MlflowServer) -> None:
    """All that one ``MLFlowLogger`` is used for is in its run; our epochs go on there."""
    own = lightning.pytorch.loggers.MLFlowLogger(tracking_uri=mlflow_server.url)
    for _ in range(2):
        trainer(logger=own).fit(Regression(), loader())
    run = only(logged())
    assert run.start.key == own.run_id
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]


def test_a_name_that_the_module_logs(logged: Logged) -> None:
    """``epoch_loss`` of the module's own is the module's: ours leaves the name to it."""

    class Named(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            self.log("epoch_loss", 7.0, on_step=False, on_epoch=True)
            return self.loss(batch)

    for logger in (True, False):
        trainer(logger=logger).fit(Named(), loader())
    for run in logged():
        assert run.metrics["epoch_loss"] == [(3, 7.0), (7, 7.0)]


# -- MLflow's own ----------------------------------------------------------------------------------

_BESIDE_MLFLOW = """
    import json, sys, warnings
    warnings.simplefilter("ignore")
    import autolog, mlflow, torch
    import lightning.pytorch, pytorch_lightning
    from mlflow.utils.autologging_utils import revert_patches

    def options(space):
        saving = space.callbacks.ModelCheckpoint("saved", monitor="val_loss")
        stopping = space.callbacks.EarlyStopping("val_loss", patience=1)
        return {"max_epochs": 4, "callbacks": [stopping, saving], "log_every_n_steps": 1,
                "enable_progress_bar": False, "enable_model_summary": False, "logger": False}

    def module(space):
        class Small(space.LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)
            def training_step(self, batch, index):
                loss = self.layer(batch[0]).pow(2).mean()
                self.log("train_loss", loss)
                return loss
            def validation_step(self, batch, index):
                self.log("val_loss", float(self.current_epoch > 0))
            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.01)
        return Small()

    data = torch.utils.data.TensorDataset(torch.ones(8, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    def fit(space):
        space.Trainer(**options(space)).fit(module(space), loader, loader)

    switches = {
        "ours": lambda: autolog.enable(silent=True),
        "theirs": lambda: mlflow.pytorch.autolog(log_models=False, checkpoint=False, silent=True),
    }
    seen = {}
    def look(name):
        assert autolog.flush(30).complete
        runs = mlflow.search_runs(output_format="list")
        new = [run for run in runs if run.info.run_id not in seen]
        for run in new:
            seen[run.info.run_id] = None
        (run,) = new
        client = mlflow.MlflowClient()
        metrics = {
            key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        files = [f.path for f in client.list_artifacts(run.info.run_id)]
        return {"params": run.data.params, "metrics": metrics, "files": files,
                "status": run.info.status, "tags": run.data.tags}

    found = {}
    for order in (["theirs"], ["ours"], ["ours", "theirs"], ["theirs", "ours"]):
        for space in (lightning.pytorch, pytorch_lightning):
            for switch in order:
                switches[switch]()
            fit(space)
            autolog.disable()
            mlflow.pytorch.autolog(disable=True)
            revert_patches("pytorch")
            found["+".join(order) + " " + space.__name__] = look(order)
    json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def beside_mlflow(
    mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Runs of the same training under MLflow's autologging, under ours, and under both."""
    folder = tmp_path_factory.mktemp("beside-mlflow")
    env = {
        "MLFLOW_TRACKING_URI": mlflow_server.url,
        "MLFLOW_EXPERIMENT_NAME": "beside mlflow",
        "AUTOLOG_DIR": str(folder / "home"),
    }
    done = run_script(_BESIDE_MLFLOW, cwd=folder, env=env, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "internal error" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


SPACES = ["lightning.pytorch", "pytorch_lightning"]


@pytest.mark.parametrize("order", ["ours+theirs", "theirs+ours"])
@pytest.mark.parametrize("space", SPACES)
def test_mlflows_autologging_beside_ours(
    beside_mlflow: dict[str, Any], order: str, space: str
) -> None:
    """In both orders there is one run: MLflow's values as it logs them, and ours added."""
    theirs, both = (beside_mlflow[f"{form} {space}"] for form in ("theirs", order))
    assert both["status"] == "FINISHED"
    assert both["params"].items() >= theirs["params"].items()
    assert "autolog.changed_params" not in both["tags"]
    for key, points in both["metrics"].items():
        assert len({step for step, _ in points}) == len(points), key
        if key in theirs["metrics"]:
            steps = [step for step, _ in theirs["metrics"][key]]
            assert [step for step, _ in points] == steps, key
    assert both["metrics"].keys() >= theirs["metrics"].keys() | OURS


@pytest.mark.parametrize("space", SPACES)
def test_nothing_that_mlflow_logs_is_missing(beside_mlflow: dict[str, Any], space: str) -> None:
    """Ours alone has every param, metric, tag and file of MLflow's, models excepted."""
    theirs, ours = (beside_mlflow[f"{form} {space}"] for form in ("theirs", "ours"))
    told_by_a_metric = {"stopped_epoch"}
    missing = theirs["params"].keys() - ours["params"].keys() - told_by_a_metric
    assert not missing
    for key in theirs["params"].keys() & ours["params"].keys() - {"min_delta"}:
        assert ours["params"][key] == theirs["params"][key], key
    assert not theirs["metrics"].keys() - ours["metrics"].keys()
    assert set(theirs["files"]) <= set(ours["files"])
    assert ours["tags"]["Mode"] == theirs["tags"]["Mode"] == "training"
    for key in ("stopped_epoch", "restored_epoch", "best_score", "wait_count"):
        if key in theirs["metrics"]:
            values = [[value for _, value in run["metrics"][key]] for run in (theirs, ours)]
            assert values[0] == values[1], key
