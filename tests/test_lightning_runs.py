"""Lightning: which run a training goes into."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from lightnings import Regression, Talkative, exactly, loader, trainer
from logged import only
from torch import nn
from torch.nn import functional
from trainings import fresh_name, run_named

import autolog
from autolog.callbacks.lightning import AutologLogger

if TYPE_CHECKING:
    from logged import Logged
    from support import MlflowServer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("options", [{}, {"logger": False}, {"logger": AutologLogger()}])
def test_exceptions_pass(logged: Logged, options: dict[str, Any]) -> None:
    """The user's exception reaches him as it is, and the run is FAILED."""

    class Failing(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        trainer(**options).fit(Failing(), loader())
    assert only(logged()).status == "FAILED"
    assert only(logged()).metrics == {}


def test_ctrl_c(logged: Logged) -> None:
    """Ctrl-C ends the run KILLED; Lightning's own exit follows, unless it swallows Ctrl-C."""

    class Interrupted(Regression):
        def training_step(self, batch: Any, index: int) -> Any:
            raise KeyboardInterrupt

    with contextlib.suppress(SystemExit):
        trainer().fit(Interrupted(), loader())
    assert only(logged()).status == "KILLED"


def test_what_leaves_no_run(logged: Logged) -> None:
    """Tuner, sanity check, ``fast_dev_run``, ``barebones`` and ``predict`` leave nothing."""

    class Unlucky(Talkative):
        def on_train_start(self) -> None:
            raise AssertionError("never trained")

        def predict_step(self, batch: Any, index: int) -> Any:
            return self.layer(batch[0])

    Tuner(tuned := trainer()).lr_find(Talkative(), loader(), num_training=5)
    trainer(fast_dev_run=True).fit(Talkative(), loader(), loader())
    lightning.pytorch.Trainer(barebones=True, max_epochs=1).fit(Regression(), loader())
    tuned.predict(Unlucky(), loader())
    assert logged() == []


@pytest.mark.parametrize("logger", [True, False])
def test_an_evaluation_by_itself(logged: Logged, logger: bool) -> None:
    """``test`` outside of a fit is a run of its own, named after the model."""
    (result,) = trainer(logger=logger).test(Talkative(), loader(), verbose=False)
    run = only(logged())
    assert run.values("test_loss") == [result["test_loss"]]
    assert (run.model, run.status) == ("Talkative", "FINISHED")
    assert run.params["lr"] == "0.05"


def test_fits_inside_one_run(logged: Logged) -> None:
    """Inside ``autolog.run()`` a later fit of the same model continues its epochs and steps."""
    autolog.enable(log_every_n_steps=3)
    model = Regression()
    with autolog.run("mine"):
        for _ in range(2):
            trainer().fit(model, loader())
    run = only(logged())
    assert run.values("epoch_loss") == exactly(model.hand.epochs)
    assert [step for step, _ in run.metrics["epoch_loss"]] == [0, 1, 2, 3]
    assert [step for step, _ in run.metrics["batch_loss"]] == [3, 6, 9, 12, 15]


def test_a_trainer_that_goes_on(logged: Logged) -> None:
    """A trainer fitted again counts its own epochs and steps, which are not counted twice."""
    autolog.enable(log_every_n_steps=3)
    model, again = Regression(), trainer(max_epochs=1)
    with autolog.run("mine"):
        for epochs in (1, 3):
            again.fit_loop.max_epochs = epochs
            again.fit(model, loader())
    assert [step for step, _ in only(logged()).metrics["epoch_loss"]] == [0, 1, 2]
    assert [step for step, _ in only(logged()).metrics["batch_loss"]] == [3, 6, 9, 12]


def test_the_plain_hooks_are_silent(logged: Logged) -> None:
    """The hooks for plain PyTorch, on at the same time, log again only after Lightning is done."""
    trainer().fit(Regression(), loader())
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader():
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
    assert [run.tags["mlflow.autologging"] for run in logged()] == ["lightning", "torch"]


# -- several trainings -----------------------------------------------------------------------------


def test_five_fits_of_one_object(logged: Logged) -> None:
    """Fits of the same model and trainer are a run each, where no run is open around them."""
    model, again = Regression(), trainer(max_epochs=1)
    for epochs in range(1, 6):
        again.fit_loop.max_epochs = epochs
        again.fit(model, loader())
    runs = logged()
    assert len({run.start.key for run in runs}) == len(runs) == 5
    assert {run.status for run in runs} == {"FINISHED"}
    assert [run.metrics["epoch_loss"] for run in runs] == [
        [(epoch, pytest.approx(mean, rel=1e-6))] for epoch, mean in enumerate(model.hand.epochs)
    ]


@pytest.mark.parametrize("explicit", [False, True])
def test_ten_trainings_in_one_adopted_run(
    off: Logged, monkeypatch: pytest.MonkeyPatch, explicit: bool
) -> None:
    """The first model trains in the run that the platform named, the others in children of it."""
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    if not explicit:
        autolog.enable()
    models = [Regression() for _ in range(10)]
    for model in models:
        trainer(logger=AutologLogger() if explicit else True).fit(model, loader())
    adopted, *children = off()
    assert (adopted.start.run_id, adopted.status) == ("0123456789abcdef0123456789abcdef", None)
    assert {child.start.parent_key for child in children} == {adopted.start.key}
    assert {child.status for child in children} == {"FINISHED"}
    assert [run.values("epoch_loss") for run in off()] == [exactly(m.hand.epochs) for m in models]


def test_many_fits_say_little(logged: Logged, capfd: pytest.CaptureFixture[str]) -> None:
    """Many fits in a loop are as many runs, and a few lines."""
    autolog.enable(silent=False)
    model = Regression()
    for _ in range(40):
        trainer(max_epochs=1, limit_train_batches=1, enable_checkpointing=False).fit(
            model, loader()
        )
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("autolog:")]
    assert len(logged()) == 40
    assert len(lines) < 12


# -- what is evaluated after a fit -----------------------------------------------------------------


@pytest.mark.parametrize("form", ["enabled", "no logger", "explicit"])
def test_what_is_evaluated_later_belongs_to_the_fit(logged: Logged, form: str) -> None:
    """Validating and testing a fitted model adds to the run of its fit, with any trainer."""
    logger = {"enabled": True, "no logger": False, "explicit": AutologLogger()}[form]
    fitted = trainer(logger=logger)
    fitted.fit(model := Talkative(), loader(), loader())
    (tested,) = fitted.test(model, loader(), verbose=False)
    (validated,) = trainer(logger=logger).validate(model, loader(20), verbose=False)
    runs = logged()
    assert {(run.start.key, run.start.name) for run in runs} == {
        (runs[0].start.key, runs[0].start.name)
    }
    assert [run.status for run in runs] == ["FINISHED"] * 3
    assert runs[1].metrics["test_loss"] == [(8, tested["test_loss"])]
    assert runs[2].values("val_loss_epoch") == [validated["val_loss_epoch"]]
    assert [run.tags.get("Mode") for run in runs] == ["training", "testing", None]
    trainer(logger=logger).fit(model, loader())
    assert logged()[-1].start.key != runs[0].start.key


def test_an_evaluation_does_not_mend_a_failed_fit(logged: Logged) -> None:
    """A fit that failed stays FAILED although its model is tested afterwards."""

    class Failing(Talkative):
        def on_train_epoch_start(self) -> None:
            if self.current_epoch:
                raise ZeroDivisionError

    model = Failing()
    with pytest.raises(ZeroDivisionError):
        trainer().fit(model, loader())
    trainer().test(model, loader(), verbose=False)
    assert [run.status for run in logged()] == ["FAILED", "FAILED"]
    assert len({run.start.key for run in logged()}) == 1


def test_an_evaluation_in_a_run_of_the_users(logged: Logged) -> None:
    """A run that the user opens for the evaluation gets it."""
    trainer().fit(model := Talkative(), loader())
    with autolog.run("mine"):
        trainer().test(model, loader(), verbose=False)
    fit, mine = logged()
    assert "test_loss" not in fit.metrics
    assert (mine.start.name, len(mine.values("test_loss"))) == ("mine", 1)


def test_a_fit_in_a_run_of_the_users(logged: Logged) -> None:
    """What is evaluated after that run is closed does not open it again."""
    with autolog.run("mine"):
        trainer().fit(model := Talkative(), loader())
    trainer().test(model, loader(), verbose=False)
    mine, test = logged()
    assert mine.start.key != test.start.key
    assert "test_loss" in test.metrics


def test_what_is_logged_by_hand_after_a_fit(off: Logged) -> None:
    """It is in the run of the fit; the next fit is a run of its own all the same."""
    logger = AutologLogger()
    for _ in range(2):
        trainer(logger=logger).fit(model := Regression(), loader())
        logger.log_metrics({"by hand": 1.0}, 5)
        logger.log_hyperparams({"found": "later"})
    keys = [run.start.key for run in off()]
    assert keys == [keys[0]] * 3 + [keys[3]] * 3
    assert keys[0] != keys[3]
    assert off()[3].values("epoch_loss") == exactly(model.hand.epochs)
    assert [run.values("by hand") for run in off()] == [[], [1.0], []] * 2
    assert [run.params.get("found") for run in off()] == [None, None, "later"] * 2
    assert {run.status for run in off()} == {"FINISHED"}


# -- from a checkpoint -----------------------------------------------------------------------------


class Stumbling(Talkative):
    """Fails in its third epoch, once."""

    failed = False

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 2 and not type(self).failed:
            type(self).failed = True
            raise ZeroDivisionError


def _saving(folder: Path, **options: Any) -> Any:
    return lightning.pytorch.callbacks.ModelCheckpoint(folder, save_last="link", **options)


@pytest.mark.parametrize("given", ["last", "path", "link"])
def test_resuming_goes_on_with_the_run(
    off: Logged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    """With ``resume="auto"`` a fit from a checkpoint is the same run, and its epochs go on."""
    monkeypatch.setattr(Stumbling, "failed", False)
    first = trainer(
        max_epochs=3, logger=AutologLogger(resume="auto"), callbacks=[_saving(tmp_path)]
    )
    with pytest.raises(ZeroDivisionError):
        first.fit(Stumbling(), loader())
    saved = first.checkpoint_callback.best_model_path
    path = {"last": "last", "path": saved, "link": str(tmp_path / "last.ckpt")}[given]
    again = trainer(
        max_epochs=4, logger=AutologLogger(resume="auto"), callbacks=[_saving(tmp_path)]
    )
    again.fit(Stumbling(), loader(), ckpt_path=path)
    former, later = off()
    assert (later.start.key, later.start.name) == (former.start.key, former.start.name)
    assert (former.status, later.status) == ("FAILED", "FINISHED")
    assert [step for step, _ in former.metrics["epoch_loss"]] == [0, 1]
    assert [step for step, _ in later.metrics["epoch_loss"]] == [2, 3]
    assert later.params == {}, "they are there already; what has changed is kept apart"
    assert later.tags["autolog.changed_params"] == "epochs"


def test_what_does_not_resume(off: Logged, tmp_path: Path) -> None:
    """Without the option, without a note, and without a checkpoint a fit is a run of its own."""
    first = trainer(logger=AutologLogger(resume="auto"), callbacks=[_saving(tmp_path)])
    first.fit(Regression(), loader())
    saved = first.checkpoint_callback.best_model_path
    first.save_checkpoint(tmp_path / "unknown.ckpt")
    for resume, path in ((None, saved), ("auto", tmp_path / "unknown.ckpt"), ("auto", None)):
        logger = AutologLogger(resume=resume)
        trainer(max_epochs=3, logger=logger, callbacks=[_saving(tmp_path / "new")]).fit(
            Regression(), loader(), ckpt_path=path
        )
    assert len({run.start.key for run in off()}) == 4


@pytest.mark.recent  # ModelCheckpoint of Lightning 2.1 deletes the checkpoint that it resumed from
def test_a_note_that_is_damaged(off: Logged, tmp_path: Path) -> None:
    """A file beside the checkpoint that is no note, or a forged one, counts as none."""
    first = trainer(logger=AutologLogger(resume="auto"), callbacks=[_saving(tmp_path)])
    first.fit(Regression(), loader())
    saved = first.checkpoint_callback.best_model_path
    note = json.loads((tmp_path / "autolog.json").read_text())
    (key,) = note["runs"]
    forged = json.dumps(note).replace(key, "../../../etc")
    for text in ("", "[]", '{"checkpoints": 3, "runs": {}}', forged):
        (tmp_path / "autolog.json").write_text(text)
        trainer(max_epochs=3, logger=AutologLogger(resume="auto"), callbacks=[]).fit(
            Regression(), loader(), ckpt_path=saved
        )
    assert len({run.start.key for run in off()}) == 5


def test_the_notes_keep_to_what_is_there(off: Logged, tmp_path: Path) -> None:
    """The file beside the checkpoints names what is there when one is saved, of every run."""
    for _ in range(2):
        logger = AutologLogger(resume="auto")
        trainer(max_epochs=5, logger=logger, callbacks=[_saving(tmp_path)]).fit(
            Regression(), loader()
        )
    notes = json.loads((tmp_path / "autolog.json").read_text())
    kept = {path.name for path in tmp_path.glob("*.ckpt") if not path.is_symlink()}
    removed_since = {"epoch=3-step=16.ckpt"}
    assert notes["checkpoints"].keys() - removed_since == kept
    assert set(notes["runs"]) == {run.start.key for run in off()}


def test_a_run_that_goes_on_is_one_on_the_server(
    mlflow_server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed, resumed and tested: the server has one run, with everything and its last status."""
    monkeypatch.setattr(Stumbling, "failed", False)
    name = fresh_name()
    monkeypatch.setenv("MLFLOW_RUN_NAME", name)
    autolog.enable(tracking_uri=mlflow_server.url, silent=True)

    def fit(epochs: int, path: str | None = None) -> Any:
        fitted = trainer(
            max_epochs=epochs, logger=AutologLogger(resume="auto"), callbacks=[_saving(tmp_path)]
        )
        try:
            fitted.fit(Stumbling(), loader(), ckpt_path=path)
        finally:
            assert autolog.flush(30).complete
        return fitted

    with pytest.raises(ZeroDivisionError):
        fit(3)
    assert run_named(mlflow_server, name).info.status == "FAILED"
    fit(4, "last").test(dataloaders=loader(), verbose=False)
    assert autolog.flush(30).complete
    run = run_named(mlflow_server, name)
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "3"
    steps = sorted(p.step for p in mlflow_server.points(run.info.run_id) if p.key == "epoch_loss")
    assert steps == [0, 1, 2, 3]
    assert "test_loss" in run.data.metrics
