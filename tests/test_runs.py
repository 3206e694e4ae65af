"""Which run a training uses, whose name wins, and where the epoch axis goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import autolog
from autolog import recorder

if TYPE_CHECKING:
    from readback import Experiment

    from autolog.recorder import Recorder, Training


class Model:
    """Something that trains."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The recorder of this process; nothing is sent."""
    monkeypatch.setenv("AUTOLOG_MODE", "offline")
    return recorder.get()


def begin(subject: object, *, holds: bool = True) -> Training:
    """A toy training begins."""
    return recorder.get().begin_training(subject, flavor="toy", name="Toy", holds=holds)


def run_of(training: Training) -> Any:
    """The run of a training that is not silent."""
    assert training.run is not None
    return training.run


# -- which run ---------------------------------------------------------------------------------


def test_a_training_opens_and_ends_its_own_run(here: Recorder) -> None:
    """Outside of every run a training has one, named after the model, which ends with it."""
    with begin(Model()) as training:
        run = run_of(training)
        assert run.start.name.startswith("Toy-")
        assert run.start.tags["mlflow.autologging"] == "toy"
        assert here.open_runs == [run]
    assert run.status == "FINISHED"
    assert here.open_runs == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError(), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(2), "FAILED"),
    ],
    ids=repr,
)
def test_a_training_ends_as_what_left_it(here: Recorder, error: BaseException, status: str) -> None:
    """The exception passes, and decides the run's status."""
    with pytest.raises(type(error)), begin(Model()) as training:
        run = run_of(training)
        raise error
    assert run.status == status


def test_ending_twice_is_once(here: Recorder) -> None:
    """The first ``end`` decides."""
    training = begin(Model())
    training.end("FAILED")
    training.end("FINISHED")
    assert run_of(training).status == "FAILED"
    assert not here.nesting.in_training


def test_trainings_inside_a_training_are_silent(here: Recorder) -> None:
    """Of nested trainings in a thread the outermost is logged; verbs of the others do nothing."""
    with begin(Model()) as outer:
        with begin(Model()) as inner:
            assert inner.silent
            inner.log_metrics({"epoch_loss": 1.0}, 0)
            inner.log_params({"a": 1})
            inner.set_tags({"a": "b"})
            inner.log_text("text", "file.txt")
        assert here.nesting.in_training
        assert run_of(outer).journal.logged == 0
    with begin(Model()) as after:
        assert not after.silent


def test_other_threads_train_on_their_own(here: Recorder) -> None:
    """A training in one thread does not silence, or take in, one in another."""
    runs: list[Any] = []

    def train() -> None:
        with begin(Model()) as training:
            runs.append(run_of(training))

    with begin(Model()) as training:
        runs.append(run_of(training))
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert len({run.key for run in runs}) == 2


def test_a_training_may_end_in_another_thread(here: Recorder) -> None:
    """The thread that began is free again, wherever ``end`` was called."""
    training = begin(Model())
    thread = threading.Thread(target=training.end)
    thread.start()
    thread.join()
    assert not here.nesting.in_training
    assert here.nesting.innermost() is None
    assert not begin(Model()).silent


def test_a_training_that_does_not_hold_lets_others_in(here: Recorder) -> None:
    """A loop that may never end, as in plain torch, silences nobody."""
    loop = begin(Model(), holds=False)
    with begin(Model()) as other:
        assert run_of(other) is not run_of(loop)
    loop.end()


def test_the_first_training_in_a_users_run_uses_it(here: Recorder) -> None:
    """Inside ``with run():`` the first training logs there and ends nothing."""
    with autolog.run("mine"):
        with begin(Model()) as training:
            assert run_of(training).start.name == "mine"
        assert run_of(training).status is None


def test_a_second_training_in_a_users_run_is_a_child_run(here: Recorder) -> None:
    """Another object that trains there gets a child run of its own, each time."""
    first, second = Model(), Model()
    with autolog.run("mine"):
        begin(first).end()
        mine = here.nesting.innermost()
        assert mine is not None
        for _ in range(2):
            with begin(second) as training:
                assert run_of(training).start.parent_key == mine.key
            assert run_of(training).status == "FINISHED"
        assert mine.status is None


def test_a_later_fit_of_the_same_object_continues_its_epochs(here: Recorder) -> None:
    """Three epochs, then a second fit of the same object in the same run: it begins at epoch 3."""
    model = Model()
    with autolog.run("mine"):
        with begin(model) as training:
            assert training.first_epoch == 0
            for epoch in range(3):
                training.log_metrics({"epoch_loss": 1.0}, epoch)
        with begin(model) as training:
            assert training.first_epoch == 3
            training.log_metrics({"epoch_loss": 1.0}, 3)
        with begin(model) as training:
            assert training.first_epoch == 4


def test_objects_that_cannot_be_referenced_weakly_may_train(here: Recorder) -> None:
    """A subject without weak references is recognised too."""

    class Slotted:
        __slots__ = ()

    model = Slotted()
    with autolog.run("mine"):
        with begin(model) as training:
            training.log_metrics({"epoch_loss": 1.0}, 0)
        assert begin(model).first_epoch == 1


def test_exclusive_leaves_the_users_runs_alone(here: Recorder) -> None:
    """With ``exclusive`` a training in a user's run is silent, and one outside is logged."""
    autolog.enable(exclusive=True)
    with autolog.run("mine"), begin(Model()) as inside:
        assert inside.silent
    with begin(Model()) as outside:
        assert not outside.silent


def test_pause_and_disable_switch_silence_trainings(
    here: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused, of a later rank, or switched off by variable: a silent training."""
    with autolog.pause(), begin(Model()) as training:
        assert training.silent
        assert here.nesting.in_training
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with begin(Model()) as training:
        assert training.silent
    monkeypatch.setenv("RANK", "0")
    with begin(Model()) as training:
        assert not training.silent
    monkeypatch.setenv("AUTOLOG_DISABLED", "1")
    autolog.enable()
    with begin(Model()) as training:
        assert training.silent


def test_run_name_of_the_environment(here: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """``MLFLOW_RUN_NAME`` names runs that nobody named."""
    monkeypatch.setenv("MLFLOW_RUN_NAME", "from outside")
    assert run_of(begin(Model())).start.name == "from outside"
    with autolog.run("own") as run:
        assert run.name == "own"


def test_extra_tags_are_on_every_run_we_open(own_experiment: Experiment) -> None:
    """``extra_tags`` come with the run, on the user's and on a training's."""
    autolog.enable(extra_tags={"team": "blue"})
    with autolog.run("mine"):
        begin(Model()).end()
        begin(Model()).end()
    runs = own_experiment.runs(2)
    assert {run.data.tags["team"] for run in runs.values()} == {"blue"}
    assert {run.data.tags["mlflow.autologging"] for run in runs.values()} == {"toy"}


# -- whose values --------------------------------------------------------------------------------


def test_the_users_metric_names_win(
    own_experiment: Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    """A name that the user's code logs in a run is his: hooks leave it out, said once."""
    with begin(Model()) as training:
        training.log_metrics({"epoch_loss": 0.0, "accuracy": 0.0}, 0)
        autolog.log_metrics({"epoch_loss": 10.0, "accuracy": 10.0}, step=1)
        training.log_metrics({"epoch_loss": 1.0, "accuracy": 1.0, "other": 1.0}, 2)
        autolog.log_metrics({"epoch_loss": 20.0, "accuracy": 20.0}, step=3)
        training.log_metrics({"epoch_loss": 2.0, "other": 2.0}, 4)
    run = own_experiment.only_run()
    assert own_experiment.values(run, "epoch_loss", 3) == [0.0, 10.0, 20.0]
    assert own_experiment.values(run, "other", 2) == [1.0, 2.0]
    said = capfd.readouterr().err
    assert said.count("accuracy, epoch_loss: logged by other code in this run") == 1


def test_names_that_frameworks_choose_are_made_to_fit(own_experiment: Experiment) -> None:
    """What a store would refuse in a hook's names is replaced, not lost."""
    with begin(Model()) as training:
        training.log_metrics({"precision@5": 0.5, "val(loss)": 1.0, "/a//b/": 2.0}, 0)
        training.log_params({"layer[0]": "dense", "": "nameless"})
    run = own_experiment.only_run()
    names = {p.key for p in own_experiment.points(run)}
    assert names == {"precision_at_5", "val_loss_", "a/b"}
    assert run.data.params["layer_0_"] == "dense"


def test_text_of_a_training_is_an_artifact(own_experiment: Experiment) -> None:
    """``log_text`` stores a file under its path, odd characters included."""
    with begin(Model()) as training:
        training.log_text("größe \ud800", "model/summary.txt")
    run = own_experiment.only_run()
    assert autolog.flush(30).complete
    client = own_experiment.server.client()
    path = client.download_artifacts(run.info.run_id, "model/summary.txt")
    assert Path(path).read_text(encoding="utf-8") == "größe \\ud800"


# -- the current run -----------------------------------------------------------------------------


def _logged_to(log: Callable[[], None]) -> str:
    seen: list[str] = []
    log()
    here = recorder.get()
    here.on_current_run(lambda run: seen.append(run.start.name))
    return seen[0]


def test_the_current_run_is_the_innermost_of_the_context(here: Recorder) -> None:
    """Inside a training its run, inside ``run()`` that one, after it the outer one again."""
    with autolog.run("outer"):
        assert _logged_to(lambda: autolog.log_metric("m", 1)) == "outer"
        with autolog.run("inner"):
            assert _logged_to(lambda: autolog.log_metric("m", 1)) == "inner"
        assert _logged_to(lambda: autolog.log_metric("m", 1)) == "outer"
    with begin(Model()) as training:
        assert _logged_to(lambda: autolog.log_metric("m", 1)) == run_of(training).start.name


def test_a_run_that_was_ended_inside_its_block_is_not_current(here: Recorder) -> None:
    """After ``end_run()`` in a block, calls there open a new run instead of reviving it."""
    with autolog.run("short") as run:
        autolog.end_run()
        assert run.status == "FINISHED"
        assert _logged_to(lambda: autolog.log_metric("m", 1)).startswith("run-")
    assert run.status == "FINISHED"


def test_many_tuples_of_names_cost_bounded_memory(own_experiment: Experiment) -> None:
    """Thousands of different sets of names are all stored; what is kept of them has an end."""
    with autolog.run("wide"):
        for number in range(1500):
            autolog.log_metrics({f"m{number}": number}, step=0)
            autolog.log_metrics({f"m{number}": number + 0.5}, step=1)
        run = recorder.get().nesting.innermost()
        assert run is not None
        assert len(run._keys._known) <= 1024
    stored = own_experiment.only_run()
    assert autolog.flush(60).complete
    assert len(own_experiment.points(stored)) == 3000
