"""What nobody should log: strict says so at the user's line, else it is said once and counted."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from logged import logged_runs

import autolog

if TYPE_CHECKING:
    from readback import Experiment


class Hostile:
    """An object that raises from every method that could describe it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __len__(self) -> int:
        raise RuntimeError("no len")

    __str__ = __repr__


class Growing(dict[str, Any]):
    """A dict that grows while its items are read."""

    def items(self) -> Any:
        for key in list(super().keys()):
            yield key, self[key]
        raise RuntimeError("dictionary changed size during iteration")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent: what counts is what is said, raised and counted here."""
    monkeypatch.setenv("AUTOLOG_MODE", "offline")


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input is an error."""
    monkeypatch.setenv("AUTOLOG_MODE", "offline")
    monkeypatch.setenv("AUTOLOG_STRICT", "1")


def _loud(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if "not logged" in line]


BAD_CALLS: list[tuple[Callable[[], None], str, int]] = [
    (lambda: autolog.log_metrics({"a": "text", "good": 1}), "metric 'a': 'text' is str", 1),
    (lambda: autolog.log_metrics({"a": None, "good": 1}), "metric 'a': None is NoneType", 1),
    (lambda: autolog.log_metrics({"a": 1j, "good": 1}), "metric 'a': 1j is complex", 1),
    (lambda: autolog.log_metrics({"a": np.complex64(1j), "good": 1}), "metric 'a': .*imaginary", 1),
    (lambda: autolog.log_metrics({"a": [1.0], "good": 1}), r"metric 'a': \[1.0\] is list", 1),
    (lambda: autolog.log_metrics({"a": np.ones(3), "good": 1}), "metric 'a': .*float.*mean", 1),
    (lambda: autolog.log_metrics({"a": Hostile(), "good": 1}), "metric 'a': .*no float", 1),
    (lambda: autolog.log_metrics({"a": 10**400, "good": 1}), "metric 'a': .*OverflowError", 1),
    (lambda: autolog.log_metrics({"": 1, "good": 1}), "metric name '': is empty", 1),
    (lambda: autolog.log_metrics({"a@b": 1, "good": 1}), "metric name 'a@b': use only", 1),
    (lambda: autolog.log_metrics({"../a": 1, "good": 1}), "metric name '../a': .*relative", 1),
    (lambda: autolog.log_metrics({"x" * 300: 1, "good": 1}), "300 characters; use at most 250", 1),
    (lambda: autolog.log_metrics({7: 1, "good": 1}), "metric name 7: is int; use text", 1),  # type: ignore[dict-item]
    (lambda: autolog.log_metrics({Hostile(): 1, "good": 1}), "metric name .*is Hostile", 1),  # type: ignore[dict-item]
    (lambda: autolog.log_metrics({"a": 1, "b": 2}, step=1.5), "step=1.5: .*whole number", 2),  # type: ignore[arg-type]
    (lambda: autolog.log_metrics({"a": 1, "b": 2}, step="9"), "step='9': .*whole number", 2),  # type: ignore[arg-type]
    (lambda: autolog.log_metrics({"a": 1}, step=2**63), "step=9223372036854775808: .*64 bits", 1),
    (lambda: autolog.log_metrics({"a": 1}, step=10**5000), "step=.*64 bits", 1),
    (lambda: autolog.log_metrics({"a": 1}, step=math.nan), "step=nan: .*whole", 1),  # type: ignore[arg-type]
    (lambda: autolog.log_metrics(None), "metrics=None cannot be read .*pass a dict", 1),  # type: ignore[arg-type]
    (lambda: autolog.log_metrics(3.0), "metrics=3.0 cannot be read", 1),  # type: ignore[arg-type]
    (lambda: autolog.log_metrics(Growing(a=1)), "metrics=.* cannot be read .*changed size", 1),
    (lambda: autolog.log_metric("a", "text"), "metric 'a': 'text' is str", 1),
    (lambda: autolog.log_params({"": 1, "good": 1}), "param name '': is empty", 1),
    (lambda: autolog.log_params({7: 1, "good": 1}), "param name 7: is int; use text", 1),  # type: ignore[dict-item]
    (lambda: autolog.log_params(None), "params=None cannot be read", 1),  # type: ignore[arg-type]
    (lambda: autolog.set_tags({"a/../b": 1, "good": 1}), "tag name 'a/../b'", 1),
    (lambda: autolog.set_tags([("a", 1)]), "tags=.* cannot be read", 1),  # type: ignore[arg-type]
    (lambda: autolog.log_artifact("absent.txt"), "artifact 'absent.txt': no such", 1),
    (lambda: autolog.log_artifact(None), "artifact .*NoneType", 1),  # type: ignore[arg-type]
    (lambda: autolog.log_artifact(__file__, "../up"), "artifact folder name '../up'", 1),
]
CASES = pytest.mark.parametrize(
    ("call", "says", "costs"), BAD_CALLS, ids=[says[:28] for _, says, _ in BAD_CALLS]
)


@CASES
def test_strict_raises_a_clear_error_at_the_users_line(
    call: Callable[[], None], says: str, costs: int, strict: None
) -> None:
    """With strict the call raises a ValueError with value and remedy."""
    with pytest.raises(ValueError, match=says) as caught:
        call()
    files = [Path(entry.path).name for entry in caught.traceback]
    assert files[:2] == [Path(__file__).name] * 2
    assert re.search(r"\b(use|pass|log|give|leave|must)\b", str(caught.value))
    assert autolog.status()["internal_errors"] == {}


@CASES
def test_without_strict_it_is_said_once_and_counted(
    call: Callable[[], None],
    says: str,
    costs: int,
    offline: None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without strict nothing raises; one line says it, and the receipt counts each lost value."""
    call()
    call()
    said = _loud(capfd)
    assert len(said) == 1, said
    assert sum(autolog.flush(0).dropped.values()) == 2 * costs
    assert autolog.status()["internal_errors"] == {}


def test_the_bad_values_of_one_name_are_said_once(
    offline: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """A loop that logs ever new nonsense under one name prints one line."""
    for step in range(50):
        autolog.log_metrics({"a": f"text {step}"}, step=step)
    assert len(_loud(capfd)) == 1
    assert autolog.flush(0).dropped == {"bad value": 50}


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_bad_value_costs_no_good_one(
    is_strict: bool, own_experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The good metrics, params and tags of a call with bad ones are stored, strict or not."""
    if is_strict:
        monkeypatch.setenv("AUTOLOG_STRICT", "1")
    mixed: list[Callable[[], None]] = [
        lambda: autolog.log_metrics({"a": 1, "bad": "text", "": 1, "b": 2}, step=0),
        lambda: autolog.log_params({"p": 1, "": 2, "q": Hostile()}),
        lambda: autolog.set_tags({"t": 1, "": 2, "u": 3}),
    ]
    for call in mixed:
        if is_strict:
            with pytest.raises(ValueError, match="name ''|bad"):
                call()
        else:
            call()
    autolog.end_run()
    run = autolog.last_run()
    assert run is not None
    metrics = run.metrics(60)
    assert {key: points[0].value for key, points in metrics.items()} == {"a": 1, "b": 2}
    assert run.params() == {"p": "1", "q": "<Hostile: its text raises RuntimeError>"}
    assert run.tags().items() >= {"t": "1", "u": "3"}.items()


def test_every_kind_of_number_is_a_number(own_experiment: Experiment) -> None:
    """Numpy and torch scalars, 0-d arrays, bools, NaN and infinities are stored as they are."""
    import torch

    given = {
        "float32": np.float32(0.5),
        "int64": np.int64(-3),
        "array": np.array(2.5),
        "tensor": torch.tensor(1.5),
        "integer": torch.tensor(4),
        "bool": True,
        "nan": math.nan,
        "inf": math.inf,
        "-inf": -math.inf,
        "tiny": 5e-324,
        "huge": 1.7e308,
    }
    for step in (3, np.int64(4), torch.tensor(5), 6.0):
        autolog.log_metrics(given, step=step)  # type: ignore[arg-type]
    autolog.end_run()
    assert autolog.flush(60).complete
    run = autolog.last_run()
    assert run is not None
    points = own_experiment.server.points(str(run.run_id))
    assert {p.step for p in points} == {3, 4, 5, 6}
    stored = {p.key: p.value for p in points}
    assert math.isnan(stored.pop("nan"))
    assert stored.pop("inf") > 1e308
    assert stored.pop("-inf") < -1e308
    assert stored == {k: float(v) for k, v in given.items() if math.isfinite(float(v))}


def test_no_library_has_a_word_to_say(offline: None) -> None:
    """What torch and numpy warn of when they are asked for a float reaches nobody."""
    import torch

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for step in range(3):  # the second time the names are known
            loss = torch.ones(2, requires_grad=True).mean()
            autolog.log_metrics({"loss": loss, "plain": 0.5}, step=step)
            autolog.log_metrics({"complex": np.complex64(1j), "zero": np.complex64(2)}, step=step)
    assert [str(warning.message) for warning in heard] == []
    (run,) = logged_runs(Path(os.environ["AUTOLOG_DIR"]))
    assert run.metrics == {
        "loss": [(0, 1.0), (1, 1.0), (2, 1.0)],
        "plain": [(0, 0.5), (1, 0.5), (2, 0.5)],
        "zero": [(0, 2.0), (1, 2.0), (2, 2.0)],
    }


def test_steps_reach_from_end_to_end_of_64_bits(own_experiment: Experiment) -> None:
    """The smallest and the largest step that a store can hold arrive."""
    steps = [-(2**63), -1, 0, 2**63 - 1]
    for step in steps:
        autolog.log_metric("m", 1.0, step=step)
    autolog.end_run()
    run = autolog.last_run()
    assert run is not None
    assert [p.step for p in run.metrics(60)["m"]] == steps


def test_huge_and_changing_params(
    own_experiment: Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    """10 MB in one param and a thousand of them arrive; of a changed one the first value stands."""
    autolog.log_params({"big": "x" * 10_000_000})
    autolog.log_params({f"p{n}": n for n in range(1000)})
    autolog.log_params({"lr": 0.1})
    autolog.log_params({"lr": 0.1})
    autolog.log_params({"lr": 0.2})
    autolog.log_params({"lr": 0.3})
    autolog.end_run()
    receipt = autolog.flush(60)
    assert receipt.complete, receipt
    run = autolog.last_run()
    assert run is not None
    params = run.params()
    assert len(params) == 1002
    assert params["p999"] == "999"
    assert params["big"].startswith("xxx")
    assert params["lr"] == "0.1"
    assert run.tags()["autolog.changed_params"] == "lr"
    said = _loud(capfd)
    assert len(said) == 1
    assert "param 'lr' is '0.1' and would become '0.2'" in said[0]


def test_ten_thousand_params_are_taken_at_once(offline: None) -> None:
    """A call with 10,000 params keeps every one and returns within seconds."""
    started = time.monotonic()
    autolog.log_params({f"p{n}": n for n in range(10_000)})
    assert time.monotonic() - started < 5
    assert (autolog.flush(0).logged, autolog.flush(0).dropped) == (10_000, {})


def test_strict_refuses_a_param_that_changes(strict: None) -> None:
    """With strict the second value of a param is an error, the same value again is none."""
    autolog.log_params({"lr": 0.1})
    autolog.log_params({"lr": 0.1})
    with pytest.raises(ValueError, match="param 'lr' is '0.1' and would become '0.2'"):
        autolog.log_params({"lr": 0.2})


@pytest.mark.parametrize(
    "options",
    [
        {"name": 7},
        {"name": "x" * 10_000},
        {"name": "\ud800"},
        {"name": Hostile()},
        {"experiment": 7},
        {"tags": {"": 1, 7: 2, "h": Hostile(), "good": 3}},
        {"tags": None},
        {"tags": 3},
    ],
    ids=lambda options: f"{next(iter(options))}-{type(next(iter(options.values()))).__name__}",
)
def test_no_argument_of_run_costs_the_values_inside(
    options: dict[str, Any], own_experiment: Experiment
) -> None:
    """Whatever ``run`` is given, its block runs and what is logged inside is stored."""
    with autolog.run(**options) as run:
        autolog.log_metric("m", 1.0, step=0)
    receipt = autolog.flush(60)
    assert receipt.pending == 0
    assert receipt.rejected == {}
    assert [p.value for p in run.metrics()["m"]] == [1.0]


def test_an_unusable_tracking_uri_in_the_environment_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, offline: None, swallowed: list[Any]
) -> None:
    """With a target that is no URI every call returns, and the reason is said."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://[::1")
    autolog.enable()
    with autolog.run("r"):
        autolog.log_metric("m", 1.0)
        autolog.log_params({"a": 1})
    assert autolog.status()["internal_errors"]
    swallowed.clear()


def test_hooks_never_raise_on_values_even_with_strict(
    strict: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a framework hands over is said and counted: its user could not correct it."""
    from autolog import recorder

    with recorder.get().begin_training(object(), flavor="toy", name="Toy") as training:
        training.log_metrics({"epoch_loss": 0.5, "bad": "text", "h": Hostile()}, 0)
        training.log_metrics({"epoch_loss": 0.5}, 1.5)  # type: ignore[arg-type]
        training.log_params({"ok": 1, "hostile": Hostile(), "deep": {"h": [Hostile()]}, "": 2})
        training.set_tags({"": "x", "t": "y"})
    receipt = autolog.status()["receipt"]
    assert receipt.dropped == {"bad value": 2, "bad step": 1, "bad name": 1}
    assert autolog.status()["internal_errors"] == {}
    assert len(_loud(capfd)) == 4


def test_secrets_that_hooks_collect_are_masked(own_experiment: Experiment) -> None:
    """Params whose name or shape says that they are secrets arrive as stars."""
    from autolog import recorder

    with recorder.get().begin_training(object(), flavor="toy", name="Toy") as training:
        training.log_params(
            {
                "db_password": "hunter2",
                "apiKey": "abc",
                "url": "https://me:hunter2@example.com/x",
                "nested": {"token": "hf_abcdefghijklmnopqrstuvwx"},
                "max_token": 20,
                "tokenizer": "bert",
            }
        )
    assert autolog.flush(60).complete
    run = autolog.last_run()
    assert run is not None
    params = run.params()
    assert [params[k] for k in ("db_password", "apiKey", "url", "nested")] == ["********"] * 4
    assert (params["max_token"], params["tokenizer"]) == ("20", "bert")
