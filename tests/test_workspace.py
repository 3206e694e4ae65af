"""Workspaces as a program names them, and the tokens for them; what asks a service is elsewhere."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from pathlib import Path

import pytest

import autolog
from autolog.exporters import Retryable
from autolog.exporters.azure_tokens import Tokens, from_first, spaced
from autolog.exporters.bearer import from_lines
from autolog.settings import SettingError
from autolog.workspace import Workspace, from_config
from autolog.workspace.address import is_workspace
from autolog.workspace.bearer import expiry, life

WORKSPACE = Workspace("0a1b", "group", "name", "eastus.api.azureml.ms")
URI = (
    "azureml://eastus.api.azureml.ms/mlflow/v2.0/subscriptions/0a1b/resourceGroups/group"
    "/providers/Microsoft.MachineLearningServices/workspaces/name"
)


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", [URI, f"{URI}?", URI.replace("v2.0", "v1.0"), f"{URI}/"])
def test_tracking_uris(uri: str) -> None:
    """All that Azure's packages hand out for a workspace names the same one."""
    assert Workspace.parse(uri) == WORKSPACE
    assert is_workspace(uri)


def test_uri_of_a_workspace() -> None:
    """A workspace gives the tracking URI of MLflow's client, and the page of a run."""
    assert WORKSPACE.uri == URI
    assert WORKSPACE.studio("r1") == (
        "https://ml.azure.com/runs/r1?wsid=/subscriptions/0a1b/resourceGroups/group"
        "/providers/Microsoft.MachineLearningServices/workspaces/name"
    )


@pytest.mark.parametrize("uri", ["azureml://host", "azureml://host/mlflow/v2.0/x", "https://h/a"])
def test_no_workspace(uri: str) -> None:
    """What names no workspace is said with the value and the remedy."""
    assert not is_workspace(uri)
    with pytest.raises(ValueError, match=r"get_mlflow_tracking_uri\(\) gives one like") as caught:
        Workspace.parse(uri)
    assert repr(uri) in str(caught.value)


# -- config.json -----------------------------------------------------------------------------------


def _write_config(folder: Path, **changes: object) -> Path:
    content = {"subscription_id": "0a1b", "resource_group": "group", "workspace_name": "name"}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(json.dumps(content | changes))
    return file


@pytest.mark.parametrize("place", ["", ".azureml", "aml_config"])
def test_config_is_found(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working directory or above, as Azure's own package looks for it."""
    file = _write_config(tmp_path / place)
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    expected = Workspace("0a1b", "group", "name")
    assert from_config() == expected
    assert from_config(tmp_path / "a") == expected
    assert from_config(file) == expected
    assert autolog.workspace.from_config(os.fspath(file)) == expected


def test_no_config(tmp_path: Path) -> None:
    """No file, or one that names no workspace, is said with the place and the remedy."""
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*; download it"):
        from_config(tmp_path)
    file = tmp_path / "config.json"
    file.write_text('{"subscription_id": "0a1b"}')
    with pytest.raises(ValueError, match="it needs subscription_id, resource_group and") as caught:
        from_config(tmp_path)
    assert str(file) in str(caught.value)


# -- the argument of enable() ----------------------------------------------------------------------


@pytest.mark.parametrize("workspace", [3, "https://host", object()])
def test_bad_argument(workspace: object) -> None:
    """What is no workspace is an error at the user's line."""
    with pytest.raises(SettingError, match=r"workspace"):
        autolog.enable(workspace=workspace, mode="offline")


def test_workspace_beside_a_tracking_uri() -> None:
    """Only one of both can be meant."""
    with pytest.raises(SettingError, match="give one of them"):
        autolog.enable(workspace=URI, tracking_uri="http://127.0.0.1:1", mode="offline")


# -- tokens ----------------------------------------------------------------------------------------


def jwt(expires: float, **claims: float) -> str:
    """A token that says when it ends, and is signed by nobody."""
    parts = ({"alg": "none"}, {"exp": expires, **claims})
    texts = (base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts)
    return ".".join([*(text.decode().rstrip("=") for text in texts), ""])


def test_expiry() -> None:
    """A token's end is read from it; what is no token is not quoted."""
    assert expiry(jwt(1234.5)) == 1234.5
    for text in ("secret", "a.secret.c", jwt(1).replace(".", "")):
        with pytest.raises(ValueError, match="no token") as caught:
            expiry(text)
        assert "secret" not in str(caught.value)


class Source:
    """Gives tokens that live so many seconds, until it is told to fail."""

    def __init__(self, life: float) -> None:
        self.life, self.now, self.given, self.fails = life, 1000.0, 0, False

    def __call__(self) -> str:
        if self.fails:
            raise OSError("no way\nto get one")
        self.given += 1
        return jwt(self.now + self.life)


@pytest.mark.parametrize(("life", "due"), [(3600.0, 3300.0), (9.0, 6.0)])
def test_a_token_is_replaced_in_time(life: float, due: float) -> None:
    """Five minutes before its end, or after two thirds of a shorter life."""
    source = Source(life)
    tokens = Tokens(source, clock=lambda: source.now)
    first = tokens.current()
    source.now += due - 0.5
    assert tokens.current() == first
    source.now += 1
    assert tokens.current() != first
    assert source.given == 2


def test_the_old_token_serves() -> None:
    """While no new one can be had the old one is used, and not longer than it lives."""
    source = Source(10)
    tokens = Tokens(source, clock=lambda: source.now)
    first = tokens.current()
    source.fails, source.now = True, source.now + 9
    assert tokens.current() == first
    source.now += 2
    with pytest.raises(Retryable, match="no token: no way$") as caught:
        tokens.current()
    assert caught.value.is_unauthorized
    source.fails = False
    assert tokens.current() != first


def test_a_first_token_that_is_none() -> None:
    """What stands in a variable and is no token is not used."""
    source = Source(3600)
    assert Tokens(source, "s3cr3t", clock=lambda: source.now).current() == jwt(source.now + 3600)


def test_a_refused_token_is_replaced() -> None:
    """Whatever it says of its end."""
    source = Source(3600)
    tokens = Tokens(source, jwt(source.now + 3600), clock=lambda: source.now)
    first = tokens.current()
    tokens.refuse()
    source.now += 1
    assert tokens.current() != first


def test_an_expired_token_is_not_sent() -> None:
    """A source that has nothing but an old one has none."""
    source = Source(-1)
    with pytest.raises(Retryable, match="expired"):
        Tokens(source, clock=lambda: source.now).current()


def test_a_source_that_fails_is_left_alone_for_a_while() -> None:
    """For ever longer, up to a minute, while its words are said again; then it gives tokens."""
    times: list[float] = []
    given = Source(3600)

    def source() -> str:
        times.append(given.now)
        return given()

    fetch = spaced(source, clock=lambda: given.now)
    given.fails = True
    for _ in range(600):
        with pytest.raises(OSError, match="no way"):
            fetch()
        given.now += 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[0] == 1
    assert 30 <= pauses[-1] <= 60
    assert len(pauses) < 25
    given.fails, given.now = False, given.now + 60
    assert [fetch(), fetch()] == [jwt(given.now + 3600)] * 2


def test_a_clock_that_is_ahead() -> None:
    """A new token that seems to have ended is used for as long as it was made for."""
    now, given = 10_000.0, 0

    def source() -> str:
        nonlocal given
        given += 1
        return jwt(now - 4200 + 3600, iat=now - 4200)

    tokens = Tokens(source, jwt(now - 600, iat=now - 4200 + 1), clock=lambda: now)
    assert tokens.current() == tokens.current() == source()
    assert given == 2
    now += 3500
    assert life(tokens.current()) == 3600
    assert given == 3


def test_tokens_of_another_process() -> None:
    """The newest line counts, and a pipe without any is no wait without end."""
    fetch = from_lines(io.StringIO(f"{jwt(1)}\n{jwt(2)}\n"))
    while fetch() != jwt(2):
        continue
    with pytest.raises(TimeoutError, match="has sent no token"):
        from_lines(io.StringIO(""))()


def test_sources_in_order() -> None:
    """The first that has one; of several errors the first is said."""

    def failing() -> str:
        raise OSError("the first")

    def failing_too() -> str:
        raise OSError("the second")

    assert from_first(failing, lambda: "token")() == "token"
    with pytest.raises(OSError, match="the first"):
        from_first(failing, failing_too)()


def test_conda_dependencies() -> None:
    """The packages of this process, pinned to what it has."""
    found = autolog.workspace.conda_dependencies()
    assert f"mlflow-autolog=={autolog.__version__}" in found
    assert any(each.startswith("mlflow==") for each in found)
    assert any(each.startswith("azure-identity") for each in found)
