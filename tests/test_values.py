"""Numbers, names, steps and texts: what stores accept, and errors that name value and remedy."""

from __future__ import annotations

import enum
import functools
import math
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from autolog import values
from autolog.values import MASK, BadValue, without_permissions


class Hostile:
    """Everything that can raise does."""

    def __float__(self) -> float:
        raise Unprintable

    def __index__(self) -> int:
        raise Unprintable

    def __repr__(self) -> str:
        raise Unprintable


class Secretive:
    """Even asking for an attribute raises."""

    def __getattr__(self, name: str) -> Any:
        raise Unprintable


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Color(str, enum.Enum):
    RED = "red"


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (0.5, 0.5),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(0.5), 0.5),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (math.inf, math.inf),
    ],
)
def test_a_number_is_what_converts_to_float(value: object, expected: float) -> None:
    """Python's, numpy's and torch's numbers, scalars and arrays of one element."""
    number = values.number("loss", value)
    assert type(number) is float
    assert number == expected


def test_nan_is_a_number() -> None:
    """Stores keep it, and a loss that explodes is worth seeing."""
    assert math.isnan(values.number("loss", float("nan")))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "0.5",
        b"0.5",
        bytearray(b"1"),
        np.str_("0.5"),
        [0.5],
        {},
        object(),
        1j,
        np.array([1.0, 2.0]),
        torch.zeros(2),
        10**400,
        Hostile(),
    ],
)
def test_what_is_no_number_is_refused_with_a_remedy(value: object) -> None:
    """The message names the metric and what to do, whatever the value's own methods do."""
    with pytest.raises(BadValue, match=r"metric 'loss': .*; log "):
        values.number("loss", value)


def test_an_object_that_hides_its_attributes_is_refused_like_any_other() -> None:
    """What a value can do is its type's to say."""
    with pytest.raises(BadValue):
        values.number("loss", Secretive())
    with pytest.raises(BadValue):
        values.step(Secretive())
    assert values.stable_text(Secretive()).startswith("<")


# -- steps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (-1, -1),
        (5.0, 5),
        (True, 1),
        (np.int32(5), 5),
        (np.float32(5), 5),
        (np.array(5), 5),
        (torch.tensor(5), 5),
        (torch.tensor(5.0), 5),
        (Decimal(5), 5),
        ((1 << 63) - 1, (1 << 63) - 1),
        (-(1 << 63), -(1 << 63)),
    ],
)
def test_a_step_is_a_whole_number(value: object, expected: int) -> None:
    """A float that is whole counts, and so do scalars of every library."""
    step = values.step(value)
    assert type(step) is int
    assert step == expected


@pytest.mark.parametrize(
    "value",
    [
        1 << 63,
        -(1 << 63) - 1,
        pytest.param(10**5000, id="huge"),
        1e300,
        0.5,
        math.nan,
        math.inf,
        "5",
        b"5",
        None,
        [],
        np.array([1, 2]),
        Hostile(),
    ],
)
def test_a_step_that_no_store_takes_is_refused(value: object) -> None:
    """Fractions, texts, arrays and what does not fit 64 bits: the message says what to use."""
    with pytest.raises(BadValue, match=r"step=.*; use "):
        values.step(value)


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loss", "val/acc", "a b", "a.b-c_d", "é", "lr:0", "x" * 250])
def test_a_good_name_is_kept(name: str) -> None:
    """Names that MLflow accepts pass unchanged."""
    _validate_metric_name(name)
    assert values.name("metric", name) == name


@pytest.mark.parametrize(
    "name",
    [*"|a@b|a//b|/a|a/|../a|..a|.|a/../b|a\n|a\0|\ud800".split("|"), "x" * 251],
)
def test_a_bad_name_is_refused_with_a_remedy(name: str) -> None:
    """What MLflow would refuse is refused at once, with a message that says what to use."""
    with pytest.raises(BadValue, match=r"metric name .*(use|give|leave)"):
        values.name("metric", name)


@pytest.mark.parametrize("name", [None, 5, b"loss", ("a",), Hostile()])
def test_a_name_is_text(name: object) -> None:
    """Nothing else is made into a name in silence."""
    with pytest.raises(BadValue, match="use text"):
        values.name("param", name)


def test_the_name_of_an_enum_is_its_value() -> None:
    """What is stored is what was checked, not what ``str()`` makes of it."""
    name = values.name("metric", Color.RED)
    assert type(name) is str
    assert name == "red"


@given(st.text(max_size=300))
@example("../..a")
@example("x" * 249 + "/y")
@example("@" * 100)
@example("...")
def test_a_fitted_name_is_always_accepted(name: str) -> None:
    """Whatever a framework calls a metric, what we make of it is a name that MLflow takes."""
    fitted = values.fitting_name(name)
    assert values.name("metric", fitted) == fitted
    _validate_metric_name(fitted)


@given(st.text(max_size=300))
def test_a_name_that_is_accepted_is_left_as_it_is(name: str) -> None:
    """Fitting changes only what a store would refuse, and we refuse nothing that MLflow takes."""
    try:
        _validate_metric_name(name)
    except MlflowException:
        return
    # MLflow's own check overlooks a line end behind a name.
    if 0 < len(name) <= values.NAME_LENGTH and not name.endswith("\n"):
        assert values.name("metric", name) == name
        assert values.fitting_name(name) == name


# -- texts -----------------------------------------------------------------------------------------


def function() -> None:
    """A function to be a param."""


class Plain:
    """An object whose text is Python's own, with its address."""


Point = namedtuple("Point", "x y")  # noqa: PYI024 - as users have it


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (0.1, "0.1"),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
        ((1, 2), "(1, 2)"),
        ({"b": 1, "a": [2]}, "{'a': [2], 'b': 1}"),
        (OrderedDict(b=1, a=2), "{'a': 2, 'b': 1}"),
        ({"c", "a", "b"}, "{'a', 'b', 'c'}"),
        (frozenset({2, 1}), "{1, 2}"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (torch.Size([3]), "torch.Size([3])"),
        (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (math.sqrt, "math.sqrt"),
    ],
)
def test_a_param_has_the_same_text_in_every_run(value: object, expected: str) -> None:
    """Sorted keys, qualified names."""
    assert values.stable_text(value) == expected


@pytest.mark.parametrize("value", [Plain(), [Plain()], {"a": Plain()}, functools.partial(function)])
def test_no_address_is_in_a_text(value: object) -> None:
    """An address differs in every run, and would make every param look changed."""
    assert "0x" not in values.stable_text(value)


class Endless(Mapping[str, int]):
    """A mapping that fails when it is read."""

    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no items")

    def __len__(self) -> int:
        return 1

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "value", [Hostile(), [Hostile()], {"a": Hostile()}, Endless(), [Endless()]]
)
def test_an_object_without_a_text_gives_its_type(value: object) -> None:
    """A ``__repr__`` or a mapping that raises costs nobody anything."""
    assert "its text raises" in values.stable_text(value)


def test_a_text_is_bounded() -> None:
    """Neither a long text nor a huge or endlessly nested collection is written out."""
    assert len(values.stable_text("x" * (10 << 20))) == 1 << 20
    assert len(values.plain_text("x" * (10 << 20))) == 1 << 20
    assert values.stable_text(list(range(200_000))) == "<list of 200000 items>"
    nested: list[object] = []
    nested.append(nested)
    assert len(values.stable_text(nested)) < 100


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("password", "hunter2"),
        ("db_passwd", "x"),
        ("apiKey", "abc"),
        ("api_key", "abc"),
        ("aws_secret_access_key", "abc"),
        ("storage.connection-string", "abc"),
        ("client_secret", "abc"),
        ("hf_token", "abcdefghijklmnopqrst12345"),
        ("note", "Bearer eyJhbGciOiJIUzI1.eyJzdWIiOiIx"),
        ("note", "AKIAIOSFODNN7EXAMPLE"),
        ("note", "hf_abcdefghijklmnopqrstu"),
        ("note", "dapi" + "0" * 32),
        ("url", "https://user:pass@host/db"),
        ("url", "https://x.blob.core.windows.net/c?sv=1&sig=abc"),
        ("note", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_a_secret_is_masked(key: str, text: str) -> None:
    """By what the name says, or by the shape of the text."""
    assert values.masked(key, text) == MASK


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("num_tokens", "512"),
        ("max_token", "512"),
        ("pad_token", "<pad>"),
        ("tokenizer", "bert-base-uncased-with-a-long-name-1"),
        ("monkey", "a"),
        ("key", "a"),
        ("secret_santa", "a"),
        ("password", "None"),
        ("password", "True"),
        ("password", ""),
        ("url", "https://host:8080/path"),
        ("learning_rate", "0.001"),
    ],
)
def test_what_is_no_secret_is_kept(key: str, text: str) -> None:
    """A mask too many hides a hyper-parameter."""
    assert values.masked(key, text) == text


# -- artifact folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "403 Client Error: Forbidden for url: https://a.blob.example.com/c/f?sv=1&sig=ab%2Bc/x=",
            "403 Client Error: Forbidden for url: https://a.blob.example.com/c/f?********",
        ),
        (
            "Max retries exceeded with url: /bucket/key?X-Amz-Signature=abc (Caused by ...)",
            "Max retries exceeded with url: /bucket/key?******** (Caused by ...)",
        ),
        (
            "request to 'http://me:pw@host:5000/x' failed",
            "request to 'http://********@host:5000/x' failed",
        ),
        ("is this http://host/ an MLflow server?", "is this http://host/ an MLflow server?"),
        ("Invalid value 'a?b=c'", "Invalid value 'a?b=c'"),
    ],
)
def test_an_address_that_is_quoted_lets_nobody_in(text: str, shown: str) -> None:
    """Passwords and queries are masked, in which storages have their permissions."""
    assert without_permissions(text) == shown


@pytest.mark.parametrize("folder", ["epoch=1-loss=0.5", "a/b", "/a/", "..a", "mit Umlaut ä"])
def test_an_artifact_folder_is_any_path_down(folder: str) -> None:
    """What MLflow takes as a folder, ours does, checkpoint names for one."""
    assert values.folder(folder) == f"{folder.strip('/')}/"


@pytest.mark.parametrize("folder", ["..", "../up", "a/../b", "a//b", "."])
def test_an_artifact_folder_leads_nowhere_else(folder: str) -> None:
    """As MLflow does, ours refuses a path that is another one in truth."""
    with pytest.raises(values.BadValue, match="leads elsewhere"):
        values.folder(folder)
