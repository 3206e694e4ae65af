"""Bearer tokens for a workspace: where they come from, and when the next one is due."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from autolog.exporters import Retryable
from autolog.exporters.bearer import Fetch
from autolog.retry import Backoff
from autolog.workspace.bearer import expiry, life

_EARLIEST = 300.0
"""Seconds before its end that a token is replaced, or a third of its life where that is less."""
_LONGEST_PAUSE = 60.0
"""Seconds after a failure until a source is asked again, which may start the Azure CLI each time.
Who signs in meanwhile waits no longer than that."""


class Tokens:
    """The token to use now.

    Replaced before it expires, and after the service has refused it. While a new one cannot be had
    the old one serves to its end.
    """

    def __init__(
        self, fetch: Fetch, first: str | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since the epoch, which is what tokens carry."""
        self._fetch, self._clock = fetch, clock
        self._text, self._obtained, self._expires = "", 0.0, 0.0
        self._is_refused = False
        if first:
            with contextlib.suppress(ValueError):  # what is no token is as good as none
                self._text, self._obtained, self._expires = first, self._clock(), expiry(first)

    def current(self) -> str:
        """The token. Raises `Retryable` where there is none that can be used."""
        now = self._clock()
        is_usable = bool(self._text) and now < self._expires and not self._is_refused
        if is_usable and now < self._due:
            return self._text
        try:
            self._take(self._fetch())
        except Exception as error:
            if is_usable:
                return self._text
            raise Retryable(f"no token: {_told(error)}", is_unauthorized=True) from error
        if now >= self._expires:
            raise Retryable("no token but one that has expired", is_unauthorized=True)
        return self._text

    @property
    def newest(self) -> str:
        """The token that was had last, whether or not it can be used; empty before the first."""
        return self._text

    def refuse(self) -> None:
        """The service has refused the token, whatever the clocks say."""
        self._is_refused = True

    def _take(self, text: str) -> None:
        if text != self._text:
            self._expires = self._end_of(text)
        self._text, self._obtained = text, self._clock()
        self._is_refused = False

    def _end_of(self, text: str) -> float:
        """When a token ends that was just fetched, by this machine's clock.

        Where it has ended by then the clock is ahead, or the source behind: the service knows.
        """
        now, end = self._clock(), expiry(text)
        with contextlib.suppress(ValueError):  # not every token says when it was made
            return end if now < end else now + life(text)
        return end

    @property
    def _due(self) -> float:
        life = self._expires - self._obtained
        return self._expires - min(_EARLIEST, life / 3)


def from_identity(environ: Mapping[str, str], scope: str, authority: str) -> Fetch:
    """Tokens by azure-identity, without a prompt: environment, workload, managed identity, CLI."""

    def fetch() -> str:
        # A credential of its own each time: one that is kept gives a refused token again.
        return str(_credential(environ, authority).get_token(scope).token)

    return fetch


def _credential(environ: Mapping[str, str], authority: str) -> Any:
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise ModuleNotFoundError(
            "azure-identity is not installed: pip install 'mlflow-autolog[azureml]'"
        ) from None
    try:
        # Nothing that could open a window, or ask, though AZURE_TOKEN_CREDENTIALS name it.
        return DefaultAzureCredential(
            authority=environ.get("AZURE_AUTHORITY_HOST") or authority,
            exclude_visual_studio_code_credential=True,
            exclude_shared_token_cache_credential=True,
            exclude_interactive_browser_credential=True,
            exclude_broker_credential=True,
        )
    except ValueError as error:
        chosen = environ.get("AZURE_TOKEN_CREDENTIALS")
        raise ValueError(
            f"AZURE_TOKEN_CREDENTIALS={chosen}: {error}; none that opens a window is used, "
            "set it to dev or prod"
        ) from error


def from_first(*sources: Fetch) -> Fetch:
    """Tokens of the first source that has one; the error of the first, where none has."""

    def fetch() -> str:
        problems = []
        for source in sources:
            try:
                return source()
            except Exception as error:  # noqa: BLE001 - each library has its own
                problems.append(error)
        raise problems[0]

    return fetch


def spaced(source: Fetch, *, clock: Callable[[], float] = time.monotonic) -> Fetch:
    """The same source, which after a failure says the same for a while: for longer each time."""
    backoff = Backoff(random.Random(), _LONGEST_PAUSE)  # noqa: S311 - no secret hangs on it
    problem: Exception | None = None

    def fetch() -> str:
        nonlocal problem
        if problem is not None and backoff.wait(clock()) > 0:
            raise problem.with_traceback(None)
        try:
            token = source()
        except Exception as error:
            problem = error
            backoff.failed(None, clock())
            raise
        problem = None
        backoff.succeeded()
        return token

    return fetch


def _told(error: Exception) -> str:
    """A line of an error: of a chain of credentials, the one that was refused."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    refused = [line.strip() for line in lines[1:] if "AADSTS" in line or " failed" in line]
    return (refused or lines)[0]
