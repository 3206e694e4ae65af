"""What a training signs in with, where the server demands that, and how it expires."""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faults import FaultyProxy

_USER = "trainer"


class Token:
    """A bearer token in the environment: nobody renews it for a process that runs."""

    def __init__(self, proxy: FaultyProxy, environ: MutableMapping[str, str]) -> None:
        self._proxy, self._environ = proxy, environ
        self._number = 0
        self.expire()
        self.renew()

    def expire(self) -> None:
        """The server takes another one from now on."""
        self._number += 1
        self._proxy.demand(f"Bearer token-{self._number}")

    def renew(self) -> None:
        """Who starts a process from now on has the one that the server takes."""
        self._environ["MLFLOW_TRACKING_TOKEN"] = f"token-{self._number}"


class Password:
    """A password in ``~/.mlflow/credentials``, which processes that run look at too."""

    def __init__(self, proxy: FaultyProxy, environ: MutableMapping[str, str]) -> None:
        self._proxy = proxy
        self._file = Path(environ["HOME"]) / ".mlflow" / "credentials"
        self._file.parent.mkdir()
        self._number = 0
        self.expire()
        self.renew()

    def expire(self) -> None:
        """The server takes another one from now on."""
        self._number += 1
        pair = base64.b64encode(f"{_USER}:password-{self._number}".encode()).decode()
        self._proxy.demand(f"Basic {pair}")

    def renew(self) -> None:
        """The user writes down the one that the server takes, whole or not at all."""
        lines = (
            "[mlflow]",
            f"mlflow_tracking_username = {_USER}",
            f"mlflow_tracking_password = password-{self._number}",
        )
        partial = self._file.with_suffix(".partial")
        partial.write_text("\n".join(lines))
        partial.replace(self._file)
