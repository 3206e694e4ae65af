"""`Aim`: where ``enable()`` has new runs go, and the credentials that live in this process only."""

from __future__ import annotations

import os
from collections.abc import Callable

from autolog import check, credentials, targets
from autolog.settings import Origin, SettingError
from autolog.targets import Target
from autolog.workspace.identity import credential_here, identify


class Aim:
    """What ``enable()`` was told of the target, which mlflow is told too."""

    def __init__(self, full_uris: dict[str, Callable[[], str]]) -> None:
        """`full_uris` takes what gives the URI that MLflow's own client is to use in its place."""
        self._full_uris = full_uris
        self._taken: set[str] = set()
        self._tokens: dict[str, Callable[[], str]] = {}
        """What gives tokens for a tracking URI, where that lives in this process only."""

    def take(
        self,
        tracking_uri: str | os.PathLike[str] | None,
        workspace: object,
        experiment: str | None,
    ) -> None:
        """Send new runs there, and have mlflow do the same, until mlflow is told otherwise.

        Raises `SettingError` for what is no tracking URI, no workspace or no name, and for both.
        """
        if workspace is not None:
            if tracking_uri:
                message = f"tracking_uri={tracking_uri!r} beside a workspace: give one of them"
                raise SettingError(message)
            tracking_uri = self._uri_of(workspace)
        if tracking_uri:
            try:
                uri = targets.absolute(os.fspath(tracking_uri))
            except (TypeError, ValueError) as error:
                message = f"tracking_uri={tracking_uri!r}: {error}; use a URI or a folder"
                raise SettingError(message) from None
            targets.choose_tracking_uri(uri)
            self._taken.add(uri)
        if experiment:
            if not isinstance(experiment, str):
                raise SettingError(f"experiment={experiment!r}: use the name, a text")
            targets.choose_experiment(experiment)
            self._taken.add(experiment)

    def _uri_of(self, workspace: object) -> str:
        try:
            found = identify(workspace)
        except ValueError as error:
            raise SettingError(str(error)) from None
        uri = found.workspace.uri
        self._use_token(uri, found.token)
        if found.uri is not None:
            self._full_uris[uri] = found.uri
        return uri

    def _use_token(self, uri: str, token: Callable[[], str] | None) -> None:
        if token is not None:
            credentials.keep_tokens_here()
            self._tokens[uri] = token

    def token_for(self, uri: str) -> Callable[[], str] | None:
        """What gives tokens for a tracking URI, where that lives in this process only."""
        if uri not in self._tokens:
            self._use_token(uri, credential_here(uri))
        return self._tokens.get(uri)

    def newest_token(self, uri: str) -> Callable[[], str] | None:
        """The same, which asks the credential that was named last, each time anew."""
        if uri not in self._tokens:
            return None

        def token() -> str:
            return self._tokens[uri]()

        return token

    def check(self, where: Target) -> None:
        """Raise `RuntimeError` when a target cannot be used; it is asked, for 20 s at most."""
        try:
            problem = self._problem_of(where)
        except Exception as error:  # noqa: BLE001 - a credential raises what its package raises
            problem = f"no token: {error}"
        if problem:
            raise RuntimeError(
                f"{where.public_uri} cannot be used: {problem}. Correct the tracking URI or the "
                "credential (autolog doctor says more), or leave out strict to send it later"
            )

    def _problem_of(self, where: Target) -> str:
        token = self.token_for(where.uri)
        environ = credentials.shipper_environment(where.uri, sends_tokens=token is not None)
        return check.problem_of(environ, token() if token else "")

    def config(self) -> dict[str, Origin]:
        """Target and experiment of runs that start now, and who chose them."""
        named, experiment = targets.tracking_uri(), targets.active_experiment()
        uri = Origin(targets.absolute(str(named.value)), named.origin)
        return {
            "tracking_uri": Origin(targets.current().public_uri, self._origin(uri)),
            "experiment": Origin(experiment.value, self._origin(experiment)),
        }

    def _origin(self, chosen: Origin) -> str:
        return "argument" if chosen.value in self._taken else chosen.origin
